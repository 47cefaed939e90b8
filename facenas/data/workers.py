"""Work on images by other processes: results in order, in constant memory, the same for any number of them."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from typing import Any, TypeVar

from facenas.device import core_count
from facenas.errors import UserError

Job = TypeVar("Job")
Result = TypeVar("Result")

_FEW = 10_000  # images that one process has worked off before others have started
_MOST = (
    8  # of JPEGs, this process hands on and writes what three or four others decode; of what is resized, more
)
_UNDER_WAY = 3  # jobs of a worker: one in work, one that waits, one whose turn it is not yet


def workers_for(images: int, workers: int | None) -> int:
    """`workers`; None: one for each core, 8 at most, or this process alone when there are few images."""
    return workers or (min(core_count(), _MOST) if images > _FEW else 1)


def in_order(
    make: Callable[[Job], Result], jobs: Iterable[Job], workers: int
) -> Generator[tuple[Job, Result], None, None]:
    """Each job with what `make` makes of it, in order, by `workers` spawned processes; 1: by this process.

    make: a function at the top of a module, or a `partial` of one. An error of it is raised where its result
    would have come, and so is a UserError of `jobs`. Raises UserError when a process dies. No process is left
    when the iterator is closed or dropped, nor when this process is killed.
    """
    if workers == 1:
        for job in jobs:
            yield job, make(job)
        return
    pool = _started(workers)
    waiting: deque[tuple[Job, Future[Result]]] = deque()
    try:
        for started in _submitted(pool, make, jobs):
            waiting.append(started)
            if len(waiting) > _UNDER_WAY * workers:
                yield _ended(waiting)
        while waiting:
            yield _ended(waiting)
    except BrokenProcessPool:
        raise UserError(
            "a worker process died, perhaps because memory was short; try again with fewer workers"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _submitted(
    pool: ProcessPoolExecutor, make: Callable[[Job], Result], jobs: Iterable[Job]
) -> Iterator[tuple[Any, Future[Result]]]:
    """The jobs under way; an error of `jobs` comes last, as if it were that of one more job."""
    try:
        for job in jobs:
            yield job, pool.submit(make, job)
    except UserError as error:
        failed: Future[Result] = Future()
        failed.set_exception(error)
        yield None, failed


def _ended(waiting: deque[tuple[Job, Future[Result]]]) -> tuple[Job, Result]:
    job, future = waiting.popleft()
    return job, future.result()


def _started(workers: int) -> ProcessPoolExecutor:
    """A pool of processes that run. Ctrl-C is for this process: they inherit that they ignore it."""
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _begin)
    main = threading.current_thread() is threading.main_thread()  # who alone may say what becomes of signals
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if main else None
    try:
        for _ in range(workers):
            pool.submit(int)  # each starts one: the first needs half a second to take its task
    finally:
        if main:
            signal.signal(signal.SIGINT, before)
    return pool


def _begin() -> None:
    """In a worker: it ends with the process that started it, however that ends."""
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
