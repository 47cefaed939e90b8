"""What a bench comes down to once its files are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facenas.data.images import Files
from facenas.errors import UserError
from facenas.evaluation.protocols.files import locate
from facenas.evaluation.protocols.images import Images, TreeImages


class BenchNotThereError(UserError):
    """The data given hold nothing of this bench: others of them may be there."""


@dataclass(frozen=True, eq=False)
class PairProtocol:
    """Pairs to verify. pairs: (n, 2) int64 numbers into `images`; same: (n,) bool.

    folds: how many, contiguous, of equal size up to one; names: what to call image i.
    """

    images: Images
    pairs: NDArray[np.int64]
    same: NDArray[np.bool_]
    folds: int
    names: Sequence[str]


@dataclass(frozen=True, eq=False)
class RankProtocol:
    """Probes to find in a gallery. probe_ids: (p,) int64, gallery_ids: (g,) int64, -100 for distractors."""

    probe: Images
    gallery: Images
    probe_ids: NDArray[np.int64]
    gallery_ids: NDArray[np.int64]
    warnings: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class PairList:
    """A list of pairs before its images are found: paths as listed, places of each pair in them."""

    paths: tuple[str, ...]
    pairs: NDArray[np.int64]
    same: NDArray[np.bool_]
    folds: int


def pair_list(named: Sequence[tuple[str, str]], same: Sequence[bool], folds: int) -> PairList:
    """The list of these pairs of paths; every path is kept once."""
    place: dict[str, int] = {}
    pairs = [[place.setdefault(path, len(place)) for path in pair] for pair in named]
    return PairList(
        tuple(place), np.array(pairs, np.int64).reshape(-1, 2), np.array(same, bool), folds
    )


def with_images(listed: PairList, files: Files, where: str) -> PairProtocol:
    """The listed pairs with their images in `files`; `where`: what to call the list.

    Raises UserError that names the first image missing, and tells how many are.
    """
    found = locate(files, listed.paths)
    missing = [path for path, name in zip(listed.paths, found, strict=True) if name is None]
    if len(missing) == len(found):
        raise BenchNotThereError(
            f"{files.root}: holds none of the {len(found)} images that {where} names, {missing[0]} the first"
        )
    if missing:
        raise UserError(
            f"{files.root}: {missing[0]} is missing; in all {len(missing)} of the {len(found)} images that "
            f"{where} names are"
        )
    images = TreeImages(files, [name for name in found if name is not None])
    return PairProtocol(images, listed.pairs, listed.same, listed.folds, listed.paths)
