"""What evolution asks of a search space."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Protocol

TRIES = 100  # draws for each new member, before a generation is left smaller


class GeneSpace(Protocol):
    """A search space whose members are rows of whole numbers; several rows may mean one architecture."""

    def bounds(self) -> tuple[Sequence[int], Sequence[int]]:
        """Lowest and highest value of every gene."""
        ...

    def encode(self, architecture: Any) -> Sequence[int]:
        """A row that decodes to `architecture`."""
        ...

    def decode(self, genes: Sequence[int]) -> Any:
        """The architecture of a row within the bounds."""
        ...

    def sample(self, rng: random.Random) -> Any:
        """A random member."""
        ...

    def mutate(self, architecture: Any, rng: random.Random) -> Any:
        """A random neighbour."""
        ...

    def crossover(self, first: Any, second: Any, rng: random.Random) -> Any:
        """A member that takes genes from both."""
        ...
