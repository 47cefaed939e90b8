"""Closed-set identification against a gallery with distractors: rank-k, CMC and mean average precision.

As TinyFace is measured: `mk-minchul/AdaFace:validation_lq/tinyface_helper.py` (`test_identification`,
`DIR_FAR`), which sorts the whole gallery for every probe. A mate's place needs no sorting: it is one more
than the number of other gallery images that score as high or higher.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facenas.evaluation.metrics.checks import Floats, unit_rows

_BLOCK_BYTES = 512 << 20  # of scores at a time: fewer probes, and the multiplication gets slower

Ids = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Ranking:
    """Places of the probes' mates in the gallery; all but `ranks` over the probes that have a mate.

    rank: share of probes with a mate among the first k, by k; mean_average_precision: 0..1; cmc: (largest k,)
    float64, that share for k = 1, 2, ...; ranks: (p,) int64, the best mate's place, 1 = first, and 0 for a
    probe without mate; probes_without_mate, and probes_with_tie, whose best mate scores exactly as another
    identity: how many.
    """

    rank: dict[int, float]
    mean_average_precision: float
    cmc: NDArray[np.float64]
    ranks: Ids
    probes_without_mate: int
    probes_with_tie: int


def rank_k(
    probe: Floats, gallery: Floats, probe_ids: Ids, gallery_ids: Ids, ks: Sequence[int] = (1, 5, 20)
) -> Ranking:
    """Ranks the gallery for every probe by cosine, exactly, without sorting and in constant memory.

    probe: (p, E) and gallery: (g, E) embeddings, brought to unit length unless all of them are within 1e-3 of
    it; probe_ids: (p,) and gallery_ids: (g,) whole numbers, negative ones in the gallery are distractors and
    mates of nobody. A probe may have several mates: the best counts for rank-k, all for the average precision.

    Scores are products in the dtype given: float32 rounds them to about 1e-7, and differences below that are
    told apart as they happen to round. Where the peers' order of equal scores is left to the sort, here a tie
    counts against the mate, as in `identify_templates`; `probes_with_tie` says for how many probes it matters.
    Raises ValueError, in one sentence, for arrays that are empty, not finite or do not fit together, for ids
    that are not whole numbers, ks below 1, and when no probe has a mate.

    >>> probe, gallery = np.array([[1.0, 0], [0, 1]]), np.array([[1.0, 0], [0.6, 0.8], [0.8, 0.6]])
    >>> found = rank_k(probe, gallery, np.array([1, 2]), np.array([1, -100, 2]), ks=(1, 2))
    >>> found.rank, found.mean_average_precision, found.ranks.tolist()
    ({1: 0.5, 2: 1.0}, 0.75, [1, 2])
    """
    if not ks or min(ks) < 1:
        raise ValueError(f"ranks {list(ks)}: some from 1 on are needed")
    probe, probe_ids = _checked(probe, probe_ids, "probes")
    gallery, gallery_ids = _checked(gallery, gallery_ids, "gallery images")
    if probe.shape[1] != gallery.shape[1]:
        widths = f"{probe.shape[1]} and {gallery.shape[1]}"
        raise ValueError(f"embeddings of probes and gallery have {widths} numbers, not equally many")
    mates = mates_of(probe_ids, gallery_ids)
    ranks, precisions, ties = np.zeros(len(probe), np.int64), [], 0
    for number, scores in _rows(probe, gallery, np.flatnonzero([len(of) for of in mates])):
        found, tied = places(scores, mates[number])
        ranks[number] = found[0]
        precisions.append(float(np.mean(np.arange(1, len(found) + 1) / found)))
        ties += tied
    mated = np.sort(ranks[ranks > 0])
    cmc = np.searchsorted(mated, np.arange(1, max(ks) + 1), side="right") / len(mated)
    return Ranking(
        rank={k: float(cmc[k - 1]) for k in ks},
        mean_average_precision=float(np.mean(precisions)),
        cmc=cmc,
        ranks=ranks,
        probes_without_mate=len(ranks) - len(mated),
        probes_with_tie=ties,
    )


def places(scores: Floats, mates: Ids) -> tuple[Ids, bool]:
    """(places (m,) of a probe's mates, best first, 1 = top of the gallery; whether others tie with the best).

    scores: (g,) of the gallery; mates: (m,) its rows with the probe's id, one at least. A mate goes after
    others with the same score.

    >>> places(np.array([0.9, 0.7, 0.7, 0.1]), np.array([2, 3]))
    (array([3, 4]), True)
    """
    falling = np.sort(scores[mates])[::-1]
    as_high = [np.count_nonzero(scores >= score) for score in falling]
    mates_as_high = len(falling) - np.searchsorted(falling[::-1], falling, side="left")
    found = np.array(as_high) - mates_as_high + np.arange(1, len(falling) + 1)
    tied = np.count_nonzero(scores == falling[0]) > np.count_nonzero(falling == falling[0])
    return found, bool(tied)


def _rows(probe: Floats, gallery: Floats, numbers: Ids) -> Iterator[tuple[int, Floats]]:
    """(number of a probe, (g,) its scores), of the probes asked for; the scores hold until the next."""
    dtype = np.result_type(probe, gallery)
    size = max(1, min(len(numbers), _BLOCK_BYTES // (len(gallery) * dtype.itemsize)))
    scores = np.empty((size, len(gallery)), dtype)
    for start in range(0, len(numbers), size):
        block = numbers[start : start + size]
        np.matmul(probe[block], gallery.T, out=scores[: len(block)])
        yield from zip(block.tolist(), scores, strict=False)


def mates_of(probe_ids: Ids, gallery_ids: Ids) -> list[Ids]:
    """Of every probe, the gallery's rows with its id; raises ValueError when there are none at all.

    >>> [rows.tolist() for rows in mates_of(np.array([5, 6]), np.array([6, 5, -1, 5]))]
    [[1, 3], [0]]
    """
    order = np.argsort(gallery_ids, kind="stable")
    order = order[gallery_ids[order] >= 0]
    first, last = (np.searchsorted(gallery_ids[order], probe_ids, side) for side in ("left", "right"))
    if (first == last).all():
        raise ValueError(f"none of {len(probe_ids)} probes has a mate in the gallery: do the ids agree?")
    return [order[i:j] for i, j in zip(first, last, strict=True)]


def _checked(embeddings: Floats, ids: Ids, what: str) -> tuple[Floats, Ids]:
    found, numbers = unit_rows(embeddings, what), np.asarray(ids)
    if not len(found):
        raise ValueError(f"there are no {what}")
    if numbers.shape != found.shape[:1]:
        raise ValueError(f"{len(found)} {what} and ids of shape {numbers.shape}: one of each is needed")
    if numbers.dtype.kind not in "iu":
        raise ValueError(f"ids of {what} are {numbers.dtype}, not whole numbers")
    return found, numbers.astype(np.int64)
