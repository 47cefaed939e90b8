"""Batch statistics of the joint batch of all processes that train together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class JointBatchNorm(_BatchNorm):
    """BatchNorm over the batches of all processes: torch's own SyncBatchNorm does not run on a CPU."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Takes (n, c) and (n, c, h, w) alike."""

    def forward(self, input: Tensor) -> Tensor:
        """What nn.BatchNorm1d/2d would give for the joint batch; in evaluation it is the same layer."""
        if not self.training:
            return super().forward(input)
        x = input if input.dtype == torch.float64 else input.float()
        dims, shape = [0, *range(2, x.dim())], [1, -1] + [1] * (x.dim() - 2)
        count = joint_sum(x.new_tensor(x.numel() / x.shape[1]))
        mean = joint_sum(x.sum(dims)) / count
        centred = x - mean.view(shape)
        variance = joint_sum(centred.square().sum(dims)) / count
        if self.track_running_stats:
            self._follow(mean.detach(), variance.detach() * count / (count - 1))
        result = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            result = result * self.weight.view(shape) + self.bias.view(shape)
        joint: Tensor = result.to(input.dtype)
        return joint

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Running statistics, with the unbiased variance, as torch keeps them."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        summed = values.clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        summed = gradients[0].contiguous().clone()
        dist.all_reduce(summed)
        return summed * ctx.factor, None


def joint_sum(values: Tensor, factor: float = 1.0) -> Tensor:
    """The sum over all processes. Every loss depends on every process's values: gradients are summed too.

    The values get `factor` times that sum.
    """
    summed: Tensor = _Sum.apply(values, factor)  # type: ignore[no-untyped-call]
    return summed


@contextmanager
def unmoved_statistics(network: nn.Module) -> Iterator[None]:
    """Within it, training leaves the running statistics of BatchNorm as they are."""
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def join_statistics(network: nn.Module) -> nn.Module:
    """The network whose BatchNorm layers use the joint batch; parameters and buffers stay the same tensors."""
    if next(network.parameters()).is_cuda:
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return converted
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, _BatchNorm):
                setattr(module, name, _joint(child))
    return network


def _joint(norm: _BatchNorm) -> JointBatchNorm:
    joint = JointBatchNorm(norm.num_features, norm.eps, norm.momentum, norm.affine)
    joint.weight, joint.bias = norm.weight, norm.bias
    joint._buffers = norm._buffers
    joint.training = norm.training
    return joint
