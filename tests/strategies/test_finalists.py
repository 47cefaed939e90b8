"""Candidates judged more cheaply, by any strategy, and finalists confirmed on all images."""

import random
from dataclasses import replace

import pytest

from facenas.errors import UserError
from facenas.execution import TrialSpec
from facenas.spaces import Cells, ImageFacts
from facenas.spaces.plain import Plain
from facenas.strategies import Joint, Listed, MacroMicro, RandomSearch, Trend, TrialResult
from facenas.strategies.finalists import CONFIRM
from facenas.testing import check_strategy

SPACE = Plain(min_depth=4, max_depth=9, min_width=4, max_width=8).bind(ImageFacts(1, 10, 28))
CHEAP = {"fidelity": {"fraction": 0.25, "confirm": 0.5, "finalists": 2}}


def searched(strategy, judge):
    asked = []
    while wanted := strategy.ask():
        asked.append(wanted[0])
        strategy.tell(judge(wanted[0], f"key {len(asked)}"))
    return asked


def by_parameters(candidate, key):
    """Cheap trials favor large networks, full ones small ones."""
    size = candidate.architecture.count_parameters() / 1e4
    return TrialResult(key, accuracy=size if candidate.phase != CONFIRM else 50 - size)


@pytest.mark.parametrize(
    "strategy", [MacroMicro(min_epochs=2, **CHEAP), RandomSearch(population=6, generations=3, **CHEAP)]
)
def test_keeps_the_contract(strategy):
    check_strategy(strategy, SPACE)


def test_the_search_is_the_same_on_a_part_of_the_images():
    plain, cheap = (MacroMicro(min_epochs=2, **more).bind(SPACE, 0) for more in ({}, CHEAP))
    asked, cheaper = searched(plain, by_parameters), searched(cheap, by_parameters)
    found = [c for c in cheaper if c.phase != CONFIRM]
    assert [c.architecture for c in found] == [c.architecture for c in asked]
    assert {c.budget.data_fraction for c in found} == {0.25}
    assert len({TrialSpec(c, {"data": c.budget.data_fraction}).key for c in cheaper}) == len(cheaper)


def test_finalists_are_trained_as_long_as_the_longest_and_the_best_of_them_is_found():
    cheap = MacroMicro(min_epochs=2, **CHEAP).bind(SPACE, 0)
    asked = searched(cheap, by_parameters)
    last, found = [c for c in asked if c.phase == CONFIRM], cheap.result()
    assert [(c.budget.epochs, c.budget.data_fraction) for c in last] == [
        (max(c.budget.epochs for c in asked), 0.5)
    ] * 2
    smaller = min(last, key=lambda c: c.architecture.count_parameters())
    assert found["architecture"] == smaller.architecture.to_json() != found["searched"]["architecture"]
    assert [one["id"] for one in found["finalists"]] == [len(asked) - 2, len(asked) - 1]


def test_the_first_finalist_is_what_others_are_compared_with():
    cheap, decisions = MacroMicro(min_epochs=2, **CHEAP).bind(SPACE, 0), []
    while wanted := cheap.ask():
        accuracy = 40.0 + len(decisions) if wanted[0].phase != CONFIRM else 10.0
        decisions.append((wanted[0].phase, cheap.tell(TrialResult(str(len(decisions)), accuracy=accuracy))))
    assert [one for one in decisions if one[0] == CONFIRM] == [(CONFIRM, "baseline"), (CONFIRM, "rejected")]


def test_a_space_that_does_not_fit_is_told_with_those_that_do():
    with pytest.raises(UserError, match=r"cells cannot be searched by trend: .*; trend takes .*ir, plain"):
        Trend().bind(Cells().bind(ImageFacts(1, 10, 28)), 0)


def test_a_front_is_that_of_its_confirmed_members():
    cheap = RandomSearch(population=8, generations=3, **CHEAP).bind(SPACE, 0)
    rng = random.Random(0)
    searched(cheap, lambda c, key: TrialResult(key, accuracy=rng.uniform(0, 100)))
    front = cheap.result()["front"]
    errors, sizes = [m["error"] for m in front], [m["parameters"] for m in front]
    assert errors == sorted(errors)
    assert sizes == sorted(sizes, reverse=True)
    assert len(front) >= 1


def test_a_failed_finalist_is_not_found():
    cheap = MacroMicro(min_epochs=2, **CHEAP).bind(SPACE, 0)
    first = []

    def judge(candidate, key):
        if candidate.phase == CONFIRM and not first:
            first.append(candidate)
            return TrialResult(key, "failed", "diverged")
        return by_parameters(candidate, key)

    searched(cheap, judge)
    assert cheap.result()["architecture"] != first[0].architecture.to_json()


def test_of_many_at_once_none_begins_otherwise_for_what_is_told_meanwhile():
    strategy = RandomSearch(population=6, generations=2, epochs=9, inherit=2).bind(SPACE, 0)
    while wanted := strategy.ask():
        batch = len(wanted)
        for told in range(batch):
            assert strategy.ask()[: batch - told] == wanted[told:]
            strategy.tell(TrialResult(f"{batch}-{told}", accuracy=50.0 + told))
            if len(strategy.ask()) != batch - told - 1:
                break
    assert strategy.result()["finalists"]


def test_the_protocol_that_the_search_chose_is_confirmed_not_the_luckiest_trial():
    joint = Joint(epochs=4, trials=8, protocol={"lr": (0.1, 0.2)}, **CHEAP)
    joint.recipe = {"lr": 0.1}
    joint = joint.bind(SPACE, 0)

    def judge(candidate, key):
        lucky = 0.001 if candidate.protocol else 0.0
        return TrialResult(key, accuracy=50 + lucky, correct=500, validated=1000)

    asked = searched(joint, judge)
    last = [c for c in asked if c.phase == CONFIRM]
    assert last[0].protocol == tuple(joint.search.result()["protocol"].items())
    assert len({(c.architecture, c.protocol) for c in last}) == 2
    assert {c.budget.repeat for c in last} == {1 + max(c.budget.repeat for c in asked if c.phase != CONFIRM)}
    assert joint.result()["searched"]["protocol"] == joint.search.result()["protocol"]


def test_when_all_have_failed_nobody_is_a_finalist_and_all_failing_finalists_are_told():
    listed = Listed(networks=[{"architecture": SPACE.at(4, 4).to_json()}], epochs=3, **CHEAP).bind(SPACE, 0)
    searched(listed, lambda c, key: TrialResult(key, "failed", "diverged"))
    assert listed.result()["accuracy"] == 0
    listed = Listed(networks=[{"architecture": SPACE.at(4, 4).to_json()}], epochs=3, **CHEAP).bind(SPACE, 0)
    searched(
        listed,
        lambda c, key: TrialResult(key, "failed" if c.phase == CONFIRM else "ok", accuracy=5.0),
    )
    assert listed.result()["finalists"] == []


def test_a_strategys_own_part_of_the_images_counts_too():
    class Quarter(RandomSearch):
        def ask(self):
            return [replace(c, budget=replace(c.budget, data_fraction=0.5)) for c in super().ask()]

    asked = searched(Quarter(population=4, generations=1, **CHEAP).bind(SPACE, 0), by_parameters)
    assert {c.budget.data_fraction for c in asked if c.phase != CONFIRM} == {0.125}
