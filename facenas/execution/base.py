"""The seams between the driver and whatever judges candidates: what a trial is, and where trials run."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol, Self

from pydantic import AfterValidator, Field, model_validator

from facenas.config import Config, Registry
from facenas.errors import CandidateError, UserError
from facenas.spaces.base import fingerprint
from facenas.strategies.base import Candidate, TrialResult

# Called in the driver's process after every epoch of every running trial: (trial key, its metrics).
OnEpoch = Callable[[str, dict[str, Any]], None]
# Called by an evaluator after every epoch, with at least `epoch`, counted from 1.
Report = Callable[[dict[str, Any]], None]
# Whether the trial is no longer wanted: an evaluator looks now and then, and raises StoppedError.
Stop = Callable[[], bool]


class MemoryShortError(RuntimeError):
    """The trial ran out of memory beside others: it is tried again, alone."""


def _known(name: str) -> str:
    try:
        EXECUTORS.get(name)
    except UserError as error:
        raise ValueError(str(error)) from None
    return name


class ExecutionConfig(Config):
    """Where candidates are judged. Left at null, both follow from the machine.

    executor: `gpu` for trainings where there is an NVIDIA card, else `process`. workers: trials at once; 4 a
    card, fewer where its memory is short, else one for every core. compile: whether the training of what was
    found goes through `torch.compile` on a GPU; candidates never do.

    Of the executor `ray` alone: address of the cluster, as HOST:PORT or auto; null starts Ray on this machine.
    num_cpus, num_gpus: what a trial takes of its node; num_gpus at null is a quarter of a card where the
    cluster has any. ship_limit: bytes of data up to which they are brought to nodes that do not see them.
    """

    executor: Annotated[str, AfterValidator(_known)] | None = None
    workers: int | None = Field(None, ge=1)
    speculate: bool = True
    compile: bool = True
    address: str | None = None
    num_cpus: float = Field(1, gt=0)
    num_gpus: float | None = Field(None, ge=0)
    ship_limit: int = Field(2_000_000_000, ge=0)

    @model_validator(mode="after")
    def _is_of_ray(self) -> Self:
        if self.address is not None and self.executor != "ray":
            raise ValueError(f"address {self.address}: only the executor ray has one; take the executor ray")
        for name, amount in (("num_cpus", self.num_cpus), ("num_gpus", self.num_gpus or 0)):
            if amount > 1 and amount != int(amount):
                raise ValueError(f"{name} {amount}: above 1, Ray takes whole numbers")
        return self


class Evaluator:
    """Judges candidates: base of training alone, of paths of a supernet, and of one's own function.

    Is pickled into worker processes. `worker` numbers the process it works in (from 0); `quiet()` is a context
    in which no other trial of the search runs, for what is measured by the clock. `shares_process` says that
    copies of it may judge in several threads of one process, as the executor `gpu` has them.
    """

    shares_process: ClassVar[bool] = False
    worker: int = 0
    quiet: Callable[[], AbstractContextManager[None]] = staticmethod(nullcontext)

    def identity(self, candidate: Candidate) -> dict[str, Any]:
        """What decides the result beside architecture and epochs, as plain JSON: it enters the trial key."""
        raise NotImplementedError

    def __call__(self, candidate: Candidate, seed: int, on_epoch: Report, stop: Stop) -> TrialResult:
        """Judges the candidate; `seed` (63 bits of the trial key) decides all draws.

        Raises CandidateError for a fault of the candidate itself, StoppedError once `stop()` says so.
        """
        raise NotImplementedError

    def files(self) -> tuple[Path, ...]:
        """Files and folders it reads: on a cluster they are looked for on each node, or brought there."""
        return ()

    def shared(self) -> tuple[Path, ...]:
        """Files beside which it writes what later trials read: every node of a cluster must see them."""
        return ()

    def reading(self, files: tuple[Path, ...]) -> Self:
        """The same evaluator, which finds its `files` elsewhere, in the same order."""
        return self

    def placed(self, worker: int, quiet: Callable[[], AbstractContextManager[None]]) -> Self:
        """The same evaluator, as it is used in a worker."""
        placed = copy.copy(self)
        placed.worker, placed.quiet = worker, quiet
        return placed


@dataclass(frozen=True)
class TrialSpec:
    """A candidate and all else that decides its result; the sha256 of both is the trial key."""

    candidate: Candidate
    identity: dict[str, Any]

    @cached_property
    def key(self) -> str:
        """sha256 (hex) of everything that matters; phase and reason do not."""
        candidate, budget = self.candidate, self.candidate.budget
        return fingerprint(
            {
                "architecture": candidate.architecture.to_json(),
                "epochs": budget.epochs,
                **({"repeat": budget.repeat} if budget.repeat else {}),
                **({"judge_last": True} if budget.judge_last else {}),
                **({"parent": candidate.parent} if candidate.parent else {}),
                **self.identity,
            }
        )

    @property
    def seed(self) -> int:
        """63 bits of the key."""
        return int(self.key[:16], 16) >> 1


class Executor(Protocol):
    """Runs trials. Every implementation passes `facenas.testing.check_executor`.

    Built by `evaluator` and the keywords `on_epoch`, `workers` (None: as many as fit the machine) and
    `import_main` (whether workers need what is defined in the script that runs); and by the settings that its
    attribute `takes` names, if it has one, by the names they have in `ExecutionConfig`.
    `slots` trials run at once. A trial that fails by its candidate's own fault gives a result that says so;
    one that is cancelled gives none. Results come in the order of finishing: the driver puts them in logical
    order.
    """

    slots: int

    def submit(self, spec: TrialSpec) -> None:
        """Starts a trial, or queues it when all slots are taken."""
        ...

    def wait(self) -> list[TrialResult]:
        """Blocks until at least one trial is finished. Empty only when none is under way, or `slots` has grown.

        Raises what a trial raised, unless it is its candidate's fault; SearchStoppedError when a trial cannot
        be run for reasons of the machine, tried twice.
        """
        ...

    def cancel(self, key: str) -> None:
        """Gives up a trial; unknown and finished keys are no error."""
        ...

    def close(self) -> None:
        """Gives up everything and frees all resources. May be called twice."""
        ...


EXECUTORS: Registry[Executor] = Registry("executor", "facenas.execution")


def run_trial(
    evaluator: Evaluator,
    spec: TrialSpec,
    on_epoch: Report = lambda _: None,
    stop: Stop = lambda: False,
    alone: bool = True,
) -> TrialResult:
    """Judges `spec`. A fault of the candidate (divergence; out of memory when `alone`) is a failed result.

    Raises StoppedError once `stop()` says so, MemoryShortError when memory ran out beside other trials, and
    whatever else goes wrong: that is no property of the candidate, and must not count as accuracy 0.
    """
    started = time.perf_counter()
    try:
        result = evaluator(spec.candidate, spec.seed, on_epoch, stop)
    except CandidateError as error:
        result = _failed(error)
    except Exception as error:
        if not _out_of_memory(error):
            raise
        if not alone:
            raise MemoryShortError(str(error)) from None
        result = _failed(error)
    return replace(result, key=spec.key, seconds=round(time.perf_counter() - started, 3))


def _failed(error: Exception) -> TrialResult:
    return TrialResult(status="failed", reason=f"{type(error).__name__}: {error}".splitlines()[0])


_OUT_OF_MEMORY = (
    "unable to find an engine",
    "_STATUS_NOT_INITIALIZED",
    "can't allocate memory",
    "CUDA error: out of memory",
    "_STATUS_ALLOC_FAILED",
)


def _out_of_memory(error: Exception) -> bool:
    """Torch tells of a full card by a class of its own, of a full host by a RuntimeError like any other.

    So does what is not allocated by torch itself: a CUDA graph, the workspace of a library.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(told in str(error) for told in _OUT_OF_MEMORY)
