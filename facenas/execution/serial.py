"""Trials one after another in this process: the plainest executor, for debugging and for notebooks."""

from __future__ import annotations

from contextlib import nullcontext

from facenas.errors import SearchStoppedError
from facenas.execution.base import EXECUTORS, Evaluator, OnEpoch, TrialSpec, run_trial
from facenas.strategies.base import TrialResult


@EXECUTORS.register("serial")
class SerialExecutor:
    """Runs in the caller's process, on one thread like every worker, so that results are the same."""

    slots = 1

    def __init__(
        self,
        evaluator: Evaluator,
        on_epoch: OnEpoch = lambda _key, _metrics: None,
        workers: int | None = None,
        import_main: bool = False,
    ) -> None:
        self._evaluator = evaluator.placed(0, nullcontext)
        self._on_epoch = on_epoch
        self._queue: list[TrialSpec] = []

    def submit(self, spec: TrialSpec) -> None:
        """Queues a trial; `wait` runs it."""
        self._queue.append(spec)

    def wait(self) -> list[TrialResult]:
        """Runs the oldest queued trial."""
        if not self._queue:
            return []
        spec = self._queue.pop(0)
        try:
            return [self._run(spec)]
        except OSError:  # the disk, the network: once more, then it is no accident
            try:
                return [self._run(spec)]
            except OSError as error:
                raise SearchStoppedError(
                    f"a trial failed twice with {type(error).__name__}: {error}; mend it and resume the run"
                ) from error

    def cancel(self, key: str) -> None:
        """Takes a trial off the queue."""
        self._queue = [spec for spec in self._queue if spec.key != key]

    def close(self) -> None:
        """Forgets the queue."""
        self._queue = []

    def _run(self, spec: TrialSpec) -> TrialResult:
        from facenas.device import threads

        with threads(1):
            return run_trial(self._evaluator, spec, lambda metrics: self._on_epoch(spec.key, metrics))
