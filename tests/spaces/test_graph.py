"""The three-level space: counts by the book, what lies where, moves, settings, JSON and errors."""

from __future__ import annotations

import copy
import math
import random
from dataclasses import replace

import pytest
from graph_networks import network, small_space
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from facenas.errors import UserError
from facenas.spaces import Graph, ImageFacts
from facenas.spaces.base import fingerprint
from facenas.spaces.graph import GraphArchitecture
from facenas.spaces.graph_ops import OPERATIONS, Convolution, Identity

SEEDS = st.integers(0, 2**32)


FACE = GraphArchitecture("face", (4, 8, 8), (("conv3",), ("separable3",), ("max_pool3",)), 2, 2, 3, 6)


def drawn(seed: int) -> GraphArchitecture:
    return small_space(seed).sample(random.Random(seed))


def block_by_the_book(name: str, a: int, b: int, expansion: int, before: int, after: int) -> tuple:
    """(parameters, MACs) of a block from `a` to `b` channels, `before` to `after` pixels, but its shortcut."""
    k2 = int(name[-1]) ** 2
    e = a * expansion
    squeezed = 2 * e * max(1, e // 16)
    match name[:-1]:
        case "avg_pool" | "max_pool":
            return 0, 0
        case "conv":
            return a * b * k2 + b * b * k2 + 4 * b, (a * b * k2 + b * b * k2) * after
        case "separable":
            return a * k2 + 2 * a + a * b + 2 * b, (a * k2 + a * b) * after
        case "bottleneck":
            norms = 4 * e + 2 * b
            return a * e + e * k2 + e * b + norms, a * e * before + (e * k2 + e * b) * after
        case "se_bottleneck":
            parameters, macs = block_by_the_book(name[3:], a, b, expansion, before, after)
            return parameters + squeezed, macs + squeezed
    raise AssertionError(name)


def by_the_book(arch: GraphArchitecture, size: int) -> tuple[int, int]:
    """(parameters, MACs) of a classification network, out of its JSON."""
    tree = arch.to_json()
    a = tree["widths"][0]
    parameters, macs = tree["in_channels"] * a * 9 + 2 * a, tree["in_channels"] * a * 9 * size**2
    for number, (b, stage) in enumerate(zip(tree["widths"], tree["stages"], strict=True)):
        for block, name in enumerate(stage):
            halved = block == 0 and (number > 0 or tree["first_stride"] == 2)
            before, size = size**2, (size + 1) // 2 if halved else size
            more = block_by_the_book(name, a, b, tree["expansion"], before, size**2)
            shortcut = a * b if halved or a != b else 0
            parameters += more[0] + (shortcut + 2 * b if shortcut else 0)
            macs, a = macs + more[1] + shortcut * size**2, b
    return parameters + (a + 1) * tree["outputs"], macs + a * tree["outputs"]


@given(SEEDS, st.integers(1, 40))
def test_parameters_and_macs_by_the_book(seed, size):
    arch = drawn(seed)
    assert (arch.count_parameters(), arch.count_macs(size)) == by_the_book(arch, size)


def test_the_counts_of_a_face_network_written_out():
    """Sides 112, 56, 28, 14: the head sees 14x14 pixels."""
    stem, first = 3 * 4 * 9, (4 * 4 + 4 * 4) * 9 + 4 * 4
    second, third = 4 * 9 + 4 * 8 + 4 * 8, 8 * 8
    head, over_all, linear = 8 * 6, 6 * 14**2, 6 * 6
    norms = 2 * (4 + (4 + 4 + 4) + (4 + 8 + 8) + 8 + 6 + 6)
    weights = stem + first + second + third + head + over_all + linear
    assert FACE.count_parameters() == weights + norms
    macs = stem * 112**2 + first * 56**2 + second * 28**2 + (third + head) * 14**2
    assert FACE.count_macs(112) == macs + over_all + linear
    assert (FACE.embedding, FACE.num_classes) == (6, 0)
    with pytest.raises(UserError, match="112x112"):
        FACE.count_macs(64)


def test_memory_written_out():
    """One 3x3 stem from 1 to 4 channels on 8x8: the image, what the convolution gives, what BatchNorm gives."""
    arch = network(("skip",))
    weights = 9 * 4 + 2 * 4 + 4 * 10 + 10
    statistics = 2 * 4
    assert arch.count_memory(8) == 4 * (weights + statistics + 64 + 2 * 4 * 64)
    # A residual block: its input stays while the second convolution works.
    arch = network(("conv3",))
    weights += 2 * (4 * 4 * 9 + 2 * 4)
    statistics += 2 * 2 * 4
    maps = 64 + 4 * (4 * 64)  # image; input, first convolution's result, second's before and after BatchNorm
    assert arch.count_memory(8) == 4 * (weights + statistics + maps)


@given(SEEDS)
def test_every_block_has_a_shortcut_that_is_projected_where_the_shape_changes(seed):
    arch = drawn(seed)
    edges = {e.name: e for e in arch.graph().edges if e.name.endswith("shortcut")}
    before = arch.widths[0]
    for number, (width, stage) in enumerate(zip(arch.widths, arch.stages, strict=True), start=1):
        for block, operation in enumerate(stage, start=1):
            edge = edges.pop(f"stage{number}_block{block}_shortcut", None)
            if before == width and (block > 1 or number == 1):
                assert edge is None if "pool" in operation else edge.operation == Identity()
            else:
                assert edge.operation == Convolution(1)
            before = width
    assert not edges


def test_skips_are_left_out_or_refused():
    plain = network(("conv3", "conv3"), ("avg_pool3",))
    assert network(("skip", "conv3", "skip", "conv3"), ("avg_pool3", "skip")) == plain
    assert network(("skip", "skip"), ("conv3",)).stages == ((), ("conv3",))
    for stages in ((("conv3",), ("skip", "conv3")), (("conv3",), ())):
        with pytest.raises(UserError, match="stage 2 has a stride"):
            network(*stages)
    with pytest.raises(UserError, match="stage 1 has a stride"):
        network(("skip",), stride=2)


def test_every_field_changes_the_fingerprint():
    tree = network(("conv3",), ("bottleneck3",)).to_json()
    others = {
        "task": "face",
        "widths": [4, 9],
        "stages": [["conv3"], ["bottleneck5"]],
        "first_stride": 2,
        "expansion": 3,
        "in_channels": 3,
        "outputs": 9,
    }
    assert set(others) == set(tree) - {"kind"}
    coloured = {**tree, "in_channels": 3}
    changed = [GraphArchitecture.from_json({**coloured, k: v}) for k, v in others.items()]
    found = {fingerprint(arch.to_json()) for arch in changed} | {fingerprint(tree)}
    assert len(found) == len(others) + 1


@pytest.mark.parametrize(
    "change",
    [
        {"task": "colour"},
        {"task": "face"},  # of grey images
        {"widths": [4]},
        {"widths": [4, 0]},
        {"widths": [4, 8.0]},
        {"widths": 4},
        {"stages": [["conv3"], "conv3"]},
        {"stages": [["conv3"], 3]},
        {"stages": [["conv3"], [3]]},
        {"stages": [["conv3"], ["conv4"]]},
        {"stages": [["conv3"], ["spiral3"]]},
        {"stages": [], "widths": []},
        {"first_stride": 3},
        {"first_stride": True},
        {"expansion": 0},
        {"outputs": 0},
        {"outputs": "10"},
    ],
)
def test_wrong_json_is_refused(change):
    tree = copy.deepcopy(network(("conv3",), ("conv3",)).to_json())
    with pytest.raises(UserError, match="architecture"):
        GraphArchitecture.from_json({**tree, **change})


@pytest.mark.parametrize("name", ["task", "widths", "stages", "first_stride", "outputs"])
def test_missing_fields_are_refused(name):
    tree = network(("conv3",)).to_json()
    del tree[name]
    with pytest.raises(UserError, match=name):
        GraphArchitecture.from_json(tree)


def test_all_operations_of_the_configuration_can_be_drawn():
    for name in OPERATIONS:
        assert network((name,), (name, name)).graph().output.channels == 10


POOLS = {"avg_pool3", "max_pool3"}


def in_bounds(space: Graph, arch: GraphArchitecture) -> bool:
    """The bounds once more; blocks that skip are missing, or pools at the start of a stage."""
    c = space.settings
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
        and (arch.in_channels, arch.outputs) == (space.images.in_channels, space.images.num_classes)
        and (arch.task, arch.first_stride) == ("classification", 1)
    )


@settings(deadline=None, max_examples=50)
@given(SEEDS)
def test_all_moves_stay_in_bounds(seed):
    space, rng = small_space(seed), random.Random(seed)
    first, second = space.sample(rng), space.sample(rng)
    child = space.crossover(first, second, rng)
    ends = space.start(), space.smallest(), space.largest()
    for arch in (*ends, first, second, child, space.mutate(child, rng)):
        assert in_bounds(space, arch)


def test_mutations_change_every_level_and_reach_everything():
    space, rng = Graph().bind(ImageFacts(3, 10, 32)), random.Random(0)
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
    assert found == {*space.settings.operations} - {"skip"}


def test_a_child_takes_each_level_from_its_parents():
    space = Graph(depth_multipliers=(1.0,), max_blocks=3).bind(ImageFacts(1, 10, 28))
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
    space = Graph(operations=("skip", "conv3")).bind(ImageFacts(1, 10, 32))
    assert space.start().stages == ((), ("avg_pool3",), ("avg_pool3",))
    large = Graph(operations=("skip", "conv3")).bind(ImageFacts(1, 10, 64))
    assert large.start().stages == (("avg_pool3",),) * 3
    assert large.start().first_stride == 2
    arch = replace(space.start(), stages=(("conv3",), ("avg_pool3", "conv3"), ("conv3",)))
    assert space.decode(space.encode(arch)) == arch
    with pytest.raises(UserError, match="lies outside of the bounds"):
        space.encode(replace(arch, stages=(("avg_pool3",), ("conv3",), ("conv3",))))


def test_depth_multipliers_multiply_and_round_up():
    config = Graph.Settings(operations=("conv3",), depth_multipliers=(0.5, 1.1), min_blocks=3, max_blocks=10)
    space = Graph(config).bind(ImageFacts(1, 10, 32))
    assert [len(stage) for stage in space.start().stages] == [2, 2, 2]
    assert [len(stage) for stage in space.largest().stages] == [11, 11, 11]  # not 12


def test_largest_and_smallest():
    space = Graph().bind(ImageFacts(3, 10, 32))
    largest, smallest, rng = space.largest(), space.smallest(), random.Random(0)
    assert (largest.widths, largest.stages) == ((32, 64, 128), (("conv3",) * 6,) * 3)
    assert (smallest.widths, smallest.stages) == ((8, 16, 32), (("separable3",),) * 3)
    drawn = [space.sample(rng).count_macs(32) for _ in range(200)]
    assert space.start().count_macs(32) <= min(drawn) < max(drawn) < largest.count_macs(32)
    bare = Graph(operations=("skip", "max_pool3")).bind(ImageFacts(3, 10, 32))
    assert bare.smallest() == bare.start()


def test_faces():
    config = Graph.Settings(widths=(4, 8, 8, 16), embedding=24)
    space = Graph(config).bind(ImageFacts(3, 0, 112))
    arch = space.sample(random.Random(0))
    assert (arch.task, arch.first_stride, arch.in_channels, arch.embedding) == ("face", 2, 3, 24)
    assert space.decode(space.encode(arch)) == arch
    assert next(n for n in arch.graph().nodes if n.name == "head").side(112) == 7
    with pytest.raises(UserError, match="112x112"):
        Graph(config).bind(ImageFacts(3, 0, 64))
    with pytest.raises(UserError, match="not a graph architecture"):
        Graph(config).bind(ImageFacts(1, 0, 112)).start()


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
        Graph.Settings.model_validate(settings)


def test_images_too_small_for_the_stages_are_refused():
    config = Graph.Settings(widths=(4, 4, 4, 4))
    assert Graph(config).bind(ImageFacts(1, 10, 9)).start()
    with pytest.raises(UserError, match="4 stages, too many for images of 8 pixels"):
        Graph(config).bind(ImageFacts(1, 10, 8))


def test_rows_and_networks_from_elsewhere_are_refused():
    config = Graph.Settings(
        widths=(4,), width_multipliers=(1.0,), operations=("conv3",), max_blocks=2, expansion=2
    )
    space = Graph(config).bind(ImageFacts(1, 10, 28))
    lower, upper = space.bounds()
    for row in (lower[1:], (-1, *lower[1:]), (*upper[:-1], upper[-1] + 1)):
        with pytest.raises(UserError, match="gene"):
            space.decode(row)
    assert space.encode(network(("conv3", "conv3")))
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
        with pytest.raises(UserError, match="space"):
            space.encode(outside)
