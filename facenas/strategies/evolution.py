"""Multi-objective evolution by pymoo's ask and tell: NSGA-II, or the weighted sum of the objectives.

A generation is asked for as a whole and told in its own order, whatever order it was trained in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.algorithms.soo.nonconvex.ga import GA
from pymoo.core.problem import Problem
from pymoo.core.termination import NoTermination

from facenas.strategies.front import FrontSearch
from facenas.strategies.genes import GeneSpace
from facenas.strategies.objectives import Objective, points_of
from facenas.strategies.operators import Crossed, Mutated, OnlyFresh, Sampled
from facenas.strategies.settings import MultiObjectiveConfig


class Evolution(FrontSearch):
    """The strategy; `seed` decides all draws."""

    def __init__(
        self,
        space: GeneSpace,
        objectives: Sequence[Objective],
        settings: MultiObjectiveConfig,
        seed: int,
    ) -> None:
        super().__init__(space, objectives, settings)
        self._weighted = settings.strategy == "weighted_sum"
        self._algorithm = self._build(seed)
        self._population: Any = None
        self._next_generation()

    def refill(self) -> None:
        """Tells pymoo the whole generation in its order and asks it for the next."""
        points = points_of(self.trained[-len(self._population) :], self.objectives)
        measured = [i for i, o in enumerate(self.objectives) if not o.counted]
        limits = np.array([self.objectives[i].limit for i in measured])
        # Counted limits hold already. An infinite one gives minus infinity: kept by far.
        self._population.set("F", self._fitness(points))
        self._population.set("G", np.maximum(points[:, measured] - limits, -1e300))
        for member in self._population:
            member.evaluated.update({"F", "G"})
        self._algorithm.tell(infills=self._population)
        self._next_generation()

    def _next_generation(self) -> None:
        if self.generation == self.settings.generations:
            return
        self._population = self._algorithm.ask()
        if self._population is None or len(self._population) == 0:
            return  # the space holds nothing new
        members = [self.space.decode(member.X.tolist()) for member in self._population]
        self.want("bred" if self.generation else "drawn", members)

    def _fitness(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        if not self._weighted:
            return points
        scales = np.array([objective.scale for objective in self.objectives])
        return np.asarray(points / scales @ np.array(self.settings.weights))[:, None]

    def _build(self, seed: int) -> Any:
        lower, upper = self.space.bounds()
        problem = Problem(
            n_var=len(lower),
            n_obj=1 if self._weighted else len(self.objectives),
            n_ieq_constr=sum(not objective.counted for objective in self.objectives),
            xl=np.array(lower),
            xu=np.array(upper),
            vtype=int,
        )
        algorithm = (GA if self._weighted else NSGA2)(
            pop_size=self.settings.population,
            sampling=Sampled(self.space, self.fresh),
            crossover=Crossed(self.space, self.settings.crossover),
            mutation=Mutated(self.space, self.settings.mutation),
            eliminate_duplicates=OnlyFresh(self.space, self.fresh),
        )
        return algorithm.setup(problem, seed=seed, termination=NoTermination())
