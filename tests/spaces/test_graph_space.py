"""The three-level space: every row is a network, every move stays in the bounds and keeps to its level."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from graph_networks import network, small_space
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from facenas.errors import UserError
from facenas.spaces.graph import GraphArchitecture
from facenas.spaces.graph_settings import GraphSpaceConfig
from facenas.spaces.graph_space import GraphSpace

SEEDS = st.integers(0, 2**32)
POOLS = {"avg_pool3", "max_pool3"}


def random_row(space: GraphSpace, seed: int) -> list[int]:
    rng = random.Random(seed)
    return [rng.randint(*pair) for pair in zip(*space.bounds(), strict=True)]


def in_bounds(space: GraphSpace, arch: GraphArchitecture) -> bool:
    """The bounds once more; blocks that skip are missing, or pools at the start of a stage."""
    c = space.config
    skips = "skip" in c.operations
    most = math.ceil(max(c.depth_multipliers) * c.max_blocks - 1e-9)
    least = 0 if skips else math.ceil(min(c.depth_multipliers) * c.min_blocks - 1e-9)
    scaled = {tuple(max(1, round(m * w)) for w in c.widths) for m in c.width_multipliers}
    firsts = {stage[0] for stage in arch.stages[1:]}
    rest = {name for stage in arch.stages for name in stage[1:]} | {*arch.stages[0][:1]}
    return (
        arch.widths in scaled
        and all(least <= len(stage) <= most for stage in arch.stages)
        and rest <= set(c.operations)
        and firsts <= {*c.operations, *(["avg_pool3"] if skips else [])}
        and (arch.in_channels, arch.outputs) == (space.in_channels, space.num_classes)
        and (arch.task, arch.first_stride) == ("classification", 1)
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


@settings(deadline=None, max_examples=50)
@given(SEEDS)
def test_all_moves_stay_in_bounds(seed):
    space, rng = small_space(seed), random.Random(seed)
    first, second = space.sample(rng), space.sample(rng)
    child = space.crossover(first, second, rng)
    ends = space.start(), space.smallest(), space.largest()
    for arch in (*ends, first, second, child, space.mutate(child, rng)):
        assert in_bounds(space, arch)
        assert space.contains(arch)


@settings(deadline=None, max_examples=30)
@given(SEEDS)
def test_neighbours_are_one_gene_away_and_all_different(seed):
    space = small_space(seed, max_blocks=2)
    arch = space.sample(random.Random(seed))
    found = space.neighbours(arch)
    assert len(set(found)) == len(found)
    assert arch not in found
    row, (lower, upper) = space.encode(arch), space.bounds()
    changed = {
        space.decode([*row[:i], value, *row[i + 1 :]])
        for i in range(len(row))
        for value in range(lower[i], upper[i] + 1)
    }
    assert {*found, arch} == changed


@settings(deadline=None, max_examples=50)
@given(SEEDS)
def test_the_seed_decides_and_a_mutation_changes(seed):
    space = small_space(seed)
    arch = space.sample(random.Random(seed))
    mutated = [space.mutate(arch, random.Random(seed)) for _ in range(2)]
    assert mutated[0] == mutated[1]
    assert (mutated[0] != arch) == bool(space.neighbours(arch))
    assert space.sample(random.Random(seed)) == arch
    assert space.crossover(arch, arch, random.Random(seed)) == arch


def test_mutations_change_every_level_and_reach_everything():
    space, rng = GraphSpace(GraphSpaceConfig(), 3, 10, 32), random.Random(0)
    levels, reached, arch = [], [], space.sample(rng)
    for _ in range(600):
        before, arch = arch, space.mutate(arch, rng)
        same_depths = [len(stage) for stage in before.stages] == [len(s) for s in arch.stages]
        levels.append((before.widths != arch.widths, not same_depths))
        reached.append(arch)
    # Half of macro mutations are of the width; the depth and meso ones, and micro ones to a skip, of blocks.
    shares = [sum(flags) / len(levels) for flags in zip(*levels, strict=True)]
    assert 0.1 < shares[0] < 0.25
    assert 0.3 < shares[1] < 0.7
    assert {arch.widths for arch in reached} == {
        (8, 16, 32),
        (12, 24, 48),
        (16, 32, 64),
        (24, 48, 96),
        (32, 64, 128),
    }
    assert {len(stage) for arch in reached for stage in arch.stages} == set(range(7))
    found = {name for arch in reached for stage in arch.stages for name in stage}
    assert found == {*space.config.operations} - {"skip"}


def test_a_child_takes_each_level_from_its_parents():
    space = GraphSpace(GraphSpaceConfig(depth_multipliers=(1.0,), max_blocks=3), 1, 10, 28)
    narrow = GraphArchitecture("classification", (8, 16, 32), (("conv3",) * 3,) * 3, 1, 4, 1, 10)
    wide = replace(narrow, widths=(32, 64, 128), stages=(("separable5",),) * 3)
    children = [space.crossover(narrow, wide, random.Random(seed)) for seed in range(80)]
    assert {child.widths for child in children} == {narrow.widths, wide.widths}
    for stage in range(3):
        found = {child.stages[stage] for child in children}
        # One block of either parent; three of one parent, or the short one's and then the other's.
        assert found == {
            ("conv3",),
            ("separable5",),
            ("conv3",) * 3,
            ("separable5", "conv3", "conv3"),
        }
    assert any(len({child.stages[stage][0] for stage in range(3)}) == 2 for child in children)


def test_where_nothing_can_be_skipped_is_pooled():
    space = GraphSpace(GraphSpaceConfig(operations=("skip", "conv3")), 1, 10, 32)
    assert space.start().stages == ((), ("avg_pool3",), ("avg_pool3",))
    large = GraphSpace(GraphSpaceConfig(operations=("skip", "conv3")), 1, 10, 64)
    assert large.start().stages == (("avg_pool3",),) * 3
    assert large.start().first_stride == 2
    arch = replace(space.start(), stages=(("conv3",), ("avg_pool3", "conv3"), ("conv3",)))
    assert space.decode(space.encode(arch)) == arch
    assert not space.contains(replace(arch, stages=(("avg_pool3",), ("conv3",), ("conv3",))))


def test_depth_multipliers_multiply_and_round_up():
    config = GraphSpaceConfig(
        operations=("conv3",), depth_multipliers=(0.5, 1.1), min_blocks=3, max_blocks=10
    )
    space = GraphSpace(config, 1, 10, 32)
    assert [len(stage) for stage in space.start().stages] == [2, 2, 2]
    assert [len(stage) for stage in space.largest().stages] == [11, 11, 11]  # not 12


def test_largest_and_smallest():
    space = GraphSpace(GraphSpaceConfig(), 3, 10, 32)
    largest, smallest, rng = space.largest(), space.smallest(), random.Random(0)
    assert (largest.widths, largest.stages) == ((32, 64, 128), (("conv3",) * 6,) * 3)
    assert (smallest.widths, smallest.stages) == ((8, 16, 32), (("separable3",),) * 3)
    drawn = [space.sample(rng).count_macs(32) for _ in range(200)]
    assert space.start().count_macs(32) <= min(drawn) < max(drawn) < largest.count_macs(32)
    bare = GraphSpace(GraphSpaceConfig(operations=("skip", "max_pool3")), 3, 10, 32)
    assert bare.smallest() == bare.start()


def test_faces():
    config = GraphSpaceConfig(widths=(4, 8, 8, 16), embedding=24)
    space = GraphSpace(config, 3, 0, 112, "face")
    arch = space.sample(random.Random(0))
    assert (arch.task, arch.first_stride, arch.in_channels, arch.embedding) == ("face", 2, 3, 24)
    assert space.decode(space.encode(arch)) == arch
    assert next(n for n in arch.graph().nodes if n.name == "head").side(112) == 7
    with pytest.raises(UserError, match="112x112"):
        GraphSpace(config, 3, 0, 64, "face")
    with pytest.raises(UserError, match="not a graph architecture"):
        GraphSpace(config, 1, 0, 112, "face").start()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"operations": []}, "operations: name one or more"),
        ({"operations": ["conv3", "conv3"]}, "each once"),
        ({"operations": ["conv9"]}, "conv9"),
        ({"widths": []}, "widths"),
        ({"widths": [0]}, "greater than 0"),
        ({"width_multipliers": [0]}, "greater than 0"),
        ({"depth_multipliers": []}, "depth_multipliers: name one or more"),
        ({"min_blocks": 5}, "min_blocks is above max_blocks"),
        ({"expansion": 0}, "expansion"),
        ({"stages": 3}, "stages"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, words):
    with pytest.raises(ValidationError, match=words):
        GraphSpaceConfig.model_validate(settings)


def test_images_too_small_for_the_stages_are_refused():
    config = GraphSpaceConfig(widths=(4, 4, 4, 4))
    assert GraphSpace(config, 1, 10, 9).start()
    with pytest.raises(UserError, match="4 stages, too many for images of 8 pixels"):
        GraphSpace(config, 1, 10, 8)
    with pytest.raises(UserError, match="task 'colour'"):
        GraphSpace(config, 1, 10, 32, "colour")


def test_rows_and_networks_from_elsewhere_are_refused():
    config = GraphSpaceConfig(
        widths=(4,), width_multipliers=(1.0,), operations=("conv3",), max_blocks=2, expansion=2
    )
    space = GraphSpace(config, 1, 10, 28)
    lower, upper = space.bounds()
    for row in (lower[1:], (-1, *lower[1:]), (*upper[:-1], upper[-1] + 1)):
        with pytest.raises(UserError, match="gene"):
            space.decode(row)
    assert space.contains(network(("conv3", "conv3")))
    for outside in (
        network(("conv3",) * 4),  # 1.5 * 2 = 3 at most
        network(("skip",)),
        network(("conv5",)),
        network(("avg_pool3",)),
        network(("conv3",), widths=(5,)),
        network(("conv3",), ("conv3",)),
        network(("conv3",), stride=2),
        replace(network(("conv3",)), outputs=9),
    ):
        assert not space.contains(outside)
        with pytest.raises(UserError, match="space"):
            space.encode(outside)


def test_the_global_random_source_is_left_alone():
    space, state = small_space(2), random.getstate()
    arch = space.sample(random.Random(1))
    space.crossover(space.mutate(arch, random.Random(2)), arch, random.Random(3))
    assert random.getstate() == state
