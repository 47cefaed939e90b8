"""The one place that decides device, precision, memory format and threads. Imports torch only when it must."""

from __future__ import annotations

import ctypes
import os
import runpy
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

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


def pick_device(worker: int | None = None) -> Device:
    """A GPU when there is one, else the CPU in float32.

    Workers take turns over several GPUs; None: torch's current one, which under `torchrun` is this process's.
    """
    import torch

    if not torch.cuda.is_available():
        return Device(torch.device("cpu"), False)
    # The same command twice gives the same result: cuDNN would choose sums in any order, where they are faster.
    torch.backends.cudnn.deterministic = True
    index = torch.cuda.current_device() if worker is None else worker % torch.cuda.device_count()
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


def stream_beside(stream: torch.cuda.Stream) -> torch.cuda.Stream:
    """Another stream for who works on `stream`, and always the same one.

    torch has 32 and hands them out in turn: if each training took new ones, they would soon be those of other
    slots, one of which may just be captured and would swallow what comes in between.
    """
    import torch

    key = stream.device, stream.cuda_stream
    if key not in _BESIDE:
        _BESIDE[key] = torch.cuda.Stream(stream.device)  # type: ignore[no-untyped-call]
    return _BESIDE[key]


_BESIDE: dict[tuple[torch.device, int], torch.cuda.Stream] = {}


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


def card_memory() -> list[int]:
    """Free bytes of every NVIDIA card that torch can use, in CUDA's order; [] without one.

    Asks the driver's library, which heeds CUDA_VISIBLE_DEVICES: torch takes seconds to import, and would hold a
    context on a card. A driver that fails is none.
    """
    count = ctypes.c_int()
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
        if not _torch_has_cuda() or cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)):
            return []
        return [_free_bytes(cuda, number) for number in range(count.value)]
    except (OSError, AttributeError):  # no library, or one that is too old
        return []


def _torch_has_cuda() -> bool:
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    return runpy.run_path(str(Path(spec.origin).with_name("version.py"))).get("cuda") is not None


def _free_bytes(cuda: Any, number: int) -> int:
    """By the management library, which needs no context; all memory of the card where that does not answer."""
    card, total, name = ctypes.c_int(), ctypes.c_size_t(), (ctypes.c_ubyte * 16)()
    handle, memory = ctypes.c_void_p(), (ctypes.c_ulonglong * 3)()  # nvmlMemory_t: total, free, used
    if cuda.cuDeviceGet(ctypes.byref(card), number) or cuda.cuDeviceTotalMem_v2(ctypes.byref(total), card):
        return 0
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
        if cuda.cuDeviceGetUuid(name, card) or nvml.nvmlInit_v2():
            return total.value
        told = f"GPU-{uuid.UUID(bytes=bytes(name))}".encode()
        if nvml.nvmlDeviceGetHandleByUUID(told, ctypes.byref(handle)):
            return total.value
        failed = nvml.nvmlDeviceGetMemoryInfo(handle, memory)
    except (OSError, AttributeError):
        return total.value
    return total.value if failed else min(total.value, memory[1])  # of a part of a card (MIG), less than all
