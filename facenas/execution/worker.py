"""A worker process from within: trials come in through a pipe, epochs and results go out.

A thread reads the pipe, so that a cancellation and the driver's death are known at once. Trials run in slots:
the main thread is the first, threads beside it are the others.
"""

from __future__ import annotations

import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, NoReturn, Protocol

from facenas.errors import StoppedError
from facenas.execution.base import Evaluator, MemoryShortError, TrialSpec, run_trial

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_PATIENCE = 10.0  # seconds that a slot waits for the others to stand still


@dataclass(frozen=True)
class Place:
    """Where a worker process computes, and in how many slots: by default on a core, with one thread each."""

    slots: int = 1

    @property
    def environment(self) -> dict[str, str]:
        """What the process is started with: torch reads the number of threads when it is imported."""
        return dict.fromkeys(_THREAD_VARIABLES, "1")

    def prepare(self) -> None:
        """Called in the process before all else. Raises UserError when nothing can be computed here."""

    def slot(self) -> AbstractContextManager[Any]:
        """What the thread of a slot works in."""
        return nullcontext()

    def is_broken(self) -> bool:
        """Whether, after the error of a trial, no trial of this process can succeed any more."""
        return False

    def free_memory(self) -> None:
        """Gives back what is only kept for later; no other trial of this process is under way."""


class Pipe(Protocol):
    """The worker's end: a `multiprocessing` connection, or what acts like one."""

    def recv(self) -> Any:
        """Blocks until the driver says something; raises EOFError or OSError once it is gone."""
        ...

    def send(self, message: Any) -> None:
        """Tells the driver something."""
        ...


@dataclass
class _Trial:
    """What the driver sends; answers name it by `number`: a key may come again while its trial is dropped."""

    number: int
    spec: TrialSpec
    alone: bool
    dropped: threading.Event


class _Turns:
    """Who may go on: all trials of the process, but for two kinds of moments.

    The first trial is alone until it trains: threads that import the same modules at once may find them half
    made. And whoever looks at the clock is alone: the others stand still at their next look at `stop`.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._moving = 0  # trials that are under way and do not stand still
        self._holder: int | None = None  # the thread that is alone
        self._imported = False

    @contextmanager
    def trial(self) -> Iterator[None]:
        """Around a whole trial."""
        with self._changed:
            self._changed.wait_for(lambda: self._holder is None)
            self._moving += 1
            if not self._imported:
                self._holder = threading.get_ident()
        try:
            yield
        finally:
            with self._changed:
                self._has_imported()
                self._moving -= 1
                self._changed.notify_all()

    def look(self) -> None:
        """Returns at once unless another trial is to be alone: then when that is over."""
        with self._changed:
            self._has_imported()
            if self._holder not in (None, threading.get_ident()):
                self._stand_still()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """The others stand still, have ended, or have been waited for 10 s: some steps take long."""
        with self._changed:
            self._has_imported()
            self._stand_still()
            self._holder = threading.get_ident()
            self._changed.wait_for(lambda: self._moving == 1, _PATIENCE)
        try:
            yield
        finally:
            self._release()

    def _stand_still(self) -> None:
        self._moving -= 1
        self._changed.notify_all()
        self._changed.wait_for(lambda: self._holder is None)
        self._moving += 1

    def _has_imported(self) -> None:
        if not self._imported and self._holder == threading.get_ident():
            self._imported = True
            self._release()

    def _release(self) -> None:
        with self._changed:
            self._holder = None
            self._changed.notify_all()


class _Slots:
    """This side of the pipe: messages are (kind, content) coming in, (kind, number, content) going out."""

    def __init__(self, pipe: Pipe, place: Place) -> None:
        self._pipe, self._place = pipe, place
        self._sending = threading.Lock()
        self._trials: SimpleQueue[_Trial] = SimpleQueue()
        self._dropped: dict[int, threading.Event] = {}
        self._turns = _Turns()
        self._granted: SimpleQueue[None] = SimpleQueue()  # quiet, by the driver
        self._stopped: list[int] = []  # ids of the processes that stand still for it

    def listen(self) -> NoReturn:
        """Takes what the driver says until it dies: then so does this process, in the middle of its trials."""
        try:
            while True:
                kind, content = self._pipe.recv()
                if kind == "trial":
                    number, spec, alone = content
                    self._dropped[number] = threading.Event()
                    self._trials.put(_Trial(number, spec, alone, self._dropped[number]))
                elif kind == "cancel":
                    self._dropped.get(content, threading.Event()).set()
                elif kind == "quiet":
                    self._stopped = content
                    self._granted.put(None)
        except (EOFError, OSError):
            pass
        except BaseException:
            traceback.print_exc()
        finally:
            self._exit()

    def work(self, evaluator: Evaluator) -> NoReturn:
        """The life of a slot: one trial after another. A SystemExit in one ends the whole process."""
        try:
            with self._place.slot():
                while True:
                    self._run(evaluator, self._trials.get())
        except (KeyboardInterrupt, OSError):  # the pipe is closed: the driver is gone
            pass
        except BaseException:
            traceback.print_exc()
        finally:
            self._exit()

    def tell(self, kind: str, number: int, content: Any = None) -> None:
        """Sends a message."""
        with self._sending:
            self._pipe.send((kind, number, content))

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """No other trial of the search runs within: here they stand still, other processes are stopped."""
        with self._turns.alone():
            self.tell("quiet", 0)
            self._granted.get()
            try:
                yield
            finally:
                wake(self._stopped)
                self._stopped = []
                self.tell("loud", 0)

    def _run(self, evaluator: Evaluator, trial: _Trial) -> None:
        if trial.alone:
            self._place.free_memory()
        kind, content = self._judge(evaluator, trial)
        if trial.alone:
            self._place.free_memory()
        del self._dropped[trial.number]
        self.tell(kind, trial.number, content)

    def _judge(self, evaluator: Evaluator, trial: _Trial) -> tuple[str, Any]:
        def tell(metrics: dict[str, Any]) -> None:
            self.tell("epoch", trial.number, metrics)

        def stop() -> bool:
            self._turns.look()
            return trial.dropped.is_set()

        try:
            with self._turns.trial():
                return "result", run_trial(evaluator, trial.spec, tell, stop, trial.alone)
        except StoppedError:
            return "dropped", None
        except MemoryShortError:
            return "memory", None
        except Exception as error:
            if self._place.is_broken():
                self._give_up(error)
            # Ours, or the author's of a space or a measure: told where it can be read.
            return "error", (_sendable(error), traceback.format_exc())

    def _give_up(self, error: Exception) -> NoReturn:
        """Ends the process, which the driver replaces; it hears no more of the trials in other slots."""
        with self._sending:
            first_line = f"{type(error).__name__}: {error}".splitlines()[0]
            self._pipe.send(("broken", 0, (first_line, traceback.format_exc())))
            self._exit()

    def _exit(self) -> NoReturn:
        """At once: nothing that a thread is in the middle of is worth waiting for."""
        wake(self._stopped)
        os._exit(1)


def work(pipe: Pipe, evaluator: Evaluator, number: int, place: Place) -> None:
    """The life of worker process `number`. If `place` does not, the first trial that needs torch imports it."""
    slots = _Slots(pipe, place)
    _thread(slots.listen)
    try:
        place.prepare()
    except Exception as error:
        slots.tell("error", 0, (_sendable(error), traceback.format_exc()))
        return
    # Not every evaluator can be used by several threads at once: each has its own.
    first, *others = (evaluator.placed(number, slots.quiet) for _ in range(place.slots))
    for other in others:
        _thread(slots.work, other)
    slots.work(first)


def _thread(function: Callable[..., Any], *arguments: Any) -> None:
    threading.Thread(target=function, args=arguments, daemon=True).start()


def wake(pids: Iterable[int | None]) -> None:
    """Lets processes go on that were stopped; those that are gone are no error."""
    if hasattr(signal, "SIGCONT"):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid or 0, signal.SIGCONT)


def _sendable(error: Exception) -> Exception:
    """The error itself, or its text when it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
