"""Cell networks: parameters and MACs against a count by the book, what lies where, JSON and errors."""

from __future__ import annotations

import copy
import itertools
import json
import math
import random

import pytest
from cell_networks import BARE, conv, network, small_space
from hypothesis import given
from hypothesis import strategies as st

from facenas.errors import UserError
from facenas.spaces.base import fingerprint
from facenas.spaces.cell_block import Block
from facenas.spaces.cells import Cell, CellArchitecture

SEEDS = st.integers(0, 2**32)
POOL = Block("max_pool", 3, False, "none", False)


def drawn(seed: int) -> CellArchitecture:
    return small_space(seed).sample(random.Random(seed))


def by_the_book(arch: CellArchitecture, size: int) -> tuple[int, int]:
    """(parameters, MACs), out of the JSON and the module's own words."""
    tree, sides = arch.to_json(), [size]
    width, shape = tree["stem"], arch.in_channels
    parameters, macs = shape * width * 9 + 2 * width, shape * width * 9 * size**2
    for cell in tree["cells"]:
        if cell["role"] == "down":
            sides.append(math.ceil(sides[-1] / 2))
        elif cell["role"] == "up":
            sides.pop()
        ends = []
        for blocks in cell["pipelines"]:
            channels = width
            for block in blocks:
                before, k = channels, block["kernel"]
                weights = 0
                if block["operation"] == "conv":
                    channels = cell["channels"]
                    weights = before * channels * k * k
                elif block["operation"] == "separable":
                    channels = cell["channels"]
                    weights = before * k * k + before * channels
                if weights and not block["batch_norm"]:
                    parameters += channels
                parameters += 2 * channels if block["batch_norm"] else 0
                parameters += channels if block["activation"] == "prelu" else 0
                if block["skip"] and before != channels:
                    weights += before * channels
                parameters += weights
                macs += weights * sides[-1] ** 2
            ends.append(channels)
        ends = [sum(ends)] if cell["merge"] == "concat" else ends
        width = cell["channels"]
        weights = sum(end * width for end in ends if end != width)
        parameters, macs = parameters + weights, macs + weights * sides[-1] ** 2
    return parameters + (width + 1) * arch.num_classes, macs + width * arch.num_classes


@given(SEEDS, st.integers(1, 40))
def test_parameters_and_macs_by_the_book(seed, size):
    arch = drawn(seed)
    assert (arch.count_parameters(), arch.count_macs(size)) == by_the_book(arch, size)


def test_the_counts_of_a_network_written_out():
    arch = network(
        Cell("down", "add", 8, ((conv(5, batch_norm=False, skip=True),), (POOL,))),
        Cell("up", "concat", 4, ((Block("separable", 3, True, "prelu", False),), (BARE,))),
    )
    stem, classifier = 9 * 4 + 2 * 4, 4 * 10 + 10
    # 5x5 with bias and its shortcut's projection; the pool's projection from 4 to 8 channels.
    first = (25 * 4 * 8 + 8 + 4 * 8) + 4 * 8
    # Depthwise, pointwise, BatchNorm, PReLU; 4 + 8 channels are joined and projected to 4.
    second = (8 * 9 + 8 * 4 + 2 * 4 + 4) + 12 * 4
    assert arch.count_parameters() == stem + first + second + classifier == 1130
    macs = 36 * 81 + (800 + 32 + 32) * 25 + (72 + 32 + 48) * 81 + 40  # 9x9, 5x5, 9x9 pixels
    assert arch.count_macs(9) == macs == 36_868


@given(SEEDS)
def test_cells_and_blocks_fit_together(seed):
    arch = drawn(seed)
    channels, shrink = arch.stem, 1.0
    for cell, placed in zip(arch.cells, arch.placed(), strict=True):
        shrink *= {"down": 2, "same": 1, "up": 0.5}[cell.role]
        assert (placed.cell, placed.in_channels, placed.shrink) == (cell, channels, shrink)
        assert shrink >= 1
        for blocks, pipeline in zip(placed.pipelines, cell.pipelines, strict=True):
            assert tuple(block.block for block in blocks) == pipeline
            assert blocks[0].in_channels == channels
            strides = [block.stride for block in blocks]
            assert strides == [2 if cell.role == "down" else 1] + [1] * (len(blocks) - 1)
            for one, other in itertools.pairwise(blocks):
                assert one.out_channels == other.in_channels
            assert {block.shrink for block in blocks} == {shrink}
        channels = cell.channels


def test_equal_networks_have_equal_descriptions():
    a, b = (conv(3),), (conv(5), BARE)
    assert Cell("same", "add", 4, (a, b)) == Cell("same", "add", 4, (b, a))
    assert Cell("same", "concat", 4, (a,)) == Cell("same", "add", 4, (a,))
    assert Cell("same", "concat", 4, (a, a)) != Cell("same", "add", 4, (a, a))
    assert Block("identity", 1, True, "relu", True) == Block("identity", 1, True, "relu", False)


@given(SEEDS)
def test_json_round_trip(seed):
    arch = drawn(seed)
    tree = arch.to_json()
    assert json.loads(json.dumps(tree)) == tree
    assert CellArchitecture.from_json(tree) == arch


def test_every_field_changes_the_fingerprint():
    def build(stem=4, role="same", merge="add", channels=4, more=(), classes=10, **options):
        pipelines = ((conv(**options),), (BARE, *more))
        return CellArchitecture(stem, (Cell(role, merge, channels, pipelines),), 1, classes)

    networks = [
        build(),
        build(stem=5),
        build(role="down"),
        build(merge="concat"),
        build(channels=5),
        build(more=(BARE,)),
        build(classes=9),
        build(kernel=5),
        build(batch_norm=False),
        build(activation="silu"),
        build(skip=True),
    ]
    assert len({fingerprint(arch.to_json()) for arch in networks}) == len(networks)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Block("spiral", 3, True, "relu", True),
        lambda: Block("conv", 4, True, "relu", True),
        lambda: Block("conv", -1, True, "relu", True),
        lambda: Block("max_pool", 1, True, "relu", True),
        lambda: Block("identity", 3, True, "relu", True),
        lambda: Block("conv", 3, True, "tanh", True),
        lambda: Cell("left", "add", 4, ((BARE,),)),
        lambda: Cell("same", "mean", 4, ((BARE,),)),
        lambda: Cell("same", "add", 0, ((BARE,),)),
        lambda: Cell("same", "add", 4, ()),
        lambda: Cell("same", "add", 4, ((BARE,), ())),
        lambda: network(),
        lambda: network(Cell("same", "add", 4, ((BARE,),)), stem=0),
    ],
)
def test_what_does_not_fit_together_is_refused(make):
    with pytest.raises(UserError, match="not a"):
        make()


def test_no_cell_rises_above_the_image():
    up, down = (Cell(role, "add", 4, ((BARE,),)) for role in ("up", "down"))
    assert [cell.shrink for cell in network(down, up).placed()] == [2, 1]
    with pytest.raises(UserError, match="cell 3 would rise"):
        network(down, up, up)


TREE = network(Cell("down", "add", 4, ((conv(),), (BARE, POOL)))).to_json()


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ((), [], "JSON object"),
        (("stem",), "wide", "'stem', which should be a int"),
        (("stem",), 4.0, "4.0 as 'stem'"),
        (("stem",), True, "True as 'stem'"),
        (("stem",), None, "None as 'stem'"),
        (("num_classes",), 0, "not a cells architecture"),
        (("cells",), {}, "should be a list"),
        (("cells",), [], "not a cells architecture"),
        (("cells", 0), "same", "a cell should be a JSON object"),
        (("cells", 0, "pipelines"), [{}], "list of blocks"),
        (("cells", 0, "pipelines", 0, 0), 7, "a block of a cell should be a JSON object"),
        (("cells", 0, "pipelines", 0, 0, "kernel"), 4, "not a block"),
        (("cells", 0, "pipelines", 0, 0, "skip"), 1, "1 as 'skip'"),
        (("cells", 0, "pipelines", 0, 0, "operation"), ["conv"], "as 'operation'"),
        (("cells", 0, "pipelines", 0, 0, "dilation"), 2, "no field 'dilation'"),
    ],
)
def test_wrong_fields_are_told_in_a_sentence(place, value, words):
    tree = copy.deepcopy({"": TREE})
    inner, path = tree, ("", *place)
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    with pytest.raises(UserError, match=words):
        CellArchitecture.from_json(tree[""])


@pytest.mark.parametrize("field", ["stem", "cells", "in_channels", "num_classes"])
def test_a_missing_field_is_named(field):
    with pytest.raises(UserError, match=field):
        CellArchitecture.from_json({k: v for k, v in TREE.items() if k != field})
