"""Dropout and batch statistics over several processes, against one process with the joint batch."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from facenas.models.dropout import SeededDropout, place_dropout
from facenas.models.sync_batchnorm import JointBatchNorm, join_statistics


def test_dropout_draws_the_joint_mask():
    layer, x = SeededDropout(0.4), torch.ones(10, 3, 4)
    layer.place(torch.tensor([5, 1]), 0)
    whole = layer(x)
    parts = []
    for start, stop in ((0, 3), (3, 4), (4, 10)):
        layer.place(torch.tensor([5, 1]), start)
        parts.append(layer(x[start:stop]))
    assert torch.equal(torch.cat(parts), whole)
    kept = whole != 0
    assert 0.3 < kept.float().mean() < 0.9
    assert torch.equal(whole[kept], torch.full_like(whole[kept], 1 / 0.6))
    layer.place(torch.tensor([7, 1]), 0)
    assert not torch.equal(layer(x), whole)


def test_dropout_layers_of_a_network_differ_and_evaluation_changes_nothing():
    network = nn.Sequential(SeededDropout(0.5), SeededDropout(0.5))
    place_dropout(network, torch.tensor([3, 2]), 0)
    x = torch.ones(100, 20)
    assert not torch.equal(network[0](x), network[1](x))
    assert network.eval()(x) is x


def test_unplaced_dropout_is_ordinary_dropout():
    torch.manual_seed(0)
    kept = SeededDropout(0.4)(torch.ones(100, 100))
    assert (kept == 0).float().mean() == pytest.approx(0.4, abs=0.02)
    assert kept.max() == pytest.approx(1 / 0.6)


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.BatchNorm1d(36, affine=False))


def one_step(net: nn.Module, images: torch.Tensor) -> torch.Tensor:
    out = net(images)
    (out * torch.arange(36) * images[:, :1, 0, 0]).sum().backward()
    return out


def one_rank(rank: int, sizes: tuple[int, ...], file: str, images: torch.Tensor) -> None:
    dist.init_process_group("gloo", f"file://{file}", rank=rank, world_size=len(sizes))
    joint, alone = network(), network()
    assert isinstance(join_statistics(joint)[1], JointBatchNorm)
    start = sum(sizes[:rank])
    out = one_step(joint, images[start : start + sizes[rank]])
    expected = one_step(alone, images)[start : start + sizes[rank]]
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)
    for ours, theirs in zip(joint.parameters(), alone.parameters(), strict=True):
        dist.all_reduce(ours.grad)
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-3)
    for name, buffer in alone.state_dict().items():
        torch.testing.assert_close(joint.state_dict()[name], buffer, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(joint.eval()(images), alone.eval()(images))
    dist.destroy_process_group()


def test_statistics_are_those_of_the_joint_batch(tmp_path):
    images = torch.randn(7, 2, 5, 5, generator=torch.Generator().manual_seed(0)) * 3 + 1
    mp.spawn(one_rank, ((3, 4), str(tmp_path / "meet"), images), nprocs=2)
