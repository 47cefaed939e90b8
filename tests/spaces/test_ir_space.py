"""The face space: the rule of the stages, and that every move stays in its bounds and changes what it says."""

from __future__ import annotations

import random
from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from facenas.errors import UserError
from facenas.spaces import IRArchitecture, IRSpace, build_space
from facenas.spaces.ir import share_out
from facenas.spaces.plain import PLAIN, SEPARABLE
from facenas.spaces.settings import IRSpaceConfig

SEEDS = st.integers(0, 2**32)
RATIOS = st.tuples(*[st.integers(1, 9)] * 4)


@st.composite
def spaces(draw: st.DrawFn) -> IRSpace:
    depth, step = 10 + 2 * draw(st.integers(0, 6)), draw(st.integers(1, 4))
    width = step + draw(st.integers(1, 9))
    config = IRSpaceConfig(
        min_depth=depth,
        max_depth=depth + 2 * draw(st.integers(0, 5)),
        min_width=width,
        max_width=width + draw(st.integers(0, 9)),
        width_step=step,
        ratio=draw(RATIOS),
        embedding=draw(st.integers(1, 9)),
        se=draw(st.booleans()),
    )
    return IRSpace(config)


def by_stage(arch: IRArchitecture) -> list[list[tuple[int, int]]]:
    genes, at = list(zip(arch.operations, arch.kernels, strict=True)), 0
    stages = []
    for count in arch.stages:
        stages.append(genes[at : at + count])
        at += count
    return stages


def in_bounds(space: IRSpace, arch: IRArchitecture) -> bool:
    """The bounds once more, with the width's lower one."""
    c = space.config
    return (
        c.min_depth <= 2 * len(arch.operations) + 2 <= c.max_depth
        and c.min_width <= arch.width <= c.max_width
        and {*arch.operations} <= {0, 1}
        and {*arch.kernels} <= {3, 5}
        and (arch.embedding, arch.se, arch.project_first) == (c.embedding, c.se, False)
        and arch.stages == share_out(len(arch.operations), c.ratio)
    )


@given(RATIOS, st.integers(4, 60))
def test_blocks_are_shared_out_by_dhondt(ratio, blocks):
    """The seats rule in its other form: one each, the rest are the largest of all quotients ratio / divisor."""
    quotients = [(Fraction(r, d), s) for s, r in enumerate(ratio) for d in range(2, blocks + 2)]
    won = sorted(quotients, reverse=True)[: blocks - 4]
    assert share_out(blocks, ratio) == tuple(1 + sum(s == i for _, s in won) for i in range(4))


@given(RATIOS, st.integers(4, 60))
def test_one_block_more_never_takes_one_away(ratio, blocks):
    fewer, more = share_out(blocks, ratio), share_out(blocks + 1, ratio)
    assert sorted(b - a for a, b in zip(fewer, more, strict=True)) == [0, 0, 0, 1]


def test_the_papers_sizes_follow_from_the_rule():
    space = IRSpace(IRSpaceConfig(max_width=64))
    assert space.at(34, 64) == IRArchitecture.uniform(64, (2, 4, 8, 2))
    assert space.at(58, 32) == IRArchitecture.uniform(32, (3, 7, 15, 3))


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
    assert len({*found, arch}) == len(found) + 1
    depths = (arch.depth > c.min_depth) + (arch.depth < c.max_depth)
    widths = (arch.width - c.width_step >= c.min_width) + (arch.width + c.width_step <= c.max_width)
    assert len(found) == depths + widths + 2 * len(arch.operations)
    for other in found:
        wider = abs(other.width - arch.width)
        pairs = [zip(*p, strict=False) for p in zip(by_stage(arch), by_stage(other), strict=True)]
        genes = sum((a[0] != b[0]) + (a[1] != b[1]) for pair in pairs for a, b in pair)
        changes = (wider != 0) + (other.depth != arch.depth) + genes
        assert (changes, wider in (0, c.width_step)) == (1, True)
        assert abs(other.depth - arch.depth) in (0, 2)


def test_a_new_block_is_plain_and_goes_to_the_end_of_its_stage():
    space = IRSpace(IRSpaceConfig(min_width=8, max_width=8, embedding=16))
    arch = IRArchitecture(8, (1, 1, 4, 1), (0,) * 7, (5,) * 7, 16)
    fewer, more = space.neighbours(arch)[:2]
    assert (fewer.stages, fewer.kernels) == ((1, 1, 3, 1), (5,) * 6)
    assert (more.stages, more.kernels) == ((1, 2, 4, 1), (5, 5, 3, 5, 5, 5, 5, 5))
    assert more.operations == (0, 0, PLAIN, 0, 0, 0, 0, 0)


@settings(deadline=None)
@given(spaces(), SEEDS)
def test_a_mutation_is_a_neighbour_and_the_seed_decides(space, seed):
    arch = space.sample(random.Random(seed))
    mutated = [space.mutate(arch, random.Random(seed)) for _ in range(2)]
    assert mutated[0] in space.neighbours(arch)
    assert mutated[0] == mutated[1]


@settings(deadline=None)
@given(spaces(), SEEDS)
def test_a_crossing_takes_every_gene_from_the_same_place_of_a_parent(space, seed):
    rng = random.Random(seed)
    parents = [space.sample(rng), space.sample(rng)]
    child = space.crossover(*parents, rng)
    assert child.depth in {p.depth for p in parents}
    assert child.width in {p.width for p in parents}
    for stage, genes in enumerate(by_stage(child)):
        theirs = [by_stage(parent)[stage] for parent in parents]
        for i, gene in enumerate(genes):
            assert gene in [stages[i] for stages in theirs if i < len(stages)]


def test_crossings_take_from_both_parents():
    space = IRSpace(IRSpaceConfig(max_depth=14, min_width=8, max_width=16))
    first = space.at(10, 8)
    second = IRArchitecture(16, space.at(14, 16).stages, (0,) * 6, (5,) * 6)
    children = [space.crossover(first, second, random.Random(seed)) for seed in range(60)]
    assert {child.depth for child in children} == {10, 14}
    assert {child.width for child in children} == {8, 16}
    assert {child.operations[0] for child in children} == {0, 1}


def test_neither_sampling_nor_moving_draws_from_the_global_source():
    space, state = IRSpace(IRSpaceConfig()), random.getstate()
    arch = space.sample(random.Random(1))
    space.crossover(space.mutate(arch, random.Random(2)), arch, random.Random(3))
    assert random.getstate() == state


def test_the_start_is_shallowest_widest_and_plain():
    config = IRSpaceConfig(min_depth=12, max_depth=40, min_width=8, max_width=20, embedding=64)
    space = build_space(config, 3, 10, 112)
    assert space.start() == IRArchitecture(20, (1, 1, 2, 1), (1,) * 5, (3,) * 5, 64)
    assert (space.swap_operation, space.swap_kernel) == (SEPARABLE, 5)
    assert (list(space.depths())[:3], list(space.widths())[:3]) == ([12, 14, 16], [20, 18, 16])


def test_the_bounds_are_tight():
    space = IRSpace(IRSpaceConfig(min_depth=12, max_depth=16, min_width=8, max_width=12))
    assert space.contains(space.at(12, 12))
    assert space.contains(space.at(16, 9))  # off the grid of widths, as micro search goes
    for outside in (
        space.at(10, 12),
        space.at(18, 12),
        space.at(12, 13),
        space.at(12, 12).with_kernel(1, 7),
        IRArchitecture.uniform(12, (2, 1, 1, 1)),  # not the rule's stages
        IRArchitecture.uniform(12, (1, 1, 2, 1), embedding=256),
        IRArchitecture.uniform(12, (1, 1, 2, 1), se=True),
    ):
        assert not space.contains(outside)


@pytest.mark.parametrize("depth", [8, 11])
def test_a_depth_without_a_network_is_told(depth):
    with pytest.raises(UserError, match="even"):
        IRSpace(IRSpaceConfig()).at(depth, 8)


def test_the_size_counts_every_member():
    space = IRSpace(IRSpaceConfig(max_depth=12, min_width=4, max_width=8))
    members = {
        (width, ops, kernels)
        for blocks in (4, 5)
        for width in (4, 6, 8)
        for ops in product((0, 1), repeat=blocks)
        for kernels in product((3, 5), repeat=blocks)
    }
    assert space.size() == len(members)
    assert space.size(12) == 4**5 * 2 * 3  # Eq. 1 with its depth fixed


@pytest.mark.parametrize(
    "change",
    [
        {"min_depth": 11},
        {"max_depth": 33},
        {"min_depth": 8},
        {"min_depth": 30, "max_depth": 20},
        {"max_width": 4},
        {"ratio": [1, 2, 4]},
        {"ratio": [1, 2, 4, 0]},
        {"depth": 10},
    ],
)
def test_bounds_that_make_no_sense_are_refused(change):
    with pytest.raises(ValidationError):
        IRSpaceConfig.model_validate(change)
