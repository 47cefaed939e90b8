"""Multi-objective evolution by pymoo's ask and tell: NSGA-II, or the weighted sum of the objectives.

A generation is asked for as a whole and told in its own order, whatever order it was judged in. pymoo works
on rows of whole numbers (genes); the space knows what they mean (`bounds`, `encode`, `decode`) and samples,
mutates and crosses architectures itself. All draws come from pymoo's seeded generator.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator
from pymoo.algorithms.moo import nsga2
from pymoo.algorithms.soo.nonconvex.ga import GA
from pymoo.core.crossover import Crossover
from pymoo.core.duplicate import DuplicateElimination
from pymoo.core.mutation import Mutation
from pymoo.core.problem import Problem
from pymoo.core.sampling import Sampling
from pymoo.core.termination import NoTermination

from facenas.spaces.base import fingerprint
from facenas.strategies.base import register
from facenas.strategies.pareto import TRIES, ParetoSearch, ParetoSettings, points_of

Genes = NDArray[np.int64]


@register("nsga2")
class NSGA2(ParetoSearch):
    """NSGA-II (Deb et al. 2002): the next generation is bred from the least dominated and least crowded."""

    needs = ("sample", "mutate", "crossover", "bounds", "encode", "decode")
    algorithm: Any = nsga2.NSGA2

    def begin(self) -> None:
        """The first generation is drawn at random."""
        super().begin()
        self._algorithm = self._build()
        self._population: Any = None
        self._next_generation()

    def refill(self) -> None:
        """Tells pymoo the whole generation in its order and asks it for the next."""
        points = points_of(self.judged[-len(self._population) :], self.objectives)
        measured = [i for i, o in enumerate(self.objectives) if not o.counted]
        limits = np.array([self.objectives[i].limit for i in measured])
        # Counted limits hold already. An infinite one gives minus infinity: kept by far.
        self._population.set("F", self.fitness(points))
        self._population.set("G", np.maximum(points[:, measured] - limits, -1e300))
        for member in self._population:
            member.evaluated.update({"F", "G"})
        self._algorithm.tell(infills=self._population)
        self._next_generation()

    def fitness(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """What pymoo minimizes, (candidates, values), of (candidates, objectives)."""
        return points

    def _next_generation(self) -> None:
        if self.generation == self.settings.generations:
            return
        self._population = self._algorithm.ask()
        if self._population is None or len(self._population) == 0:
            return  # the space holds nothing new
        members = [self.space.decode(member.X.tolist()) for member in self._population]
        self.want("bred" if self.generation else "drawn", members)

    def _build(self) -> Any:
        lower, upper = self.space.bounds()
        fitness = self.fitness(np.zeros((1, len(self.objectives))))
        problem = Problem(
            n_var=len(lower),
            n_obj=fitness.shape[1],
            n_ieq_constr=sum(not objective.counted for objective in self.objectives),
            xl=np.array(lower),
            xu=np.array(upper),
            vtype=int,
        )
        algorithm = self.algorithm(
            pop_size=self.settings.population,
            sampling=_Sampled(self.space, self.fresh),
            crossover=_Crossed(self.space, self.settings.crossover),
            mutation=_Mutated(self.space, self.settings.mutation),
            eliminate_duplicates=_OnlyFresh(self.space, self.fresh),
        )
        return algorithm.setup(problem, seed=self.seed, termination=NoTermination())


@register("weighted_sum")
class WeightedSum(NSGA2):
    """A genetic algorithm on the weighted sum of all objectives, each divided by its scale."""

    class Settings(ParetoSettings):
        """Of `weights`, one for the error and one for each objective."""

        @model_validator(mode="after")
        def _a_weight_for_each(self) -> Self:
            if len(self.weights) != 1 + len(self.objectives):
                raise ValueError("weights: give one for the error and one for each objective")
            return self

    algorithm: Any = GA

    def fitness(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """(candidates, 1): the weighted sums."""
        scales = np.array([objective.scale for objective in self.objectives])
        return np.asarray(points / scales @ np.array(self.settings.weights))[:, None]


class _Sampled(Sampling):  # type: ignore[misc]
    """Random members that are allowed and all different: a fresh draw for each that is not."""

    def __init__(self, space: Any, fresh: Callable[[Any], bool]) -> None:
        super().__init__()
        self.space, self.fresh = space, fresh

    def _do(self, problem: Any, n_samples: int, *_: Any, random_state: Any = None, **__: Any) -> Genes:
        rng, rows, seen = _generator(random_state), [], set()
        for _attempt in range(TRIES * n_samples):
            architecture = self.space.sample(rng)
            key = fingerprint(architecture.to_json())
            if key not in seen and self.fresh(architecture):
                seen.add(key)
                rows.append(self.space.encode(architecture))
            if len(rows) == n_samples:
                break
        return np.array(rows, np.int64).reshape(len(rows), problem.n_var)


class _Crossed(Crossover):  # type: ignore[misc]
    """Two children of two parents; each is a crossover of its own."""

    def __init__(self, space: Any, probability: float) -> None:
        super().__init__(2, 2, prob=probability)
        self.space = space

    def _do(self, _problem: Any, parents: Genes, *_: Any, random_state: Any, **__: Any) -> Genes:
        rng = _generator(random_state)
        children = np.empty_like(parents)
        for mating in range(parents.shape[1]):
            pair = [self.space.decode(parents[i, mating].tolist()) for i in range(2)]
            for child, (first, second) in enumerate((pair, pair[::-1])):
                made = self.space.crossover(first, second, rng)
                children[child, mating] = self.space.encode(made)
        return children


class _Mutated(Mutation):  # type: ignore[misc]
    """Each row mutated at least once: again with probability 1/2, so that far moves stay possible."""

    def __init__(self, space: Any, probability: float) -> None:
        super().__init__(prob=probability)
        self.space = space

    def _do(self, _problem: Any, rows: Genes, *_: Any, random_state: Any, **__: Any) -> Genes:
        rng = _generator(random_state)
        found = np.empty_like(rows)
        for place, row in enumerate(rows):
            architecture = self.space.mutate(self.space.decode(row.tolist()), rng)
            while rng.random() < 0.5:
                architecture = self.space.mutate(architecture, rng)
            found[place] = self.space.encode(architecture)
        return found


class _OnlyFresh(DuplicateElimination):  # type: ignore[misc]
    """Drops rows whose architecture was tried before, is in the batch already, or is not allowed."""

    def __init__(self, space: Any, fresh: Callable[[Any], bool]) -> None:
        super().__init__()
        self.space, self.fresh = space, fresh

    def do(self, population: Any, *others: Any, **_: Any) -> Any:
        seen = {self._key(member) for other in others for member in other}
        kept = []
        for place, member in enumerate(population):
            key = self._key(member)
            if key not in seen and self.fresh(self.space.decode(member.X.tolist())):
                seen.add(key)
                kept.append(place)
        return population[kept]

    def _key(self, member: Any) -> str:
        return fingerprint(self.space.decode(member.X.tolist()).to_json())


def _generator(random_state: np.random.Generator) -> random.Random:
    return random.Random(int(random_state.integers(2**63)))
