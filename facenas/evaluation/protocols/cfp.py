"""CFP's protocol folder: which frontal and profile images are paired, in ten folds.

Pair_list_F.txt, Pair_list_P.txt        rows `number ../Data/Images/<id>/<frontal|profile>/<nn>.jpg`
Split/<FF|FP>/<01..10>/<same|diff>.txt  rows `i,j`: in FP, i is a number of list F and j one of list P
"""

from __future__ import annotations

from facenas.data.images import Files
from facenas.errors import UserError
from facenas.evaluation.protocols.files import plain_path, read_text
from facenas.evaluation.protocols.kinds import PairList, pair_list

FIRST_FILE = "Pair_list_F.txt"
_PARTS = {"cfp_ff": "FF", "cfp_fp": "FP"}


def read_cfp(bench: str, files: Files, folder: str) -> PairList:
    """The pairs of "cfp_fp" or "cfp_ff"; `folder` of `files`, "" or with a slash at its end.

    Genuine pairs come first in their fold. Raises UserError when a file is missing or has a faulty row.
    """
    if bench not in _PARTS:
        raise UserError(f"{files.root}: holds the protocol of CFP, which is not that of {bench}")
    first, second = (_image_list(files, f"{folder}Pair_list_{c}.txt") for c in _PARTS[bench])
    splits = f"{folder}Split/{_PARTS[bench]}/"
    inside = (name for name in files.names() if name.startswith(splits))
    folds = sorted(name.rpartition("/")[0] for name in inside if name.endswith("/same.txt"))
    named: list[tuple[str, str]] = []
    same: list[bool] = []
    sizes: list[int] = []
    for fold in folds:
        for kind in ("same", "diff"):
            pairs = _pairs(files, f"{fold}/{kind}.txt", first, second)
            named += pairs
            same += [kind == "same"] * len(pairs)
        sizes.append(len(named) - sum(sizes))
    if len(folds) < 2 or len(set(sizes)) > 1:
        raise UserError(
            f"{files.root}: {splits} holds folds of {sizes} pairs where two or more "
            "of equal size are needed; take CFP's protocol folder as it is"
        )
    return pair_list(named, same, len(folds))


def _image_list(files: Files, name: str) -> dict[int, str]:
    """Path by number."""
    return {int(words[0]): plain_path(words[1]) for words in _rows(files, name, " ")}


def _pairs(
    files: Files, name: str, first: dict[int, str], second: dict[int, str]
) -> list[tuple[str, str]]:
    rows = _rows(files, name, ",")
    try:
        return [(first[int(i)], second[int(j)]) for i, j in rows]
    except (KeyError, ValueError) as error:
        raise UserError(
            f"{files.root}: {name} has a pair of numbers without image ({error})"
        ) from None


def _rows(files: Files, name: str, separator: str) -> list[list[str]]:
    """Every row's number and second word."""
    lines = read_text(files, name).splitlines()
    rows = [line.strip().split(separator, 1) for line in lines if line.strip()]
    for row in rows:
        if len(row) != 2 or not row[0].isdecimal():
            raise UserError(f"{files.root}: {name} has a faulty row: {separator.join(row)!r}")
    return rows
