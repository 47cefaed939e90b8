"""What goes through a network: ranges of its tensors, from a few hundred images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Feed = dict[str, NDArray[Any]]  # what a session is given of a few images
Observe = Callable[[Sequence[str]], Iterable[dict[str, Floats]]]  # tensors by name, a few images at a time

_BINS = 8192


@dataclass
class Histogram:
    """Counts of values in 8,192 bins around 0, joined in pairs when a value lies beyond the last one."""

    width: float = 0.0
    lowest: float = 0.0
    highest: float = 0.0
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_BINS, np.int64))

    def add(self, values: Floats) -> None:
        """Counts all of them."""
        low, high = float(values.min()), float(values.max())
        self.lowest, self.highest = min(self.lowest, low), max(self.highest, high)
        peak = max(-low, high)
        if not self.width and peak > 0:
            self.width = 2.001 * peak / _BINS
        while self.width and peak >= self.width * _BINS / 2:
            joined = self.counts.reshape(-1, 2).sum(1)
            self.counts = np.pad(joined, _BINS // 4)
            self.width *= 2
        places = (values.ravel() * np.float32(1 / (self.width or 1.0)) + np.float32(_BINS / 2)).astype(np.int32)
        self.counts += np.bincount(np.clip(places, 0, _BINS - 1), minlength=_BINS)

    def range(self, percentile: float) -> tuple[float, float]:
        """What holds so many of 100 values, as many being left out on either side; 0 is always in it."""
        cut = (1 - percentile / 100) / 2
        share = self.counts.cumsum() / max(1, self.counts.sum())
        edges = (np.arange(_BINS + 1) - _BINS / 2) * self.width
        low = edges[int(np.searchsorted(share, cut, side="right"))] if cut else self.lowest
        high = edges[min(int(np.searchsorted(share, 1 - cut)) + 1, _BINS)] if cut else self.highest
        return max(self.lowest, min(0.0, float(low))), min(self.highest, max(0.0, float(high)))


def histograms(observe: Observe, names: Sequence[str]) -> dict[str, Histogram]:
    """Of every tensor."""
    found = {name: Histogram() for name in names}
    for tensors in observe(names):
        for name, values in tensors.items():
            found[name].add(values)
    return found


def channel_peaks(observe: Observe, names: Sequence[str]) -> dict[str, Floats]:
    """(channels,) of every tensor (n, channels, h, w): the largest |value| of an image, mean over images."""
    return _mean(observe, names, lambda values: np.abs(values).max(axis=(2, 3)))


def channel_means(observe: Observe, names: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """(channels,) of every tensor (n, channels, ...): the mean over images and places."""
    return _mean(observe, names, lambda values: values.reshape(*values.shape[:2], -1).mean(2, np.float64))


def _mean(observe: Observe, names: Sequence[str], measure: Callable[[Floats], Any]) -> dict[str, Any]:
    sums: dict[str, Any] = dict.fromkeys(names, 0.0)
    images = 0
    for tensors in observe(names) if names else ():  # a session asked for nothing would give all outputs
        images += len(next(iter(tensors.values()), ()))
        for name, values in tensors.items():
            sums[name] = sums[name] + measure(values).sum(0)
    return {name: total / max(1, images) for name, total in sums.items()}
