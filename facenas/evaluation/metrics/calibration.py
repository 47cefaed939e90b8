"""From a score to the probability that two images show one person, and how far such a number can be trusted.

Everywhere: scores (n,), same (n,) True for genuine pairs. Both kinds of pairs weigh the same, whatever their
numbers: a probability holds for a case where "one person" is as likely as not. For another prior, add its
log-odds to those of the probability. Pure functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from facenas.evaluation.metrics.checks import Bools, Floats, checked_pairs
from facenas.evaluation.metrics.people import People

Method = Literal["logistic", "beta", "isotonic"]
METHODS: tuple[Method, ...] = ("logistic", "beta", "isotonic")
Probability = Callable[[Floats], NDArray[np.float64]]  # of scores (n,)

_STEPS, _ENOUGH = 100, 1e-10  # of Newton's method
_LEAST = 1e-6  # kinds that lie apart would have a slope without end
_EDGE = 1e-6  # probabilities are kept within it of 0 and 1: the logarithm of none is infinite


@dataclass(frozen=True)
class Reliability:
    """Pairs by their probability in bins of equal width: means of it, shares that are genuine, (bins,) each.

    weight: the share of all pairs in each bin, both kinds counting half; empty bins are left out. error: the
    expected calibration error, the mean difference of the two, 0..1.
    """

    probability: NDArray[np.float64]
    genuine: NDArray[np.float64]
    weight: NDArray[np.float64]
    error: float


def fit_logistic(scores: Floats, same: Bools) -> tuple[float, float]:
    """(slope, offset) of P = 1 / (1 + exp(-slope * score - offset)), of most likelihood: Platt scaling.

    Kinds that lie wholly apart have a slope without end: a trace of ridge keeps it finite.

    >>> slope, offset = fit_logistic(np.array([0.9, 0.4, 0.6, 0.1]), np.array([True, True, False, False]))
    >>> slope > 0, round(-offset / slope, 3)
    (True, 0.5)
    """
    slope, offset = _newton(np.asarray(scores, np.float64)[:, None], *checked_pairs(scores, same, "scores"))
    return float(slope), float(offset)


def fit_beta(scores: Floats, same: Bools) -> tuple[float, float, float]:
    """(a, b, c) of log-odds a * log(s) - b * log(1 - s) + c of s = (1 + score) / 2, a and b not negative.

    Source: Kull, Silva Filho, Flach, "Beta calibration" (AISTATS 2017).

    >>> a, b, c = fit_beta(np.array([0.9, 0.4, 0.6, 0.1]), np.array([True, True, False, False]))
    >>> a >= 0, b >= 0
    (True, True)
    """
    values, kinds = checked_pairs(scores, same, "scores")
    features = _log_shares(values)
    a, b, c = _newton(features, values, kinds)
    if a < 0 or b < 0:  # the paper's remedy: without that one
        kept = 1 if a < b else 0
        rest, c = _newton(features[:, [kept]], values, kinds)
        return (0.0, float(rest), float(c)) if kept else (float(rest), 0.0, float(c))
    return float(a), float(b), float(c)


def fit(method: Method, scores: Floats, same: Bools) -> Probability:
    """The function from scores to probabilities that `method` finds; isotonic: steps, straight between them.

    >>> chance = fit("isotonic", np.array([0.9, 0.4, 0.6, 0.1]), np.array([True, True, False, False]))
    >>> chance(np.array([0.0, 0.5, 1.0])).round(3).tolist()
    [0.0, 0.5, 1.0]
    """
    if method == "logistic":
        slope, offset = fit_logistic(scores, same)
        return lambda values: _sigmoid(slope * np.asarray(values, np.float64) + offset)
    if method == "beta":
        a, b, c = fit_beta(scores, same)
        return lambda values: _sigmoid(_log_shares(np.asarray(values)) @ np.array([a, b]) + c)
    places, heights = fit_isotonic(scores, same)
    return lambda values: np.clip(np.interp(values, places, heights), _EDGE, 1 - _EDGE)


def fit_isotonic(scores: Floats, same: Bools) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(scores, probabilities) at the ends of the steps of the best rising function: pool adjacent violators.

    >>> places, heights = fit_isotonic(np.array([0.9, 0.4, 0.6, 0.1]), np.array([True, True, False, False]))
    >>> places.tolist(), heights.tolist()
    ([0.1, 0.4, 0.6, 0.9], [0.0, 0.5, 0.5, 1.0])
    """
    from scipy.optimize import isotonic_regression

    values, kinds = checked_pairs(scores, same, "scores")
    places, inverse = np.unique(values, return_inverse=True)
    weights = np.bincount(inverse, _balanced(kinds))
    means = np.bincount(inverse, _balanced(kinds) * kinds) / weights
    heights = isotonic_regression(means, weights=weights).x
    turns = np.append(True, np.diff(heights) != 0)
    ends = turns | np.append(turns[1:], True)
    return places[ends].astype(np.float64), heights[ends]


def cross_fitted(
    method: Method, scores: Floats, same: Bools, people: People, folds: int = 5, seed: int = 0
) -> NDArray[np.float64]:
    """(n,) probabilities, each by a function that was fitted on pairs without either of its people.

    The people are dealt to `folds`; for a pair of two folds, all pairs that touch either are left out. Raises
    ValueError where too few people are left for one.

    >>> people = np.array([[one, other] for one in range(12) for other in range(one, 12)])
    >>> same = people[:, 0] == people[:, 1]
    >>> cross_fitted("logistic", same * 0.8, same, people)[:2].round(2).tolist()
    [1.0, 0.0]
    """
    values, kinds = checked_pairs(scores, same, "scores")
    names, places = np.unique(people, return_inverse=True)
    dealt = np.random.default_rng(seed).permutation(len(names)) % folds
    first, second = np.sort(dealt[places.reshape(-1, 2)], axis=1).T
    found = np.empty(len(values))
    for one, other in sorted(set(zip(first.tolist(), second.tolist(), strict=True))):
        apart = ~np.isin(first, (one, other)) & ~np.isin(second, (one, other))
        if not (kinds[apart].any() and (~kinds[apart]).any()):
            raise ValueError(f"{len(names)} people are too few to calibrate on some and test on others")
        judged = (first == one) & (second == other)
        found[judged] = fit(method, values[apart], kinds[apart])(values[judged])
    return found


def cllr(probabilities: Floats, same: Bools) -> float:
    """Cost of the log-likelihood ratio, in bits: 0 for a perfect judge, 1 for one that says 1/2 of every pair.

    Source: Bruemmer, du Preez, "Application-independent evaluation of speaker detection" (2006).

    >>> cllr(np.array([0.5, 0.5]), np.array([True, False]))
    1.0
    """
    chance, kinds = checked_pairs(probabilities, same, "probabilities")
    chance = np.clip(chance, _EDGE, 1 - _EDGE)
    return float(-(np.log2(chance[kinds]).mean() + np.log2(1 - chance[~kinds]).mean()) / 2)


def reliability(probabilities: Floats, same: Bools, bins: int = 10) -> Reliability:
    """How often pairs of a probability are genuine; in bins of equal width, the last with its upper end.

    >>> found = reliability(np.array([0.9, 0.8, 0.2, 0.1]), np.array([True, True, False, False]), bins=2)
    >>> found.genuine.tolist(), round(found.error, 3)
    ([0.0, 1.0], 0.15)
    """
    chance, kinds = checked_pairs(probabilities, same, "probabilities")
    weights = _balanced(kinds)
    place = np.minimum((chance * bins).astype(int), bins - 1)
    sums = [np.bincount(place, weights * of, bins) for of in (np.ones(len(kinds)), chance, kinds)]
    weight, mean, genuine = (one[sums[0] > 0] for one in sums)
    return Reliability(
        mean / weight, genuine / weight, weight / weight.sum(), float(abs(mean - genuine).sum() / weight.sum())
    )


def _balanced(same: Bools) -> NDArray[np.float64]:
    """(n,) weights, half of the whole for either kind."""
    found: NDArray[np.float64] = np.where(same, 0.5 / same.sum(), 0.5 / (~same).sum())
    return found


def _log_shares(scores: Floats) -> NDArray[np.float64]:
    share = np.clip((1 + np.asarray(scores, np.float64)) / 2, _EDGE, 1 - _EDGE)
    return np.stack([np.log(share), -np.log1p(-share)], axis=1)


def _sigmoid(log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = 1 / (1 + np.exp(-np.clip(log_odds, -30, 30)))
    return found


def _newton(features: NDArray[np.float64], scores: Floats, same: Bools) -> Iterator[np.float64]:
    """Coefficients of the columns of `features` (n, k) and the offset, of most weighed likelihood."""
    columns = np.column_stack([features, np.ones(len(scores))])
    weights = _balanced(same)
    ridge = np.diag([_LEAST] * features.shape[1] + [0.0])
    found = np.zeros(columns.shape[1])
    loss = np.inf
    for _ in range(_STEPS):
        chance = _sigmoid(columns @ found)
        slope = columns.T @ (weights * (chance - same)) + ridge @ found
        curve = (columns * (weights * np.maximum(chance * (1 - chance), 1e-12))[:, None]).T @ columns + ridge
        step, size = np.linalg.solve(curve, slope), 1.0
        while (after := _loss(columns, found - size * step, weights, same, ridge)) > loss and size > 1e-6:
            size /= 2
        found, before, loss = found - size * step, loss, after
        if before - after < _ENOUGH:
            break
    return iter(found)


def _loss(
    columns: NDArray[np.float64],
    found: NDArray[np.float64],
    weights: NDArray[np.float64],
    same: Bools,
    ridge: NDArray[np.float64],
) -> float:
    signed = np.where(same, 1, -1) * (columns @ found)
    return float(weights @ np.logaddexp(0, -signed) + found @ ridge @ found / 2)
