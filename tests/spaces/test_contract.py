"""What all search spaces promise: the four of the house, and one's own in one file."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import own_space
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from facenas.config import validate
from facenas.errors import UserError
from facenas.models.build import LiveTensors
from facenas.runs.config import RunConfig
from facenas.spaces import (
    SPACES,
    Architecture,
    Cells,
    GeneSpace,
    ImageFacts,
    Plain,
    PlainArchitecture,
    SearchSpace,
    from_json,
)
from facenas.spaces.base import FACE
from facenas.spaces.plain import PLAIN
from facenas.spaces.scaled import ScaledSpace
from facenas.testing import check_module, check_search_space

OWN = "own_space:DenseSpace"
# Settings under which networks are small enough to be built by dozens; other kinds have their defaults.
NARROW = {
    "plain": {"min_depth": 1, "max_depth": 6, "min_width": 2, "max_width": 8, "width_step": 3},
    "ir": {"max_depth": 16, "min_width": 2, "max_width": 6, "embedding": 8, "se": True},
    "cells": {"min_cells": 1, "max_cells": 3, "base_widths": [2, 4], "min_side": 2},
    "graph": {"widths": [2, 4, 6], "operations": ["skip", "max_pool3", "se_bottleneck3", "conv5"]},
}
FACTS = {"classification": ImageFacts(3, 5, 12), FACE: ImageFacts(3, 0, 112)}
# Scaled variants of named networks have few members: tests/test_contracts.py and models/test_named_networks.py.
KINDS = [kind for kind in [*SPACES.names(), OWN] if not issubclass(SPACES.get(kind), ScaledSpace)]
CASES = [(kind, task) for kind in KINDS for task in SPACES.get(kind).tasks]
both = pytest.mark.parametrize(("kind", "task"), CASES)


def space_of(kind: str, task: str) -> SearchSpace:
    return SPACES.get(kind)(**NARROW.get(kind, {})).bind(FACTS[task])


@both
def test_the_contract(kind, task):
    check_search_space(space_of(kind, task), built=4)


@both
@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32))
def test_counts_are_those_of_the_module(kind, task, seed):
    """Parameters by the module's tensors; multiply-accumulates by hooks on its layers."""
    arch, size = space_of(kind, task).sample(random.Random(seed)), FACTS[task].image_size
    found: list[int] = []
    with torch.device("meta"):
        module = arch.build(0).eval()
        for layer in module.modules():
            if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
                layer.register_forward_hook(
                    lambda layer, _, out: found.append(out.numel() * layer.weight[0].numel())
                )
        module(torch.zeros(1, arch.in_channels, size, size))
    assert arch.count_parameters() == sum(p.numel() for p in module.parameters())
    assert arch.count_macs(size) == sum(found)


@both
@pytest.mark.parametrize("seed", range(10))
def test_a_drawn_network_builds_counts_and_trains(kind, task, seed):
    check_module(space_of(kind, task).sample(random.Random(seed)), FACTS[task])


@both
def test_memory_is_what_tensors_take_on_a_cpu(kind, task):
    """The image, all weights and statistics, and the most that lives at once."""
    space, facts = space_of(kind, task), FACTS[task]
    for seed in range(4):
        arch = space.sample(random.Random(seed))
        module = arch.build(0).eval()
        with torch.no_grad(), LiveTensors() as live:
            module(torch.rand(1, facts.in_channels, facts.image_size, facts.image_size))
        held = sum(v.nbytes for v in module.state_dict().values() if v.is_floating_point())
        measured = held + live.peak
        assert arch.count_memory(facts.image_size) == pytest.approx(measured, rel=0.01)


def test_the_memory_of_a_network_written_out():
    """One plain layer for grey images of 4x4 pixels; BatchNorm of the stem runs when most is alive."""
    arch = PlainArchitecture.uniform(1, 2, 1, 3, operation=PLAIN)
    image, stem = 1 * 4 * 4, 4 * 4 * 4
    weights = (1 * 4 * 9 + 2 * 4) + (4 * 4 * 9 + 2 * 4) + (4 * 3 + 3)
    statistics = 2 * 4 + 2 * 4
    assert arch.count_memory(4) == 4 * (weights + statistics + image + stem + stem) == 1484


GENES = [case for case in CASES if issubclass(SPACES.get(case[0]), GeneSpace)]


@pytest.mark.parametrize(("kind", "task"), GENES)
@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32))
def test_every_row_is_a_network_that_goes_back_into_a_row(kind, task, seed):
    space, rng = space_of(kind, task), random.Random(seed)
    lower, upper = space.bounds()
    arch = space.decode([rng.randint(*pair) for pair in zip(lower, upper, strict=True)])
    assert len(space.encode(arch)) == len(lower) == len(space.sizes)
    assert space.decode(space.encode(arch)) == arch
    assert space.start() == space.decode(lower)
    for row in (lower[1:], (-1, *lower[1:]), (*upper[:-1], upper[-1] + 1)):
        with pytest.raises(UserError, match="gene"):
            space.decode(row)


@pytest.mark.parametrize(("kind", "task"), GENES)
def test_a_mutation_changes_the_network_and_crossing_with_itself_does_not(kind, task):
    space, rng = space_of(kind, task), random.Random(0)
    for _ in range(40):
        arch = space.sample(rng)
        assert space.mutate(arch, rng) != arch
        assert space.crossover(arch, arch, rng) == arch


def test_architectures_and_spaces_travel_to_workers():
    """A worker knows a space of one's own by its module."""
    spaces = [space_of(*case) for case in CASES]
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        assert list(pool.map(_sampled, spaces)) == [_sampled(space) for space in spaces]


def _sampled(space: SearchSpace) -> tuple[Architecture, str, int]:
    arch = space.sample(random.Random(4))
    return arch, arch.kind, arch.count_parameters()


def test_what_a_space_of_ones_own_gets_for_nothing():
    arch = space_of(OWN, "classification").start()
    tree = arch.to_json()
    assert tree == {"kind": OWN, **vars(arch), "widths": list(arch.widths)}
    assert from_json(tree) == arch
    assert arch.summary() == (
        f"widths {list(arch.widths)}, activation leaky, slope {arch.slope}, normalized True, side 12"
    )
    # 3 x 12 x 12 numbers in; of every layer weights, biases and a LayerNorm.
    before, parameters, weights = 432, 0, 0
    for width in (*arch.widths, None):
        after = width or 5
        weights += before * after
        parameters += after + (2 * after if width else 0)
        before = after
    assert arch.count_macs(12) == weights
    assert arch.count_parameters() == weights + parameters
    # Most lives at once while LayerNorm runs on the first layer, beside image and input, or while it begins.
    assert arch.count_memory(12) > 4 * (weights + parameters + 432)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"widths": 4}, "has 4 as 'widths', which should be a list of whole numbers"),
        ({"widths": [4, "8"]}, "which should be a list of whole numbers"),
        ({"widths": [True]}, "which should be a list of whole numbers"),
        ({"activation": 1}, "has 1 as 'activation', which should be a text"),
        ({"slope": "steep"}, "'slope', which should be a number"),
        ({"normalized": 1}, "'normalized', which should be true or false"),
        ({"in_channels": 1.5}, "'in_channels', which should be a whole number"),
        (
            {"kind": "spiral"},
            "search space 'spiral' is unknown; there are cells, edgeface, ghostfacenet",
        ),
        ({"kind": 3}, "the name of a search space"),
        ({"kind": "own_space:Nothing"}, "own_space has no Nothing"),
    ],
)
def test_wrong_fields_are_told_in_a_sentence(change, words):
    tree = space_of(OWN, "classification").start().to_json()
    with pytest.raises(UserError, match=words):
        from_json({**tree, **change})
    for field in change:
        if field != "kind":
            with pytest.raises(UserError, match=f"needs the field '{field}'"):
                from_json({key: value for key, value in tree.items() if key != field})


@pytest.mark.parametrize("tree", [[], "plain", None], ids=["list", "text", "nothing"])
def test_json_of_another_shape_is_told_in_a_sentence(tree):
    with pytest.raises(UserError, match="should be a JSON object"):
        from_json(tree)


@both
def test_fingerprints_of_different_members_differ(kind, task):
    from facenas.spaces import fingerprint

    space, rng = space_of(kind, task), random.Random(1)
    members = {space.sample(rng) for _ in range(60)}
    assert len({fingerprint(arch.to_json()) for arch in members}) == len(members)


def test_bad_settings_and_images_are_told_in_a_sentence():
    with pytest.raises(UserError, match="search space plain: max_deepness: is not a known setting"):
        Plain(max_deepness=3)
    with pytest.raises(TypeError, match="its own Settings"):
        Plain(Cells.Settings())
    with pytest.raises(UserError, match="not bound to images yet"):
        Plain().start()
    with pytest.raises(UserError, match="plain is for classification, and these images are for face"):
        Plain().bind(FACTS[FACE])
    with pytest.raises(UserError, match="ir is for face, and these images are for classification"):
        SPACES.get("ir")().bind(FACTS["classification"])


def test_binding_gives_a_copy_for_other_images():
    space = Cells().bind(ImageFacts(3, 10, 32))
    small = space.bind(ImageFacts(1, 10, 8))
    assert (space.start().in_channels, small.start().in_channels) == (3, 1)
    assert len(space.sizes) == len(small.sizes)
    assert space == Cells().bind(ImageFacts(3, 10, 32)) != small
    assert max(p.shrink for p in space.decode(space.bounds()[1]).placed()) <= 8
    assert len({space, Cells().bind(ImageFacts(3, 10, 32)), small}) == 2


def test_a_run_names_a_space_of_ones_own_by_its_module():
    tree = {"space": {"kind": OWN, "max_layers": 2}, "search": {"strategy": "random"}}
    config = validate(RunConfig, tree, "run")
    assert config.space == own_space.DenseSpace.Settings(max_layers=2)
    assert config.model_dump(mode="json")["space"] == {
        "kind": OWN,
        "max_layers": 2,
        "widths": [4, 8, 16],
    }
    with pytest.raises(UserError, match=r"space\.max_layers"):
        validate(RunConfig, {**tree, "space": {"kind": OWN, "max_layers": 0}}, "run")


@dataclass(frozen=True)
class Forgetful(own_space.Dense):
    """Tells one parameter too few."""

    def count_parameters(self) -> int:
        return super().count_parameters() - 1


class ForgetfulSpace(own_space.DenseSpace):
    """Of such."""

    Architecture = Forgetful

    def sample(self, rng: random.Random) -> Forgetful:
        return Forgetful(**vars(super().sample(rng)))


def test_the_contract_finds_a_wrong_count_and_a_global_draw(monkeypatch):
    space = ForgetfulSpace().bind(FACTS["classification"])
    monkeypatch.setattr(ForgetfulSpace, "mutate", lambda self, arch, rng: self.sample(rng))
    with pytest.raises(AssertionError, match=r"tells \d+ parameters, its module has \d+"):
        check_search_space(space)
    monkeypatch.setattr(
        ForgetfulSpace,
        "mutate",
        lambda self, arch, rng: self.sample(random.Random(random.random())),
    )
    with pytest.raises(AssertionError, match="mutate does not depend on its rng alone"):
        check_search_space(space)


def test_spaces_and_their_json_need_no_torch():
    code = (
        "import sys, facenas.spaces as s; a = s.Plain().bind(s.ImageFacts(1, 10, 28)).start(); "
        "s.from_json(a.to_json()).count_parameters(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0


def test_json_is_what_runs_hold():
    """A line of a journal tells its architecture among other things."""
    for kind, task in CASES:
        arch = space_of(kind, task).start()
        line = {**arch.to_json(), "phase": "depth", "accuracy": 99.0, "params_millions": 1}
        assert from_json(json.loads(json.dumps(line))) == arch
