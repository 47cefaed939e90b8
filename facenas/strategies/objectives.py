"""What a multi-objective search weighs: named values of a trained candidate, all to be made small."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facenas.strategies.base import Outcome

Points = NDArray[np.float64]  # (candidates, objectives)


@dataclass(frozen=True)
class Objective:
    """`of(architecture, outcome)`, to be minimised; no candidate above `limit` is accepted.

    scale: what counts as a whole in weighted sums, and the far end of the box for hypervolumes; counted: known
    from the architecture alone, so that one above the limit is refused before anything is trained.
    """

    name: str
    of: Callable[[Any, Outcome], float]
    scale: float
    limit: float = float("inf")
    counted: bool = True

    def allows(self, architecture: Any) -> bool:
        """Whether a counted value keeps the limit; true for what only training can tell."""
        return not self.counted or self.of(architecture, Outcome(0.0)) <= self.limit


# The limit keeps failed candidates, whose accuracy is 0, off the front.
ERROR = Objective(
    "error", lambda _, outcome: 100 - outcome.accuracy, 100.0, float(np.nextafter(100, 0)), False
)


def points_of(trained: Sequence[tuple[Any, Outcome]], objectives: Sequence[Objective]) -> Points:
    """(candidates, objectives) float64 of trained architectures."""
    values = [
        [o.of(architecture, outcome) for o in objectives] for architecture, outcome in trained
    ]
    return np.array(values, np.float64).reshape(len(trained), len(objectives))


def non_dominated(points: Points) -> list[int]:
    """Rows that no other row beats, from the smallest first column; of equal rows the first alone."""
    front: list[int] = []
    for row in np.lexsort(points.T[::-1]).tolist():  # whatever beats a row comes before it
        if not any((points[kept] <= points[row]).all() for kept in front):
            front.append(row)
    return front


def hypervolume(points: Points, reference: Sequence[float]) -> float:
    """Share of the box from 0 to `reference` that the points dominate, 0..1."""
    from pymoo.indicators.hv import HV  # takes half a second to import

    inside = points[(points < np.asarray(reference)).all(axis=1)]
    if not len(inside):
        return 0.0
    return float(HV(ref_point=np.ones(len(reference)))(inside / np.asarray(reference)))
