"""Who is it? Templates of probes searched in galleries of templates (IJB-B and IJB-C, 1:N)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from facenas.evaluation.metrics.templates import Templates, places_of

RANKS = (1, 5, 10)
FPIRS = (0.01, 0.1)

_PROBES_AT_ONCE = 2048


@dataclass(frozen=True)
class Subjects:
    """A list of templates, (t,) ids of which none comes twice, with (t,) ids of whose they are.

    name: of the list, such as "G1".
    """

    name: str
    templates: NDArray[np.int64]
    subjects: NDArray[np.int64]


@dataclass(frozen=True)
class GallerySearch:
    """What one gallery gave: rates 0..1 by rank and by false positive identification rate.

    mated, non_mated: how many probes have their subject in the gallery, and have not; thresholds: above
    which a score counts as found, by FPIR.
    """

    name: str
    mated: int
    non_mated: int
    rank: dict[int, float]
    tpir: dict[float, float]
    thresholds: dict[float, float]


@dataclass(frozen=True)
class Identification:
    """rank: rates over all mated probes of all galleries; tpir: means over the galleries."""

    galleries: tuple[GallerySearch, ...]
    rank: dict[int, float]
    tpir: dict[float, float]


@dataclass(frozen=True)
class MergedIdentification:
    """The peers' figures: rates 0..1 over all probes.

    recall_by_share: of mates above a threshold, by the share of all probes that set it. The peers print it
    as TPIR at that FPIR, which it is not: every probe has a mate, and one probe can take many places
    among the impostors that set the threshold.
    """

    rank: dict[int, float]
    recall_by_share: dict[float, float]


def identify_templates(pooled: Templates, galleries: Sequence[Subjects], probes: Subjects) -> Identification:
    """IJB 1:N: every probe searched in each gallery; probes whose subject is not in it are non-mated.

    Rank k: the mate is among the k most alike, a tie counts against it. TPIR at FPIR x: mated probes found
    at rank 1 with a score above the threshold, which is the floor(x n)-th largest (at least the largest)
    of the best scores of the n non-mated probes. Same numbers as `evaluation_1N` of
    `deepinsight/insightface:recognition/_evaluation_/ijb/ijb_evals.py`.
    Raises ValueError for no or empty galleries, a subject twice in one, templates without images, and when a
    gallery leaves no probe mated or none non-mated.

    >>> pooled = Templates(np.array([1, 2, 3, 4]), np.array([[1.0, 0], [0, 1], [0.8, 0.6], [0.6, 0.8]]))
    >>> gallery = Subjects("G1", np.array([1, 2]), np.array([10, 20]))
    >>> probes = Subjects("probes", np.array([3, 4]), np.array([10, 30]))  # nobody is 30
    >>> found = identify_templates(pooled, [gallery], probes)
    >>> found.rank[1], found.tpir[0.1], found.galleries[0].thresholds[0.1]
    (1.0, 0.0, 0.8)
    """
    if not galleries:
        raise ValueError("there is no gallery to search in")
    found = tuple(_search(pooled, gallery, probes) for gallery in galleries)
    mated = sum(one.mated for one in found)
    rank = {k: sum(one.rank[k] * one.mated for one in found) / mated for k in RANKS}
    tpir = {x: sum(one.tpir[x] for one in found) / len(found) for x in FPIRS}
    return Identification(found, rank, tpir)


def identify_templates_merged(
    pooled: Templates, galleries: Sequence[Subjects], probes: Subjects
) -> MergedIdentification:
    """IJB 1:N as the peers print it: all galleries made one, in which every probe has its mate.

    Rank k as in `identify_templates`. The threshold of share x is the ceil(x p)-th largest of all
    similarities of the p probes to others than their mate. Source:
    `deepinsight/insightface:recognition/_evaluation_/ijb/ijb_1n.py`,
    `mk-minchul/AdaFace:validation_mixed/insightface_ijb_helper/eval_helper_identification.py`.
    Raises ValueError as `identify_templates` does, and for a probe that is in no gallery.

    >>> pooled = Templates(np.array([1, 2, 3, 4]), np.array([[1.0, 0], [0, 1], [0.8, 0.6], [0.9, 0.4]]))
    >>> galleries = [Subjects(f"G{i}", np.array([i]), np.array([10 * i])) for i in (1, 2)]
    >>> probes = Subjects("probes", np.array([3, 4]), np.array([10, 20]))
    >>> found = identify_templates_merged(pooled, galleries, probes)
    >>> found.rank[1], found.rank[5], found.recall_by_share[0.1]
    (0.5, 1.0, 0.0)
    """
    if not galleries:
        raise ValueError("there is no gallery to search in")
    templates, subjects = (
        np.concatenate([getattr(gallery, what) for gallery in galleries]) for what in ("templates", "subjects")
    )
    merged = Subjects("+".join(gallery.name for gallery in galleries), templates, subjects)
    mates = _mates(merged, probes)
    if mates.min() < 0:
        lost = probes.templates[np.argmin(mates)]
        raise ValueError(f"probe template {lost} has no mate in the galleries {merged.name}")
    counts = {x: ceil(len(mates) * x) for x in FPIRS}
    ranks, mate_scores, largest = [], [], np.empty(0)
    for scores, here in _scores(pooled, merged, probes, mates):
        block_ranks, block_scores = _take_mates(scores, here)
        ranks.append(block_ranks)
        mate_scores.append(block_scores)
        others = scores[np.isfinite(scores)]
        largest = _largest(np.concatenate([largest, others]), max(counts.values()))
    if len(largest) < max(counts.values()):
        raise ValueError(f"the galleries {merged.name} have too few templates for a threshold")
    rank, positive = np.concatenate(ranks), np.concatenate(mate_scores)
    recall = {x: float((positive > largest[count - 1]).mean()) for x, count in counts.items()}
    return MergedIdentification({k: float((rank <= k).mean()) for k in RANKS}, recall)


def _search(pooled: Templates, gallery: Subjects, probes: Subjects) -> GallerySearch:
    mates = _mates(gallery, probes)
    mated = mates >= 0
    if mated.all() or not mated.any():
        raise ValueError(
            f"gallery {gallery.name}: {int(mated.sum())} of {len(mates)} probes have their subject in it; "
            "identification needs probes of both kinds"
        )
    rank = np.zeros(len(mates), np.int64)
    best = np.empty(len(mates))  # of the mate, or of anyone where there is none
    done = 0
    for scores, here in _scores(pooled, gallery, probes, mates):
        some = slice(done, done := done + len(here))
        known = here >= 0
        best[some] = scores.max(1)
        rank[some][known], best[some][known] = _take_mates(scores[known], here[known])
    non_mated = np.sort(best[~mated])[::-1]
    thresholds = {x: float(non_mated[max(int(len(non_mated) * x) - 1, 0)]) for x in FPIRS}
    first, score = rank[mated] == 1, best[mated]
    return GallerySearch(
        gallery.name,
        int(mated.sum()),
        len(non_mated),
        {k: float((rank[mated] <= k).mean()) for k in RANKS},
        {x: float((first & (score > limit)).mean()) for x, limit in thresholds.items()},
        thresholds,
    )


def _mates(gallery: Subjects, probes: Subjects) -> NDArray[np.int64]:
    """(p,) the place of each probe's mate in the gallery, -1 where there is none."""
    for part in (gallery, probes):
        if not len(part.templates):
            raise ValueError(f"{part.name}: has no templates")
    order = np.argsort(gallery.subjects, kind="stable")
    ids = gallery.subjects[order]
    twice = np.flatnonzero(ids[1:] == ids[:-1])
    if len(twice):
        raise ValueError(
            f"gallery {gallery.name}: subject {ids[twice[0]]} has more than one template; keep one"
        )
    places = places_of(ids, probes.subjects)
    return np.where(places >= 0, order[places], -1)


def _scores(
    pooled: Templates, gallery: Subjects, probes: Subjects, mates: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.int64]]]:
    """Blocks of probes: their (b, gallery) similarities and (b,) mates."""
    vectors = _vectors(pooled, gallery).T
    searched = _vectors(pooled, probes)
    for start in range(0, len(mates), _PROBES_AT_ONCE):
        some = slice(start, start + _PROBES_AT_ONCE)
        yield searched[some] @ vectors, mates[some]


def _vectors(pooled: Templates, part: Subjects) -> NDArray[np.float64]:
    places = places_of(pooled.ids, part.templates)
    if places.min() < 0:
        lost = part.templates[np.argmin(places)]
        raise ValueError(f"{part.name}: template {lost} has no images")
    return pooled.vectors[places]


def _take_mates(
    scores: NDArray[np.float64], mates: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(b,) ranks of the mates, from 1, and their (b,) scores, which become -infinity in `scores` (b, g)."""
    rows = np.arange(len(mates))
    own = scores[rows, mates]
    scores[rows, mates] = -np.inf
    return 1 + (scores >= own[:, None]).sum(1), own


def _largest(values: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """The `count` largest, falling, or all when there are fewer."""
    if len(values) > count:
        values = np.partition(values, len(values) - count)[-count:]
    return np.sort(values)[::-1]
