"""The seam between a search strategy and everything that runs it.

A strategy is a pure state machine: it says which candidates it wants trained next and is told the
results. It never trains, never touches the disk, never draws from a global random source. Resume,
replay and speculation all rest on that: a strategy built anew and told the same results in the same
order asks for the same candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from facenas.spaces import Architecture


@dataclass(frozen=True)
class Candidate:
    """An architecture, how long to train it, and why it is proposed."""

    architecture: Architecture
    epochs: int
    phase: str
    reason: str


@dataclass(frozen=True)
class Outcome:
    """What a strategy learns of a trained candidate: accuracies in percent, latency in milliseconds.

    A failed trial counts as 0.
    """

    accuracy: float
    train_accuracy: float = 0.0
    latency: float = 0.0


# The outcome of a candidate that was trained before its turn, or None.
Known = Callable[[Candidate], Outcome | None]


class Strategy(Protocol):
    """Ask, tell, look ahead."""

    def ask(self) -> list[Candidate]:
        """Candidates wanted next; the same answer until they are told. Empty: the search is over."""
        ...

    def tell(self, outcome: Outcome) -> str:
        """The outcome of the first candidate asked for; returns the decision in words."""
        ...

    def look_ahead(self, count: int, known: Known) -> list[Candidate]:
        """Up to `count` candidates that it would ask for after those of `ask`.

        Under the outcomes that are `known` already, and likely ones for the others.
        """
        ...

    def result(self) -> dict[str, Any]:
        """The best found so far as plain JSON values, with at least `architecture` and `accuracy`."""
        ...
