"""Lists of pairs in the three forms of benches: LFW's, rows of two paths and a label, CFP's folder.

pairs.txt                               `10<TAB>300`; for every fold 300 lines `name<TAB>i<TAB>j` (one person)
                                        and 300 `name<TAB>i<TAB>other<TAB>j`; image i is `name/name_000i.jpg`
rows                                    `label path1 path2` as in `lfw_ann.txt`, or `path1 path2 label`
Pair_list_F.txt, Pair_list_P.txt        CFP: `number ../Data/Images/<id>/<frontal|profile>/<nn>.jpg`
Split/<FF|FP>/<01..10>/<same|diff>.txt  CFP: `i,j`: in FP, i is a number of list F and j one of list P
"""

from __future__ import annotations

from facenas.data.images import Files
from facenas.errors import UserError

Pair = tuple[str, str, bool]  # two paths as listed, and whether they are one person's
Line = tuple[int, str]  # its number from 1, and what is on it

CFP_FIRST = "Pair_list_F.txt"
_LABELS = ("0", "1")


def read_pair_list(files: Files, name: str, split: str | None) -> tuple[list[Pair], int | None]:
    """The list called `name` in `files`, in whichever form it has; `split`: of CFP's, FF or FP.

    Beside the pairs: how many contiguous folds the list itself says, None where it says nothing.
    Raises UserError that names the line or file at fault.
    """
    if name.rpartition("/")[2] == CFP_FIRST:
        return _read_cfp(files, name[: -len(CFP_FIRST)], split)
    lines, where = _read_lines(files, name), str(files.root / name)
    first = lines[0][1].split() if lines else []
    if len(first) == 2 and all(word.isdecimal() for word in first):
        folds, count = int(first[0]), 2 * int(first[0]) * int(first[1])
        if len(lines) != 1 + count or folds < 2:
            raise UserError(
                f"{where}: has {len(lines) - 1} pairs, but its first line says {count} in {folds} folds"
            )
        return [_lfw_pair(where, line) for line in lines[1:]], folds
    if len(first) == 3 and {first[0], first[2]} & set(_LABELS):
        return [_labeled_pair(where, line, first[0] in _LABELS) for line in lines], None
    raise UserError(
        f"{where}: is no list of pairs: its first line is neither LFW's 10<TAB>300 nor `label path1 path2` "
        "nor `path1 path2 label`"
    )


def _lfw_pair(where: str, line: Line) -> Pair:
    words = line[1].split("\t") if "\t" in line[1] else line[1].split()
    same = len(words) == 3
    try:
        name, i, other, j = (*words[:2], words[0], words[2]) if same else words
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
        {
            int(n): plain_path(path)
            for n, path in _cfp_rows(files, f"{folder}Pair_list_{of}.txt", " ")
        }
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
        raise UserError(
            f"{files.root}: {name} has a pair of numbers without image ({error})"
        ) from None


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
