"""Labeled Faces in the Wild, View 2: 6,000 pairs in ten given folds.

`pairs.txt`: first line `10<TAB>300`, then for every fold 300 lines `name<TAB>i<TAB>j` (one person) and 300
lines `name<TAB>i<TAB>other<TAB>j`; image i of a person is `name/name_000i.jpg`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facenas.data.faces.jpeg import SIDE, decode
from facenas.data.folders import FolderTree, Tree, ZipTree
from facenas.errors import UserError

_BATCH = 128
_PAIR_FILES = ("pairs.txt", "lfw_pairs.txt")


@dataclass(frozen=True)
class Pairs:
    """Pairs (n, 2) int64 of places in `images`, their names, and same (n,) bool; folds are contiguous."""

    images: tuple[str, ...]
    pairs: NDArray[np.int64]
    same: NDArray[np.bool_]
    folds: int


def find_pairs(data: Path) -> Path:
    """The pairs file in the folder `data`, or beside it; raises UserError when there is none."""
    places = [data, data.parent] if data.is_dir() else [data.parent]
    for path in (place / name for place in places for name in _PAIR_FILES):
        if path.is_file():
            return path
    raise UserError(f"{data}: has no pairs.txt in it or beside it; give LFW's pairs.txt by --pairs")


def read_pairs(path: Path) -> Pairs:
    """The pairs file; raises UserError that names the line at fault."""
    try:
        head, *lines = path.read_text(encoding="utf-8").splitlines()
        folds, each = (int(number) for number in head.split("\t"))
    except (OSError, ValueError):
        raise UserError(
            f"{path}: is not LFW's pairs.txt: its first line should be 10<TAB>300"
        ) from None
    if len(lines) != 2 * folds * each:
        raise UserError(
            f"{path}: has {len(lines)} pairs, but its first line says {2 * folds * each}"
        )
    named = [_pair(path, number, line) for number, line in enumerate(lines, start=2)]
    images = sorted({name for pair in named for name in pair})
    place = {name: i for i, name in enumerate(images)}
    pairs = np.array([[place[name] for name in pair] for pair in named], np.int64)
    same = np.array([line.count("\t") == 2 for line in lines])
    return Pairs(tuple(images), pairs, same, folds)


def read_images(data: Path, names: tuple[str, ...]) -> Iterator[Tensor]:
    """Batches (m, 112, 112, 3) uint8 RGB of the named images of a folder or .zip, in order.

    Raises UserError when one is missing, damaged or not an aligned crop of 112x112 pixels.
    """
    tree: Tree = FolderTree(data) if data.is_dir() else ZipTree(data)
    # However deep they lie: a person's folder and the file's name are enough.
    found = {"/".join(name.split("/")[-2:]): name for name in tree.names()}
    for start in range(0, len(names), _BATCH):
        wanted = names[start : start + _BATCH]
        batch = np.empty((len(wanted), SIDE, SIDE, 3), np.uint8)
        for row, name in enumerate(wanted):
            if name not in found:
                raise UserError(
                    f"{data}: {name} is missing; give the folder or .zip of LFW's crops"
                )
            try:
                with tree.open(found[name]) as stream:
                    decode(stream.read(), batch[row])
            except (OSError, ValueError) as error:
                raise UserError(f"{data}: {name}: {error}; align the images to 112x112") from None
        yield torch.from_numpy(batch)


def _pair(path: Path, number: int, line: str) -> tuple[str, str]:
    words = line.split("\t")
    try:
        if len(words) == 3:
            words.insert(2, words[0])
        first, i, second, j = words
        return f"{first}/{first}_{int(i):04d}.jpg", f"{second}/{second}_{int(j):04d}.jpg"
    except ValueError:
        raise UserError(f"{path}: line {number} is not a pair: {line!r}") from None
