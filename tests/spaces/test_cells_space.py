"""The space of cell networks: every row is a network, every move stays in the bounds."""

from __future__ import annotations

import random

import pytest
from cell_networks import BARE, conv, network, small_space
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from facenas.errors import UserError
from facenas.spaces.cell_settings import CellSpaceConfig
from facenas.spaces.cell_space import CellSpace
from facenas.spaces.cells import Cell, CellArchitecture

SEEDS = st.integers(0, 2**32)


def random_row(space: CellSpace, seed: int) -> list[int]:
    rng = random.Random(seed)
    return [rng.randint(*pair) for pair in zip(*space.bounds(), strict=True)]


def in_bounds(space: CellSpace, arch: CellArchitecture) -> bool:
    """The bounds once more, part by part."""
    c = space.config
    blocks = [b for cell in arch.cells for pipeline in cell.pipelines for b in pipeline]
    named = {b.operation + ("" if b.operation == "identity" else str(b.kernel)) for b in blocks}
    sides = [-(-space.image_size // placed.shrink) for placed in arch.placed()]
    return (
        c.min_cells <= len(arch.cells) <= c.max_cells
        and all(c.min_pipelines <= len(x.pipelines) <= c.max_pipelines for x in arch.cells)
        and all(c.min_blocks <= len(p) <= c.max_blocks for x in arch.cells for p in x.pipelines)
        and named <= set(c.operations)
        and {b.activation for b in blocks} <= set(c.activations)
        and {b.batch_norm for b in blocks} <= set(c.batch_norm)
        and min(sides) >= c.min_side
        and arch.stem in c.base_widths
        and (arch.in_channels, arch.num_classes) == (space.in_channels, space.num_classes)
    )


@given(SEEDS, SEEDS)
def test_every_row_is_a_network_that_goes_back_into_a_row(seed, row_seed):
    space = small_space(seed)
    row = random_row(space, row_seed)
    arch = space.decode(row)
    encoded = space.encode(arch)
    assert in_bounds(space, arch)
    assert space.decode(encoded) == arch
    assert len(encoded) == len(row)
    assert space.contains(arch)
    assert in_bounds(space, space.decode(space.bounds()[1]))


@given(SEEDS)
def test_rows_that_differ_in_ignored_genes_alone_are_one_network(seed):
    space = small_space(seed, max_cells=3)
    row, other = random_row(space, seed), random_row(space, seed + 1)
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
        assert space.contains(arch)
        assert arch.count_parameters() <= 2 * least


@settings(deadline=None, max_examples=30)
@given(SEEDS)
def test_neighbours_are_one_gene_away_and_all_different(seed):
    space = small_space(seed, max_cells=2, max_pipelines=2)
    arch = space.sample(random.Random(seed))
    found = space.neighbours(arch)
    assert len(set(found)) == len(found) > 0
    assert arch not in found
    assert all(space.contains(other) for other in found)
    row, (lower, upper) = space.encode(arch), space.bounds()
    changed = {
        space.decode([*row[:i], value, *row[i + 1 :]])
        for i in range(len(row))
        for value in range(lower[i], upper[i] + 1)
    }
    assert {*found, arch} == {other for other in changed if space.contains(other)}


@settings(deadline=None, max_examples=50)
@given(SEEDS)
def test_the_seed_decides_and_a_mutation_changes(seed):
    space = small_space(seed)
    arch = space.sample(random.Random(seed))
    mutated = [space.mutate(arch, random.Random(seed)) for _ in range(2)]
    assert mutated[0] == mutated[1] != arch
    assert space.sample(random.Random(seed)) == arch
    assert space.crossover(arch, arch, random.Random(seed)) == arch


def test_mutations_reach_everything_that_may_change():
    space, rng = small_space(5, max_cells=3, max_pipelines=2, max_blocks=2), random.Random(0)
    reached, arch = [], space.start()
    for _ in range(300):
        arch = space.mutate(arch, rng)
        reached.append(arch)
    cells = [cell for arch in reached for cell in arch.cells]
    blocks = [b for cell in cells for pipeline in cell.pipelines for b in pipeline]
    assert {len(arch.cells) for arch in reached} == {1, 2, 3}
    assert {arch.stem for arch in reached} == set(space.config.base_widths)
    assert {cell.role for cell in cells} == {"same", "down", "up"}
    assert {cell.merge for cell in cells} == {"add", "concat"}
    assert {(b.operation, b.kernel) for b in blocks} == {
        ("identity", 1),
        ("max_pool", 3),
        ("avg_pool", 3),
        *(("conv", kernel) for kernel in (1, 3, 5, 7)),
        *(("separable", kernel) for kernel in (3, 5)),
    }
    assert {b.activation for b in blocks} == set(space.config.activations)
    assert {b.batch_norm for b in blocks} == {b.skip for b in blocks} == {False, True}


def test_a_child_takes_from_both_parents():
    space = small_space(1, min_cells=2, max_cells=2, max_pipelines=1, base_widths=(2, 4))
    plain, bare = (
        network(*[Cell("same", "add", width, ((block,),))] * 2, stem=width)
        for block, width in ((conv(7, activation="silu"), 4), (BARE, 2))
    )
    space = CellSpace(space.config, 1, 10, 8)
    children = [space.crossover(plain, bare, random.Random(seed)) for seed in range(60)]
    blocks = {cell.pipelines[0][0] for child in children for cell in child.cells}
    assert {child.stem for child in children} == {2, 4}
    assert {b.operation for b in blocks} == {"conv", "identity"}
    assert {b.activation for b in blocks} == {"none", "silu"}
    assert any(len(set(child.cells)) == 2 for child in children)


def test_the_global_random_source_is_left_alone():
    space, state = small_space(2), random.getstate()
    arch = space.sample(random.Random(1))
    space.crossover(space.mutate(arch, random.Random(2)), arch, random.Random(3))
    assert random.getstate() == state


@given(SEEDS)
def test_the_start_is_the_smallest(seed):
    space = small_space(seed)
    least = space.start().count_parameters()
    assert least <= space.sample(random.Random(seed)).count_parameters()


@pytest.mark.parametrize(("size", "smallest"), [(8, 4), (28, 4), (32, 4), (33, 5), (3, 3)])
def test_the_resolution_keeps_its_lower_bound(size, smallest):
    """28, 14, 7, 4; 33, 17, 9, 5; images below the bound are not halved at all."""
    space = CellSpace(CellSpaceConfig(), 1, 10, size)
    rng = random.Random(0)
    sides = [-(-size // p.shrink) for _ in range(200) for p in space.sample(rng).placed()]
    assert (min(sides), max(sides)) == (smallest, size)


def test_widths_grow_with_every_halving():
    config = CellSpaceConfig(base_widths=(10,), growth=1.5)
    found = {
        (placed.shrink, placed.cell.channels)
        for seed in range(200)
        for placed in CellSpace(config, 1, 10, 32).sample(random.Random(seed)).placed()
    }
    assert found == {(1, 10), (2, 15), (4, 22), (8, 34)}


def test_the_set_of_blocks_is_the_users():
    config = CellSpaceConfig(
        operations=("conv5", "identity"),
        batch_norm=(True,),
        activations=("silu", "none"),
        skip=(True,),
        merges=("concat",),
    )
    space, rng = CellSpace(config, 1, 10, 28), random.Random(0)
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
        CellSpaceConfig.model_validate(settings)


def test_a_limit_below_the_smallest_network_is_refused():
    with pytest.raises(UserError, match="max_parameters is 100, but the smallest network has"):
        CellSpace(CellSpaceConfig(max_parameters=100), 1, 10, 28)


def test_rows_and_networks_from_elsewhere_are_refused():
    space = CellSpace(CellSpaceConfig(max_cells=2, base_widths=(4,)), 1, 10, 28)
    lower, upper = space.bounds()
    for row in (lower[1:], (-1, *lower[1:]), (*upper[:-1], upper[-1] + 1)):
        with pytest.raises(UserError, match="gene"):
            space.decode(row)
    same = Cell("same", "add", 4, ((BARE,),))
    assert space.contains(network(same, same))
    for outside in (
        network(same),  # too short
        network(same, same, stem=5),
        network(same, Cell("same", "add", 5, ((BARE,),))),
        network(same, Cell("same", "add", 4, ((conv(9),),))),
        CellArchitecture(4, (same, same), 3, 10),
    ):
        assert not space.contains(outside)
        with pytest.raises(UserError, match="the network"):
            space.encode(outside)
