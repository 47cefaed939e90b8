"""Trials in worker processes: spawned, one thread each, data shared through memory-mapped files.

Two one-thread workers train small networks 2 to 3 times faster than one process with two threads.
A worker that dies is replaced and its trial is tried once more.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from facenas.execution.base import OnEpoch
from facenas.execution.trial import TrialResult, TrialSpec, run_trial

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
TRIES = 2


@dataclass
class _Task:
    """A trial on its way, how often it was started, and whether its result is still wanted."""

    spec: TrialSpec
    tries: int = 0
    cancelled: bool = False


class _Worker:
    """A process, the pipe to it, and what it is busy with."""

    def __init__(self, number: int, data_folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self.number = number
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=_work,
            args=(theirs, data_folder, number),
            name=f"facenas-worker-{number}",
            daemon=True,
        )
        with _one_thread():
            self.process.start()
        theirs.close()
        self.task: _Task | None = None

    def start(self, task: _Task) -> None:
        task.tries += 1
        self.task = task
        with suppress(OSError):  # it is dead: `wait` sees the closed pipe and tries the trial again
            self.pipe.send(task.spec)

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


class ProcessExecutor:
    """As many spawned workers as `workers` says."""

    def __init__(
        self, data_folder: Path, workers: int, on_epoch: OnEpoch = lambda _key, _metrics: None
    ) -> None:
        self.slots = workers
        self._data_folder = data_folder
        self._on_epoch = on_epoch
        self._queue: deque[_Task] = deque()
        self._workers = [_Worker(number, data_folder) for number in range(workers)]

    def submit(self, spec: TrialSpec) -> None:
        """Hands the trial to an idle worker, or queues it."""
        self._queue.append(_Task(spec))
        self._hand_out()

    def wait(self) -> list[TrialResult]:
        """Blocks until a worker finishes a trial for good."""
        while any(worker.task for worker in self._workers):
            pipes = {worker.pipe: worker for worker in self._workers}
            finished = [self._listen(pipes[pipe]) for pipe in wait(list(pipes))]  # type: ignore[index]
            self._hand_out()
            if results := [result for result in finished if result]:
                return results
        return []

    def cancel(self, key: str) -> None:
        """Takes the trial off the queue, or tells its worker to drop it at the next batch."""
        self._queue = deque(task for task in self._queue if task.spec.key != key)
        for worker in self._workers:
            task = worker.task
            if task and task.spec.key == key and not task.cancelled:
                task.cancelled = True
                with suppress(OSError):
                    worker.pipe.send(None)

    def close(self) -> None:
        """Kills the workers: nothing they hold is worth waiting for."""
        self._queue.clear()
        for worker in self._workers:
            worker.kill()
        self._workers = []

    def worker_pids(self) -> list[int]:
        """Process ids, one a worker."""
        return [worker.process.pid or 0 for worker in self._workers]

    def _hand_out(self) -> None:
        for worker in self._workers:
            if self._queue and worker.task is None:
                worker.start(self._queue.popleft())

    def _listen(self, worker: _Worker) -> TrialResult | None:
        """One message of a worker: an epoch's metrics, a result, word that it dropped a trial, or its death."""
        try:
            kind, key, content = worker.pipe.recv()
        except (EOFError, OSError):
            return self._bury(worker)
        if kind == "epoch":
            self._on_epoch(key, content)
            return None
        task, worker.task = worker.task, None
        return content if kind == "result" and task and not task.cancelled else None

    def _bury(self, worker: _Worker) -> TrialResult | None:
        """Replaces a dead worker; its trial is queued again in front, or failed after the last try."""
        worker.kill()
        task, exit_code = worker.task, worker.process.exitcode
        self._workers[self._workers.index(worker)] = _Worker(worker.number, self._data_folder)
        if task is None or task.cancelled:
            return None
        if task.tries < TRIES:
            self._queue.appendleft(task)
            return None
        reason = f"the worker process died {TRIES} times (exit code {exit_code})"
        return TrialResult(key=task.spec.key, status="failed", reason=reason)


def _work(pipe: Connection, data_folder: Path, number: int) -> None:
    """A worker's life: trials come in through the pipe, metrics and results go out.

    While a trial runs, the pipe is readable only when it is cancelled, or when the driver has died.
    """
    from facenas.device import use_threads

    use_threads(1)
    with suppress(EOFError, OSError, KeyboardInterrupt):  # the driver is gone: so are we
        while True:
            spec: TrialSpec | None = pipe.recv()
            if spec is not None:  # None: a cancellation that came after its trial had ended
                pipe.send(_answer(pipe, spec, data_folder, number))


def _answer(
    pipe: Connection, spec: TrialSpec, data_folder: Path, number: int
) -> tuple[str, str, Any]:
    from facenas.training.trainer import StoppedError

    def tell(metrics: dict[str, Any]) -> None:
        pipe.send(("epoch", spec.key, metrics))

    try:
        return "result", spec.key, run_trial(spec, data_folder, tell, pipe.poll, number)
    except StoppedError:
        pipe.recv()  # the cancellation; raises EOFError when it was the driver's death
        return "dropped", spec.key, None


@contextmanager
def _one_thread() -> Iterator[None]:
    """The environment a child starts with: torch reads the thread variables when it is imported."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
