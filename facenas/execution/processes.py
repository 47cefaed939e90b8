"""Trials in worker processes: spawned, one thread each, data shared through memory-mapped files.

Two one-thread workers train small networks 2 to 3 times faster than one process with two threads.
A worker that dies is replaced and its trial is tried once more; so is a trial whose files fail it. One that
ran out of memory beside others is run again alone: only then is it the candidate's fault.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import traceback
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from facenas.errors import SearchStoppedError, StoppedError, UserError
from facenas.execution.base import (
    EXECUTORS,
    Evaluator,
    MemoryShortError,
    OnEpoch,
    TrialSpec,
    run_trial,
)
from facenas.strategies.base import TrialResult

_PER_CARD = 4  # workers of one GPU: each holds a CUDA context and a copy of its network
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
TRIES = 2


@dataclass
class _Task:
    """A trial on its way, how often it was started, and how its result is wanted."""

    spec: TrialSpec
    tries: int = 0
    alone: bool = False  # it must not run beside others: memory was short
    cancelled: bool = False


class _Worker:
    """A process, the pipe to it, and what it is busy with."""

    def __init__(self, number: int, evaluator: Evaluator, import_main: bool) -> None:
        context = multiprocessing.get_context("spawn")
        self.number = number
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=_work,
            args=(theirs, evaluator, number),
            name=f"facenas-worker-{number}",
            daemon=True,
        )
        with _one_thread(), _main_as_module(import_main):
            self.process.start()
        theirs.close()
        self.task: _Task | None = None

    def start(self, task: _Task) -> None:
        task.tries += 1
        self.task = task
        with suppress(OSError):  # it is dead: `wait` sees the closed pipe and tries the trial again
            self.pipe.send((task.spec, task.alone))

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
    ) -> None:
        """Starts the workers. Raises UserError when what they need cannot be sent to another process.

        import_main: whether they need classes or functions that are defined in the script that runs.
        """
        if import_main:
            check_main()
        self.slots = workers = workers or default_workers()
        self._import_main = import_main
        self._evaluator = evaluator
        self._on_epoch = on_epoch
        self._queue: deque[_Task] = deque()
        _check_sendable(evaluator)
        self._workers = [_Worker(number, evaluator, import_main) for number in range(workers)]

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
            busy = [other.task for other in self._workers if other.task]
            if any(task.alone for task in busy) or (self._queue and busy and self._queue[0].alone):
                return  # one that has to run alone is under way, or waits until nobody else is
            if self._queue and worker.task is None:
                worker.start(self._queue.popleft())

    def _listen(self, worker: _Worker) -> TrialResult | None:
        """One message of a worker: an epoch, a wish for quiet, the end of a trial, its own death."""
        try:
            kind, key, content = worker.pipe.recv()
        except (EOFError, OSError):
            return self._bury(worker)
        if kind == "epoch":
            self._on_epoch(key, content)
            return None
        if kind == "quiet":
            self._hush(worker)
            return None
        task, worker.task = worker.task, None
        if task is None or task.cancelled or kind == "dropped":
            return None
        if kind == "memory":
            task.alone = True
            self._queue.appendleft(task)
            return None
        if kind == "error":
            self._raise(task, *content)
            return None
        assert isinstance(content, TrialResult)
        return content

    def _raise(self, task: _Task, error: BaseException, remote: str) -> None:
        """An error of a trial that is not its candidate's fault. Files that fail are given one more try."""
        if isinstance(error, OSError) and task.tries < TRIES:
            self._queue.appendleft(task)
            return
        if isinstance(error, OSError):
            raise SearchStoppedError(
                f"a trial failed {TRIES} times with {type(error).__name__}: {error}; mend it and resume the run"
            ) from _RemoteError(remote)
        raise error from _RemoteError(remote)

    def _hush(self, worker: _Worker) -> None:
        """Stops the other workers while this one looks at the clock; it lets them go on itself."""
        others = [other for other in self._workers if other is not worker and other.task]
        pids = [other.process.pid or 0 for other in others] if hasattr(signal, "SIGSTOP") else []
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        with suppress(OSError):
            worker.pipe.send(pids)

    def _bury(self, worker: _Worker) -> TrialResult | None:
        """Replaces a dead worker; its trial is queued again in front, the last time alone.

        Raises SearchStoppedError when it dies again: that may be the machine's fault, and blames no candidate.
        """
        worker.kill()
        _wake(other.process.pid for other in self._workers if other is not worker)
        task, exit_code = worker.task, worker.process.exitcode
        self._workers[self._workers.index(worker)] = _Worker(worker.number, self._evaluator, self._import_main)
        if task is None or task.cancelled:
            return None
        if task.tries < TRIES:
            task.alone = True  # the system may have killed it because memory was short
            self._queue.appendleft(task)
            return None
        raise SearchStoppedError(
            f"the worker process of one trial died {TRIES} times (exit code {exit_code}); if memory is short, "
            "use fewer workers or a smaller batch, then resume the run"
        )


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


def _wake(pids: Iterable[int | None]) -> None:
    if hasattr(signal, "SIGCONT"):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid or 0, signal.SIGCONT)


def default_workers() -> int:
    """One for every core; with GPUs at most 4 a card."""
    import torch

    from facenas.device import core_count

    if torch.cuda.is_available():
        return min(core_count(), _PER_CARD * torch.cuda.device_count())
    return core_count()


def _work(pipe: Connection, evaluator: Evaluator, number: int) -> None:
    """A worker's life: trials come in through the pipe, metrics and results go out.

    While a trial runs, the pipe is readable only when it is cancelled, or when the driver has died. torch is
    imported by the first trial that needs it, with the one thread that the environment says.
    """

    @contextmanager
    def quiet() -> Iterator[None]:
        pipe.send(("quiet", "", None))
        pids = pipe.recv()
        if pids is None:  # a cancellation came first: nobody will hear the result, but the answer comes
            pids = pipe.recv()
        try:
            yield
        finally:
            _wake(pids)

    placed = evaluator.placed(number, quiet)
    with suppress(EOFError, OSError, KeyboardInterrupt):  # the driver is gone: so are we
        while True:
            message = pipe.recv()
            if message is not None:  # None: a cancellation that came after its trial had ended
                spec, alone = message
                pipe.send(_answer(pipe, placed, spec, alone))


def _answer(pipe: Connection, evaluator: Evaluator, spec: TrialSpec, alone: bool) -> tuple[str, str, Any]:
    def tell(metrics: dict[str, Any]) -> None:
        pipe.send(("epoch", spec.key, metrics))

    try:
        return "result", spec.key, run_trial(evaluator, spec, tell, pipe.poll, alone)
    except StoppedError:
        pipe.recv()  # the cancellation; raises EOFError when it was the driver's death
        return "dropped", spec.key, None
    except MemoryShortError:
        return "memory", spec.key, None
    except Exception as error:  # ours, or the author's of a space or a measure: told where it can be read
        return "error", spec.key, (_sendable(error), traceback.format_exc())


def _sendable(error: Exception) -> Exception:
    """The error itself, or its text when it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


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
