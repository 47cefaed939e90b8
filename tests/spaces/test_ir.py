"""The face space: published counts, how blocks are shared out, moves, JSON and errors."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from facenas.errors import UserError
from facenas.models.ir import IRNetwork
from facenas.spaces import IR, ImageFacts, IRArchitecture, from_json
from facenas.spaces.base import fingerprint
from facenas.spaces.ir import NAMED, REPRODUCES, share_out
from facenas.spaces.plain import PLAIN, SEPARABLE

# Backbone, with a head of 10,572 x 512, GMACs: AdaFace's networks, built and counted.
ADAFACE = {
    "ir18": (24_020_352, 29.43, 2.597),
    "ir34": (34_134_080, 39.55, 4.447),
    "ir50": (43_585_600, 49.00, 6.296),
    "ir101": (65_150_912, 70.56, 12.077),
    "irse50": (43_808_320, 49.22, 6.297),
}


# Insightface's networks of the same names have another first shortcut, and a weight and bias behind z.
INSIGHTFACE = {
    "ir18": 24_025_600,
    "ir34": 34_139_328,
    "ir50": 43_590_848,
    "ir101": 65_156_160,
}


FACES = ImageFacts(3, 0, 112)


@st.composite
def architectures(draw: st.DrawFn) -> IRArchitecture:
    stages = tuple(draw(st.integers(1, 3)) for _ in range(4))
    blocks = sum(stages)
    operations = draw(st.lists(st.sampled_from([0, 1]), min_size=blocks, max_size=blocks))
    kernels = draw(st.lists(st.sampled_from([3, 5]), min_size=blocks, max_size=blocks))
    width, embedding = draw(st.integers(1, 40)), draw(st.integers(1, 20))
    se, project_first = draw(st.booleans()), draw(st.booleans())
    genes = tuple(operations), tuple(kernels)
    return IRArchitecture(width, stages, *genes, embedding, se, project_first)


def parameters_by_the_book(arch: IRArchitecture) -> int:
    """Block by block: 2i + k*k*i*o + 3o + k*k*o*o + 2o, and i*o + 2o for a projection."""
    total, before, position = 27 * arch.width + 3 * arch.width, arch.width, 0
    for stage in range(4):
        after = arch.width * (1, 2, 4, 8)[stage]
        for _ in range(arch.stages[stage]):
            area = arch.kernels[position] ** 2
            if arch.operations[position] == 1:
                total += area * before * after + area * after * after
            else:
                total += area * before + before * after + area * after + after * after
            total += 2 * before + 3 * after + 2 * after
            if before != after or (position == 0 and arch.project_first):
                total += before * after + 2 * after
            if arch.se:
                inside = after // 16 if after >= 16 else 1
                total += after * inside + inside * after
            before, position = after, position + 1
    return total + 2 * before + 49 * before * arch.embedding + arch.embedding


def module_of(arch: IRArchitecture) -> nn.Module:
    with torch.device("meta"):  # shapes without numbers
        return IRNetwork(arch).eval()


def macs_by_hooks(arch: IRArchitecture) -> int:
    """Multiply-accumulates of every convolution and linear layer that a forward pass goes through."""
    counts = []

    def count(layer: nn.Module, _: object, output: torch.Tensor) -> None:
        counts.append(output.numel() * layer.weight[0].numel())

    module = module_of(arch)
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    module(torch.empty(1, 3, 112, 112, device="meta"))
    return sum(counts)


@settings(deadline=None, max_examples=30)
@given(architectures())
def test_parameters_equal_the_formula_and_the_module(arch):
    built = sum(p.numel() for p in module_of(arch).parameters())
    assert arch.count_parameters() == parameters_by_the_book(arch) == built


@pytest.mark.parametrize("name", ADAFACE)
def test_counts_of_the_literature(name):
    backbone, total, gmacs = ADAFACE[name]
    arch = NAMED[name]
    assert arch.count_parameters() == backbone
    assert round((backbone + arch.embedding * 10_572) / 1e6, 2) == total
    assert round(arch.count_macs() / 1e9, 3) == gmacs
    assert arch.count_macs() == macs_by_hooks(arch)


@pytest.mark.parametrize("name", INSIGHTFACE)
def test_counts_of_insightface(name):
    tree = {**NAMED[name].to_json(), "project_first": True}
    assert from_json(tree).count_parameters() + 2 * 512 == INSIGHTFACE[name]


def test_the_papers_searched_networks():
    r34, r58 = NAMED["r34_512"], NAMED["r58_256"]
    assert (r34.depth, r34.stages, 8 * r34.width) == (34, (2, 4, 8, 2), 512)
    assert round((r34.count_parameters() + r34.embedding * 10_572) / 1e6, 3) == 37.113
    assert (r58.depth, r58.stages, 8 * r58.width) == (58, (3, 7, 15, 3), 256)
    assert round(r58.count_parameters() / 1e6, 3) == 14.638


def test_published_counts_are_told_as_they_are():
    for name, text in REPRODUCES.items():
        if name in ADAFACE:
            assert f"{ADAFACE[name][0]:,}" in text


@given(architectures())
def test_every_field_changes_the_fingerprint(arch):
    tree = arch.to_json()
    changed = [
        arch.with_width(arch.width + 1).to_json(),
        arch.with_operation(0, 1 - arch.operations[0]).to_json(),
        arch.with_kernel(arch.depth // 2 - 2, 8 - arch.kernels[-1]).to_json(),
        {**tree, "embedding": arch.embedding + 1},
        {**tree, "se": not arch.se},
        {**tree, "project_first": not arch.project_first},
    ]
    assert len({fingerprint(from_json(t).to_json()) for t in [tree, *changed]}) == 7


@given(architectures())
def test_blocks_fit_together(arch):
    blocks, before, shrink = list(arch.blocks()), arch.width, 1
    for block in blocks:
        shrink *= block.stride
        assert (block.in_channels, block.shrink) == (before, shrink)
        before = block.out_channels
    assert (shrink, before) == (16, 8 * arch.width)
    first = [sum(arch.stages[:stage]) for stage in range(4)]
    assert [i for i, block in enumerate(blocks) if block.stride == 2] == first
    projected = [i for i, block in enumerate(blocks) if block.projected]
    assert projected == (first if arch.project_first else first[1:])


GOOD = IRArchitecture.uniform(8, (1, 1, 2, 1), 16).to_json()


@pytest.mark.parametrize("field", ["width", "stages", "ops", "kernels"])
def test_a_missing_field_is_named(field):
    with pytest.raises(UserError, match=field):
        from_json({key: value for key, value in GOOD.items() if key != field})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"depth": 14}, "says depth 14, but what it lists has 12 layers"),
        ({"width": 0}, "not an ir architecture"),
        ({"width": 8.5}, "number"),
        ({"embedding": 0}, "not an ir architecture"),
        ({"embedding": None}, "number"),
        ({"stages": [1, 1, 2]}, "not an ir architecture"),
        ({"stages": []}, "not an ir architecture"),
        ({"stages": [1, 0, 3, 1]}, "not an ir architecture"),
        ({"stages": [1, 1, 1, 1]}, "not an ir architecture"),
        ({"stages": 5}, "number"),
        ({"ops": [1, 1, 1, 1, 2]}, "not an ir architecture"),
        ({"kernels": [3, 3, 3, 3, 4]}, "not an ir architecture"),
        ({"kernels": [3, 3, 3, 3]}, "not an ir architecture"),
        ({"se": 1}, "true or false"),
        ({"project_first": "yes"}, "true or false"),
    ],
)
def test_wrong_fields_are_told_in_a_sentence(change, words):
    with pytest.raises(UserError, match=words):
        from_json({**GOOD, **change})


@pytest.mark.parametrize("size", [0, 96, 224])
def test_other_image_sizes_are_refused(size):
    with pytest.raises(UserError, match="112x112"):
        NAMED["ir18"].count_macs(size)


SEEDS = st.integers(0, 2**32)


RATIOS = st.tuples(*[st.integers(1, 9)] * 4)


@st.composite
def spaces(draw: st.DrawFn) -> IR:
    depth, step = 10 + 2 * draw(st.integers(0, 6)), draw(st.integers(1, 4))
    width = step + draw(st.integers(1, 9))
    config = IR.Settings(
        min_depth=depth,
        max_depth=depth + 2 * draw(st.integers(0, 5)),
        min_width=width,
        max_width=width + draw(st.integers(0, 9)),
        width_step=step,
        ratio=draw(RATIOS),
        embedding=draw(st.integers(1, 9)),
        se=draw(st.booleans()),
    )
    return IR(config).bind(FACES)


def by_stage(arch: IRArchitecture) -> list[list[tuple[int, int]]]:
    genes, at = list(zip(arch.operations, arch.kernels, strict=True)), 0
    stages = []
    for count in arch.stages:
        stages.append(genes[at : at + count])
        at += count
    return stages


def in_bounds(space: IR, arch: IRArchitecture) -> bool:
    """The bounds once more, with the width's lower one."""
    c = space.settings
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
    space = IR(max_width=64).bind(FACES)
    assert space.at(34, 64) == IRArchitecture.uniform(64, (2, 4, 8, 2))
    assert space.at(58, 32) == IRArchitecture.uniform(32, (3, 7, 15, 3))


@settings(deadline=None)
@given(spaces(), SEEDS)
def test_all_moves_stay_in_bounds(space, seed):
    rng = random.Random(seed)
    first, second = space.sample(rng), space.sample(rng)
    found = [space.start(), first, space.mutate(first, rng), space.crossover(first, second, rng)]
    found += [space.mutate(first, rng) for _ in range(8)]
    assert all(in_bounds(space, arch) for arch in found)


def test_a_new_block_is_plain_and_goes_to_the_end_of_its_stage():
    space = IR(min_width=8, max_width=8, embedding=16).bind(FACES)
    arch = IRArchitecture(8, (1, 1, 4, 1), (0,) * 7, (5,) * 7, 16)
    found = {space.mutate(arch, random.Random(seed)) for seed in range(300)}
    (fewer,) = (a for a in found if a.depth < arch.depth)
    (more,) = (a for a in found if a.depth > arch.depth)
    assert len(found) == 2 + 2 * 7  # depth; operation and kernel of each block; the width has no room
    assert (fewer.stages, fewer.kernels) == ((1, 1, 3, 1), (5,) * 6)
    assert (more.stages, more.kernels) == ((1, 2, 4, 1), (5, 5, 3, 5, 5, 5, 5, 5))
    assert more.operations == (0, 0, PLAIN, 0, 0, 0, 0, 0)


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
    space = IR(max_depth=14, min_width=8, max_width=16).bind(FACES)
    first = space.at(10, 8)
    second = IRArchitecture(16, space.at(14, 16).stages, (0,) * 6, (5,) * 6)
    children = [space.crossover(first, second, random.Random(seed)) for seed in range(60)]
    assert {child.depth for child in children} == {10, 14}
    assert {child.width for child in children} == {8, 16}
    assert {child.operations[0] for child in children} == {0, 1}


def test_the_start_is_shallowest_widest_and_plain():
    config = IR.Settings(min_depth=12, max_depth=40, min_width=8, max_width=20, embedding=64)
    space = IR(config).bind(FACES)
    assert space.start() == IRArchitecture(20, (1, 1, 2, 1), (1,) * 5, (3,) * 5, 64)
    assert (space.swap_operation, space.swap_kernel) == (SEPARABLE, 5)
    assert (list(space.depths())[:3], list(space.widths())[:3]) == ([12, 14, 16], [20, 18, 16])


@pytest.mark.parametrize("depth", [8, 11])
def test_a_depth_without_a_network_is_told(depth):
    with pytest.raises(UserError, match="even"):
        IR().bind(FACES).at(depth, 8)


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
        IR.Settings.model_validate(change)
