"""What executors with workers share: the queue, who takes which trial, and what becomes of a trial that ends.

A trial whose worker dies is tried once more; so is one whose files fail it. One that ran out of memory beside
others is run again alone: only then is it the candidate's fault.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from facenas.errors import SearchStoppedError
from facenas.execution.base import OnEpoch, TrialSpec
from facenas.execution.worker import Place
from facenas.strategies.base import TrialResult

TRIES = 2


@dataclass
class Task:
    """A trial on its way, how often it was started, and how its result is wanted."""

    spec: TrialSpec
    tries: int = 0
    alone: bool = False  # it must not run beside others: memory was short
    cancelled: bool = False
    losses: int = 0  # of the nodes it ran on: no fault of its own


class PoolWorker:
    """A process somewhere, and the trials it is busy with, by the number they have in its messages.

    machine: two workers with the same one share memory.
    """

    _numbers: ClassVar[Iterator[int]] = itertools.count(1)
    machine: Hashable = None

    def __init__(self, number: int, place: Place) -> None:
        self.number, self.place = number, place
        self.tasks: dict[int, Task] = {}
        self.fault: tuple[str, str] | None = None  # what it said before it gave up, and the traceback

    @property
    def free(self) -> bool:
        """Whether it takes one more trial."""
        return len(self.tasks) < self.place.slots

    def start(self, task: Task) -> None:
        """Hands it a trial."""
        task.tries += 1
        number = next(self._numbers)
        self.tasks[number] = task
        self.send("trial", (number, task.spec, task.alone))

    def send(self, kind: str, content: Any) -> None:
        """Sends a message; one that is dead gets none."""
        raise NotImplementedError

    def kill(self) -> None:
        """Ends it at once."""
        raise NotImplementedError


class Pool:
    """Workers and their trials. A subclass says how messages come in, and what becomes of a dead worker."""

    def __init__(self, on_epoch: OnEpoch) -> None:
        self._on_epoch = on_epoch
        self._queue: deque[Task] = deque()
        self._workers: list[Any] = []
        self._grown = False  # `slots` has: the driver may give more

    def submit(self, spec: TrialSpec) -> None:
        """Hands the trial to a worker with a free slot, or queues it."""
        self._queue.append(Task(spec))
        self._hand_out()

    def wait(self) -> list[TrialResult]:
        """Blocks until a worker finishes a trial for good, or `slots` has grown."""
        while self._queue or any(worker.tasks for worker in self._workers):
            finished = [self._hear(worker, message) for worker, message in self._messages()]
            self._hand_out()
            results = [result for result in finished if result]
            if results or self._grown:
                self._grown = False
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

    def _messages(self) -> Iterator[tuple[Any, tuple[str, int, Any] | None]]:
        """Blocks until there is one: (worker, (kind, number, content)), or (worker, None) when it is dead."""
        raise NotImplementedError

    def _bury(self, worker: Any) -> None:
        """Replaces a dead worker, and queues its trials again or raises SearchStoppedError."""
        raise NotImplementedError

    def _hand_out(self) -> None:
        """Fills free slots, where trials are fewest; one that must be alone has a machine to itself."""
        closed = {w.machine for w in self._workers if any(task.alone for task in w.tasks.values())}
        for task in list(self._queue):
            load: dict[Hashable, int] = {}
            for worker in self._workers:
                load[worker.machine] = load.get(worker.machine, 0) + len(worker.tasks)
            free = [w for w in self._workers if w.free and w.machine not in closed]
            fit = [w for w in free if not load[w.machine]] if task.alone else free
            if fit:
                self._queue.remove(task)
                worker = min(fit, key=lambda worker: len(worker.tasks))
                worker.start(task)
            if task.alone and (left := load.keys() - closed):  # nothing new starts there until it has begun
                closed.add(worker.machine if fit else min(left, key=lambda machine: load[machine]))
            elif not free:
                return

    def _hear(self, worker: Any, message: tuple[str, int, Any] | None) -> TrialResult | None:
        """One message of a worker: of a trial that goes on, of the end of one, or its own death."""
        if message is None:
            self._bury(worker)
            return None
        kind, number, content = message
        if kind == "epoch":
            self._on_epoch(worker.tasks[number].spec.key, content)
        elif kind in ("quiet", "loud"):
            self._hear_quiet(worker, kind)
        elif kind == "broken":
            worker.fault = content
        else:
            return self._end(worker.tasks.pop(number, None), kind, content)
        return None

    def _hear_quiet(self, worker: Any, kind: str) -> None:
        """A worker wants to look at the clock while no other trial runs ("quiet"), or has done so ("loud")."""
        raise NotImplementedError

    def _end(self, task: Task | None, kind: str, content: Any) -> TrialResult | None:
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

    def _raise(self, task: Task | None, error: BaseException, remote: str) -> None:
        """An error that is not the candidate's fault. Files that fail a trial are given one more try."""
        if task is None or not isinstance(error, OSError):
            raise error from RemoteError(remote)
        if task.tries == TRIES:
            raise SearchStoppedError(
                f"a trial failed {TRIES} times with {type(error).__name__}: {error}; mend it and resume the run"
            ) from RemoteError(remote)
        self._queue.appendleft(task)

    def _try_again_alone(self, tasks: list[Task], told: str, remote: str) -> None:
        """Queues the trials of a dead worker in front: the system may have killed it because memory was short.

        Raises SearchStoppedError when one dies again: that may be the machine's fault, and blames no candidate.
        """
        if any(task.tries == TRIES for task in tasks):
            raise SearchStoppedError(
                f"the worker process of one trial died {TRIES} times ({told}); if memory is short, use fewer "
                "workers or a smaller batch, then resume the run"
            ) from (RemoteError(remote) if remote else None)
        for task in reversed(tasks):
            task.alone = True
            self._queue.appendleft(task)


class RemoteError(Exception):
    """Carries the traceback of a worker, as the cause of the error that is raised here."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"
