"""Trials one after another in this process: the plainest executor, for debugging and for one GPU."""

from __future__ import annotations

from pathlib import Path

from facenas.execution.base import OnEpoch
from facenas.execution.trial import TrialResult, TrialSpec, run_trial


class SerialExecutor:
    """Trains in the caller's process, on one thread like every worker, so that results are the same."""

    slots = 1

    def __init__(self, data_folder: Path, on_epoch: OnEpoch = lambda _key, _metrics: None) -> None:
        from facenas.device import use_threads

        use_threads(1)
        self._data_folder = data_folder
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
        return [
            run_trial(spec, self._data_folder, lambda metrics: self._on_epoch(spec.key, metrics))
        ]

    def cancel(self, key: str) -> None:
        """Takes a trial off the queue."""
        self._queue = [spec for spec in self._queue if spec.key != key]

    def close(self) -> None:
        """Forgets the queue."""
        self._queue = []
