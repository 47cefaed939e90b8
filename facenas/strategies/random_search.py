"""Random search: the yardstick of every cleverer one."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from facenas.spaces.base import fingerprint
from facenas.strategies.front import FrontSearch
from facenas.strategies.genes import TRIES, GeneSpace
from facenas.strategies.objectives import Objective
from facenas.strategies.settings import MultiObjectiveConfig


class RandomSearch(FrontSearch):
    """Random members of the space, all different and within the limits, in generations of equal size."""

    def __init__(
        self,
        space: GeneSpace,
        objectives: Sequence[Objective],
        settings: MultiObjectiveConfig,
        seed: int,
    ) -> None:
        super().__init__(space, objectives, settings)
        self._rng = random.Random(seed)
        self.refill()

    def refill(self) -> None:
        """The next generation owes nothing to those before it."""
        if self.generation == self.settings.generations:
            return
        drawn: dict[str, Any] = {}
        for _ in range(TRIES * self.settings.population):
            architecture = self.space.sample(self._rng)
            if self.fresh(architecture):
                drawn.setdefault(fingerprint(architecture.to_json()), architecture)
            if len(drawn) == self.settings.population:
                break
        self.want("drawn", list(drawn.values()))
