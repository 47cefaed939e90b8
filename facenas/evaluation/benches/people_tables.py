"""Tables of one's own people as CSV, with commas, semicolons or tabs: pairs, groups, qualities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from facenas.data.parts import class_name
from facenas.errors import UserError
from facenas.evaluation.benches.pair_lists import open_list, plain_path, read_pair_list
from facenas.files import read_csv

_IMAGES = ("image", "path", "file", "filename", "img", "name")  # with 1 and 2 behind, or first and second
_SAME = ("same", "label", "genuine", "match", "is_same", "issame")
_IDENTITIES = ("identity", "person", "id", "subject")
_YES = ("1", "yes", "true", "same", "genuine", "match")
_NO = ("0", "no", "false", "different", "impostor", "nonmatch")
_UNKNOWN = ("", "nan", "na", "n/a", "null", "none", "-")


class ListedPair(NamedTuple):
    """A row: its line, two paths, whether they are one person's, and who, where the list says."""

    line: int
    first: str
    second: str
    same: bool
    identity1: str = ""
    identity2: str = ""


@dataclass(frozen=True)
class Table:
    """Rows by the first cell, in NFC: identities or images. columns: heads of the other cells."""

    path: Path
    columns: tuple[str, ...]
    rows: dict[str, tuple[str, ...]]

    def numbers(self, column: str, cells: NDArray[np.str_]) -> NDArray[np.float64]:
        """The cells as numbers; NaN where none is known. Raises UserError for what is no number."""
        found = np.full(len(cells), np.nan)
        for place, cell in enumerate(cells.tolist()):
            if cell.lower() in _UNKNOWN:
                continue
            try:
                found[place] = float(cell)
            except ValueError:
                raise UserError(
                    f"{self.path}: {column} {cell!r} is no number; leave it empty if unknown"
                ) from None
        found[~np.isfinite(found)] = np.nan
        return found


def read_table(path: Path) -> Table:
    """A table whose first line names its columns, and whose first column names identities or images.

    Raises UserError, naming lines, for a table without rows or other columns, and for one key with two rows
    that differ.
    """
    (_, head), *lines = read_csv(path)
    if len(head) < 2 or not lines:
        raise UserError(
            f"{path}: needs a first line of column names, such as identity,sex, and a line for each identity "
            "or image"
        )
    if len(set(head)) < len(head) or not all(head):
        raise UserError(f"{path}: its first line has a column name twice or an empty one")
    rows: dict[str, tuple[int, tuple[str, ...]]] = {}
    for line, cells in lines:
        if len(cells) != len(head):
            raise UserError(f"{path}: line {line} has {len(cells)} cells where the first line has {len(head)}")
        key = class_name(cells[0].replace("\\", "/").removeprefix("./"))
        before = rows.setdefault(key, (line, tuple(cells[1:])))
        if before[1] != tuple(cells[1:]):
            raise UserError(f"{path}: lines {before[0]} and {line} say different things of {key}; remove one")
    return Table(path, tuple(head[1:]), {key: cells for key, (_, cells) in rows.items()})


def read_own_pairs(path: Path) -> tuple[list[ListedPair], list[str]]:
    """The pairs of a list, each once, and warnings.

    .csv and .tsv are read by their columns, others as `pair_lists` does. Raises UserError that names the line
    at fault.
    """
    if path.suffix.lower() in (".csv", ".tsv"):
        listed = _labelled(path)
    else:
        rows, _ = read_pair_list(*open_list(path), None)
        listed = [ListedPair(number, *row) for number, row in enumerate(rows, 1)]
    found: dict[tuple[str, str], ListedPair] = {}
    for row in listed:
        if row.first == row.second:
            raise UserError(f"{path}: line {row.line} compares {row.first} with itself")
        before = found.setdefault((min(row[1:3]), max(row[1:3])), row)
        if before.same != row.same:
            raise UserError(
                f"{path}: lines {before.line} and {row.line} call {row.first} and {row.second} the same and "
                "different"
            )
    again = len(listed) - len(found)
    warnings = [f"{path}: lists {again:,} of its pairs again; each counts once"] if again else []
    return list(found.values()), warnings


def _labelled(path: Path) -> list[ListedPair]:
    (number, head), *lines = read_csv(path)
    words = [word.lower().replace(" ", "_") for word in head]
    first, second = (_column(words, _IMAGES, side) for side in ((1, "first"), (2, "second")))
    same = next((words.index(word) for word in _SAME if word in words), None)
    identities = [_column(words, _IDENTITIES, side) for side in ((1, "first"), (2, "second"))]
    if first is None and len(head) == 3 and _truth(head[2]) is not None:  # no header
        first, second, same, lines = 0, 1, 2, [(number, head), *lines]
    if first is None or second is None or (same is None and None in identities):
        raise UserError(
            f"{path}: its first line should name the columns image1,image2,same, or "
            "image1,image2,identity1,identity2"
        )
    found = []
    for line, cells in lines:
        if len(cells) != len(head):
            raise UserError(f"{path}: line {line} has {len(cells)} cells where the first line has {len(head)}")
        one, other = (class_name(cells[place]) if place is not None else "" for place in identities)
        if same is None and not (one and other):
            raise UserError(f"{path}: line {line} lacks an identity, so add a column same, or the identity")
        truth = _truth(cells[same]) if same is not None else one == other
        if truth is None:
            raise UserError(f"{path}: line {line} says {cells[same or 0]!r} where 1 or 0 should stand")
        if one and other and (one == other) != truth:
            raise UserError(f"{path}: line {line} says that {one} and {other} are {'one' if truth else 'two'}")
        found.append(ListedPair(line, plain_path(cells[first]), plain_path(cells[second]), truth, one, other))
    if not found:
        raise UserError(f"{path}: lists no pairs")
    return found


def _column(words: Sequence[str], names: Sequence[str], sides: tuple[int, str]) -> int | None:
    number, side = sides
    wanted = {f"{name}{mark}{number}" for name in names for mark in ("", "_")} | {f"{side}_{n}" for n in names}
    wanted |= {side} if names is _IMAGES else set()
    return next((place for place, word in enumerate(words) if word in wanted), None)


def _truth(cell: str) -> bool | None:
    word = cell.strip().lower()
    return True if word in _YES else False if word in _NO else None
