"""Lists of pairs in the three forms of benches: LFW's, rows of two paths and a label, CFP's folder.

pairs.txt                               `10<TAB>300`; for every fold 300 lines `name<TAB>i<TAB>j` (one person)
                                        and 300 `name<TAB>i<TAB>other<TAB>j`; image i is `name/name_000i.jpg`
rows                                    `label path1 path2` as in `lfw_ann.txt`, or `path1 path2 label`
Pair_list_F.txt, Pair_list_P.txt        CFP: `number ../Data/Images/<id>/<frontal|profile>/<nn>.jpg`
Split/<FF|FP>/<01..10>/<same|diff>.txt  CFP: `i,j`: in FP, i is a number of list F and j one of list P
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facenas.data.images import Files
from facenas.errors import UserError

CFP_FIRST = "Pair_list_F.txt"
_LABELS = ("0", "1")


@dataclass(frozen=True, eq=False)
class PairList:
    """Pairs before their images are found: `paths` as listed, (n, 2) int64 places in them, (n,) bool labels.

    folds: how many contiguous ones the list itself says, None where it says nothing.
    """

    paths: tuple[str, ...]
    pairs: NDArray[np.int64]
    same: NDArray[np.bool_]
    folds: int | None


def read_pair_list(files: Files, name: str, split: str | None) -> PairList:
    """The list called `name` in `files`, in whichever form it has; `split`: of CFP's, FF or FP.

    Raises UserError that names the line or file at fault.
    """
    if name.rpartition("/")[2] == CFP_FIRST:
        return _read_cfp(files, name[: -len(CFP_FIRST)], split)
    text, where = _read_text(files, name), str(files.root / name)
    first = text.lstrip().partition("\n")[0].split()
    if len(first) == 2 and all(word.isdecimal() for word in first):
        return _parse_pairs_txt(text, where)
    if len(first) == 3 and {first[0], first[2]} & set(_LABELS):
        return _parse_rows(text, where, first[0] in _LABELS)
    raise UserError(
        f"{where}: is no list of pairs: its first line is neither LFW's 10<TAB>300 nor `label path1 path2` "
        "nor `path1 path2 label`"
    )


def _pair_list(
    named: Sequence[tuple[str, str]], same: Sequence[bool], folds: int | None
) -> PairList:
    """Every path is kept once."""
    place: dict[str, int] = {}
    pairs = [[place.setdefault(path, len(place)) for path in pair] for pair in named]
    return PairList(
        tuple(place), np.array(pairs, np.int64).reshape(-1, 2), np.array(same, bool), folds
    )


def _parse_pairs_txt(text: str, where: str) -> PairList:
    lines = [line.rstrip() for line in text.splitlines()]
    folds, each = (int(number) for number in lines[0].split())
    rows = [(number, line) for number, line in enumerate(lines[1:], start=2) if line]
    if len(rows) != 2 * folds * each or folds < 2:
        raise UserError(
            f"{where}: has {len(rows)} pairs, but its first line says {2 * folds * each} in {folds} folds"
        )
    words = [_lfw_words(where, number, line) for number, line in rows]
    named = [
        (f"{name}/{name}_{i:04d}.jpg", f"{other}/{other}_{j:04d}.jpg")
        for name, i, other, j, _ in words
    ]
    return _pair_list(named, [same for *_, same in words], folds)


def _lfw_words(where: str, number: int, line: str) -> tuple[str, int, str, int, bool]:
    words = line.split("\t") if "\t" in line else line.split()
    try:
        if len(words) == 3:
            return words[0], int(words[1]), words[0], int(words[2]), True
        name, i, other, j = words
        return name, int(i), other, int(j), False
    except ValueError:
        raise UserError(f"{where}: line {number} is not a pair: {line!r}") from None


def _parse_rows(text: str, where: str, label_first: bool) -> PairList:
    form = "label path1 path2" if label_first else "path1 path2 label"
    named, same = [], []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        label, *paths = words if label_first else (words[-1], *words[:-1])
        if len(paths) != 2 or label not in _LABELS:
            raise UserError(f"{where}: line {number} is not `{form}` with label 0 or 1: {line!r}")
        same.append(label == "1")
        named.append((plain_path(paths[0]), plain_path(paths[1])))
    return _pair_list(named, same, None)


def _read_cfp(files: Files, folder: str, split: str | None) -> PairList:
    """`folder` of `files`: "" or with a slash at its end. Genuine pairs come first in their fold."""
    if split is None:
        raise UserError(
            f"{files.root}: holds the protocol of CFP, which is not that of this bench; a bench of CFP says "
            "split FF or FP"
        )
    first, second = (_cfp_images(files, f"{folder}Pair_list_{letter}.txt") for letter in split)
    inside = f"{folder}Split/{split}/"
    named: list[tuple[str, str]] = []
    same: list[bool] = []
    sizes: list[int] = []
    for fold in sorted(
        name.rpartition("/")[0]
        for name in files.names()
        if name.startswith(inside) and name.endswith("/same.txt")
    ):
        for kind in ("same", "diff"):
            pairs = _cfp_pairs(files, f"{fold}/{kind}.txt", first, second)
            named += pairs
            same += [kind == "same"] * len(pairs)
        sizes.append(len(named) - sum(sizes))
    if len(sizes) < 2 or len(set(sizes)) > 1:
        raise UserError(
            f"{files.root}: {inside} holds folds of {sizes} pairs where two or more of equal size are needed; "
            "take CFP's protocol folder as it is"
        )
    return _pair_list(named, same, len(sizes))


def _cfp_images(files: Files, name: str) -> dict[int, str]:
    """Path by number."""
    return {int(words[0]): plain_path(words[1]) for words in _cfp_rows(files, name, " ")}


def _cfp_pairs(
    files: Files, name: str, first: dict[int, str], second: dict[int, str]
) -> list[tuple[str, str]]:
    rows = _cfp_rows(files, name, ",")
    try:
        return [(first[int(i)], second[int(j)]) for i, j in rows]
    except (KeyError, ValueError) as error:
        raise UserError(
            f"{files.root}: {name} has a pair of numbers without image ({error})"
        ) from None


def _cfp_rows(files: Files, name: str, separator: str) -> list[list[str]]:
    """Every row's number and second word."""
    lines = _read_text(files, name).splitlines()
    rows = [line.strip().split(separator, 1) for line in lines if line.strip()]
    for row in rows:
        if len(row) != 2 or not row[0].isdecimal():
            raise UserError(f"{files.root}: {name} has a faulty row: {separator.join(row)!r}")
    return rows


def _read_text(files: Files, name: str) -> str:
    try:
        return files.read(name).decode("utf-8-sig")
    except OSError as error:
        reason = error.strerror or "damaged"
    except ValueError as error:
        reason = "it is no text" if isinstance(error, UnicodeDecodeError) else str(error)
    raise UserError(f"{files.root}: {name} cannot be read ({reason})")


def plain_path(text: str) -> str:
    """A listed path with forward slashes, and without `.` and `..`."""
    return "/".join(part for part in text.replace("\\", "/").split("/") if part.strip(".") != "")
