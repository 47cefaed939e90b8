"""The built network: shapes, gradients, and weights that come from the seed alone."""

from __future__ import annotations

import pytest
import torch

from facenas.spaces import PlainArchitecture

MIXED = ((0, 1, 1, 0, 0, 1), (3, 5, 3, 5, 3, 3))


def mixed(channels: int, classes: int = 7) -> PlainArchitecture:
    return PlainArchitecture(6, *MIXED, channels, classes)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 28, 32])
def test_images_go_in_and_logits_come_out(size, channels):
    logits = mixed(channels).build(1)(torch.randn(2, channels, size, size))
    assert logits.shape == (2, 7)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("depth", [1, 2, 3, 7])
@pytest.mark.parametrize("operation", [0, 1])
def test_any_depth_builds_and_gives_every_parameter_a_gradient(depth, operation):
    module = PlainArchitecture.uniform(depth, 4, 3, 5, operation).build(2)
    torch.nn.functional.cross_entropy(module(torch.randn(6, 3, 12, 12)), torch.arange(6) % 5).backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


def test_the_mixed_network_gives_every_parameter_a_gradient():
    module = mixed(1).build(3)
    torch.nn.functional.cross_entropy(module(torch.randn(7, 1, 16, 16)), torch.arange(7)).backward()
    assert all(p.grad is not None and p.grad.any() for p in module.parameters())
