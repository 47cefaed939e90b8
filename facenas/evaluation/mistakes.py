"""Which pairs a network judges most wrongly: what a person wants to look at first."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from facenas.evaluation.arrays import Bools, Floats


def worst_mistakes(
    scores: Floats, same: Bools, threshold: float, count: int = 10
) -> NDArray[np.int64]:
    """(up to `count`,) numbers of the pairs on the wrong side of `threshold`, the farthest from it first.

    scores: (n,) similarities, higher = more alike; same: (n,) True for genuine pairs. A pair is accepted
    above the threshold, as in ten-fold verification: wrong are genuine pairs at or below it and impostors
    above it. Equally wrong pairs keep their order.
    """
    wrong = np.flatnonzero((scores > threshold) != same)
    distances = np.abs(scores[wrong] - threshold)
    return wrong[np.argsort(-distances, kind="stable")[:count]]
