"""Trials in worker processes: spawned, one thread each, data shared through memory-mapped files.

Two one-thread workers train small networks 2 to 3 times faster than one process with two threads.
A worker that dies is replaced.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from facenas.errors import UserError
from facenas.execution.base import EXECUTORS, Evaluator, OnEpoch
from facenas.execution.pool import Pool, PoolWorker
from facenas.execution.worker import Place, wake, work

_CONTEXTS_PER_CARD = 4  # workers of one GPU: each holds a CUDA context and a copy of its network


class _Worker(PoolWorker):
    """A process and the pipe to it."""

    def __init__(self, number: int, place: Place, evaluator: Evaluator, import_main: bool) -> None:
        super().__init__(number, place)
        context = multiprocessing.get_context("spawn")
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

    @property
    def pid(self) -> int:
        return self.process.pid or 0

    def send(self, kind: str, content: Any) -> None:
        with suppress(OSError):  # it is dead: `wait` sees the closed pipe and tries its trials again
            self.pipe.send((kind, content))

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


@EXECUTORS.register("process")
class ProcessExecutor(Pool):
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
        super().__init__(on_epoch)
        if import_main:
            check_main()
        places = places or self._places(workers)
        self.slots = sum(place.slots for place in places)
        self._import_main = import_main
        self._evaluator = evaluator
        self._quiet: deque[_Worker] = deque()  # the first looks at the clock, the others wait to
        _check_sendable(evaluator)
        self._workers = [_Worker(number, place, evaluator, import_main) for number, place in enumerate(places)]

    def _places(self, workers: int | None) -> Sequence[Place]:
        return [Place()] * (workers or default_workers())

    def worker_pids(self) -> list[int]:
        """Process ids, one a worker."""
        return [worker.pid for worker in self._workers]

    def _messages(self) -> Iterator[tuple[_Worker, tuple[str, int, Any] | None]]:
        pipes = {worker.pipe: worker for worker in self._workers}
        for pipe in wait(list(pipes)):
            worker = pipes[pipe]  # type: ignore[index]
            try:
                yield worker, worker.pipe.recv()
            except (EOFError, OSError):
                yield worker, None

    def _hear_quiet(self, worker: _Worker, kind: str) -> None:
        if kind == "loud":
            self._quiet.popleft()
            self._hush()
            return
        self._quiet.append(worker)
        if len(self._quiet) == 1:
            self._hush()

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
        worker.kill()
        told, remote = worker.fault or (f"exit code {worker.process.exitcode}", "")
        self._try_again_alone([task for task in worker.tasks.values() if not task.cancelled], told, remote)
        position = self._workers.index(worker)
        self._workers[position] = _Worker(worker.number, worker.place, self._evaluator, self._import_main)
        if worker in self._quiet:
            had_the_turn = self._quiet[0] is worker
            self._quiet.remove(worker)
            if had_the_turn:
                wake(other.pid for other in self._workers)
                self._hush()


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
