"""How much memory tensors take while code runs: an oracle for memory counted from a graph."""

from __future__ import annotations

import weakref
from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveTensors(TorchDispatchMode):
    """Watches every tensor that an operation gives until it is freed; views of one memory count once.

    `peak`: the most bytes that lived at once. What was there before is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.users: Counter[int] = Counter()
        self.now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().nbytes():
                self._see(tensor)
        return result

    def _see(self, tensor: torch.Tensor) -> None:
        memory = tensor.untyped_storage()
        address, size = memory.data_ptr(), memory.nbytes()
        if not self.users[address]:
            self.now += size
            self.peak = max(self.peak, self.now)
        self.users[address] += 1
        weakref.finalize(tensor, self._forget, address, size)

    def _forget(self, address: int, size: int) -> None:
        self.users[address] -= 1
        if not self.users[address]:
            self.now -= size
