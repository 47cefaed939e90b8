"""Data-parallel training under `torchrun`: several processes that train as one.

Each process takes its slice of every joint batch. Batch statistics, dropout masks, the head's norm
statistics and the loss are those of the joint batch, so the result does not depend on how many
processes share it (up to rounding). Without `torchrun`, all of this does nothing.

Every process has the whole network, but for the columns of a head that is split (`facenas.models.heads.split`):
these have no copies to average gradients with, count for the norm of gradients, and are saved as one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from copy import copy
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from facenas.device import Device
from facenas.models.heads.base import Head
from facenas.models.heads.split import Share
from facenas.models.sync_batchnorm import join_statistics


def start() -> None:
    """Joins the processes that `torchrun` started, if it did; Ray Train has joined those that it starts."""
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


def local_world() -> int:
    """How many of the processes are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", world())) if dist.is_initialized() else 1


def world() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def barrier() -> None:
    """Waits until all processes are here."""
    if world() > 1:
        dist.barrier()


def first_does(work: Callable[[], None]) -> None:
    """The first process does it while the others wait, for longer than the half hour that `start` allows."""
    if world() == 1:
        work()
        return
    waiting = dist.new_group(backend="gloo", timeout=timedelta(days=7))
    assert isinstance(waiting, dist.ProcessGroup), "all processes are in it"
    if rank() == 0:
        work()
    dist.barrier(waiting)
    dist.destroy_process_group(waiting)


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
        split = shares(network)
        for name, parameter in network.named_parameters():
            if parameter.grad is not None and name not in split:
                dist.all_reduce(parameter.grad.div_(world()))


def wrap(network: nn.Module) -> nn.Module:
    """The network with joint batch statistics, whose gradients are averaged over the processes."""
    if world() == 1:
        return network
    join_statistics(network)
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(  # type: ignore[no-untyped-call]
        network, list(shares(network))
    )
    return DistributedDataParallel(network)


def shares(network: nn.Module) -> dict[str, Share]:
    """The parameters of which this process has some columns alone, by name."""
    heads = ((name, module) for name, module in network.named_modules() if isinstance(module, Head))
    split = ((name, head, head.share) for name, head in heads if head.share is not None)
    return {inner: share for name, head, share in split for inner, _ in head.named_parameters(name)}


def clip_gradients(network: nn.Module, norm: float) -> None:
    """Makes gradients smaller, where those of all parameters together are longer than `norm`."""
    split = shares(network) if world() > 1 else {}
    if not split:
        nn.utils.clip_grad_norm_(network.parameters(), norm)
        return
    found = [(name in split, p.grad) for name, p in network.named_parameters() if p.grad is not None]
    own, common = ([gradient for mine, gradient in found if mine is which] for which in (True, False))
    length = (total(_squares(own)) + _squares(common)).sqrt()
    factor = (norm / (length + 1e-6)).clamp_max(1)  # as torch's own
    for _, gradient in found:
        gradient.mul_(factor)


def _squares(gradients: list[Tensor]) -> Tensor:
    return torch.stack([torch.linalg.vector_norm(gradient).square() for gradient in gradients]).sum()


def whole_state(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The states of both as one process would have them, for the first process to write; all call it together.

    Split columns are gathered on its CPU, one share after another. Others get what is of no use.
    """
    state = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
    return _converted(network, optimizer, state, Share.whole)


def load_whole_state(network: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Goes on from what `whole_state` gave, whatever the number of processes was."""
    own = _converted(network, optimizer, state, Share.part)
    network.load_state_dict(own["network"])
    optimizer.load_state_dict(own["optimizer"])


def _converted(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    convert: Callable[[Share, Tensor], Tensor],
) -> dict[str, Any]:
    """`state`, but for split columns in it: weights, and what the optimizer keeps for each of them."""
    weights, kept = copy(state["network"]), dict(state["optimizer"]["state"])
    parameters = dict(network.named_parameters())
    numbers = {id(p): number for number, p in enumerate(_in_order(optimizer))}
    for name, share in shares(network).items():
        weights[name] = convert(share, weights[name])
        number, axes = numbers[id(parameters[name])], parameters[name].dim()
        if number in kept:
            values = kept[number].items()  # such as momentum; the number of steps has no axes
            kept[number] = {key: convert(share, v) if v.dim() == axes else v for key, v in values}
    return {"network": weights, "optimizer": {**state["optimizer"], "state": kept}}


def _in_order(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """The parameters as the optimizer's state numbers them."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
