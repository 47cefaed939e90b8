"""Whether a number of an image, such as its sharpness, tells which pairs go wrong: error versus discard.

Source: Grother, Tabassi, "Performance of biometric quality measures" (2007); ISO/IEC 29794-1. Pure functions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facenas.evaluation.metrics.checks import Bools, Floats
from facenas.evaluation.metrics.people import People, person_weights

_SHARES = np.arange(100) / 100  # of the curve


@dataclass(frozen=True)
class Discard:
    """What it helps to leave out the pairs of least quality.

    discarded: up to a hundred shares of pairs left out, rising; rate: of errors among the others. change: what
    leaving out the `share` of least quality adds to the rate, with its 95 % interval over resampled people;
    None when nothing near that share can be left out.
    """

    discarded: NDArray[np.float64]
    rate: NDArray[np.float64]
    share: float
    change: tuple[float, float, float] | None

    @property
    def verdict(self) -> str:
        """Of the quality: `follows` (fewer errors without the least of it), `contradicts` or `unclear`."""
        if self.change is None:
            return "unclear"
        _, low, high = self.change
        return "follows" if high < 0 else "contradicts" if low > 0 else "unclear"


def error_versus_discard(
    wrong: Bools, quality: Floats, people: People, share: float = 0.2, draws: int = 500, seed: int = 0
) -> Discard:
    """How the error rate falls as pairs of low quality are left out.

    wrong: (n,) pairs at one threshold; quality: (n,) of the worse image of each; people: (n, 2) in them. Pairs
    of equal quality are left out together, so that a share may not be reached. The interval of `change` is that
    of both rates in the same resamples of the people. Raises ValueError for no pairs.

    >>> wrong, people = np.array([True, False, False, False]), np.arange(4)[:, None].repeat(2, 1)
    >>> found = error_versus_discard(wrong, np.array([1.0, 2.0, 3.0, 4.0]), people, share=0.25)
    >>> found.rate.tolist(), found.change[0]
    ([0.25, 0.0, 0.0, 0.0], -0.25)
    """
    wrong, quality = np.asarray(wrong, bool), np.asarray(quality, np.float64)
    if not len(wrong):
        raise ValueError("there are no pairs")
    order = np.argsort(quality, kind="stable")
    starts = np.flatnonzero(np.append(True, np.diff(quality[order]) > 0))  # where a new quality begins
    reached = starts[starts <= share * len(wrong)][-1]
    # The last start of each hundredth of the pairs.
    starts = np.unique(starts[np.searchsorted(starts, _SHARES * len(wrong), side="right") - 1])
    errors = wrong.sum() - np.append(0, np.cumsum(wrong[order]))[starts]
    left = len(wrong) - starts
    kept = np.zeros(len(wrong), bool)
    kept[order[reached:]] = True
    change = _change(wrong, kept, people, draws, seed) if reached else None
    return Discard(starts / len(wrong), errors / left, float(reached / len(wrong)), change)


def rank_correlation(first: Floats, second: Floats) -> float | None:
    """Spearman's, of two values of each image; equal values share their mean rank. None where one is constant.

    >>> round(rank_correlation(np.array([1.0, 2.0, 2.0, 3.0]), np.array([10.0, 20.0, 20.0, 9.0])), 3)
    -0.333
    """
    if not min(np.ptp(first), np.ptp(second)):
        return None
    return float(np.corrcoef(_ranks(first), _ranks(second))[0, 1])


def _ranks(values: Floats) -> NDArray[np.float64]:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[places]
    return ranks


def _change(wrong: Bools, kept: Bools, people: People, draws: int, seed: int) -> tuple[float, float, float]:
    names, places = np.unique(people, return_inverse=True)
    first, second = places.reshape(-1, 2).T
    weights = person_weights(len(names), draws, seed)
    sums = np.empty((draws, 4))
    for row, one in enumerate(weights):
        weight = np.where(first == second, one[first], one[first] * one[second])
        sums[row] = weight @ wrong, weight.sum(), weight @ (wrong & kept), weight @ kept
    told = sums[(sums[:, 1] > 0) & (sums[:, 3] > 0)]
    changes = told[:, 2] / told[:, 3] - told[:, 0] / told[:, 1]
    low, high = np.percentile(changes, [2.5, 97.5]) if len(changes) else (0.0, 0.0)
    return float(wrong[kept].mean() - wrong.mean()), float(low), float(high)
