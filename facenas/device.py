"""The one place that decides device, precision, memory format and threads. Imports torch only when it must."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from facenas.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class Device:
    """Where tensors live and in which precision a network runs."""

    torch_device: torch.device
    bf16: bool

    @property
    def is_gpu(self) -> bool:
        """Whether it is another device than the CPU."""
        return self.torch_device.type != "cpu"

    def autocast(self) -> AbstractContextManager[None]:
        """bf16 where the hardware computes in it (a CPU without it is 5.9 times slower), else float32."""
        import torch

        if not self.bf16:
            return nullcontext()
        # No weight is used twice in a step; and a captured step must not find one that was cast before it.
        return torch.autocast(self.torch_device.type, dtype=torch.bfloat16, cache_enabled=False)

    def place(self, model: nn.Module) -> nn.Module:
        """The model on this device, channels last (1.1 to 1.4 times faster on a CPU)."""
        import torch

        model.to(self.torch_device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model


def pick_device(worker: int = 0) -> Device:
    """A GPU when there is one (workers take turns over several), else the CPU in float32."""
    import torch

    if not torch.cuda.is_available():
        return Device(torch.device("cpu"), False)
    # The same command twice gives the same result: cuDNN would choose sums in any order, where they are faster.
    torch.backends.cudnn.deterministic = True
    index = worker % torch.cuda.device_count()
    # torch asks the current device, which need not be this worker's, and by default counts a V100 or T4
    # among those with bf16: they emulate it, slower than they compute in float32.
    with torch.cuda.device(index):
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return Device(torch.device("cuda", index), bf16)


def named_device(name: str | None) -> Device:
    """The device called cpu, cuda or cuda:1; None leaves the choice to `pick_device`.

    Raises UserError for another name, and for a GPU that is not there.
    """
    import torch

    if name is None:
        return pick_device()
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (number and (kind == "cpu" or not number.isdecimal())):
        raise UserError(f"device {name}: should be cpu, cuda, or a GPU by its number as cuda:1")
    if kind == "cpu":
        return Device(torch.device("cpu"), False)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(number or 0) >= count:
        raise UserError(f"device {name}: torch finds {count} GPUs here; take a lower number, or the device cpu")
    return pick_device(int(number or 0))


def core_count() -> int:
    """Cores this process may use: fewer than the machine has in a container or under a batch system."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Within it, torch computes with `count` threads; afterwards with as many as before.

    Another count gives other rounding, so results say theirs. The environment is left alone: torch reads
    OMP_NUM_THREADS only while it is imported.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
