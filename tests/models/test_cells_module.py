"""Built cell networks: whatever the space draws builds, counts as told and trains; parts do what they say."""

from __future__ import annotations

import json
import math
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from facenas.spaces import Cells, ImageFacts
from facenas.spaces.cells import Block, Cell, CellArchitecture

BARE = Block("identity", 1, False, "none", False)
NARROW = Cells.Settings(min_cells=1, max_cells=3, base_widths=(2, 3, 4, 5), min_side=2)


def network(*cells: Cell, channels: int = 2) -> CellArchitecture:
    return CellArchitecture(channels, cells, channels, 5)


def count_macs(module: nn.Module) -> list[int]:
    """A list to which every convolution and linear layer adds the multiply-accumulates of each forward."""
    found: list[int] = []

    def add(layer: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        found.append(output[0].numel() * layer.weight[0].numel())

    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(add)
    return found


@pytest.mark.parametrize("seed", range(300))
def test_a_drawn_network_builds_counts_and_trains(seed):
    rng = random.Random(seed)
    size = rng.choice((8, 9, 11, 12))
    space = Cells(NARROW).bind(ImageFacts(rng.randint(1, 3), 5, size))
    row = [rng.randint(*pair) for pair in zip(*space.bounds(), strict=True)]
    arch = space.decode(row)
    assert space.decode(space.encode(arch)) == arch
    assert CellArchitecture.from_json(json.loads(json.dumps(arch.to_json()))) == arch

    module = arch.build(seed).to(memory_format=torch.channels_last)
    assert sum(p.numel() for p in module.parameters()) == arch.count_parameters()
    macs = count_macs(module)
    shape, generator = (4, arch.in_channels, size, size), torch.Generator().manual_seed(seed)
    images = torch.randn(shape, generator=generator).to(memory_format=torch.channels_last)
    logits = module(images)
    assert logits.shape == (4, 5)
    assert sum(macs) == arch.count_macs(size)

    nn.functional.cross_entropy(logits, torch.arange(4)).backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    torch.optim.SGD(module.parameters(), lr=0.025, momentum=0.9).step()
    assert torch.isfinite(module(images)).all()


@pytest.mark.parametrize("seed", range(20))
def test_networks_of_full_size_count_as_torch_counts(seed):
    space = Cells(Cells.Settings()).bind(ImageFacts(3, 10, 32))
    arch = space.sample(random.Random(seed))
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        module = arch.build(seed)
        module.eval()(torch.zeros(1, 3, 32, 32))
    assert sum(p.numel() for p in module.parameters()) == arch.count_parameters()
    assert counter.get_total_flops() == 2 * arch.count_macs(32)


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
    return Block(
        "conv", kernel, **{"batch_norm": True, "activation": "relu", "skip": False, **options}
    )


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


def test_weights_depend_on_the_seed_alone():
    arch = Cells(Cells.Settings(max_cells=3)).bind(ImageFacts(3, 10, 28)).sample(random.Random(8))
    torch.manual_seed(123)
    first = arch.build(4).state_dict()
    torch.manual_seed(456)
    again, other = (arch.build(seed).state_dict() for seed in (4, 5))
    assert all(torch.equal(weights, again[name]) for name, weights in first.items())
    drawn = [name for name, weights in first.items() if weights.dim() > 1]
    assert drawn
    assert not any(torch.equal(first[name], other[name]) for name in drawn)


def test_the_global_random_sources_are_left_alone():
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    network(DOWN, UP).build(6)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    np.testing.assert_array_equal(before[2], np.random.get_state()[1])


def test_images_in_a_batch_do_not_see_each_other():
    arch = Cells(NARROW).bind(ImageFacts(1, 5, 9)).sample(random.Random(3))
    module = arch.build(7).eval()
    images = torch.randn(2, 1, 9, 9)
    torch.testing.assert_close(module(images)[:1], module(images[:1]))
