"""Error rates of scored pairs: true accept rates at given false accept rates, the ROC, EER and AUC.

Everywhere: scores (n,) similarities, higher = more alike, any float dtype, compared without rounding; same
(n,) True for genuine pairs, False for impostors. A threshold accepts what is not below it, so equal scores
are accepted together. Raises ValueError, in one sentence, when the shapes differ, a score is not finite or
either kind of pairs is missing. Pure functions; quick enough for the 15.7 million pairs of IJB-C.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facenas.evaluation.metrics.checks import Bools, Floats, checked_pairs


@dataclass(frozen=True, eq=False)
class Roc:
    """(m,) false and true accept rates, rising from (0, 0) to (1, 1), at (m,) thresholds falling from inf."""

    far: NDArray[np.float64]
    tar: NDArray[np.float64]
    thresholds: Floats


def tar_at_far(scores: Floats, same: Bools, far: float) -> float:
    """True accept rate at the lowest threshold whose false accept rate does not exceed `far` (0..1).

    The peers print another number (nearest point of a thinned ROC): see `tar_at_nearest_far`.

    >>> scores, same = np.array([0.9, 0.8, 0.7, 0.4, 0.2]), np.array([True, True, False, True, False])
    >>> round(tar_at_far(scores, same, 0.1), 4), tar_at_far(scores, same, 0.5)
    (0.6667, 1.0)
    """
    return tar_at_fars(scores, same, [far])[far]


def tar_at_fars(scores: Floats, same: Bools, fars: Sequence[float]) -> dict[float, float]:
    """`tar_at_far` of every rate in `fars`, for the price of one.

    >>> tar_at_fars(np.array([0.9, 0.3, 0.6, 0.1]), np.array([True, True, False, False]), [0, 0.5])
    {0: 0.5, 0.5: 1.0}
    """
    genuine, impostors = _split(scores, same, fars)
    allowed = [_allowed(far, len(impostors)) for far in fars]
    falling = np.sort(_top(impostors, max(allowed) + 1))[::-1]
    # One impostor too many: everything above its score is accepted, it and its ties are not.
    found = [
        np.count_nonzero(genuine > falling[count]) if count < len(impostors) else len(genuine)
        for count in allowed
    ]
    return {far: int(count) / len(genuine) for far, count in zip(fars, found, strict=True)}


def tar_at_nearest_far(scores: Floats, same: Bools, far: float) -> float:
    """True accept rate as the IJB tables print it: of the ROC's point with the nearest false accept rate.

    The ROC is scikit-learn's with its default `drop_intermediate`; of points equally near the one with the
    highest true accept rate counts. It may lie on either side of `far` (0..1): see `tar_at_far` for the rate
    that is kept. Source: `deepinsight/insightface:recognition/_evaluation_/ijb/ijb_11.py`,
    `mk-minchul/AdaFace:validation_mixed/insightface_ijb_helper/eval_helper.py` (`write_result`).

    >>> scores, same = np.array([0.9, 0.6, 0.3, 0.1]), np.array([True, False, True, False])
    >>> tar_at_nearest_far(scores, same, 0.4), tar_at_far(scores, same, 0.4)
    (1.0, 0.5)
    """
    return tar_at_nearest_fars(scores, same, [far])[far]


def tar_at_nearest_fars(scores: Floats, same: Bools, fars: Sequence[float]) -> dict[float, float]:
    """`tar_at_nearest_far` of every rate in `fars`, for the price of one.

    >>> scores, same = np.array([0.9, 0.6, 0.3, 0.1]), np.array([True, False, True, False])
    >>> tar_at_nearest_fars(scores, same, [0, 0.4])
    {0: 0.5, 0.4: 1.0}
    """
    genuine, impostors = _split(scores, same, fars)
    # (0, 0) is on every curve, `far` away: no point beyond twice `far` is nearer. With two impostors more
    # the last point lies beyond it, the one that thinning cannot judge without its next.
    top = _top(impostors, int(2 * max(fars) * len(impostors)) + 2)
    lowest = top.min() if len(top) < len(impostors) else -np.inf
    _, accepted, wrongly = _steps(genuine[genuine >= lowest], top)
    kept = _corners(accepted, wrongly)
    # Falling, as the peers turn it: the first of equally near points has the highest rates.
    far_of = np.append(0, wrongly[kept])[::-1] / len(impostors)
    tar_of = np.append(0, accepted[kept])[::-1] / len(genuine)
    return {far: float(tar_of[np.abs(far_of - far).argmin()]) for far in fars}


def roc(scores: Floats, same: Bools) -> Roc:
    """Every point of the ROC: one for each distinct score, ties together, none thinned out.

    >>> found = roc(np.array([0.9, 0.6, 0.3, 0.1]), np.array([True, False, True, False]))
    >>> found.far.tolist(), found.tar.tolist()
    ([0.0, 0.0, 0.5, 0.5, 1.0], [0.0, 0.5, 0.5, 1.0, 1.0])
    """
    genuine, impostors = _split(scores, same)
    thresholds, accepted, wrongly = _steps(genuine, impostors)
    return Roc(
        np.append(0, wrongly) / len(impostors),
        np.append(0, accepted) / len(genuine),
        np.append(np.asarray(np.inf, thresholds.dtype), thresholds),
    )


def roc_points(scores: Floats, same: Bools, count: int = 200) -> tuple[list[float], list[float]]:
    """(false accept rates, true accept rates) of up to `count` points of the ROC, both rising.

    For a picture with a logarithmic axis: half the points evenly spaced in the rate, half in its logarithm,
    each the one that `tar_at_far` takes; to six digits.

    >>> roc_points(np.array([0.9, 0.6, 0.3, 0.1]), np.array([True, False, True, False]))
    ([0.0, 0.0, 0.5, 1.0], [0.0, 0.5, 1.0, 1.0])
    """
    genuine, impostors = (np.sort(part) for part in _split(scores, same))
    spaced = [np.linspace(0, 1, count // 2), np.geomspace(1 / len(impostors), 1, count // 2 - 2)]
    allowed = [_allowed(far, len(impostors)) for far in np.concatenate(spaced)]
    # As in `tar_at_fars`: the best impostor that must be refused, if any must.
    refused = impostors[len(impostors) - 1 - np.unique(allowed)[:-1]]
    far, tar = (
        (len(part) - np.searchsorted(part, refused, side="right")) / len(part) for part in (impostors, genuine)
    )
    points = np.unique([(0, 0), *zip(far, tar, strict=True), (1, 1)], axis=0)
    return _rounded(points[:, 0]), _rounded(points[:, 1])


def eer(scores: Floats, same: Bools) -> float:
    """Equal error rate, 0..1: where the false accept rate is the false reject rate, 1 - TAR.

    Between two points of the ROC it is a straight line.

    >>> eer(np.array([0.9, 0.8, 0.3, 0.6, 0.2, 0.1]), np.array([True, True, True, False, False, False]))
    0.3333333333333333
    """
    curve = roc(scores, same)
    excess = curve.far + curve.tar - 1  # rises from -1 to 1
    after = int(np.argmax(excess >= 0))
    share = excess[after] / (excess[after] - excess[after - 1])
    return float(curve.far[after] + share * (curve.far[after - 1] - curve.far[after]))


def auc(scores: Floats, same: Bools) -> float:
    """Area under the ROC, 0..1: how often a genuine pair scores above an impostor, ties count half.

    The Mann-Whitney statistic, counted in whole numbers: exact.

    >>> auc(np.array([0.9, 0.6, 0.3, 0.1]), np.array([True, False, True, False]))
    0.75
    """
    genuine, impostors = _split(scores, same)
    impostors = np.sort(impostors)
    below = np.searchsorted(impostors, genuine, side="left").sum()
    not_above = np.searchsorted(impostors, genuine, side="right").sum()
    return int(below + not_above) / (2 * len(genuine) * len(impostors))


def worst_mistakes(scores: Floats, same: Bools, threshold: float, count: int = 10) -> NDArray[np.int64]:
    """(up to `count`,) numbers of the pairs on the wrong side of `threshold`, the farthest from it first.

    A pair is accepted above the threshold, as in ten-fold verification: wrong are genuine pairs at or below
    it and impostors above it. Equally wrong pairs keep their order; either kind of pairs may be missing.

    >>> worst_mistakes(np.array([0.9, 0.1, 0.3]), np.array([False, True, False]), 0.25).tolist()
    [0, 1, 2]
    """
    wrong = np.flatnonzero((scores > threshold) != same)
    distances = np.abs(scores[wrong] - threshold)
    return wrong[np.argsort(-distances, kind="stable")[:count]]


def _split(scores: Floats, same: Bools, fars: Sequence[float] = (0,)) -> tuple[Floats, Floats]:
    """Scores of the genuine pairs and of the impostors."""
    if not len(fars) or not all(0 <= far <= 1 for far in fars):
        raise ValueError(f"false accept rates {list(fars)}: some from 0 to 1 are needed")
    values, kinds = checked_pairs(scores, same, "scores")
    return values[kinds], values[~kinds]


def _allowed(far: float, impostors: int) -> int:
    """How many of the impostors a false accept rate allows; 3 of 10 are a rate of 0.3, not a little more."""
    count = min(int(far * impostors) + 1, impostors)
    while count / impostors > far:
        count -= 1
    return count


def _top(values: Floats, count: int) -> Floats:
    """The `count` highest values and all that tie with the lowest of them, in no order."""
    place = max(len(values) - count, 0)
    found: Floats = values[values >= np.partition(values, place)[place]]
    return found


def _steps(genuine: Floats, impostors: Floats) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    """(distinct scores, falling; genuine pairs that each accepts; impostors that each accepts)."""
    genuine, impostors = np.sort(genuine), np.sort(impostors)
    # A stable sort only merges the two.
    rising = np.sort(np.concatenate([genuine, impostors]), kind="stable")
    first = np.flatnonzero(np.append(True, rising[1:] != rising[:-1]))[::-1]
    thresholds = rising[first]
    accepted = len(genuine) - np.searchsorted(genuine, thresholds)
    return thresholds, accepted, len(rising) - first - accepted


def _corners(accepted: NDArray[np.int64], wrongly: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which points scikit-learn's `drop_intermediate` keeps: both ends, and where steps differ."""
    kept = np.ones(len(accepted), bool)
    if len(kept) > 2:
        kept[1:-1] = (np.diff(accepted, 2) != 0) | (np.diff(wrongly, 2) != 0)
    return kept


def _rounded(rates: NDArray[np.float64]) -> list[float]:
    return [float(f"{rate:.6g}") for rate in rates]
