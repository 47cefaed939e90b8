"""Built cell networks: whatever the space draws builds, counts as told and trains; parts do what they say."""

from __future__ import annotations

import math
import random

import pytest
import torch
from torch import nn

from facenas.spaces import Cells, ImageFacts
from facenas.spaces.cells import Block, Cell, CellArchitecture

BARE = Block("identity", 1, False, "none", False)
NARROW = Cells.Settings(min_cells=1, max_cells=3, base_widths=(2, 3, 4, 5), min_side=2)


def network(*cells: Cell, channels: int = 2) -> CellArchitecture:
    return CellArchitecture(channels, cells, channels, 5)


@pytest.mark.parametrize("activation", ["none", "relu", "silu", "prelu"])
def test_the_deepest_networks_keep_their_scale_without_any_batch_norm(activation):
    config = Cells.Settings(
        min_cells=12,
        max_cells=12,
        min_blocks=4,
        max_blocks=4,
        base_widths=(8,),
        growth=1,
        batch_norm=(False,),
        activations=(activation,),
    )
    space, rng = Cells(config).bind(ImageFacts(1, 5, 12)), random.Random(0)
    for seed in range(4):
        module = space.sample(rng).build(seed)
        logits = module(torch.randn(6, 1, 12, 12, generator=torch.Generator().manual_seed(seed)))
        assert 0.01 < logits.abs().max() < 1000
        logits.sum().backward()
        assert all(torch.isfinite(p.grad).all() for p in module.parameters())


@pytest.mark.parametrize("size", [(8, 8), (28, 28), (32, 32), (13, 27), (1, 1)])
def test_images_of_any_size_go_in_and_logits_come_out(size):
    roles = ("down", "down", "same", "up", "down", "up")
    cells = [Cell(role, "concat", 3, ((BARE,), (conv(3), conv(1)))) for role in roles]
    logits = network(*cells).build(0).eval()(torch.randn(2, 2, *size))
    assert logits.shape == (2, 5)
    assert torch.isfinite(logits).all()


def test_one_image_alone_can_be_trained_on():
    space = Cells(NARROW).bind(ImageFacts(1, 5, 8))
    for seed in range(10):
        space.sample(random.Random(seed)).build(seed)(torch.randn(1, 1, 8, 8))


def conv(kernel: int, **options: object) -> Block:
    return Block("conv", kernel, **{"batch_norm": True, "activation": "relu", "skip": False, **options})


def cell_output(*cells: Cell, x: torch.Tensor) -> torch.Tensor:
    """What the last cell makes of `x`, which the first cell gets."""
    module = network(*cells, channels=x.shape[1]).build(0).eval()
    for cell in module.cells:
        x = cell(x, 5, 7)
    return x.detach()


X = torch.randn(1, 2, 5, 7, generator=torch.Generator().manual_seed(0))
DOWN, UP = (Cell(role, "add", 2, ((BARE,),)) for role in ("down", "up"))


def test_a_down_cell_of_an_identity_is_the_means_of_2x2_pixels():
    padded = nn.functional.pad(X, (0, 1, 0, 1), value=math.nan)
    windows = padded.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
    torch.testing.assert_close(cell_output(DOWN, x=X), windows.nanmean(4))


def test_an_up_cell_doubles_pixels_up_to_the_size_before_the_halving():
    small = cell_output(DOWN, x=X)
    doubled = small.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.equal(cell_output(DOWN, UP, x=X), doubled[:, :, :5, :7])


def test_the_sum_of_pipelines_keeps_its_scale():
    both = Cell("same", "add", 2, ((BARE,), (BARE,)))
    torch.testing.assert_close(cell_output(both, x=X), math.sqrt(2) * X)


def test_a_skip_adds_the_input_of_the_block():
    pool = Block("max_pool", 3, False, "relu", True)
    found = cell_output(Cell("same", "add", 2, ((pool,),)), x=X)
    pooled = nn.functional.max_pool2d(X, 3, 1, 1).relu()
    torch.testing.assert_close(found, (X + pooled) / math.sqrt(2))


def test_a_strided_1x1_convolution_sees_every_second_pixel():
    arch = network(Cell("down", "add", 3, ((conv(1, batch_norm=False, activation="none"),),)))
    module = arch.build(1)
    weights = next(p for p in module.cells.parameters() if p.dim() == 4)
    expected = torch.einsum("oi,nihw->nohw", weights[:, :, 0, 0], X[:, :, ::2, ::2])
    torch.testing.assert_close(module.cells[0](X, 5, 7), expected)
