"""Macro-micro search by hand: every stopping rule on a small made-up space, one trial after another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facenas.spaces import ImageFacts, Plain, PlainArchitecture
from facenas.strategies import Candidate, MacroMicro, TrialResult

MACRO = {"micro": False}


def result(accuracy: float, train_accuracy: float = 0.0, **values: float) -> TrialResult:
    return TrialResult(accuracy=accuracy, train_accuracy=train_accuracy, values=values)


def engine(depths: tuple[int, int], widths: tuple[int, int], **config: float) -> MacroMicro:
    step = int(config.pop("width_step", 2))
    bounds = dict(zip(("min_depth", "max_depth", "min_width", "max_width"), depths + widths, strict=True))
    space = Plain(**bounds, width_step=step).bind(ImageFacts(1, 10, 32))
    bound = MacroMicro(**config).bind(space, seed=0)
    assert isinstance(bound, MacroMicro)
    return bound


def play(strategy: MacroMicro, outcomes: Sequence[float | TrialResult]) -> list[Candidate]:
    """Tells the outcomes one by one (numbers are accuracies); what was asked for each."""
    asked = []
    for outcome in outcomes:
        [wanted] = strategy.ask()
        assert strategy.ask() == [wanted], "asking twice changes nothing"
        asked.append(wanted)
        strategy.tell(outcome if isinstance(outcome, TrialResult) else result(outcome))
    return asked


def seen(asked: list[Candidate]) -> list[tuple[str, int, int, int]]:
    return [(c.phase, c.architecture.depth, c.architecture.width, c.budget.epochs) for c in asked]


# Growth: depth 2, 3, ... at one width, so that the search ends with it.


def growth(outcomes: Sequence[float | TrialResult], **config: float) -> MacroMicro:
    strategy = engine((2, 9), (8, 8), **MACRO, **config)
    assert seen(play(strategy, outcomes)) == [("depth", 2 + i, 8, 10 + i) for i in range(len(outcomes))]
    return strategy


@pytest.mark.parametrize(
    ("outcomes", "best_depth"),
    [
        ([99.9], 2),  # good enough at once
        ([50, 99.9], 3),  # 100 - 0.1
        ([50, float(np.float32(99.9) - np.float32(1e-5))], 3),  # 99.9 with the rounding of a log
        ([result(50, 100)], 2),  # nothing left to learn
        ([50, result(60, 100)], 3),
        ([50, result(60, 99.999998)], 3),
        ([50, 49, 49, 49], 2),  # the third drop
        ([50, 49, 50, 49, 49.96, 49], 2),  # what lies in between does not forgive a drop
        ([50, 50.09, 49, 50.09, 49, 49], 2),  # nor does it become the best
        ([50, 49, 49, 51, 50, 50, 50], 5),  # a gain does both
        ([50, 49.94, 49.94, 49.94], 2),  # more than 0.05 below
        ([10, 20, 30, 40, 50, 60, 70, 80], 9),  # D_max
        ([50, 49, 50, 49, 50, 50, 50, 60], 9),  # D_max is still trained and still counts
    ],
)
def test_growth_ends(outcomes, best_depth):
    strategy = growth(outcomes)
    assert strategy.ask() == []
    assert strategy.result()["architecture"]["depth"] == best_depth


@pytest.mark.parametrize(
    "outcomes",
    [
        [99.8],
        [99.89],  # one image short of target - slack
        [50, 99.899],
        [result(50, 99.99)],
        [50, result(49, 100)],  # not the best candidate's training accuracy
        [50, result(50.05, 100)],
        [50, 49, 49],
        [50, 49.95, 49.95, 49.95, 49.95],  # exactly 0.05 below: no drop
        [50, 50.09, 50.03, 50.09, 50.03, 50.09, 50.03],  # measured against 50, not 50.09
        [50, 49, 49, 50.1, 49, 49],  # exactly 0.10 above: a gain
    ],
)
def test_growth_goes_on(outcomes):
    assert growth(outcomes).ask()[0].phase == "depth"


def test_growths_tolerances_and_target_are_settings():
    tolerant = growth([88.9, 87.9], depth_gain=2, depth_drop=1, target_accuracy=90, target_slack=1)
    assert tolerant.ask()
    play(tolerant, [90.8])  # less than 2 above
    assert tolerant.ask()
    play(tolerant, [91])
    assert tolerant.ask() == []
    assert growth([50, 49], max_depth_drops=1).ask() == []


def test_a_search_of_one_network_ends_after_it():
    strategy = engine((3, 3), (8, 8), **MACRO)
    play(strategy, [50])
    assert strategy.ask() == []
    with pytest.raises(RuntimeError, match="over"):
        strategy.tell(result(1))


# Pruning: one depth, widths 20, 18, ...; the network of width 20 counts as growth.


def pruning(outcomes: Sequence[float | TrialResult], narrowest: int = 4) -> MacroMicro:
    strategy = engine((3, 3), (narrowest, 20), **MACRO)
    expected = [("width", 3, 20 - 2 * i, 10 + 2 * i) for i in range(len(outcomes))]
    assert seen(play(strategy, outcomes)) == [("depth", *expected[0][1:]), *expected[1:]]
    return strategy


@pytest.mark.parametrize(
    ("outcomes", "best_width", "best_epochs"),
    [
        ([50, 49, 49, 49], 20, 10),
        ([50, 49.99, 49.99, 49.99], 20, 10),  # one image worse is worse
        ([50, 50, 49, 49, 49], 18, 12),  # equal is as good
        ([50, 49, 49, 50, 49, 49, 49], 14, 16),  # three in a row, no fewer
        ([50, 49, 50, 49, 50, 49, 49, 49], 12, 18),
        (
            [87.02, 87.019997, 80, 80, 80],
            18,
            12,
        ),  # the same count of right answers, logged as float32
        ([87.019997, 87.02, 87.019997, 80, 80, 80], 16, 14),
    ],
)
def test_pruning_ends_at_the_third_drop_in_a_row(outcomes, best_width, best_epochs):
    strategy = pruning(outcomes)
    result = strategy.result()
    assert strategy.ask() == []
    assert result["architecture"]["width"] == result["macro_width"] == best_width
    assert result["macro_epochs"] == best_epochs


@pytest.mark.parametrize(("narrowest", "trials"), [(16, 3), (15, 3), (17, 2), (20, 1)])
def test_pruning_ends_at_the_narrowest_width_of_the_grid(narrowest, trials):
    assert pruning([50] * trials, narrowest).ask() == []


def test_two_drops_do_not_end_pruning():
    assert pruning([50, 49, 49]).ask()[0].architecture.width == 14
    assert pruning([50, 49, 49, 50, 49, 49]).ask()[0].architecture.width == 8


def test_growths_last_drops_are_not_counted_in_pruning():
    strategy = engine((2, 4), (4, 20), **MACRO)
    play(strategy, [50, 49, 49])  # D_max with two drops
    assert seen(play(strategy, [49, 49, 50])) == [("width", 2, w, e) for w, e in [(18, 14), (16, 16), (14, 18)]]


def test_epochs_go_on_from_where_growth_stopped_and_the_best_depth_is_pruned():
    strategy = engine((2, 9), (8, 12), min_epochs=3, depth_epoch_step=4, width_epoch_step=5, **MACRO)
    asked = play(strategy, [10, 50, 40, 40, 40, 50, 50])
    growth = [("depth", depth, 12, 3 + 4 * (depth - 2)) for depth in (2, 3, 4, 5, 6)]
    assert seen(asked) == [*growth, ("width", 3, 10, 24), ("width", 3, 8, 29)]
    assert strategy.ask() == []
    assert {op for c in asked for op in c.architecture.operations} == {0}
    assert {k for c in asked for k in c.architecture.kernels} == {3}


# Both against the algorithm in whole numbers of right answers.


def macro_by_the_book(right: list[int], depths: range, widths: range) -> list[tuple[int, int, int]]:
    """(depth, width, epochs) asked for when the i-th candidate gets right[i] of 10,000 images right."""
    asked: list[tuple[int, int, int]] = []

    def train(depth: int, width: int, epochs: int) -> int:
        asked.append((depth, width, epochs))
        return right[len(asked) - 1]

    best_depth = depth = depths[0]
    best, epochs, drops = train(depth, widths[0], 10), 10, 0
    while depth < depths[-1] and best < 9990 and drops < 3:
        depth, epochs = depth + 1, epochs + 1
        got = train(depth, widths[0], epochs)
        if got >= best + 10:
            best, best_depth, drops = got, depth, 0
        elif got < best - 5:
            drops += 1
    drops = 0
    for width in widths[1:]:
        epochs += 2
        got = train(best_depth, width, epochs)
        best, drops = (got, 0) if got >= best else (best, drops + 1)
        if drops == 3:
            break
    return asked


CLOSE = st.one_of(st.integers(9000, 9025), st.integers(9975, 9995))


@settings(deadline=None, max_examples=300)
@given(st.data(), st.lists(CLOSE, min_size=17, max_size=17))
def test_rounding_of_accuracies_never_changes_the_course(data, right):
    noise = data.draw(st.lists(st.floats(-1e-5, 1e-5), min_size=17, max_size=17))
    strategy, asked = engine((2, 9), (4, 20), **MACRO), []
    for count, slip in zip(right, noise, strict=True):
        if not strategy.ask():
            break
        asked += play(strategy, [count / 100 + slip])
    assert strategy.ask() == []
    expected = macro_by_the_book(right, range(2, 10), range(20, 3, -2))
    assert [line[1:] for line in seen(asked)] == expected


# Micro search.


def parameters(width: int, ops: Sequence[int], kernels: Sequence[int]) -> int:
    """Of a network for 1 channel and 10 classes, by the formula of the paper's space."""
    before, after = 2 * width, width
    total = 9 * before + 2 * before
    for i, (op, kernel) in enumerate(zip(ops, kernels, strict=True)):
        if i in (len(ops) // 3, 2 * len(ops) // 3):
            after *= 2
        weights = before * after * kernel**2 if op else before * kernel**2 + before * after
        total, before = total + weights + 2 * after, after
    return total + before * 10 + 10


Gene = tuple[int, tuple[int, ...], tuple[int, ...]]


def micro_by_the_book(width: int, depth: int, slack: int, right: list[int]) -> tuple[list[Gene], Gene]:
    """(all asked for, the best): `right` has the baseline's right answers, then every replacement's."""
    best: Gene = (width, (0,) * depth, (3,) * depth)
    asked, best_right = [best], right[0]
    for gene, value in ((1, 1), (2, 5)):
        base = best
        limit = parameters(*base) + slack
        for layer in range(depth):
            changed = [best[0], list(best[1]), list(best[2])]
            changed[gene][layer] = value
            ops, kernels = tuple(changed[1]), tuple(changed[2])
            fitting = [w for w in range(1, base[0] + 1) if parameters(w, ops, kernels) <= limit]
            asked.append((max(fitting, default=1), ops, kernels))
            if right[len(asked) - 1] > best_right:
                best, best_right = asked[-1], right[len(asked) - 1]
    return asked, best


def genes(arch: PlainArchitecture) -> Gene:
    return arch.width, arch.operations, arch.kernels


@settings(deadline=None, max_examples=150)
@given(
    st.integers(1, 5),
    st.integers(2, 24),
    st.sampled_from([0, 50, 500, 10_000]),
    st.lists(st.integers(4000, 4006), min_size=11, max_size=11),
    st.lists(st.floats(-1e-5, 1e-5), min_size=11, max_size=11),
)
def test_micro_search_by_the_book(depth, width, slack, right, noise):
    right, count = right[: 2 * depth + 1], 2 * depth + 1
    strategy = engine((depth, depth), (width, width), param_slack=slack)
    play(strategy, [50])
    asked = play(strategy, [r / 100 + slip for r, slip in zip(right, noise, strict=False)])
    expected, best = micro_by_the_book(width, depth, slack, right)
    assert [genes(c.architecture) for c in asked] == expected
    assert [c.phase for c in asked] == ["ops"] * (depth + 1) + ["kernels"] * depth
    assert [c.budget.epochs for c in asked] == [2] * count
    assert strategy.ask() == []
    assert genes(strategy.best) == best
    assert strategy.result()["accuracy"] == pytest.approx(max(right) / 100, abs=2e-5)


def test_replacements_are_as_wide_as_parameters_allow():
    strategy = engine((6, 6), (16, 16), param_slack=100)
    play(strategy, [50])
    [baseline, first] = play(strategy, [40, 41])
    base, arch = baseline.architecture.count_parameters(), first.architecture
    assert arch.operations == (1, 0, 0, 0, 0, 0)
    assert arch.width < 16
    assert arch.count_parameters() <= base + 100 < arch.with_width(arch.width + 1).count_parameters()
    [second] = play(strategy, [41])  # equal: undone
    assert second.architecture.operations == (1, 1, 0, 0, 0, 0)
    [third] = play(strategy, [40])
    assert third.architecture.operations == (1, 0, 1, 0, 0, 0)


def test_parameters_may_reach_the_limit_but_not_pass_it():
    base = parameters(16, (0, 0, 0), (3, 3, 3))
    room = parameters(14, (1, 0, 0), (3, 3, 3)) - base
    assert room > 0
    for slack, width in ((room, 14), (room - 1, 13)):
        strategy = engine((3, 3), (16, 16), param_slack=slack)
        assert play(strategy, [50, 40, 41])[-1].architecture.width == width


def test_the_baseline_is_the_network_that_growth_and_pruning_found():
    strategy = engine((2, 5), (8, 14))
    asked = play(strategy, [50, 60, 50, 50, 60, 50, 50, 40])  # depth 3 of 5, width 12, drops at 10 and 8
    assert seen(asked)[-1] == ("ops", 3, 12, 2)
    assert asked[-1].architecture == PlainArchitecture.uniform(3, 12, 1, 10)


def test_the_update_step_starts_from_what_replace_returned():
    strategy = engine((3, 3), (16, 16), param_slack=0, micro_epochs=4)
    asked = play(strategy, [50, 40, 41, 30, 30])  # only the first layer becomes plain
    replaced = strategy.best
    assert replaced == asked[2].architecture
    assert replaced.width < 16
    [update] = strategy.ask()
    assert (update.phase, update.budget.epochs) == ("kernels", 4)
    assert update.architecture.operations == (1, 0, 0)
    assert update.architecture.kernels == (5, 3, 3)
    assert update.architecture.width <= replaced.width
    # Its own parameters are the base now, not those of the macro network, which leave more room.
    macro = asked[0].architecture.count_parameters()
    assert update.architecture.count_parameters() <= replaced.count_parameters() < macro
    play(strategy, [41, 41, 41])  # the accuracy to beat is that of replace
    assert strategy.ask() == []
    assert strategy.best == replaced


def test_noise_does_not_count_as_better():
    strategy = engine((1, 1), (8, 8))
    play(strategy, [50, 87.02, 87.020004, 87.03])
    assert strategy.best.operations == (0,)
    assert strategy.best.kernels == (5,)


def test_the_baseline_replaces_the_macro_accuracy():
    strategy = engine((2, 2), (8, 8))
    assert seen(play(strategy, [90, 40, 41])) == [
        ("depth", 2, 8, 10),
        ("ops", 2, 8, 2),
        ("ops", 2, 8, 2),
    ]
    assert strategy.result()["macro_accuracy"] == 90
    assert strategy.result()["accuracy"] == 41


def test_without_operations_kernels_alone_are_compared_with_the_baseline():
    strategy = engine((3, 3), (16, 16), operations=False)
    asked = play(strategy, [50, 40, 41, 30, 42])
    assert [c.phase for c in asked] == ["depth", *4 * ["kernels"]]
    assert asked[1].reason == "baseline"
    assert strategy.ask() == []
    assert strategy.best.operations == (0, 0, 0)
    assert strategy.best.kernels == (5, 3, 5)


def test_without_micro_search_it_ends_after_pruning():
    strategy = engine((2, 2), (8, 10), **MACRO)
    assert seen(play(strategy, [50, 50])) == [("depth", 2, 10, 10), ("width", 2, 8, 12)]
    assert strategy.ask() == []
    assert strategy.result()["accuracy"] == strategy.result()["macro_accuracy"] == 50


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from([0, 40, 49.97, 50, 50.2]), min_size=40, max_size=40))
def test_the_same_outcomes_give_the_same_course(accuracies):
    courses = []
    for _ in range(2):
        strategy, course = engine((2, 6), (4, 12)), []
        for accuracy in accuracies:
            if not strategy.ask():
                break
            [wanted] = strategy.ask()
            course.append((wanted, strategy.tell(result(accuracy, accuracy)), strategy.result()))
        courses.append(course)
    assert courses[0] == courses[1]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0, 100), min_size=60, max_size=60))
def test_evaluated_candidates_stay_below_the_papers_bound(accuracies):
    """2 * D_f + D' + W' candidates and the baseline (section 3 of the paper)."""
    strategy, count = engine((2, 8), (4, 12)), 0
    while strategy.ask():
        strategy.tell(result(accuracies[count]))
        count += 1
    depths, widths = 8 - 2 + 1, len(range(4, 13, 2)) - 1
    assert count <= 2 * strategy.best.depth + depths + widths + 1
