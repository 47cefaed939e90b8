"""Trials in worker processes: spawned, one thread each, data shared through memory-mapped files.

Two one-thread workers train small networks 2 to 3 times faster than one process with two threads.
A worker that dies is replaced and its trials are tried once more; so is a trial whose files fail it. One that
ran out of memory beside others is run again alone: only then is it the candidate's fault.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import pickle
import signal
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from facenas.errors import SearchStoppedError, UserError
from facenas.execution.base import EXECUTORS, Evaluator, OnEpoch, TrialSpec
from facenas.execution.worker import Place, wake, work
from facenas.strategies.base import TrialResult

_CONTEXTS_PER_CARD = 4  # workers of one GPU: each holds a CUDA context and a copy of its network
TRIES = 2


@dataclass
class _Task:
    """A trial on its way, how often it was started, and how its result is wanted."""

    spec: TrialSpec
    tries: int = 0
    alone: bool = False  # it must not run beside others: memory was short
    cancelled: bool = False


class _Worker:
    """A process, the pipe to it, and the trials it is busy with, by the number they have in its messages."""

    _numbers = itertools.count(1)

    def __init__(self, number: int, place: Place, evaluator: Evaluator, import_main: bool) -> None:
        context = multiprocessing.get_context("spawn")
        self.number, self.place = number, place
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=work,
            args=(theirs, evaluator, number, place),
            name=f"facenas-worker-{number}",
            daemon=True,
        )
        with _environment(place.environment), _main_as_module(import_main):
            self.process.start()
        theirs.close()
        self.tasks: dict[int, _Task] = {}
        self.fault: tuple[str, str] | None = None  # what it said before it gave up, and the traceback

    @property
    def pid(self) -> int:
        return self.process.pid or 0

    def start(self, task: _Task) -> None:
        task.tries += 1
        number = next(self._numbers)
        self.tasks[number] = task
        self.send("trial", (number, task.spec, task.alone))

    def send(self, kind: str, content: Any) -> None:
        with suppress(OSError):  # it is dead: `wait` sees the closed pipe and tries its trials again
            self.pipe.send((kind, content))

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


@EXECUTORS.register("process")
class ProcessExecutor:
    """As many spawned workers as `workers` says; None: one a core, with GPUs at most 4 a card."""

    def __init__(
        self,
        evaluator: Evaluator,
        workers: int | None = None,
        on_epoch: OnEpoch = lambda _key, _metrics: None,
        import_main: bool = False,
        places: Sequence[Place] | None = None,
    ) -> None:
        """Starts the workers. Raises UserError when what they need cannot be sent to another process.

        import_main: whether they need classes or functions that are defined in the script that runs; places:
        where they compute, instead of on `workers` cores.
        """
        if import_main:
            check_main()
        places = places or self._places(workers)
        self.slots = sum(place.slots for place in places)
        self._import_main = import_main
        self._evaluator = evaluator
        self._on_epoch = on_epoch
        self._queue: deque[_Task] = deque()
        self._quiet: deque[_Worker] = deque()  # the first looks at the clock, the others wait to
        _check_sendable(evaluator)
        self._workers = [_Worker(number, place, evaluator, import_main) for number, place in enumerate(places)]

    def _places(self, workers: int | None) -> Sequence[Place]:
        return [Place()] * (workers or default_workers())

    def submit(self, spec: TrialSpec) -> None:
        """Hands the trial to a worker with a free slot, or queues it."""
        self._queue.append(_Task(spec))
        self._hand_out()

    def wait(self) -> list[TrialResult]:
        """Blocks until a worker finishes a trial for good."""
        while any(worker.tasks for worker in self._workers):
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
            for number, task in worker.tasks.items():
                if task.spec.key == key and not task.cancelled:
                    task.cancelled = True
                    worker.send("cancel", number)

    def close(self) -> None:
        """Kills the workers: nothing they hold is worth waiting for."""
        self._queue.clear()
        for worker in self._workers:
            worker.kill()
        self._workers = []

    def worker_pids(self) -> list[int]:
        """Process ids, one a worker."""
        return [worker.pid for worker in self._workers]

    def _hand_out(self) -> None:
        """Fills free slots, where the fewest trials are first."""
        while self._queue:
            busy = [task for worker in self._workers for task in worker.tasks.values()]
            free = [worker for worker in self._workers if len(worker.tasks) < worker.place.slots]
            if any(task.alone for task in busy) or (busy and self._queue[0].alone) or not free:
                return  # one that has to run alone is under way, or waits until nobody else is
            min(free, key=lambda worker: len(worker.tasks)).start(self._queue.popleft())

    def _listen(self, worker: _Worker) -> TrialResult | None:
        """One message of a worker: of a trial that goes on, of the end of one, or its own death."""
        try:
            kind, number, content = worker.pipe.recv()
        except (EOFError, OSError):
            self._bury(worker)
            return None
        if kind == "epoch":
            self._on_epoch(worker.tasks[number].spec.key, content)
        elif kind == "quiet":
            self._quiet.append(worker)
            if len(self._quiet) == 1:
                self._hush()
        elif kind == "loud":
            self._quiet.popleft()
            self._hush()
        elif kind == "broken":
            worker.fault = content
        else:
            return self._end(worker.tasks.pop(number, None), kind, content)
        return None

    def _end(self, task: _Task | None, kind: str, content: Any) -> TrialResult | None:
        if kind == "error" and (task is None or not task.cancelled):
            self._raise(task, *content)
        elif task is None or task.cancelled or kind == "dropped":
            return None
        elif kind == "memory":
            task.alone = True
            self._queue.appendleft(task)
        else:
            assert isinstance(content, TrialResult)
            return content
        return None

    def _raise(self, task: _Task | None, error: BaseException, remote: str) -> None:
        """An error that is not the candidate's fault. Files that fail a trial are given one more try."""
        if task is None or not isinstance(error, OSError):
            raise error from _RemoteError(remote)
        if task.tries == TRIES:
            raise SearchStoppedError(
                f"a trial failed {TRIES} times with {type(error).__name__}: {error}; mend it and resume the run"
            ) from _RemoteError(remote)
        self._queue.appendleft(task)

    def _hush(self) -> None:
        """Stops all workers but the one whose turn it is to look at the clock; it lets them go on itself."""
        if not self._quiet:
            return
        others = [other.pid for other in self._workers if other is not self._quiet[0]]
        stopped = others if hasattr(signal, "SIGSTOP") else []
        for pid in stopped:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        self._quiet[0].send("quiet", stopped)

    def _bury(self, worker: _Worker) -> None:
        """Replaces a dead worker; its trials are queued again in front, the last time alone.

        Raises SearchStoppedError when it dies again: that may be the machine's fault, and blames no candidate.
        """
        worker.kill()
        lost = [task for task in worker.tasks.values() if not task.cancelled]
        if any(task.tries == TRIES for task in lost):
            told, remote = worker.fault or (f"exit code {worker.process.exitcode}", "")
            raise SearchStoppedError(
                f"the worker process of one trial died {TRIES} times ({told}); if memory is short, use fewer "
                "workers or a smaller batch, then resume the run"
            ) from (_RemoteError(remote) if remote else None)
        for task in reversed(lost):
            task.alone = True  # the system may have killed it because memory was short
            self._queue.appendleft(task)
        position = self._workers.index(worker)
        self._workers[position] = _Worker(worker.number, worker.place, self._evaluator, self._import_main)
        if worker in self._quiet:
            had_the_turn = self._quiet[0] is worker
            self._quiet.remove(worker)
            if had_the_turn:
                wake(other.pid for other in self._workers)
                self._hush()


class _RemoteError(Exception):
    """Carries the traceback of a worker, as the cause of the error that is raised here."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def _check_sendable(evaluator: Evaluator) -> None:
    try:
        pickle.dumps(evaluator)
    except Exception as error:  # whatever the object's own pickling raises
        raise UserError(
            f"the evaluation cannot be sent to worker processes ({error}); define it at the top of a module, "
            "or use the executor 'serial'"
        ) from None


def check_main() -> None:
    """Raises UserError when workers cannot import the script that runs, or would run it once more."""
    path = getattr(sys.modules["__main__"], "__file__", None)
    if path is None or not Path(path).is_file():  # a notebook; python - calls itself <stdin>
        raise UserError(
            "worker processes cannot see what a notebook defines; put it into a module and import it, or "
            "search without workers"
        )
    if "__name__" not in Path(path).read_text(encoding="utf-8", errors="replace"):
        raise UserError(
            f"{path}: worker processes import this script, and would start the search once more; put the call "
            "under if __name__ == '__main__':, or search without workers"
        )


def default_workers() -> int:
    """Processes: one for every core; with GPUs at most 4 a card."""
    from facenas import device

    cards = len(device.card_memory())
    return min(device.core_count(), _CONTEXTS_PER_CARD * cards) if cards else device.core_count()


@contextmanager
def _main_as_module(import_main: bool) -> Iterator[None]:
    """Without `import_main` a child does not run the script that started it: scripts need no guard then."""
    main = sys.modules["__main__"]
    kept: dict[str, Any] = {name: vars(main)[name] for name in ("__spec__", "__file__") if name in vars(main)}
    if not import_main:
        main.__spec__ = None
        vars(main).pop("__file__", None)
    try:
        yield
    finally:
        vars(main).update(kept)


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """The environment a child starts with."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
