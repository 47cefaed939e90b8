"""Three-level networks: parameters and MACs by the book, what lies where, JSON and errors."""

from __future__ import annotations

import copy
import json
import random

import pytest
from graph_networks import network, small_space
from hypothesis import given
from hypothesis import strategies as st

from facenas.errors import UserError
from facenas.spaces.base import fingerprint
from facenas.spaces.graph import GraphArchitecture
from facenas.spaces.graph_blocks import OPERATIONS
from facenas.spaces.graph_operations import Convolution, Identity

SEEDS = st.integers(0, 2**32)
FACE = GraphArchitecture(
    "face", (4, 8, 8), (("conv3",), ("separable3",), ("max_pool3",)), 2, 2, 3, 6
)


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
    assert FACE.head_parameters(1000) == 6000
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
    maps = 64 + 4 * (
        4 * 64
    )  # image; input, first convolution's result, second's before and after BatchNorm
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


@given(SEEDS)
def test_json_round_trip(seed):
    arch = drawn(seed)
    tree = arch.to_json()
    assert json.loads(json.dumps(tree)) == tree
    assert GraphArchitecture.from_json(tree) == arch
    assert GraphArchitecture.from_json(FACE.to_json()) == FACE


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
        {"depth": 3},
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
