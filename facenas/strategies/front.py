"""What all searches for a Pareto front share: who was trained, who is on the front, what was found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from facenas.spaces.base import fingerprint
from facenas.strategies.base import Candidate, Known, Outcome
from facenas.strategies.genes import GeneSpace
from facenas.strategies.objectives import Objective, non_dominated, points_of
from facenas.strategies.settings import MultiObjectiveConfig


class FrontSearch:
    """Base of the strategies; the first of `objectives` is the error, which the front is ordered by.

    `waiting`: architectures asked for and not yet told. No architecture is asked for twice, and none that
    breaks a counted limit is asked for at all.
    """

    def __init__(
        self, space: GeneSpace, objectives: Sequence[Objective], settings: MultiObjectiveConfig
    ) -> None:
        self.space, self.objectives, self.settings = space, tuple(objectives), settings
        self.epochs = 0 if settings.supernet else settings.epochs
        self.generation = 0
        self.trained: list[tuple[Any, Outcome]] = []
        self.waiting: list[Any] = []
        self.reason = ""
        self._asked: set[str] = set()
        self._limits = np.array([objective.limit for objective in self.objectives])
        self._best = np.empty((0, len(self.objectives)))  # values of the front

    def ask(self) -> list[Candidate]:
        """All that wait, in order; empty when the search is over."""
        phase = f"generation {self.generation}"
        return [Candidate(a, self.epochs, phase, self.reason) for a in self.waiting]

    def tell(self, outcome: Outcome) -> str:
        """The outcome of the first that waits; says where it stands among those so far."""
        if not self.waiting:
            raise RuntimeError("the search is over: nothing was asked for")
        architecture = self.waiting.pop(0)
        decision = self._judge([o.of(architecture, outcome) for o in self.objectives])
        self.trained.append((architecture, outcome))
        if not self.waiting:
            self.refill()
        return decision

    def refill(self) -> None:
        """Everybody asked for is told: says by `want` who comes next, if anybody does."""
        raise NotImplementedError

    def want(self, reason: str, architectures: Sequence[Any]) -> None:
        """Asks for these, the next generation."""
        self.generation, self.reason = self.generation + 1, reason
        self.waiting = list(architectures)
        self._asked |= {fingerprint(architecture.to_json()) for architecture in architectures}

    def fresh(self, architecture: Any) -> bool:
        """Whether it was never asked for, and keeps all limits that can be counted."""
        if fingerprint(architecture.to_json()) in self._asked:
            return False
        return all(objective.allows(architecture) for objective in self.objectives)

    def look_ahead(self, count: int, known: Known) -> list[Candidate]:
        """Nothing: all that is sure is asked for already, and what follows depends on all of it."""
        return []

    def front(self) -> list[int]:
        """Numbers of the trained candidates within all limits that no other beats, the lowest error first."""
        points = points_of(self.trained, self.objectives)
        allowed = np.flatnonzero((points <= self._limits).all(axis=1))
        return [int(allowed[row]) for row in non_dominated(points[allowed])]

    def result(self) -> dict[str, Any]:
        """`front`: its members with their trial number as `id`; the most accurate also as `architecture`."""
        points = points_of(self.trained, self.objectives)
        names = [objective.name for objective in self.objectives]
        front = [
            {
                "id": number,
                "accuracy": self.trained[number][1].accuracy,
                **dict(zip(names, points[number].tolist(), strict=True)),
                "architecture": self.trained[number][0].to_json(),
            }
            for number in self.front()
        ]
        best = front[0] if front else {"architecture": None, "accuracy": 0.0}
        return {
            "architecture": best["architecture"],
            "accuracy": best["accuracy"],
            "objectives": names,
            "front": front,
        }

    def _judge(self, values: list[float]) -> str:
        """Where a candidate stands among those before it; the front so far takes it up."""
        point = np.array(values)
        if (point > self._limits).any():
            return "above a limit"
        if (self._best <= point).all(axis=1).any():
            return "dominated"
        beaten = (point <= self._best).all(axis=1)
        self._best = np.vstack([self._best[~beaten], point])
        return "on the front"
