"""A search space's own sampling, mutation and crossover, in the form that pymoo calls them.

pymoo works on rows of whole numbers; a space knows what they mean. All draws come from pymoo's seeded
generator.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymoo.core.crossover import Crossover
from pymoo.core.duplicate import DuplicateElimination
from pymoo.core.mutation import Mutation
from pymoo.core.sampling import Sampling

from facenas.spaces.base import fingerprint
from facenas.strategies.genes import TRIES, GeneSpace

Genes = NDArray[np.int64]


class Sampled(Sampling):  # type: ignore[misc]
    """Random members that are allowed and all different: a fresh draw for each that is not."""

    def __init__(self, space: GeneSpace, fresh: Callable[[Any], bool]) -> None:
        super().__init__()
        self.space, self.fresh = space, fresh

    def _do(
        self, problem: Any, n_samples: int, *_: Any, random_state: Any = None, **__: Any
    ) -> Genes:
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


class Crossed(Crossover):  # type: ignore[misc]
    """Two children of two parents; each is a crossover of its own."""

    def __init__(self, space: GeneSpace, probability: float) -> None:
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


class Mutated(Mutation):  # type: ignore[misc]
    """Each row mutated at least once: again with probability 1/2, so that far moves stay possible."""

    def __init__(self, space: GeneSpace, probability: float) -> None:
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


class OnlyFresh(DuplicateElimination):  # type: ignore[misc]
    """Drops rows whose architecture was tried before, is in the batch already, or is not allowed."""

    def __init__(self, space: GeneSpace, fresh: Callable[[Any], bool]) -> None:
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
