"""The seam between the driver and whatever trains candidates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from facenas.execution.trial import TrialResult, TrialSpec

# Called in the driver's process after every epoch of every running trial: (trial key, its metrics).
OnEpoch = Callable[[str, dict[str, Any]], None]


class Executor(Protocol):
    """Trains trials. Every implementation passes `tests/execution/test_contract.py`.

    `slots` trials run at once. A trial that fails gives a result that says so; one that is cancelled
    gives none. Results come in the order of finishing: the driver puts them in logical order.
    """

    slots: int

    def submit(self, spec: TrialSpec) -> None:
        """Starts a trial, or queues it when all slots are taken."""
        ...

    def wait(self) -> list[TrialResult]:
        """Blocks until at least one trial is finished. Empty only when nothing is under way."""
        ...

    def cancel(self, key: str) -> None:
        """Gives up a trial; unknown and finished keys are no error."""
        ...

    def close(self) -> None:
        """Gives up everything and frees all resources. May be called twice."""
        ...
