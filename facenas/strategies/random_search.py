"""Random search: the yardstick of every cleverer one."""

from __future__ import annotations

import random

from facenas.spaces.base import Architecture, fingerprint
from facenas.strategies.base import register
from facenas.strategies.pareto import TRIES, ParetoSearch


@register("random")
class RandomSearch(ParetoSearch):
    """Random members of the space, all different and within the limits, in generations of equal size."""

    def begin(self) -> None:
        """The first generation is drawn."""
        super().begin()
        self._rng = random.Random(self.seed)
        self.refill()

    def refill(self) -> None:
        """The next generation owes nothing to those before it."""
        if self.generation == self.settings.generations:
            return
        drawn: dict[str, Architecture] = {}
        for _ in range(TRIES * self.settings.population):
            architecture = self.space.sample(self._rng)
            if self.fresh(architecture):
                drawn.setdefault(fingerprint(architecture.to_json()), architecture)
            if len(drawn) == self.settings.population:
                break
        self.want("drawn", list(drawn.values()))
