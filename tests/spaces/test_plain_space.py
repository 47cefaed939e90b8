"""The plain space: every move stays in its bounds and changes what it says."""

from __future__ import annotations

import random
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facenas.spaces import PlainArchitecture, PlainSpace, build_space
from facenas.spaces.settings import SpaceConfig


@st.composite
def spaces(draw: st.DrawFn) -> PlainSpace:
    depth, step = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    width = step + draw(st.integers(1, 9))  # narrower ones: see the test of narrow spaces
    config = SpaceConfig(
        min_depth=depth,
        max_depth=depth + draw(st.integers(0, 4)),
        min_width=width,
        max_width=width + draw(st.integers(0, 9)),
        width_step=step,
    )
    return PlainSpace(config, draw(st.integers(1, 3)), draw(st.integers(1, 12)))


def in_bounds(space: PlainSpace, arch: PlainArchitecture) -> bool:
    """The bounds once more, with the width's lower one: only micro search goes below it."""
    c = space.config
    return (
        c.min_depth <= len(arch.operations) == len(arch.kernels) <= c.max_depth
        and c.min_width <= arch.width <= c.max_width
        and {*arch.operations} <= {0, 1}
        and {*arch.kernels} <= {3, 5}
        and (arch.in_channels, arch.num_classes) == (space.in_channels, space.num_classes)
    )


def differences(one: PlainArchitecture, other: PlainArchitecture) -> int:
    """In how many genes two networks differ; genes of layers that only one has count as one."""
    layers = (
        zip(one.operations, other.operations, strict=False),
        zip(one.kernels, other.kernels, strict=False),
    )
    genes = sum(a != b for pairs in layers for a, b in pairs)
    return genes + (one.width != other.width) + (one.depth != other.depth)


SEEDS = st.integers(0, 2**32)


@settings(deadline=None)
@given(spaces(), SEEDS)
def test_all_moves_stay_in_bounds(space, seed):
    rng = random.Random(seed)
    first, second = space.sample(rng), space.sample(rng)
    found = [space.start(), first, space.mutate(first, rng), space.crossover(first, second, rng)]
    for arch in (*found, *space.neighbours(first)):
        assert in_bounds(space, arch)
        assert space.contains(arch)


@settings(deadline=None)
@given(spaces(), SEEDS)
def test_neighbours_are_all_networks_one_change_away(space, seed):
    arch, c = space.sample(random.Random(seed)), space.config
    found = space.neighbours(arch)
    assert len(set(found)) == len(found)
    assert [differences(arch, other) for other in found] == [1] * len(found)
    assert {abs(other.depth - arch.depth) for other in found} <= {0, 1}
    assert {abs(other.width - arch.width) for other in found} <= {0, c.width_step}
    depths = (arch.depth > c.min_depth) + (arch.depth < c.max_depth)
    widths = (arch.width - c.width_step >= c.min_width) + (arch.width + c.width_step <= c.max_width)
    assert len(found) == depths + widths + 2 * arch.depth


@pytest.mark.parametrize(
    ("min_width", "width"), [(2, 2), (16, 1)], ids=["at the edge", "off the grid"]
)
def test_a_narrow_network_has_neighbours_too(min_width, width):
    space = PlainSpace(
        SpaceConfig(min_depth=2, max_depth=2, min_width=min_width, max_width=16), 1, 10
    )
    found = space.neighbours(space.at(2, width))
    assert [n.width for n in found if n.width != width] == ([4] if min_width == 2 else [])
    assert len(found) == (5 if min_width == 2 else 4)


@settings(deadline=None)
@given(spaces(), SEEDS)
def test_a_mutation_is_a_neighbour_and_the_seed_decides(space, seed):
    arch = space.sample(random.Random(seed))
    mutated = [space.mutate(arch, random.Random(seed)) for _ in range(2)]
    assert mutated[0] in space.neighbours(arch)
    assert mutated[0] == mutated[1]


@settings(deadline=None)
@given(spaces(), SEEDS)
def test_a_crossing_takes_every_gene_from_a_parent(space, seed):
    rng = random.Random(seed)
    first, second = space.sample(rng), space.sample(rng)
    child = space.crossover(first, second, rng)
    assert child.depth in (first.depth, second.depth)
    assert child.width in (first.width, second.width)
    for i in range(child.depth):
        parents = [p for p in (first, second) if i < p.depth]
        assert (child.operations[i], child.kernels[i]) in [
            (p.operations[i], p.kernels[i]) for p in parents
        ]


def test_crossings_take_from_both_parents():
    space = PlainSpace(SpaceConfig(min_depth=4, max_depth=4, min_width=8, max_width=16), 1, 10)
    first = PlainArchitecture(8, (0, 0, 0, 0), (3, 3, 3, 3), 1, 10)
    second = PlainArchitecture(16, (1, 1, 1, 1), (5, 5, 5, 5), 1, 10)
    children = [space.crossover(first, second, random.Random(seed)) for seed in range(60)]
    for i in range(4):
        assert {child.operations[i] for child in children} == {0, 1}
    assert {child.width for child in children} == {8, 16}
    assert any(len({*child.operations}) == 2 for child in children)


def test_neither_sampling_nor_moving_draws_from_the_global_source():
    space, state = PlainSpace(SpaceConfig(), 3, 10), random.getstate()
    arch = space.sample(random.Random(1))
    space.crossover(space.mutate(arch, random.Random(2)), arch, random.Random(3))
    assert random.getstate() == state


def test_the_start_is_shallowest_widest_and_separable():
    space = build_space(SpaceConfig(min_depth=4, max_depth=9, min_width=8, max_width=20), 3, 7, 32)
    assert space.start() == PlainArchitecture(20, (0, 0, 0, 0), (3, 3, 3, 3), 3, 7)


def test_the_bounds_are_tight():
    space = PlainSpace(SpaceConfig(min_depth=3, max_depth=5, min_width=8, max_width=12), 1, 10)
    assert space.contains(space.at(3, 12))
    assert space.contains(space.at(5, 9))  # off the grid of widths, as micro search goes
    for outside in (
        space.at(2, 12),
        space.at(6, 12),
        space.at(3, 13),
        space.at(3, 12).with_kernel(1, 7),
    ):
        assert not space.contains(outside)
    assert not space.contains(PlainArchitecture.uniform(3, 12, 3, 10))
    assert not space.contains(PlainArchitecture.uniform(3, 12, 1, 11))


def test_the_size_of_the_papers_space():
    space = PlainSpace(SpaceConfig(min_depth=5, max_depth=100, min_width=16, max_width=128), 3, 10)
    assert space.size(25) == 4**25 * 96 * 57
    assert f"{space.size(25):.2e}" == "6.16e+18"  # Eq. 1 with D_f = 25


def test_the_size_counts_every_member():
    space = PlainSpace(
        SpaceConfig(min_depth=1, max_depth=3, min_width=3, max_width=8, width_step=2), 1, 2
    )
    members = {
        (width, ops, kernels)
        for depth in (1, 2, 3)
        for width in (8, 6, 4)
        for ops in product((0, 1), repeat=depth)
        for kernels in product((3, 5), repeat=depth)
    }
    assert space.size() == len(members)
    rng = random.Random(0)
    drawn = [space.sample(rng) for _ in range(4000)]
    assert {(a.width, a.operations, a.kernels) for a in drawn} <= members
    assert {a.width for a in drawn} == {8, 6, 4}
    assert {a.depth for a in drawn} == {1, 2, 3}
