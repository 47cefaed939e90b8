"""Data-parallel training under `torchrun`: several processes that train as one.

Each process takes its slice of every joint batch. Batch statistics, dropout masks, the head's norm
statistics and the loss are those of the joint batch, so the result does not depend on how many
processes share it (up to rounding). Without `torchrun`, all of this does nothing.
"""

from __future__ import annotations

import os
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from facenas.device import Device
from facenas.models.sync_batchnorm import join_statistics


def start() -> None:
    """Joins the processes that `torchrun` started, if it did."""
    if "WORLD_SIZE" in os.environ and not dist.is_initialized():
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        if backend == "nccl":
            torch.cuda.set_device(local_rank())
        dist.init_process_group(backend, timeout=timedelta(minutes=30))


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def local_rank() -> int:
    """This process's number on its machine: which of its GPUs is this process's."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def world() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def barrier() -> None:
    """Waits until all processes are here."""
    if world() > 1:
        dist.barrier()


def total(values: Tensor) -> Tensor:
    """The sum over all processes."""
    if world() > 1:
        dist.all_reduce(values)
    return values


def from_first(value: float, device: Device) -> float:
    """What the first process calls `value`."""
    if world() == 1:
        return value
    shared = torch.tensor(value, dtype=torch.float64, device=device.torch_device)
    dist.broadcast(shared, 0)
    return float(shared)


def weight(count: int, device: torch.device) -> float | Tensor:
    """What a mean loss over `count` items counts in the mean of all processes' losses."""
    if world() == 1:
        return 1.0
    counts = torch.full((), float(count), device=device)
    return count * world() / total(counts)


def average_gradients(network: nn.Module) -> None:
    """Gradients are the mean over the processes, where `wrap`'s network does not see to it."""
    if world() > 1:
        for parameter in network.parameters():
            if parameter.grad is not None:
                dist.all_reduce(parameter.grad.div_(world()))


def wrap(network: nn.Module) -> nn.Module:
    """The network with joint batch statistics, whose gradients are averaged over the processes."""
    if world() == 1:
        return network
    join_statistics(network)
    return DistributedDataParallel(network)
