"""Wrong labels, seen in embeddings: images of other people, two people under one name, one under two.

Every limit comes from the scores of the data itself (`limits_of`), so any network that tells people apart will
do. All searches are exact and go block by block: memory grows by a few numbers an image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]

CHANCE = 1e-2  # of images with the right label, whose most alike other identity reaches the limit `nearest`
NAME_CHANCE = 1e-3  # of identities that have one name, whose most alike other reaches the limit `names`
UNLIKE = 0.99  # of the pairs of two people that have less than the limit `unlike`

_ROWS, _COLUMNS = 1024, 16_384  # compared at once: 64 MiB of scores
_SAMPLE = 200_000  # pairs of two people, for a quantile
MOST = 4000  # images of an identity that are grouped: their scores among each other are 128 MB
_SEED = 0
_THROUGH = (0.1, 0.5)  # quantiles that fix the distribution of largest scores


class Means(NamedTuple):
    """sums: (p, E) of the unit rows of each identity; templates: (p, E) their unit means; counts: (p,)."""

    sums: Floats
    templates: Floats
    counts: Indices


class Nearest(NamedTuple):
    """Of each image: own: cosine to the mean of its identity's others, NaN without any; other, who: the most
    alike other identity's cosine and number.
    """

    own: Floats
    other: Floats
    who: Indices


@dataclass(frozen=True)
class Limits:
    """Cosines. nearest: only 1 % of images with the right label have more to any other identity's mean.

    unlike: 99 % of the pairs of two people have less, so who has no more to the own identity is as a stranger
    to it; names: only one in a thousand identities has more between its mean and any other's; shared: the same
    beside another set; genuine: median of the cosines of images to the mean of their identity's others, None
    when no identity has two images.
    """

    nearest: float
    unlike: float
    names: float
    genuine: float | None
    shared: float | None = None

    @property
    def telling(self) -> bool:
        """Whether the network tells these people apart: most images are nearer to their own than strangers."""
        return self.genuine is not None and self.genuine > max(self.nearest, self.unlike)


class Stranger(NamedTuple):
    """Images (k,) that are together, but not with the largest group `rest` of their identity; score: cosine
    between the two groups, the mean over all pairs.
    """

    identity: int
    images: Indices
    rest: Indices
    score: float


def class_means(rows: Floats, labels: Indices, identities: int) -> Means:
    """Of unit rows (n, E) with labels (n,) in 0..identities-1; the template of one without images is 0."""
    from scipy.sparse import csr_array

    counts = np.bincount(labels, minlength=identities)
    ones, ends = np.ones(len(rows), np.float32), np.arange(len(rows) + 1)
    members = csr_array((ones, labels, ends), (len(rows), identities))
    sums = np.asarray(members.T @ rows, np.float32)
    norms = np.linalg.norm(sums, axis=1, keepdims=True)
    return Means(sums, np.asarray(sums / np.where(norms > 0, norms, 1), np.float32), counts)


def own_similarities(rows: Floats, labels: Indices, means: Means) -> Floats:
    """(n,) cosine of each unit row (n, E) to the mean of its identity's others; NaN where there are none.

    >>> rows = np.array([[1, 0], [0, 1], [1, 0], [1, 0]], np.float32)
    >>> labels = np.array([0, 0, 0, 1])
    >>> print(own_similarities(rows, labels, class_means(rows, labels, 2)).round(2))
    [0.71 0.   0.71  nan]
    """
    found = np.full(len(rows), np.nan, np.float32)
    for start in range(0, len(rows), _COLUMNS):
        some, owner = rows[start : start + _COLUMNS], labels[start : start + _COLUMNS]
        others = means.sums[owner] - some
        norms = np.linalg.norm(others, axis=1)
        known = (means.counts[owner] > 1) & (norms > 0)
        found[start : start + _COLUMNS][known] = np.einsum("ij,ij->i", some, others)[known] / norms[known]
    return found


def nearest_identities(rows: Floats, labels: Indices, means: Means) -> Nearest:
    """How alike each image is to its own and to the most alike other identity; exact, n p E multiplications.

    rows (n, E) unit; labels (n,). Raises ValueError for fewer than two identities with images.
    """
    if (means.counts > 0).sum() < 2:
        raise ValueError("there is one identity, so nobody to compare it with")
    other, who = np.empty(len(rows), np.float32), np.empty(len(rows), np.int64)
    for start in _progress(len(rows), "nearest identities"):
        some = slice(start, start + _ROWS)
        other[some], who[some] = _most_alike(rows[some], labels[some], means)
    return Nearest(own_similarities(rows, labels, means), other, who)


def _most_alike(rows: Floats, labels: Indices, means: Means) -> tuple[Floats, Indices]:
    best, who = np.full(len(rows), -np.inf, np.float32), np.zeros(len(rows), np.int64)
    for start in range(0, len(means.counts), _COLUMNS):
        scores = rows @ means.templates[start : start + _COLUMNS].T
        scores[:, means.counts[start : start + _COLUMNS] == 0] = -np.inf
        here = np.flatnonzero((labels >= start) & (labels < start + _COLUMNS))
        scores[here, labels[here] - start] = -np.inf
        first = scores.argmax(axis=1)
        found = scores[np.arange(len(rows)), first]
        who = np.where(found > best, start + first, who)
        best = np.maximum(best, found)
    return best, who


def level(best: Floats, chance: float, among: float = 1) -> float:
    """The value that `chance` of the largest scores (n,) reach, were there no wrong labels among them.

    By the Gumbel distribution, that of a largest of many, through their 10th percentile and median, which wrong
    labels hardly move: a tenth of the scores being those of wrong labels raises it by 0.02. among: of how many
    times as many the largest is to be.

    >>> best = np.random.default_rng(0).gumbel(0.3, 0.04, 100_000)
    >>> exact = 0.3 - 0.04 * np.log(-np.log(0.99))
    >>> best[:10_000] = 0.9
    >>> round(float(exact), 2), round(level(best, 0.01), 2)
    (0.48, 0.51)
    """
    low, high = np.quantile(best, _THROUGH)
    at = [-np.log(-np.log(share)) for share in (*_THROUGH, 1 - chance)]
    scale = (high - low) / (at[1] - at[0])
    return float(low + scale * (at[2] - at[0] + np.log(among)))


def limits_of(rows: Floats, labels: Indices, means: Means, nearest: Nearest) -> Limits:
    """The limits that the data's own scores give."""
    rng = np.random.default_rng(_SEED)
    left, right = rng.integers(0, len(rows), (2, _SAMPLE))
    apart = labels[left] != labels[right]
    left, right = left[apart], right[apart]
    pairs = np.concatenate(
        [
            np.einsum("ij,ij->i", rows[left[at : at + _COLUMNS]], rows[right[at : at + _COLUMNS]])
            for at in range(0, len(left), _COLUMNS)
        ]
    )
    known = nearest.own[np.isfinite(nearest.own)]
    return Limits(
        nearest=level(nearest.other, CHANCE),
        unlike=float(np.quantile(pairs, UNLIKE)),
        names=level(most_alike_means(means), NAME_CHANCE),
        genuine=float(np.median(known)) if len(known) else None,
    )


def most_alike_means(means: Means) -> Floats:
    """(q,) cosine of each identity's mean to the most alike other's; q of them have images."""
    there = np.flatnonzero(means.counts)
    found = [
        _most_alike(means.templates[some], some, means)[0]
        for some in np.split(there, range(_ROWS, len(there), _ROWS))
    ]
    return np.concatenate(found)


def mislabeled(nearest: Nearest, limits: Limits) -> Indices:
    """Images nearer to another identity than to their own, and nearer than chance; the surest first."""
    with np.errstate(invalid="ignore"):
        found = np.flatnonzero((nearest.other > nearest.own) & (nearest.other >= limits.nearest))
    return found[np.argsort((nearest.own - nearest.other)[found], kind="stable")]


def strangers(rows: Floats, labels: Indices, limit: float) -> Iterator[Stranger]:
    """Groups of images that are as unlike the largest group of their identity as strangers are.

    Groups by average linkage: of two, the mean cosine over all their pairs is below `limit`. Where no two
    images are alike, all but the first are strangers to it. Identities of more than 4,000 images are left out.
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    order = np.argsort(labels, kind="stable")
    for images in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
        if not 2 <= len(images) <= MOST:
            continue
        scores = np.clip(rows[images] @ rows[images].T, -1, 1).astype(np.float64)
        if scores.min() >= limit:  # nearly all identities
            continue
        distances = squareform(1 - scores, checks=False)
        groups = fcluster(linkage(distances, "average"), 1 - limit, "distance")
        numbers, first, counts = np.unique(groups, return_index=True, return_counts=True)
        largest = numbers[np.lexsort((first, -counts))[0]]
        rest = np.flatnonzero(groups == largest)
        for number in numbers[numbers != largest]:
            some = np.flatnonzero(groups == number)
            score = float(scores[np.ix_(some, rest)].mean())
            yield Stranger(int(labels[images[0]]), images[some], images[rest], score)


def same_people(rows: Floats, labels: Indices, means: Means, limits: Limits) -> list[tuple[float, int, int]]:
    """(cosine of the means, identity, identity) of pairs that are one person, the surest first.

    The means are more alike than `limits.names`, and more than half of either one's images are nearer to the
    other's mean than chance: so one wrong image among two does not join two people.
    """
    found = list(_similar_means(means, means, limits.names, one_set=True))
    return _agreed(found, (rows, labels, means), (rows, labels, means), limits.nearest)


def shared_limit(left: Means, right: Means) -> float:
    """The cosine that the means of two people, one in each of two sets, reach by chance, as `Limits.names`.

    The lower of two estimates: from the most alike between the sets, seen from the larger, which people who are
    in both raise; and from those within `left`, as if of so many identities as `right` has.
    """
    larger, smaller = sorted((left, right), key=lambda means: -int((means.counts > 0).sum()))
    there = np.flatnonzero(larger.counts)
    best = [
        _most_alike(larger.templates[some], np.full(len(some), -1), smaller)[0]
        for some in np.split(there, range(_ROWS, len(there), _ROWS))
    ]
    ours, theirs = (int((means.counts > 0).sum()) for means in (left, right))
    between = level(np.concatenate(best), NAME_CHANCE * ours / len(there))
    return min(between, level(most_alike_means(left), NAME_CHANCE, theirs / ours))


def shared_people(
    left: tuple[Floats, Indices, Means], right: tuple[Floats, Indices, Means], limits: Limits
) -> list[tuple[float, int, int]]:
    """`same_people` of two sets of (rows, labels, means): which identity of `left` is which of `right`.

    limits: of `left`, with that of `shared_limit`.
    """
    names = limits.names if limits.shared is None else limits.shared
    found = list(_similar_means(left[2], right[2], names, one_set=False))
    return _agreed(found, left, right, limits.nearest)


def _similar_means(left: Means, right: Means, limit: float, one_set: bool) -> Iterator[tuple[float, int, int]]:
    for begin in range(0, len(left.counts), _ROWS):
        for start in range(begin if one_set else 0, len(right.counts), _COLUMNS):
            scores = left.templates[begin : begin + _ROWS] @ right.templates[start : start + _COLUMNS].T
            for i, j in zip(*np.nonzero(scores >= limit), strict=True):
                if not one_set or begin + i < start + j:
                    yield float(scores[i, j]), int(begin + i), int(start + j)


def _agreed(
    pairs: list[tuple[float, int, int]],
    left: tuple[Floats, Indices, Means],
    right: tuple[Floats, Indices, Means],
    limit: float,
) -> list[tuple[float, int, int]]:
    """Those pairs of which more than half of either one's images are as near to the other's mean as `limit`."""
    images = (
        _by_identity(left[1], {one for _, one, _ in pairs}),
        _by_identity(right[1], {two for _, _, two in pairs}),
    )
    agreed = []
    for score, one, two in sorted(pairs, key=lambda pair: -pair[0]):
        near = left[0][images[0][one]] @ right[2].templates[two]
        back = right[0][images[1][two]] @ left[2].templates[one]
        if min((near >= limit).mean(), (back >= limit).mean()) > 0.5:
            agreed.append((score, one, two))
    return agreed


def _by_identity(labels: Indices, wanted: set[int]) -> dict[int, Indices]:
    order = np.argsort(labels, kind="stable")
    ends = np.searchsorted(labels[order], np.arange(max(wanted, default=-1) + 2))
    return {one: order[ends[one] : ends[one + 1]] for one in wanted}


def close_pairs(
    rows: Floats, others: Floats | None = None, *, floor: float, most: int = 16
) -> tuple[Indices, Floats]:
    """Pairs (m, 2) of rows (n, E) and rows of `others` whose cosine is `floor` or more, and cosines (m,).

    Without `others` pairs within `rows`, each once, i < j: half the multiplications. Exact, but of each row at
    most the `most` that are most alike.
    """
    pairs, found = [np.empty((0, 2), np.int64)], [np.empty(0, np.float32)]
    within = others is None
    columns = rows if others is None else others
    for begin in _progress(len(rows), "near duplicates"):
        some, parts = rows[begin : begin + _ROWS], []
        for start in range(begin if within else 0, len(columns), _COLUMNS):
            scores = some @ columns[start : start + _COLUMNS].T
            if within and start == begin:
                scores[np.tril_indices(len(some), 0, scores.shape[1])] = -np.inf
            i, j = _largest(scores, floor, most)
            parts.append((i, start + j, scores[i, j]))
        i, j, score = (np.concatenate(part) for part in zip(*parts, strict=True))
        order = np.lexsort((j, -score, i))
        rank = np.arange(len(order)) - np.searchsorted(i[order], i[order])
        kept = order[rank < most]
        pairs.append(np.stack([begin + i[kept], j[kept]], axis=1))
        found.append(score[kept])
    return np.concatenate(pairs), np.concatenate(found)


def _largest(scores: Floats, floor: float, most: int) -> tuple[Indices, Indices]:
    """Where scores (b, c) are `floor` or more; when these are very many, only each row's `most` largest."""
    there = scores >= floor
    if there.sum() > most * len(scores) and most < scores.shape[1]:
        largest = np.argpartition(-scores, most - 1, axis=1)[:, :most]
        kept = np.zeros_like(there)
        np.put_along_axis(kept, largest, True, axis=1)
        there &= kept
    i, j = np.nonzero(there)
    return i, j


def _progress(count: int, what: str) -> Iterator[int]:
    """Where each block of rows begins."""
    with tqdm(desc=what, total=count, unit="image", disable=None, leave=False) as bar:
        for start in range(0, count, _ROWS):
            yield start
            bar.update(min(_ROWS, count - start))
