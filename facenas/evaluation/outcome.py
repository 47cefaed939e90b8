"""What an evaluation found on one bench: figures for files, arrays for pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facenas.evaluation.benches import BenchFacts


@dataclass(frozen=True, eq=False)
class Mistake:
    """A pair that was judged wrongly: its cosine, whether it is one person, its (112, 112, 3) uint8 images."""

    score: float
    same: bool
    names: tuple[str, str]
    images: tuple[NDArray[np.uint8], NDArray[np.uint8]]


@dataclass(frozen=True, eq=False)
class Outcome:
    """`result`: what --json prints; scores (n,) float64 and same (n,) bool of pairs; cmc (k,) of rankings."""

    facts: BenchFacts
    result: dict[str, Any]
    scores: NDArray[np.float64] | None = None
    same: NDArray[np.bool_] | None = None
    cmc: NDArray[np.float64] | None = None
    mistakes: list[Mistake] = field(default_factory=list)
