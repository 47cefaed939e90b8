"""Architectures as modules, and what a module says of itself: parameters, multiply-accumulates, memory.

`Architecture.build` and the default counts of `facenas.spaces.base` come here. Counting builds the module
without values, on the device "meta". Most built-in kinds count by formula; tests hold those against this.
"""

from __future__ import annotations

import importlib
import threading
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from facenas.spaces import Architecture

_DRAWING = threading.RLock()  # torch has one generator for all threads: they would draw from each other's seed


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within, torch's generator of the CPU draws from `seed`; afterwards it goes on as if nothing had been.

    One thread at a time: others wait.
    """
    with _DRAWING, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed takes GPUs too
        yield


def build(arch: Architecture, seed: int) -> nn.Module:
    """The module of a built-in kind, as `build_module` in `facenas.models.<kind>` describes it."""
    with seeded(seed):
        module: nn.Module = importlib.import_module(f"facenas.models.{arch.kind}").build_module(arch)
    return module


def skeleton(arch: Architecture) -> nn.Module:
    """The network without any values, in evaluation mode."""
    with torch.device("meta"), seeded(0):
        return arch.build(0).eval()


@lru_cache(maxsize=65_536)
def count_parameters(arch: Architecture) -> int:
    """Trainable parameters."""
    return sum(int(p.numel()) for p in skeleton(arch).parameters() if p.requires_grad)


@lru_cache(maxsize=4096)
def count_macs(arch: Architecture, image_size: int) -> int:
    """Multiply-accumulates of convolutions and matrix products for one image."""
    with FlopCounterMode(display=False) as counter:
        _run(skeleton(arch), arch, image_size)
    flops: int = counter.get_total_flops()
    return int(flops) // 2  # one multiplication, one addition


@lru_cache(maxsize=4096)
def count_memory(arch: Architecture, image_size: int) -> int:
    """Bytes of the image, of all that the module holds, and of all that lives at once while it runs."""
    module = skeleton(arch)
    with LiveTensors() as live:
        _run(module, arch, image_size)
    state = module.state_dict().values()
    # Counters of batches seen are no part of a deployed network.
    return int(live.peak) + sum(int(v.nbytes) for v in state if v.is_floating_point())


@torch.no_grad()  # inference_mode knows no meta tensors that were made outside of it
def _run(module: nn.Module, arch: Architecture, image_size: int) -> None:
    with torch.device("meta"):
        module(torch.zeros(1, arch.in_channels, image_size, image_size))


class LiveTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Watches every tensor that an operation gives until it is freed; views of one memory count once.

    `peak`: the most bytes that lived at once. What an operation gives beside its result, such as the indices of
    a max pool, is for a backward pass and does not count: other libraries have none of it.
    """

    now: int
    peak: int

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.users: Counter[int] = Counter()
        self.now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result[0] if isinstance(result, tuple) else result):
            if isinstance(tensor, Tensor):
                self._see(tensor)
        return result

    def _see(self, tensor: Tensor) -> None:
        memory = tensor.untyped_storage()
        handle, size = memory._cdata, memory.nbytes()
        if not self.users[handle]:
            self.now += size
            self.peak = max(self.peak, self.now)
        self.users[handle] += 1
        weakref.finalize(tensor, self._forget, handle, size)

    def _forget(self, handle: int, size: int) -> None:
        self.users[handle] -= 1
        if not self.users[handle]:
            self.now -= size
