"""A posterior over curves that saturate, or fall: what few noisy trainings tell of accuracy against size.

accuracy(x) = level - loss(x) + noise, with losses on a grid of shapes and sizes, the noise on a grid too, and
the level integrated out. The priors are about twice as wide as what the five recorded `tiny` searches scatter
(tests/recorded_searches).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

NEGLIGIBLE = 1e-5  # cells of less weight are left out
DRAWS = 48  # results that are imagined for a further training
# A single training scatters, on the same images, by so many binomial standard deviations: 0.5 to 1.2 recorded.
NOISES = np.geomspace(0.25, 4, 9)
NOISE_PRIOR = (0.7, 0.6)  # median, and standard deviation of the logarithm, as in all priors
# For each depth of the shallowest, accuracy may fall by this share of the error; the recorded do not fall.
FALLS, FALL_WEIGHTS = np.array([0, 0.05, 0.2, 1.0]), np.array([0.8, 0.07, 0.07, 0.06])


def log_normal(values: Array, prior: tuple[float, float]) -> Array:
    """Density of a log-normal prior (median, deviation of the logarithm) at values spaced by equal factors."""
    density = np.exp(-0.5 * (np.log(values / prior[0]) / prior[1]) ** 2)
    shares: Array = density / density.sum()
    return shares


@dataclass(frozen=True)
class Scale:
    """Points that curves and noise are measured by.

    error: wrong at the end that a curve is drawn from. noise: binomial standard deviation of an accuracy.
    image: what one image counts, the least error.
    """

    error: float
    noise: float
    image: float


@dataclass
class Curves:
    """Curves over places in ascending order of size, each with its weight.

    losses: (c, n) points that curve c lies below its level at place i. weights: (c,) prior. prices: (n,)
    share of the errors that a place has to save, over the first one, for its size. open: (n,) places that may
    be chosen.
    """

    losses: Array
    weights: Array
    scale: Scale
    prices: Array
    _seen: list[tuple[int, float, float]] = field(default_factory=list)  # place, accuracy, its own variance

    def __post_init__(self) -> None:
        self._sigmas = self.scale.noise * NOISES
        self.open = np.ones(len(self.prices), bool)
        self._update()

    def see(self, place: int, accuracy: float, deviation: float | None = None) -> None:
        """A training at a place; deviation: of what is no training, but known to so many points."""
        self._seen.append((place, accuracy, -1.0 if deviation is None else max(deviation, 1e-3) ** 2))
        self._update()

    def close(self, place: int, larger: bool) -> None:
        """Takes out a place; larger: and all beyond it."""
        self.open[place : None if larger else place + 1] = False
        self._update()

    def misses(self) -> Array:
        """(n,) points by which each place is expected to miss the best open one, prices taken off."""
        missed: Array = self._weights @ self._misses
        return missed

    def choice(self) -> int:
        """The open place that misses least; one there must be."""
        return int(np.where(self.open, self.misses(), np.inf).argmin())

    def mean(self) -> Array:
        """(n,) expected accuracy, without noise, at most 100."""
        mean: Array = np.minimum(self._mean, 100)
        return mean

    def deviation(self) -> Array:
        """(n,) standard deviation of the accuracy, without noise."""
        spread = self._weights @ (self._accuracies - self._mean) ** 2
        deviation: Array = np.sqrt(spread + self._weights @ self._level_variance)
        return deviation

    def worth(self, place: int) -> float:
        """Points by which one more training at a place is expected to lower the miss of the choice."""
        weights, means = self._weights, self._accuracies[:, place]
        deviations = np.sqrt(self._level_variance + self._sigma**2)
        # Results at even quantiles of the mixture: each from the cell it falls in, low and high ones in turn.
        spots = (np.arange(DRAWS) + 0.5) / DRAWS
        cells = np.searchsorted(np.cumsum(weights)[:-1], spots)
        imagined = means[cells] + deviations[cells] * _NORMAL[_ORDER]
        logs = -0.5 * ((imagined[:, None] - means) / deviations) ** 2 - np.log(deviations)
        after = weights * np.exp(logs - logs.max(axis=1, keepdims=True))
        after /= after.sum(axis=1, keepdims=True)
        misses = after @ self._misses[:, self.open]
        return float(misses.mean(axis=0).min() - misses.min(axis=1).mean())

    def _update(self) -> None:
        """Weights and levels of all cells (curve, noise) that are not negligible, and what places miss."""
        curves, noises = len(self.weights), len(self._sigmas)
        curve, sigma = np.repeat(np.arange(curves), noises), np.tile(self._sigmas, curves)
        prior = np.log(np.outer(self.weights, log_normal(NOISES, NOISE_PRIOR)).ravel() + 1e-300)
        level, variance = np.zeros(len(curve)), np.zeros(len(curve))
        places = [place for place, _, _ in self._seen]
        if self._seen:
            own = np.array([own for _, _, own in self._seen])
            levels = np.array([accuracy for _, accuracy, _ in self._seen]) + self.losses[curve][:, places]
            precision = 1 / np.where(own < 0, sigma[:, None] ** 2, own)
            variance = 1 / precision.sum(axis=1)
            level = variance * (precision * levels).sum(axis=1)
            squares = (precision * (levels - level[:, None]) ** 2).sum(axis=1)
            prior += 0.5 * (np.log(precision).sum(axis=1) + np.log(variance) - squares)
        weights = np.exp(prior - prior.max())
        kept = weights > NEGLIGIBLE
        self._weights = weights[kept] / weights[kept].sum()
        self._sigma = sigma[kept]
        self._level_variance = variance[kept]
        self._accuracies = level[kept, None] - self.losses[curve[kept]]
        self._mean = self._weights @ self._accuracies
        error = max(100 - self._mean[places].max(initial=0.0), self.scale.image)
        costs = error * self.prices - np.minimum(self._accuracies, 100)
        self._misses = costs - costs[:, self.open].min(axis=1, keepdims=True, initial=np.inf)


_NORMAL = np.array([NormalDist().inv_cdf((i + 0.5) / DRAWS) for i in range(DRAWS)])
_ORDER = np.arange(DRAWS) * 19 % DRAWS  # 19 and 48 have no common factor: every quantile once, well mixed


def depth_curves(depths: Array, scale: Scale, prices: Array) -> Curves:
    """Loss b exp(-x / l) + c x at x = (d - d0) / d0, d0 the shallowest, where `scale.error` points are wrong.

    Of the recorded searches, l is 0.28 to 0.88, and b 0.08 to 0.39 of the error; a power of the depth fits no
    better. c, in shares of the error, is of networks that are too deep to train.
    """
    lengths, sizes = np.geomspace(0.15, 3, 11), np.geomspace(0.01, 1, 13)
    beyond = (depths - depths[0]) / depths[0]
    rises = sizes[:, None] * np.exp(-beyond / lengths[:, None, None])
    losses = scale.error * (rises[:, :, None] + FALLS[:, None] * beyond)
    weights = np.outer(log_normal(lengths, (0.45, 0.5)), log_normal(sizes, (0.2, 0.8)))
    return _curves(losses, np.multiply.outer(weights, FALL_WEIGHTS), scale, prices)


def width_curves(widths: Array, scale: Scale, prices: Array) -> Curves:
    """Loss b ((w / w_max)^-p - 1) over widths up to the widest, where `scale.error` points are wrong.

    What halving the width costs, b (2^p - 1), is 0.03 to 0.5 of the error: by growth at width 128 and at 64 in
    the recorded searches.
    """
    powers, sizes = np.array([0.5, 1.0, 2.0, 3.0]), np.geomspace(0.01, 1, 13)
    shapes = ((widths / widths[-1]) ** -powers[:, None] - 1) / (2 ** powers[:, None] - 1)
    weights = np.outer(np.full(4, 0.25), log_normal(sizes, (0.17, 0.9)))
    return _curves(scale.error * sizes[:, None] * shapes[:, None, :], weights, scale, prices)


def _curves(losses: Array, weights: Array, scale: Scale, prices: Array) -> Curves:
    return Curves(losses.reshape(-1, losses.shape[-1]), weights.ravel(), scale, prices)
