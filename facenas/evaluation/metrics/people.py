"""Error rates of scored pairs of people: how sure they are, when one person takes part in many pairs.

Everywhere: people (n, 2) int64, whose the two images of a pair are; a pair is genuine where they are equal.
Pairs that share a person are not independent, so intervals count people, not pairs. Pure functions.

Source of the intervals: Fogliato, Patil, Perona, "Confidence Intervals for Error Rates in 1:1 Matching Tasks"
(IJCV 2024): Wilson's with the variance of pairs that share people. Their coverage, beside that of bootstraps,
is in docs/own-people.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facenas.evaluation.metrics.checks import Bools, Floats, checked_pairs

People = NDArray[np.int64]

Z = 1.959963984540054  # of a 95 % interval
RULE_OF_THREE = 3.0  # no error among n pairs: the rate is below 3 / n, with 95 % confidence


@dataclass(frozen=True)
class Rate:
    """A share of pairs that are judged wrongly, 0..1, with its 95 % interval.

    people: how many take part; effective: how many independent pairs would tell as much.
    """

    value: float
    low: float
    high: float
    errors: int
    pairs: int
    people: int
    effective: float


@dataclass(frozen=True)
class OperatingPoint:
    """The lowest threshold (a score above it is accepted) that keeps a wanted FMR, and the FNMR there.

    fnmr's interval knows that the threshold was chosen on the same pairs. carried: whether so many pairs of
    different people can show such an FMR at all: at least 3 / FMR.
    """

    wanted: float
    threshold: float
    fmr: Rate
    fnmr: Rate
    carried: bool


def error_rate(wrong: Bools, people: People) -> Rate:
    """The share of `wrong` (n,) pairs, all genuine or all impostors.

    Two pairs that share a person vary together (the variance is of a U-statistic, "dyadic"); where they seem
    to vary less than independent ones, they count as such. Without an error each person, or each two, counts
    once. Raises ValueError for no pairs.

    >>> of_two = np.array([[0, 0]] * 4 + [[1, 1]] * 4)  # who is wrong once is so each time
    >>> found = error_rate(np.arange(8) < 4, of_two)
    >>> found.value, found.errors, found.people, found.effective
    (0.5, 4, 2, 1.0)
    """
    wrong, people = np.asarray(wrong, bool), np.asarray(people, np.int64)
    if not len(wrong):
        raise ValueError("there are no pairs")
    value, names = float(wrong.mean()), np.unique(people)
    most = len(wrong) if 0 < value < 1 else distinct(people)
    return _rate(wrong, people, len(names), variance(wrong, people), most)


def variance(wrong: Bools, people: People) -> float:
    """Of the share of `wrong` pairs (n,), by sums of its deviations over the pairs that share people.

    Source: Fogliato et al., "plug-in"; Aronow, Samii, Assenova, "Cluster-robust variance estimation for dyadic
    data" (2015), equation 3, with the correction people / (people - 1).

    >>> variance(np.array([True, False]), np.array([[0, 0], [1, 1]]))
    0.25
    """
    names, places = np.unique(people, return_inverse=True)
    first, second = places.reshape(-1, 2).T
    deviation = wrong - np.mean(wrong)
    of_one = np.bincount(first, deviation, len(names))
    two = first != second
    of_one += np.bincount(second[two], deviation[two], len(names))
    # Pairs of the same two people were counted at both of them.
    keys = np.minimum(first, second)[two] * len(names) + np.maximum(first, second)[two]
    of_two = np.bincount(np.unique(keys, return_inverse=True)[1], deviation[two])
    total = max(float((of_one**2).sum() - (of_two**2).sum()), 0.0)
    return total / len(wrong) ** 2 * len(names) / max(len(names) - 1, 1)


def distinct(people: People) -> int:
    """How many different people, or two of them, there are among the pairs.

    >>> distinct(np.array([[0, 1], [1, 0], [1, 2]]))
    2
    """
    return len(np.unique(np.sort(people, axis=1), axis=0))


def wilson(value: float, count: float) -> tuple[float, float]:
    """The 95 % interval of a share among `count` independent pairs, which need not be whole.

    >>> tuple(round(end, 4) for end in wilson(0.0, 100))
    (0.0, 0.037)
    """
    room = Z * Z / count
    middle, half = value + room / 2, Z * np.sqrt((value * (1 - value) + room / 4) / count)
    low, high = (middle - half) / (1 + room), (middle + half) / (1 + room)
    return (0.0 if value == 0 else max(0.0, float(low))), (1.0 if value == 1 else min(1.0, float(high)))


def operating_points(
    scores: Floats, same: Bools, people: People, fmrs: Sequence[float], draws: int = 300, seed: int = 0
) -> list[OperatingPoint]:
    """For each wanted FMR its threshold and the FNMR there; resamples of the people tell how sure that is.

    In each of `draws` resamples a person comes as often as drawn with replacement (a pair as often as the
    product), the threshold is chosen anew, and the variance of its FNMR is that of Wilson's interval. Raises
    ValueError as `checked_pairs` does.

    >>> scores, same = np.array([0.9, 0.8, 0.1, 0.2, 0.3]), np.array([True, True, False, False, False])
    >>> people = np.array([[0, 0], [1, 1], [0, 1], [0, 2], [1, 2]])
    >>> (point,) = operating_points(scores, same, people, [0.4])
    >>> point.threshold, round(point.fmr.value, 3), point.fnmr.value, point.carried
    (0.2, 0.333, 0.0, False)
    """
    scores, same = checked_pairs(scores, same, "scores")
    genuine, impostors = scores[same], scores[~same]
    order = np.argsort(-impostors, kind="stable")
    ranked = impostors[order]
    ours, others = people[same], people[~same]
    carried = distinct(others)
    found = []
    spread = _resampled(genuine, ours, ranked, others[order], fmrs, draws, seed)
    for wanted, fnmrs in zip(fmrs, spread, strict=True):
        threshold = _threshold(ranked, np.arange(1, len(ranked) + 1) / len(ranked), wanted)
        rejected = genuine <= threshold
        value = float(rejected.mean())
        most = len(rejected) if 0 < value < 1 else distinct(ours)
        fixed = variance(rejected, ours)
        fnmr = _rate(rejected, ours, len(np.unique(ours)), max(float(fnmrs.var()), fixed), most)
        fmr = error_rate(impostors > threshold, others)
        found.append(OperatingPoint(wanted, threshold, fmr, fnmr, carried * wanted >= RULE_OF_THREE))
    return found


def person_weights(count: int, draws: int, seed: int) -> NDArray[np.float64]:
    """(draws, count) how often each of `count` people comes in each resample of as many.

    >>> person_weights(3, 2, seed=0).sum(axis=1).tolist()
    [3.0, 3.0]
    """
    rng = np.random.default_rng(seed)
    return rng.multinomial(count, np.full(count, 1 / count), size=draws).astype(np.float64)


def _resampled(
    genuine: Floats,
    ours: People,
    ranked: Floats,
    others: People,
    fmrs: Sequence[float],
    draws: int,
    seed: int,
) -> NDArray[np.float64]:
    """(fmrs, draws) FNMRs at thresholds chosen anew; `ranked` scores of impostors fall."""
    names, places = np.unique(np.concatenate([ours, others]), return_inverse=True)
    places = places.reshape(-1, 2)
    own, (left, right) = places[: len(ours), 0], places[len(ours) :].T
    found = []
    for one in person_weights(len(names), draws, seed):
        share = np.cumsum(one[left] * one[right])
        if not share[-1] or not one[own].any():  # nobody was drawn of whom there are pairs
            continue
        thresholds = np.array([_threshold(ranked, share / share[-1], wanted) for wanted in fmrs])
        found.append(one[own] @ (genuine[:, None] <= thresholds) / one[own].sum())
    return np.array(found or [np.zeros(len(fmrs))]).T


def _threshold(ranked: Floats, share: NDArray[np.float64], wanted: float) -> float:
    """The highest of falling scores that must be refused; `share` are accepted up to and with each."""
    refused = int(np.searchsorted(share, wanted * (1 + 1e-12), side="right"))  # 3 of 10 are 0.3
    return float(ranked[min(refused, len(ranked) - 1)])


def _rate(wrong: Bools, people: People, names: int, varied: float, most: int) -> Rate:
    value, effective = float(wrong.mean()), float(most)
    if 0 < value < 1 and varied > 0:
        effective = min(effective, value * (1 - value) / varied)
    low, high = wilson(value, effective)
    return Rate(value, low, high, int(wrong.sum()), len(wrong), names, effective)
