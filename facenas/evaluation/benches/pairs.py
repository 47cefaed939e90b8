"""Pairs of images to verify: LFW, CFP, AgeDB-30, CALFW, CPLFW, and any list of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from facenas.data.images import Files, open_files
from facenas.data.lists import locate
from facenas.errors import UserError
from facenas.evaluation.benches import PROTOCOLS, Bench, BenchNotThereError, Extract, Protocol
from facenas.evaluation.benches.images import Images, file_images
from facenas.evaluation.benches.insightface_bin import read_bin
from facenas.evaluation.benches.pair_lists import (
    Pair,
    find_list,
    find_place,
    open_list,
    read_pair_list,
)
from facenas.evaluation.benches.people_tables import read_own_pairs
from facenas.evaluation.benches.result import Mistake, PairResult
from facenas.evaluation.metrics.checks import unit_rows
from facenas.evaluation.metrics.roc import auc, eer, tar_at_nearest_fars, worst_mistakes
from facenas.evaluation.metrics.ten_fold import squared_distances, ten_fold_of

FARS = (1e-4, 1e-3)  # with 3,000 impostors the smaller one allows none
FOLDS = 10  # of lists that do not say


@dataclass(frozen=True, eq=False)
class PairData:
    """pairs: (n, 2) int64 numbers into `images`; same: (n,) bool; names: what to call image i.

    folds: how many, contiguous, of equal size up to one.
    """

    images: Images
    pairs: NDArray[np.int64]
    same: NDArray[np.bool_]
    folds: int
    names: Sequence[str]


@PROTOCOLS.register("pairs")
class PairProtocol(Protocol):
    """Ten-fold verification of pairs, as all published figures of LFW and its like are made."""

    class Settings(Bench):
        """pairs: the list of pairs, when it is not with the images; lists: names under which it is looked for.

        folds: of a list that does not say; split: which half of CFP's protocol folder.
        """

        pairs: Path | None = None
        lists: tuple[str, ...] = ()
        folds: PositiveInt = FOLDS
        split: Literal["FF", "FP"] | None = None

    bench: Settings

    def measure(self, data: Path, extract: Extract) -> PairResult:
        """See `Bench.measure`."""
        found = self.read(data)
        embeddings = unit_rows(np.asarray(extract(found.images), np.float64), "embeddings")
        first, second = embeddings[found.pairs].swapaxes(0, 1)
        distances = squared_distances(first, second)
        folds = ten_fold_of(distances, found.same, found.folds)
        scores = 1 - distances / 2
        wrong = worst_mistakes(scores, found.same, folds.threshold_cosine)
        return PairResult(
            bench=self.bench,
            images=len(found.images),
            pairs=len(found.same),
            accuracy=folds.accuracy,
            std=folds.std,
            accuracies=folds.accuracies,
            threshold_cosine=folds.threshold_cosine,
            threshold_squared=folds.threshold_squared,
            tar_at_far=folds.tar_at_far,
            tar_at_nearest_far=tar_at_nearest_fars(scores, found.same, FARS),
            eer=eer(scores, found.same),
            auc=auc(scores, found.same),
            scores=scores,
            same=found.same,
            mistakes=tuple(
                mistake(scores[i], found.same[i], found.images, found.pairs[i], found.names) for i in wrong
            ),
        )

    def read(self, data: Path) -> PairData:
        """The pairs and their images.

        data: InsightFace's `.bin` file, a folder or .zip of aligned images, or a folder that holds one of these
        under a name of `files`. The list of pairs lies among the images or beside them, unless `pairs` says.
        """
        bench = self.bench
        place = find_place(data, bench.files, with_bin=bench.pairs is None)
        if place.suffix.lower() == ".bin":
            if bench.pairs is not None:
                raise UserError(f"{place}: holds its own pairs; leave out {bench.pairs}")
            images, same = read_bin(place)
            pairs = np.arange(len(images), dtype=np.int64).reshape(-1, 2)
            return PairData(images, pairs, same, bench.folds, images.names)
        files = open_files(place)
        if bench.pairs is not None:
            listed = open_list(bench.pairs.expanduser())
        elif (found := find_list(files, bench.files, bench.lists)) is not None:
            listed = found
        else:
            raise BenchNotThereError(
                f"{data}: has nothing of {bench.title or bench.name}: looked for {', '.join(bench.files)} in "
                f"it, and for {', '.join(bench.lists)} in it and beside it; else give the list as pairs"
            )
        rows, folds = _read(*listed, bench.split)
        numbers: dict[str, int] = {}  # every path is kept once
        places = [[numbers.setdefault(p, len(numbers)) for p in paths] for *paths, _ in rows]
        return PairData(
            listed_images(files, list(numbers), listed[1]),
            np.array(places, np.int64).reshape(-1, 2),
            np.array([same for *_, same in rows], bool),
            folds or bench.folds,
            list(numbers),
        )


def _read(files: Files, name: str, split: str | None) -> tuple[list[Pair], int | None]:
    if name.lower().endswith(".csv"):
        listed, _ = read_own_pairs(files.root / name)
        return [(row.first, row.second, row.same) for row in listed], None
    return read_pair_list(files, name, split)


def listed_images(files: Files, paths: list[str], where: str) -> Images:
    """The images that a list called `where` names.

    Raises BenchNotThereError when none of them is there, UserError when one is missing.
    """
    found = locate(files, paths)
    missing = [path for path, name in zip(paths, found, strict=True) if name is None]
    if len(missing) == len(found):
        first = f", {missing[0]} the first" if missing else ""
        raise BenchNotThereError(
            f"{files.root}: holds none of the {len(found)} images that {where} names{first}"
        )
    if missing:
        raise UserError(
            f"{files.root}: {missing[0]} is missing; in all {len(missing)} of the {len(found)} images that "
            f"{where} names are"
        )
    return file_images(files, [name for name in found if name is not None])


def mistake(
    score: float,
    same: bool,
    images: Images,
    pair: NDArray[np.int64],
    names: Sequence[str] | NDArray[np.str_],
) -> Mistake:
    """A pair of numbers into `images` and `names`, as the page shows it."""
    left, right = images.read(pair)
    return Mistake(float(score), bool(same), (str(names[pair[0]]), str(names[pair[1]])), (left, right))
