"""The plain space: published counts, what lies where, moves, JSON and errors."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facenas.errors import UserError
from facenas.spaces import ImageFacts, Plain, PlainArchitecture, from_json
from facenas.spaces.base import fingerprint
from facenas.spaces.plain import PLAIN, SEPARABLE

PUBLISHED = Path(__file__).parents[1] / "recorded_searches" / "published_networks.json"


CLASSES_CHANNELS = {
    "CIFAR10": (10, 3),
    "CIFAR100": (100, 3),
    "EMNIST": (47, 1),
    "FashionMNIST": (10, 1),
    "KMNIST": (10, 1),
}


# Four of the authors' published networks: plain and 5x5 layers by number (from 0), the rest separable and 3x3.
RECORDED = [
    {
        "dataset": "CIFAR10",
        "depth": 26,
        "width": 46,
        "plain": [0, 2],
        "five": [13, 17],
        "m": 0.466312,
    },
    {"dataset": "CIFAR100", "depth": 21, "width": 56, "plain": [], "five": [3], "m": 0.488588},
    {
        "dataset": "EMNIST",
        "depth": 17,
        "width": 50,
        "plain": [1, 4, 5],
        "five": [11, 13],
        "m": 0.405647,
    },
    {"dataset": "KMNIST", "depth": 18, "width": 50, "plain": [2, 10], "five": [17], "m": 0.41966},
]


@st.composite
def architectures(draw: st.DrawFn) -> PlainArchitecture:
    depth = draw(st.integers(1, 9))
    layers = st.lists(st.sampled_from([0, 1]), min_size=depth, max_size=depth).map(tuple)
    kernels = st.lists(st.sampled_from([3, 5]), min_size=depth, max_size=depth).map(tuple)
    width, channels, classes = (
        draw(st.integers(1, 9)),
        draw(st.integers(1, 3)),
        draw(st.integers(1, 12)),
    )
    return PlainArchitecture(width, draw(layers), draw(kernels), channels, classes)


def parameters_by_the_book(arch: PlainArchitecture) -> int:
    """Layer by layer, as the paper and the authors' code describe the network."""
    depth, before = len(arch.operations), 2 * arch.width
    total = arch.in_channels * before * 3 * 3 + 2 * before  # stem convolution, its BatchNorm
    after = arch.width
    for i in range(depth):
        if i in (depth // 3, 2 * depth // 3):
            after *= 2
        area = arch.kernels[i] ** 2
        if arch.operations[i] == 1:
            total += before * after * area
        else:
            total += before * area + before * after
        total += 2 * after  # BatchNorm
        before = after
    return total + before * arch.num_classes + arch.num_classes


def published(network: dict) -> PlainArchitecture:
    classes, channels = CLASSES_CHANNELS[network["dataset"]]
    ops, kernels = tuple(network["ops"]), tuple(network["kernels"])
    return PlainArchitecture(network["width"], ops, kernels, channels, classes)


@settings(deadline=None, max_examples=60)
@given(architectures())
def test_parameters_equal_the_formula_and_the_module(arch):
    assert arch.count_parameters() == parameters_by_the_book(arch)


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda r: f"{r['dataset']}-{r['width']}")
def test_parameters_of_published_networks_recorded_here(recorded):
    ops = [int(i in recorded["plain"]) for i in range(recorded["depth"])]
    kernels = [5 if i in recorded["five"] else 3 for i in range(recorded["depth"])]
    arch = published({**recorded, "ops": ops, "kernels": kernels})
    assert arch.depth == recorded["depth"]
    assert arch.count_parameters() == round(recorded["m"] * 1e6)


def test_parameters_of_all_published_networks():
    networks = json.loads(PUBLISHED.read_text())
    assert len(networks) == 10
    for network in networks:
        arch = published(network)
        counts = arch.count_parameters(), parameters_by_the_book(arch)
        assert counts == (round(network["params_millions"] * 1e6),) * 2, network["run"]


@given(architectures())
def test_every_field_changes_the_fingerprint(arch):
    changed = [
        arch.with_width(arch.width + 1),
        arch.with_operation(0, 1 - arch.operations[0]),
        arch.with_kernel(arch.depth - 1, 8 - arch.kernels[-1]),
        PlainArchitecture(arch.width, arch.operations, arch.kernels, 4, arch.num_classes),
        PlainArchitecture(arch.width, arch.operations, arch.kernels, arch.in_channels, 13),
    ]
    assert len({fingerprint(a.to_json()) for a in [arch, *changed]}) == 6


@given(architectures())
def test_layers_fit_together(arch):
    layers, before, shrink = list(arch.layers()), 2 * arch.width, 1
    for layer in layers:
        shrink *= layer.stride
        assert (layer.in_channels, layer.shrink) == (before, shrink)
        before = layer.out_channels
    # In a chain of one layer both strides would fall on it: it gets one.
    assert (shrink, before) == ((2, 2 * arch.width) if arch.depth == 1 else (4, 4 * arch.width))


GOOD = PlainArchitecture(4, (0, 1), (3, 5), 1, 10).to_json()


@pytest.mark.parametrize("field", ["width", "ops", "kernels", "in_channels", "num_classes"])
def test_a_missing_field_is_named(field):
    with pytest.raises(UserError, match=field):
        from_json({key: value for key, value in GOOD.items() if key != field})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "spiral"}, "spiral"),
        ({"depth": 3}, "depth 3"),
        ({"depth": None}, "says depth None"),
        ({"width": "wide"}, "wide"),
        ({"width": None}, "number"),
        ({"width": 0}, "not a plain architecture"),
        ({"num_classes": 0}, "not a plain architecture"),
        ({"in_channels": -1}, "not a plain architecture"),
        ({"ops": 1}, "number"),
        ({"ops": [0, 2]}, "not a plain architecture"),
        ({"ops": [0]}, "not a plain architecture"),
        ({"ops": [], "kernels": []}, "not a plain architecture"),
        ({"kernels": [3, 4]}, "not a plain architecture"),
        ({"kernels": [3, [5]]}, "number"),
    ],
)
def test_wrong_fields_are_told_in_a_sentence(change, words):
    with pytest.raises(UserError, match=words):
        from_json({**GOOD, **change})


@st.composite
def spaces(draw: st.DrawFn) -> Plain:
    depth, step = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    width = step + draw(st.integers(1, 9))  # narrower ones: see the test of narrow spaces
    config = Plain.Settings(
        min_depth=depth,
        max_depth=depth + draw(st.integers(0, 4)),
        min_width=width,
        max_width=width + draw(st.integers(0, 9)),
        width_step=step,
    )
    return Plain(config).bind(ImageFacts(draw(st.integers(1, 3)), draw(st.integers(1, 12)), 28))


def in_bounds(space: Plain, arch: PlainArchitecture) -> bool:
    """The bounds once more, with the width's lower one: only micro search goes below it."""
    c = space.settings
    return (
        c.min_depth <= len(arch.operations) == len(arch.kernels) <= c.max_depth
        and c.min_width <= arch.width <= c.max_width
        and {*arch.operations} <= {0, 1}
        and {*arch.kernels} <= {3, 5}
        and (arch.in_channels, arch.num_classes) == (space.images.in_channels, space.images.num_classes)
    )


SEEDS = st.integers(0, 2**32)


@settings(deadline=None)
@given(spaces(), SEEDS)
def test_all_moves_stay_in_bounds(space, seed):
    rng = random.Random(seed)
    first, second = space.sample(rng), space.sample(rng)
    found = [space.start(), first, space.mutate(first, rng), space.crossover(first, second, rng)]
    found += [space.mutate(first, rng) for _ in range(8)]
    assert all(in_bounds(space, arch) for arch in found)


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
        assert (child.operations[i], child.kernels[i]) in [(p.operations[i], p.kernels[i]) for p in parents]


def test_crossings_take_from_both_parents():
    space = Plain(min_depth=4, max_depth=4, min_width=8, max_width=16).bind(ImageFacts(1, 10, 28))
    first = PlainArchitecture(8, (0, 0, 0, 0), (3, 3, 3, 3), 1, 10)
    second = PlainArchitecture(16, (1, 1, 1, 1), (5, 5, 5, 5), 1, 10)
    children = [space.crossover(first, second, random.Random(seed)) for seed in range(60)]
    for i in range(4):
        assert {child.operations[i] for child in children} == {0, 1}
    assert {child.width for child in children} == {8, 16}
    assert any(len({*child.operations}) == 2 for child in children)


def test_the_start_is_shallowest_widest_and_separable():
    space = Plain(min_depth=4, max_depth=9, min_width=8, max_width=20).bind(ImageFacts(3, 7, 32))
    assert space.start() == PlainArchitecture(20, (0, 0, 0, 0), (3, 3, 3, 3), 3, 7)


@pytest.mark.parametrize(
    ("start", "genes", "swaps"),
    [
        ({}, (SEPARABLE, 3), (PLAIN, 5)),
        ({"operation": "plain", "kernel": 7}, (PLAIN, 7), (SEPARABLE, 5)),
        ({"kernel": 5}, (SEPARABLE, 5), (PLAIN, 3)),
    ],
)
def test_macro_search_starts_as_the_space_says_and_micro_search_offers_the_other(start, genes, swaps):
    space = Plain(min_depth=3, max_depth=5, max_width=16, **start).bind(ImageFacts(3, 10, 32))
    first = space.start()
    assert set(zip(first.operations, first.kernels, strict=True)) == {genes}
    assert first.count_parameters() == sum(p.numel() for p in first.build(0).parameters())
    assert (space.swap_operation, space.swap_kernel) == swaps
    grown = [arch for arch in (space.mutate(first, random.Random(n)) for n in range(40)) if arch.depth > 3]
    assert (grown[0].operations[-1], grown[0].kernels[-1]) == genes


def test_kernels_have_a_middle():
    with pytest.raises(UserError, match="kernel: is even; a kernel has a middle"):
        Plain(kernel=4)
