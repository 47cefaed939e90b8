"""Lists of pairs, LFW's, rows of two paths and a label, or CFP's folder; and where their images lie.

pairs.txt                               `10<TAB>300`; for every fold 300 lines `name<TAB>i<TAB>j` (one person)
                                        and 300 `name<TAB>i<TAB>other<TAB>j`; image i is `name/name_000i.jpg`
rows                                    `label path1 path2` as in `lfw_ann.txt`, or `path1 path2 label`
pairs_CALFW.txt, pairs_CPLFW.txt        `image label`, two lines a pair; label 0: two people, else one
Pair_list_F.txt, Pair_list_P.txt        CFP: `number ../Data/Images/<id>/<frontal|profile>/<nn>.jpg`
Split/<FF|FP>/<01..10>/<same|diff>.txt  CFP: `i,j`: in FP, i is a number of list F and j one of list P
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from facenas.data.images import Files, FolderFiles, open_files
from facenas.errors import UserError

Pair = tuple[str, str, bool]  # two paths as listed, and whether they are one person's
Line = tuple[int, str]  # its number from 1, and what is on it
ListFile = tuple[Files, str]  # a text file, or the first file of CFP's protocol folder, by its name

_CFP_FIRST = "Pair_list_F.txt"
_LABELS = ("0", "1")
_FOLDS = 10  # of CALFW and CPLFW
_ANY_LIST = "pairs.txt"  # whose, only the name of its folder tells


def find_place(data: Path, names: Sequence[str], with_bin: bool) -> Path:
    """The `.bin` file, .zip or folder of images: `data`, or the first of `names` that lies in it.

    Raises UserError when `data` does not exist.
    """
    if not data.exists():
        raise UserError(f"{data}: does not exist")
    there = {entry.name.lower(): entry for entry in sorted(data.iterdir())} if data.is_dir() else {}
    for name in names:
        if name in there and (with_bin or not name.endswith(".bin")):
            return find_place(there[name], names, with_bin)
    return data


def find_list(images: Files, places: Sequence[str], lists: tuple[str, ...]) -> ListFile | None:
    """The list of pairs, of a name in `lists`: in the folder or .zip of images, or beside it.

    `pairs.txt` counts too where the folder or .zip has a name of `places`, which are the bench's own.
    """
    place = Path(os.path.abspath(images.root))
    own = (*lists, _ANY_LIST) if place.name in places else lists
    if not place.is_dir() and (inside := _in_archive(images, own)) is not None:
        return images, inside
    folders = [(place, own)] if place.is_dir() else []
    for folder, names in [*folders, (place.parent, lists)]:
        for path in (folder / name for name in names):
            if path.exists():
                return open_list(path)
    return None


def open_list(path: Path) -> ListFile:
    """A text file, or CFP's protocol as a folder or .zip; raises UserError when it is neither."""
    if not path.exists():
        raise UserError(f"{path}: does not exist")
    if not path.is_dir() and path.suffix.lower() != ".zip":
        return FolderFiles(path.parent), path.name
    files = open_files(path)
    found = [name for name in files.names() if name.rpartition("/")[2] == _CFP_FIRST]
    if not found:
        raise UserError(f"{path}: has no {_CFP_FIRST}, with which CFP's protocol begins")
    return files, min(found, key=len)


def _in_archive(images: Files, lists: tuple[str, ...]) -> str | None:
    """The first of `lists` in a .zip, at its top or in the one folder around everything."""
    there = set(images.names())
    around = {name.partition("/")[0] if "/" in name else "" for name in there}
    tops = ["", *(f"{top}/" for top in around if len(around) == 1 and top)]
    for name in (top + name for name in lists for top in tops):
        if name in there:
            return name
        if f"{name}/{_CFP_FIRST}" in there:
            return f"{name}/{_CFP_FIRST}"
    return None


def read_pair_list(files: Files, name: str, split: str | None) -> tuple[list[Pair], int | None]:
    """The list called `name` in `files`, in whichever form it has; `split`: of CFP's, FF or FP.

    Beside the pairs: how many contiguous folds the list itself says, None where it says nothing.
    Raises UserError that names the line or file at fault.
    """
    if name.rpartition("/")[2] == _CFP_FIRST:
        return _read_cfp(files, name[: -len(_CFP_FIRST)], split)
    lines, where = _read_lines(files, name), str(files.root / name)
    first = lines[0][1].split() if lines else []
    if len(first) == 2 and all(word.isdecimal() for word in first):
        folds, count = int(first[0]), 2 * int(first[0]) * int(first[1])
        if len(lines) != 1 + count or folds < 2:
            raise UserError(
                f"{where}: has {len(lines) - 1} pairs, but its first line says {count} in {folds} folds"
            )
        pairs = [_lfw_pair(where, line) for line in lines[1:]]
        _check_pairs(where, lines[1:], pairs)
        _check_folds(where, lines[1:], pairs, int(first[1]))
        return pairs, folds
    if len(first) == 2 and first[1].isdecimal():
        return _two_lines_a_pair(where, lines), _FOLDS
    if len(first) == 3 and {first[0], first[2]} & set(_LABELS):
        pairs = [_labeled_pair(where, line, first[0] in _LABELS) for line in lines]
        _check_pairs(where, lines, pairs)
        return pairs, None
    raise UserError(
        f"{where}: is no list of pairs: its first line is neither LFW's 10<TAB>300 nor `label path1 path2` "
        "nor `path1 path2 label` nor `image label`"
    )


def _check_pairs(where: str, lines: Sequence[Line], pairs: Sequence[Pair]) -> None:
    """Raises UserError for an image against itself, and for two rows that contradict each other."""
    said: dict[tuple[str, ...], tuple[bool, int]] = {}
    for (number, text), (first, second, same) in zip(lines, pairs, strict=True):
        if first == second:
            raise UserError(f"{where}: line {number} compares an image with itself: {text!r}")
        before, line = said.setdefault(tuple(sorted((first, second))), (same, number))
        if before != same:
            raise UserError(
                f"{where}: lines {line} and {number} call one pair the same and different: {text!r}"
            )


def _check_folds(where: str, lines: Sequence[Line], pairs: Sequence[Pair], each: int) -> None:
    """Raises UserError when a fold does not hold as many pairs of either kind as the first line says."""
    for start in range(0, len(pairs), 2 * each):
        genuine = sum(same for *_, same in pairs[start : start + 2 * each])
        if genuine != each:
            raise UserError(
                f"{where}: the fold from line {lines[start][0]} on holds {genuine} pairs of one person, but "
                f"the first line says {each}"
            )


def _two_lines_a_pair(where: str, lines: Sequence[Line]) -> list[Pair]:
    """Pairs in the order of ten folds with a tenth of each kind: the official lists may have one kind first."""
    rows = [(number, text, text.rsplit(maxsplit=1)) for number, text in lines]
    for number, text, words in rows:
        if len(words) != 2 or not words[1].isdecimal():
            raise UserError(f"{where}: line {number} is not `image label`: {text!r}")
    if len(rows) % 2:
        raise UserError(f"{where}: has {len(rows)} lines, where two make a pair; give a whole copy")
    pairs: list[Pair] = []
    for (number, _, (first, label)), (_, _, (second, other)) in zip(rows[::2], rows[1::2], strict=True):
        if label != other:
            raise UserError(f"{where}: lines {number} and {number + 1} make a pair, but have other labels")
        pairs.append((plain_path(first), plain_path(second), label != "0"))
    _check_pairs(where, lines[::2], pairs)
    kinds = [[pair for pair in pairs if pair[2] is same] for same in (True, False)]
    cuts = [[len(kind) * fold // _FOLDS for fold in range(_FOLDS + 1)] for kind in kinds]
    return [
        pair
        for fold in range(_FOLDS)
        for kind, cut in zip(kinds, cuts, strict=True)
        for pair in kind[cut[fold] : cut[fold + 1]]
    ]


def _lfw_pair(where: str, line: Line) -> Pair:
    words = line[1].split("\t") if "\t" in line[1] else line[1].split()
    same = len(words) == 3
    try:
        name, i, other, j = (*words[:2], words[0], words[2]) if same else words
        if not same and name == other:
            raise UserError(f"{where}: line {line[0]} has one person where two are needed: {line[1]!r}")
        return f"{name}/{name}_{int(i):04d}.jpg", f"{other}/{other}_{int(j):04d}.jpg", same
    except ValueError:
        raise UserError(f"{where}: line {line[0]} is not a pair: {line[1]!r}") from None


def _labeled_pair(where: str, line: Line, label_first: bool) -> Pair:
    words = line[1].split()
    label, *paths = words if label_first else (words[-1], *words[:-1])
    if len(paths) != 2 or label not in _LABELS:
        form = "label path1 path2" if label_first else "path1 path2 label"
        raise UserError(f"{where}: line {line[0]} is not `{form}` with label 0 or 1: {line[1]!r}")
    return plain_path(paths[0]), plain_path(paths[1]), label == "1"


def _read_cfp(files: Files, folder: str, split: str | None) -> tuple[list[Pair], int]:
    """`folder` of `files`: "" or with a slash at its end. Genuine pairs come first in their fold."""
    if split is None:
        raise UserError(
            f"{files.root}: holds the protocol of CFP, which is not that of this bench; a bench of CFP says "
            "split FF or FP"
        )
    first, second = (
        {int(n): plain_path(path) for n, path in _cfp_rows(files, f"{folder}Pair_list_{of}.txt", " ")}
        for of in split
    )
    inside, folds = f"{folder}Split/{split}/", []
    for name in files.names():
        if name.startswith(inside) and name.endswith("/same.txt"):
            same = _cfp_pairs(files, name, first, second, True)
            different = name.removesuffix("same.txt") + "diff.txt"
            folds.append(same + _cfp_pairs(files, different, first, second, False))
    sizes = [len(fold) for fold in folds]
    if len(sizes) < 2 or len(set(sizes)) > 1:
        raise UserError(
            f"{files.root}: {inside} holds folds of {sizes} pairs where two or more of equal size are needed; "
            "take CFP's protocol folder as it is"
        )
    return [pair for fold in folds for pair in fold], len(folds)


def _cfp_pairs(
    files: Files, name: str, first: dict[int, str], second: dict[int, str], same: bool
) -> list[Pair]:
    rows = _cfp_rows(files, name, ",")
    try:
        return [(first[int(i)], second[int(j)], same) for i, j in rows]
    except (KeyError, ValueError) as error:
        raise UserError(f"{files.root}: {name} has a pair of numbers without image ({error})") from None


def _cfp_rows(files: Files, name: str, separator: str) -> list[list[str]]:
    """Every row's number and second word."""
    rows = [line.split(separator, 1) for _, line in _read_lines(files, name)]
    for row in rows:
        if len(row) != 2 or not row[0].isdecimal():
            raise UserError(f"{files.root}: {name} has a faulty row: {separator.join(row)!r}")
    return rows


def _read_lines(files: Files, name: str) -> list[Line]:
    """Those that are not empty."""
    try:
        lines = files.read(name).decode("utf-8-sig").splitlines()
        return [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    except OSError as error:
        reason = error.strerror or "damaged"
    except ValueError as error:
        reason = "it is no text" if isinstance(error, UnicodeDecodeError) else str(error)
    raise UserError(f"{files.root}: {name} cannot be read ({reason})")


def plain_path(text: str) -> str:
    """A listed path with forward slashes, and without `.` and `..`."""
    return "/".join(part for part in text.replace("\\", "/").split("/") if part.strip(".") != "")
