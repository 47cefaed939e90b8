"""A training step as one CUDA graph.

A step of a small network is several hundred kernels of a few microseconds, which the host cannot launch as fast
as the card ends them: captured once and replayed, the step of a 20-layer candidate is 5.8 times as fast (H200,
docs/results.md). What changes from batch to batch is copied into static buffers before each replay.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from facenas.device import stream_beside

log = logging.getLogger(__name__)

# All that chance and the order of images decide for one step, as tensors on the device.
Batch = tuple[Tensor, ...]
Step = Callable[..., None]
# Records what a function launches and gives what launches it again.
Capture = Callable[[Callable[[], None]], Callable[[], None]]

# Real steps of a shape before it is captured: in them, libraries choose their algorithms and the optimizer
# makes its buffers.
WARM_UP = 3

# torch allows one capture in a process at a time; and torch's own generators fail those who draw from them
# meanwhile. Nobody waits long: only the first steps of a training are not replayed.
_ONE_AT_A_TIME = threading.RLock()


class CapturedSteps:
    """Runs `step(*batch)`, captured for each shape of batch after `WARM_UP` times; later shapes after one.

    Where `capture` is None (on a CPU, among processes that train as one), or the step does what a graph cannot
    hold, it runs operation by operation; the latter is said in the log. The step is handed over each time: kept
    here it would keep its owner, and all that it has on the card, until the garbage is collected.
    """

    def __init__(self, capture: Capture | None) -> None:
        self._capture, self._refused, self._failures = capture, False, 0
        self._seen: Counter[tuple[torch.Size, ...]] = Counter()
        self._graphs: dict[tuple[torch.Size, ...], tuple[Batch, Callable[[], None]]] = {}

    def __call__(self, step: Step, batch: Batch) -> None:
        """One step."""
        if self._capture is None:
            # One that draws would fail while another thread captures.
            with _ONE_AT_A_TIME if self._refused else nullcontext():
                step(*batch)
            return
        shape = tuple(tensor.shape for tensor in batch)
        if shape not in self._graphs:
            with _ONE_AT_A_TIME:
                if not self._is_warm(shape) or not self._captured(shape, step, batch):
                    self._warm_up(step, batch)
                    self._seen[shape] += 1
                    return
        buffers, replay = self._graphs[shape]
        for buffer, tensor in zip(buffers, batch, strict=True):
            buffer.copy_(tensor, non_blocking=True)
        replay()

    def forget(self) -> None:
        """The tensors that the step works on are others from now on: it is captured anew."""
        self._graphs.clear()
        self._seen.clear()

    @property
    def graphs(self) -> int:
        """How many shapes are captured."""
        return len(self._graphs)

    def _is_warm(self, shape: tuple[torch.Size, ...]) -> bool:
        """Shapes after the first find the optimizer's buffers made: they need one step."""
        first = next(iter(self._seen), shape)
        return self._seen[shape] >= (WARM_UP if shape == first else 1)

    def _warm_up(self, step: Step, batch: Batch) -> None:
        if self._seen:
            step(*batch)
            return
        with HostOperations() as watch:  # type: ignore[no-untyped-call]
            step(*batch)
        if watch.found:
            self._refuse(watch.found)

    def _captured(self, shape: tuple[torch.Size, ...], step: Step, batch: Batch) -> bool:
        assert self._capture is not None
        buffers = tuple(tensor.clone() for tensor in batch)
        try:
            self._graphs[shape] = buffers, self._capture(lambda: step(*buffers))
        except RuntimeError as error:
            self._failures += 1
            # A step without a graph needs less memory; and another thread may have disturbed the first try.
            if self._failures > 1 or isinstance(error, torch.OutOfMemoryError):
                self._refuse(str(error).splitlines()[0])
        return shape in self._graphs

    def _refuse(self, reason: str) -> None:
        self._capture, self._refused = None, True
        log.warning("the training step cannot be captured as a CUDA graph and runs slower: %s", reason)


class HostOperations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes in `found` the first operation that a CUDA graph cannot hold.

    These are: values or shapes that the host must wait for, draws of torch's own generators, which a replay
    would repeat or which other threads disturb, and copies from one device to another.
    """

    found: str | None = None
    _TAGS = frozenset(
        (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape, torch.Tag.nondeterministic_seeded)
    )
    _COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if self.found is None and self._waits(
            func, [x for x in tree_leaves((args, result)) if isinstance(x, Tensor)]
        ):
            self.found = f"it calls {func}"
        return result

    def _waits(self, func: Any, tensors: list[Tensor]) -> bool:
        if func == torch.ops.aten.index.Tensor:  # by numbers the host knows how many there are
            return any(tensor.dtype == torch.bool for tensor in tensors[1:-1])
        if func in self._COPIES:
            return len({tensor.device for tensor in tensors}) > 1
        return bool(self._TAGS.intersection(func.tags))


def cuda_graphs(device: torch.device) -> Capture:
    """Captures on the current stream of a GPU; graphs of the same training share their memory."""
    alive: weakref.WeakSet[torch.cuda.CUDAGraph] = weakref.WeakSet()

    def capture(step: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        pool = next((other.pool() for other in alive), None) or torch.cuda.graph_pool_handle()
        with torch.cuda.device(device):
            # Not `torch.cuda.graph`: it waits for the whole card, other slots too, and empties the cache.
            # A graph needs memory of its own, as much as the steps before it left in the cache.
            if torch.cuda.mem_get_info()[0] < torch.cuda.memory_reserved():
                torch.cuda.empty_cache()
            torch.cuda.current_stream().synchronize()
            # Work of other threads does not disturb a capture that is "thread_local".
            graph.capture_begin(pool=pool, capture_error_mode="thread_local")
            try:
                step()
            finally:
                try:
                    graph.capture_end()
                except RuntimeError:
                    # torch leaves the allocator in the capture that failed: its cache is not emptied any more.
                    with suppress(RuntimeError):
                        torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), pool)
                    raise
        alive.add(graph)
        return graph.replay

    return capture


@contextmanager
def side_stream(stream: torch.cuda.Stream | None) -> Iterator[None]:
    """Within, a GPU's work goes to `stream`: torch's default stream cannot be captured."""
    if stream is None:
        yield
        return
    outer = torch.cuda.current_stream(stream.device)
    stream.wait_stream(outer)
    try:
        with torch.cuda.stream(stream):
            yield
    finally:  # after an error too: what it frees must not be used while steps are still under way
        outer.wait_stream(stream)


def stream_of(device: torch.device) -> torch.cuda.Stream | None:
    """The stream of captured steps: the current one, or another when that is the default; None on a CPU."""
    if device.type != "cuda":
        return None
    current = torch.cuda.current_stream(device)
    return stream_beside(current) if current == torch.cuda.default_stream(device) else current
