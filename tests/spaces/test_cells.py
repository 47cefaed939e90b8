"""The cell space: counts by the book, what lies where, moves, settings, JSON and errors."""

from __future__ import annotations

import copy
import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from facenas.errors import UserError
from facenas.spaces import Cells, ImageFacts
from facenas.spaces.base import fingerprint
from facenas.spaces.cells import Block, Cell, CellArchitecture

BARE = Block("identity", 1, False, "none", False)


def small_space(seed: int, **settings: object) -> Cells:
    """Narrow networks for small images, with bounds, channels, classes and image size of this seed."""
    rng = random.Random(seed)
    bounds = {"min_cells": 1, "max_cells": rng.randint(1, 4), "max_blocks": rng.randint(1, 3)}
    widths = tuple(rng.sample((2, 3, 4, 5), 2))
    drawn = {**bounds, "max_pipelines": rng.randint(1, 3), "base_widths": widths, "min_side": 2}
    config = Cells.Settings.model_validate({**drawn, **settings})
    return Cells(config).bind(ImageFacts(rng.randint(1, 3), rng.randint(2, 6), rng.choice((8, 9, 11, 12))))


def conv(kernel: int = 3, **options: object) -> Block:
    """A convolution with BatchNorm and ReLU, but for the `options`."""
    plain = {"batch_norm": True, "activation": "relu", "skip": False}
    return Block("conv", kernel, **{**plain, **options})


def network(*cells: Cell, stem: int = 4) -> CellArchitecture:
    """A chain of these cells for grey images and ten classes."""
    return CellArchitecture(stem, cells, 1, 10)


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
        (("stem",), "wide", "'stem', which should be a whole number"),
        (("stem",), 4.0, "4.0 as 'stem'"),
        (("stem",), True, "True as 'stem'"),
        (("stem",), None, "None as 'stem'"),
        (("num_classes",), 0, "not a cells architecture"),
        (("cells",), {}, "should be a list of cells"),
        (("cells",), [], "not a cells architecture"),
        (("cells", 0), "same", "a cell should be a JSON object"),
        (("cells", 0, "pipelines"), [{}], "a list of lists of blocks of a cell"),
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


def in_bounds(space: Cells, arch: CellArchitecture) -> bool:
    """The bounds once more, part by part."""
    c = space.settings
    blocks = [b for cell in arch.cells for pipeline in cell.pipelines for b in pipeline]
    named = {b.operation + ("" if b.operation == "identity" else str(b.kernel)) for b in blocks}
    sides = [-(-space.images.image_size // placed.shrink) for placed in arch.placed()]
    return (
        c.min_cells <= len(arch.cells) <= c.max_cells
        and all(c.min_pipelines <= len(x.pipelines) <= c.max_pipelines for x in arch.cells)
        and all(c.min_blocks <= len(p) <= c.max_blocks for x in arch.cells for p in x.pipelines)
        and named <= set(c.operations)
        and {b.activation for b in blocks} <= set(c.activations)
        and {b.batch_norm for b in blocks} <= set(c.batch_norm)
        and min(sides) >= c.min_side
        and arch.stem in c.base_widths
        and (arch.in_channels, arch.num_classes) == (space.images.in_channels, space.images.num_classes)
    )


@given(SEEDS)
def test_rows_that_differ_in_ignored_genes_alone_are_one_network(seed):
    space = small_space(seed, max_cells=3)
    row, other = (
        [random.Random(seed + i).randint(*pair) for pair in zip(*space.bounds(), strict=True)] for i in range(2)
    )
    row[0] = 0  # one cell: the genes of the second and third do not matter
    used = 2 + (len(row) - 2) // 3
    assert space.decode(row) == space.decode(row[:used] + other[used:])


@settings(deadline=None, max_examples=50)
@given(SEEDS)
def test_all_moves_stay_in_bounds(seed):
    least = small_space(seed).start().count_parameters()
    space, rng = small_space(seed, max_parameters=2 * least), random.Random(seed)
    first, second = space.sample(rng), space.sample(rng)
    child = space.crossover(first, second, rng)
    for arch in (space.start(), first, second, child, space.mutate(child, rng)):
        assert in_bounds(space, arch)
        assert space.decode(space.encode(arch)) == arch
        assert arch.count_parameters() <= 2 * least


def test_mutations_reach_everything_that_may_change():
    space, rng = small_space(5, max_cells=3, max_pipelines=2, max_blocks=2), random.Random(0)
    reached, arch = [], space.start()
    for _ in range(300):
        arch = space.mutate(arch, rng)
        reached.append(arch)
    cells = [cell for arch in reached for cell in arch.cells]
    blocks = [b for cell in cells for pipeline in cell.pipelines for b in pipeline]
    assert {len(arch.cells) for arch in reached} == {1, 2, 3}
    assert {arch.stem for arch in reached} == set(space.settings.base_widths)
    assert {cell.role for cell in cells} == {"same", "down", "up"}
    assert {cell.merge for cell in cells} == {"add", "concat"}
    assert {(b.operation, b.kernel) for b in blocks} == {
        ("identity", 1),
        ("max_pool", 3),
        ("avg_pool", 3),
        *(("conv", kernel) for kernel in (1, 3, 5, 7)),
        *(("separable", kernel) for kernel in (3, 5)),
    }
    assert {b.activation for b in blocks} == set(space.settings.activations)
    assert {b.batch_norm for b in blocks} == {b.skip for b in blocks} == {False, True}


def test_a_child_takes_from_both_parents():
    space = small_space(1, min_cells=2, max_cells=2, max_pipelines=1, base_widths=(2, 4))
    plain, bare = (
        network(*[Cell("same", "add", width, ((block,),))] * 2, stem=width)
        for block, width in ((conv(7, activation="silu"), 4), (BARE, 2))
    )
    space = Cells(space.settings).bind(ImageFacts(1, 10, 8))
    children = [space.crossover(plain, bare, random.Random(seed)) for seed in range(60)]
    blocks = {cell.pipelines[0][0] for child in children for cell in child.cells}
    assert {child.stem for child in children} == {2, 4}
    assert {b.operation for b in blocks} == {"conv", "identity"}
    assert {b.activation for b in blocks} == {"none", "silu"}
    assert any(len(set(child.cells)) == 2 for child in children)


@given(SEEDS)
def test_the_start_is_the_smallest(seed):
    space = small_space(seed)
    least = space.start().count_parameters()
    assert least <= space.sample(random.Random(seed)).count_parameters()


@pytest.mark.parametrize(("size", "smallest"), [(8, 4), (28, 4), (32, 4), (33, 5), (3, 3)])
def test_the_resolution_keeps_its_lower_bound(size, smallest):
    """28, 14, 7, 4; 33, 17, 9, 5; images below the bound are not halved at all."""
    space = Cells().bind(ImageFacts(1, 10, size))
    rng = random.Random(0)
    sides = [-(-size // p.shrink) for _ in range(200) for p in space.sample(rng).placed()]
    assert (min(sides), max(sides)) == (smallest, size)


def test_widths_grow_with_every_halving():
    config = Cells.Settings(base_widths=(10,), growth=1.5)
    found = {
        (placed.shrink, placed.cell.channels)
        for seed in range(200)
        for placed in Cells(config).bind(ImageFacts(1, 10, 32)).sample(random.Random(seed)).placed()
    }
    assert found == {(1, 10), (2, 15), (4, 22), (8, 34)}


def test_the_set_of_blocks_is_the_users():
    config = Cells.Settings(
        operations=("conv5", "identity"),
        batch_norm=(True,),
        activations=("silu", "none"),
        skip=(True,),
        merges=("concat",),
    )
    space, rng = Cells(config).bind(ImageFacts(1, 10, 28)), random.Random(0)
    drawn = [space.sample(rng) for _ in range(100)]
    cells = [cell for arch in drawn for cell in arch.cells]
    blocks = {b for cell in cells for pipeline in cell.pipelines for b in pipeline}
    assert blocks == {
        *(conv(5, activation=name, skip=True) for name in ("silu", "none")),
        *(b for b in blocks if b.operation == "identity" and b.batch_norm),
    }
    assert {cell.merge for cell in cells if len(cell.pipelines) > 1} == {"concat"}
    assert all(space.decode(space.encode(arch)) == arch for arch in drawn)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"operations": []}, "operations: name one or more"),
        ({"operations": ["conv3", "conv3"]}, "each once"),
        ({"operations": ["conv9"]}, "conv9"),
        ({"activations": ["tanh"]}, "tanh"),
        ({"batch_norm": []}, "batch_norm"),
        ({"min_cells": 7}, "min_cells is above max_cells"),
        ({"min_blocks": 4}, "min_blocks is above max_blocks"),
        ({"base_widths": [0]}, "greater than 0"),
        ({"min_side": 1}, "min_side"),
        ({"pipelines": 3}, "pipelines"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, words):
    with pytest.raises(ValidationError, match=words):
        Cells.Settings.model_validate(settings)


def test_a_limit_below_the_smallest_network_is_refused():
    with pytest.raises(UserError, match="max_parameters is 100, but the smallest network has"):
        Cells(max_parameters=100).bind(ImageFacts(1, 10, 28))


def test_rows_and_networks_from_elsewhere_are_refused():
    space = Cells(max_cells=2, base_widths=(4,)).bind(ImageFacts(1, 10, 28))
    lower, upper = space.bounds()
    for row in (lower[1:], (-1, *lower[1:]), (*upper[:-1], upper[-1] + 1)):
        with pytest.raises(UserError, match="gene"):
            space.decode(row)
    same = Cell("same", "add", 4, ((BARE,),))
    assert space.encode(network(same, same))
    for outside in (
        network(same),  # too short
        network(same, same, stem=5),
        network(same, Cell("same", "add", 5, ((BARE,),))),
        network(same, Cell("same", "add", 4, ((conv(9),),))),
        CellArchitecture(4, (same, same), 3, 10),
    ):
        with pytest.raises(UserError, match="the network"):
            space.encode(outside)
