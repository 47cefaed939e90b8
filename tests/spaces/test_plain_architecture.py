"""Plain architectures: parameters and MACs against formula, torch and published networks; JSON and errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from facenas.errors import UserError
from facenas.models.plain import build_module
from facenas.spaces import PlainArchitecture, from_json
from facenas.spaces.base import fingerprint

PUBLISHED = Path(__file__).parents[3] / "shared" / "search_logs" / "published_networks.json"
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


def torch_parameters(arch: PlainArchitecture) -> int:
    return sum(p.numel() for p in build_module(arch, seed=0).parameters())


def published(network: dict) -> PlainArchitecture:
    classes, channels = CLASSES_CHANNELS[network["dataset"]]
    ops, kernels = tuple(network["ops"]), tuple(network["kernels"])
    return PlainArchitecture(network["width"], ops, kernels, channels, classes)


@settings(deadline=None, max_examples=60)
@given(architectures())
def test_parameters_equal_the_formula_and_the_module(arch):
    assert arch.count_parameters() == parameters_by_the_book(arch) == torch_parameters(arch)


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda r: f"{r['dataset']}-{r['width']}")
def test_parameters_of_published_networks_recorded_here(recorded):
    ops = [int(i in recorded["plain"]) for i in range(recorded["depth"])]
    kernels = [5 if i in recorded["five"] else 3 for i in range(recorded["depth"])]
    arch = published({**recorded, "ops": ops, "kernels": kernels})
    assert arch.depth == recorded["depth"]
    assert arch.count_parameters() == torch_parameters(arch) == round(recorded["m"] * 1e6)


def test_parameters_of_all_published_networks():
    if not PUBLISHED.exists():
        pytest.skip(
            f"{PUBLISHED} is not here: the authors' list of networks is not part of the project"
        )
    networks = json.loads(PUBLISHED.read_text())
    assert len(networks) == 10
    for network in networks:
        arch = published(network)
        counts = arch.count_parameters(), torch_parameters(arch), parameters_by_the_book(arch)
        assert counts == (round(network["params_millions"] * 1e6),) * 3, network["run"]


@settings(deadline=None, max_examples=25)
@given(architectures(), st.integers(5, 21))
def test_macs_are_half_the_flops_that_torch_counts(arch, image_size):
    module = build_module(arch, seed=0).eval()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        module(torch.zeros(1, arch.in_channels, image_size, image_size))
    assert 2 * arch.count_macs(image_size) == counter.get_total_flops()


@given(architectures())
def test_json_round_trip(arch):
    tree = json.loads(json.dumps(arch.to_json()))
    assert from_json(tree) == arch
    assert tree["depth"] == len(tree["ops"])
    del tree["depth"], tree["kind"]  # both can be told from the rest
    assert from_json(tree) == arch


@given(architectures(), architectures(), st.booleans())
def test_fingerprints_are_equal_exactly_when_architectures_are(one, other, same):
    other = from_json(one.to_json()) if same else other
    prints = [fingerprint(arch.to_json()) for arch in (one, other)]
    assert (prints[0] == prints[1]) == (one == other)


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


def test_an_infinite_width_is_told_in_a_sentence():
    with pytest.raises(UserError):
        from_json(json.loads(json.dumps(GOOD).replace('"width": 4', '"width": 1e999')))


@pytest.mark.parametrize("change", [{"width": 4.9}, {"ops": [0.9, 1]}, {"ops": "01"}])
def test_what_is_not_a_whole_number_is_refused(change):
    with pytest.raises(UserError):
        from_json({**GOOD, **change})


@pytest.mark.parametrize("tree", [[], "plain", {**GOOD, "kind": []}], ids=["list", "text", "kind"])
def test_json_of_another_shape_is_told_in_a_sentence(tree):
    with pytest.raises(UserError):
        from_json(tree)
