"""How images and draws reach the device that trains: once for all, in blocks, or one batch ahead."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, Literal, TypeVar
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from facenas.device import core_count, stream_beside
from facenas.errors import UserError

Residency = Literal["auto", "device", "host"]
Tensors = tuple[Tensor, ...]
Job = TypeVar("Job")
Result = TypeVar("Result")

_SHARE = 0.6  # of a card's free memory that images may take by themselves: networks need the rest
_BLOCK = 64  # batches whose draws are made, and moved to the device, at once
_ALIGNED = 16  # bytes: a tensor of any dtype may begin there

_RESIDENT: WeakValueDictionary[Hashable, Tensor] = WeakValueDictionary()
_LOCK = threading.Lock()


def resident(
    key: Hashable, nbytes: int, device: torch.device, residency: Residency, load: Callable[[], Tensor]
) -> Tensor | None:
    """What `load` gives, on the device, once for all in this process who train on it; None if it has to stay.

    key: tells contents apart, None if nothing does. Memory is freed when nobody holds the tensor any more.
    Raises UserError when it must live on the device and does not fit.
    """
    if key is None or device.type == "cpu":  # whose memory all share anyway
        return load() if _fits(nbytes, device, residency) else None
    with _LOCK:
        found = _RESIDENT.get((key, device))
        if found is None and _fits(nbytes, device, residency):
            found = _RESIDENT[key, device] = load()
            if found.is_cuda:  # streams of other threads may read it
                torch.cuda.current_stream(device).synchronize()
    return found


def _fits(nbytes: int, device: torch.device, residency: Residency) -> bool:
    if device.type != "cuda":
        return residency != "host"
    free, _ = torch.cuda.mem_get_info(device)
    if residency == "device" and nbytes > free:
        raise UserError(
            f"data.residency device: the images take {nbytes / 1e9:.1f} GB, and {device} has "
            f"{free / 1e9:.1f} GB left; choose auto or host"
        )
    return residency == "device" or (residency == "auto" and nbytes <= _SHARE * free)


def images_at(device: torch.device, nbytes: int) -> dict[str, Any]:
    """Where the images are while a network trains, for the run's facts."""
    return {"images_on": str(device), "image_bytes": nbytes}


def readers(device: torch.device, processes: int = 1) -> int:
    """Threads that read ahead: on a CPU none, the network needs its cores; beside a GPU those there are."""
    return 1 if device.type == "cpu" else max(1, min(8, core_count() // processes))


def ahead(make: Callable[[Job], Result], jobs: Iterable[Job], readers: int) -> Iterator[Result]:
    """`make` of each job, in order; by threads that are at most two results each ahead.

    An error is raised where its result would have come. Threads end when the iterator is closed or dropped.
    """
    if readers == 1:
        yield from map(make, jobs)
        return
    pool = ThreadPoolExecutor(readers, thread_name_prefix="faces")
    waiting: deque[Future[Result]] = deque()
    try:
        for job in jobs:
            waiting.append(pool.submit(make, job))
            if len(waiting) > 2 * readers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def uploaded(batches: Iterator[Tensors], device: torch.device) -> Iterator[Tensors]:
    """The same tensors on the device: `_BLOCK` batches by one copy, which the host does not wait for."""
    while some := list(islice(batches, _BLOCK)):
        packed = _packed(some, pin=device.type == "cuda")
        yield from _unpacked(packed.to(device, non_blocking=True), some)


def _packed(batches: list[Tensors], pin: bool) -> Tensor:
    """(bytes,) uint8: all values, one after another."""
    tensors = [tensor.contiguous() for batch in batches for tensor in batch]
    packed = torch.empty(sum(_room(t) for t in tensors), dtype=torch.uint8, pin_memory=pin)
    start = 0
    for tensor in tensors:
        packed[start : start + tensor.nbytes].view(tensor.dtype).copy_(tensor.view(-1))
        start += _room(tensor)
    return packed


def _unpacked(packed: Tensor, batches: list[Tensors]) -> list[Tensors]:
    """The tensors of `batches` as views of what `_packed` made of them."""
    found, start = [], 0
    for batch in batches:
        views = []
        for tensor in batch:
            view = packed[start : start + tensor.nbytes].view(tensor.dtype)
            views.append(view.view(tensor.shape))
            start += _room(tensor)
        found.append(tuple(views))
    return found


def _room(tensor: Tensor) -> int:
    return -(-tensor.nbytes // _ALIGNED) * _ALIGNED


def streamed(
    read: Callable[[Job], Tensors], jobs: Iterable[Job], device: torch.device, readers: int
) -> Iterator[Tensors]:
    """What `read` makes of each job, on the device: read by threads, copied while the last is worked on."""
    if device.type != "cuda":
        yield from ahead(read, jobs, readers)
        return
    yield from _copied_ahead(ahead(lambda job: _pinned(read(job)), jobs, readers), device)


def _pinned(batch: Tensors) -> Tensors:
    return tuple(tensor.pin_memory() for tensor in batch)


def _copied_ahead(batches: Iterable[Tensors], device: torch.device) -> Iterator[Tensors]:
    copying = stream_beside(torch.cuda.current_stream(device))
    waiting: tuple[Tensors, torch.cuda.Event] | None = None
    for batch in batches:
        with torch.cuda.stream(copying):
            moved = tuple(tensor.to(device, non_blocking=True) for tensor in batch)
            arrived = copying.record_event()
        if waiting is not None:
            yield _arrived(*waiting)
        waiting = moved, arrived
    if waiting is not None:
        yield _arrived(*waiting)


def _arrived(batch: Tensors, event: torch.cuda.Event) -> Tensors:
    """The batch, as the current stream may use it from now on."""
    current = torch.cuda.current_stream(batch[0].device)
    current.wait_event(event)
    for tensor in batch:
        tensor.record_stream(current)
    return batch
