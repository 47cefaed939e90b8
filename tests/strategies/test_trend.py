"""Search by trends: curves against scipy, and made-up surfaces with a known optimum."""

from __future__ import annotations

import random
import zlib
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import curve_fit

from facenas.spaces import ImageFacts, Plain
from facenas.strategies import Candidate, Decision, Trend, TrialResult
from facenas.strategies.curves import Scale, depth_curves, width_curves
from facenas.testing import check_strategy

DEPTHS = np.arange(10.0, 101.0)


def surface(depth: int, width: int) -> float:
    """The limit is 92; depth 20 is 0.6 below it, and half the width of 64 costs 0.4."""
    return 92 - 3 * np.exp(-(depth - 10) / 6.5) - 0.4 * (64 / width - 1)


def judge(noise: float = 0.0, seed: int = 0, images: int = 10_000):
    def result(candidate: Candidate) -> TrialResult:
        rng = random.Random(f"{seed} {candidate}")
        arch, long = candidate.architecture, candidate.phase in ("depth", "width")
        accuracy = (surface(arch.depth, arch.width) if long else 50.0) + rng.gauss(0, noise)
        return TrialResult(accuracy=accuracy, correct=round(accuracy * images / 100), validated=images)

    return result


def searched(strategy, judge) -> list[tuple[Candidate, Decision]]:
    course = []
    while wanted := strategy.ask():
        course.append((wanted[0], strategy.tell(judge(wanted[0]))))
    return course


def engine(**given) -> Trend:
    bounds = {"min_depth": 10, "max_depth": 100, "min_width": 16, "max_width": 64}
    own = {key: given.pop(key) for key in list(given) if key in bounds}
    return Trend(**given).bind(Plain(**bounds | own).bind(ImageFacts(3, 10, 32)), seed=0)


# Curves.


def test_many_trainings_give_the_curve_that_least_squares_gives():
    rng = np.random.default_rng(0)
    curves, depths = depth_curves(DEPTHS, Scale(11.0, 0.3, 0.01), 0 * DEPTHS), np.arange(10, 60, 2)
    accuracies = surface(depths, 64) + rng.normal(0, 0.2, len(depths))
    for depth, accuracy in zip(depths, accuracies, strict=True):
        curves.see(int(depth) - 10, accuracy)

    def law(d, level, size, length):
        return level - size * np.exp(-(d - 10) / length)

    fitted, _ = curve_fit(law, depths, accuracies, (90, 2, 5))
    assert np.abs(curves.mean() - law(DEPTHS, *fitted)).max() < 0.2
    assert np.all(np.abs(curves.mean() - surface(DEPTHS, 64)) < 4 * curves.deviation())


def test_what_is_known_apart_from_trainings_counts_as_told():
    widths = np.arange(16.0, 65.0, 2)
    curves = width_curves(widths, Scale(10.0, 0.3, 0.01), 0.05 * np.log2((widths / 16) ** 2))
    curves.see(24, 90.0, deviation=0.2)
    assert curves.mean()[-1] == pytest.approx(90)
    assert curves.deviation()[-1] == pytest.approx(0.2)
    before = curves.misses().min()
    assert curves.worth(0) > curves.worth(23) >= -1e-9  # the narrowest tells most of the slope
    for _ in range(20):
        curves.see(0, 85.0)
        curves.see(24, 90.0)
    assert curves.deviation()[0] < 0.3
    assert curves.misses().min() < before


@given(st.lists(st.floats(60, 99), min_size=1, max_size=6), st.integers(1, 90))
@settings(max_examples=30, deadline=None)
def test_a_posterior_is_finite_and_a_training_is_never_expected_to_harm(accuracies, step):
    curves = depth_curves(DEPTHS, Scale(20.0, 0.3, 0.01), 0.05 * np.log2(DEPTHS / 10))
    for number, accuracy in enumerate(accuracies):
        curves.see(number * step % 91, accuracy)
    assert np.isfinite([*curves.mean(), *curves.deviation(), *curves.misses()]).all()
    assert min(curves.worth(place) for place in (0, 45, 90)) > -1e-9


# The search.


def test_without_noise_the_network_of_the_best_trade_is_found_for_a_fifth_of_the_epochs():
    """The trade is 5 % of the 8 % errors for half the parameters."""
    strategy = engine(gain=0.05)
    epochs = sum(c.budget.epochs for c, _ in searched(strategy, judge()))

    def value(depth: int, width: int) -> float:
        return surface(depth, width) - 0.05 * 8 * np.log2(strategy.space.at(depth, width).count_parameters())

    best = max(value(depth, width) for depth in range(10, 101) for width in range(16, 65, 2))
    assert value(strategy.best.depth, strategy.best.width) > best - 0.15
    macro_micro = sum(range(10, 29)) + sum(range(30, 60, 2)) + 2 * (1 + 2 * 25)
    assert epochs < macro_micro / 5


def test_depth_goes_coarse_to_fine_and_upwards():
    course = [c for c, _ in searched(engine(), judge(0.2)) if c.phase == "depth"]
    assert [c.architecture.depth for c in course[:3]] == [10, 15, 22]
    assert [c.budget.epochs for c in course[:3]] == [10, 15, 22]


def test_all_widths_are_trained_as_long_as_the_depth_chosen():
    strategy = engine(tolerance=1e-4)
    widths = [c for c, _ in searched(strategy, judge(0.2)) if c.phase == "width"]
    depth = strategy.result()["trends"]["depth"]["chosen"]
    assert {(c.architecture.depth, c.budget.epochs) for c in widths} == {(depth, depth)}
    assert len(widths) > 1


def test_trainings_alike_are_repeats():
    """Of two depths, the second is just worth its parameters: only more trainings of both tell."""
    sizes = [engine(max_depth=11).space.at(depth, 64).count_parameters() for depth in (10, 11)]
    gain = (surface(11, 64) - surface(10, 64)) / (100 - surface(11, 64)) / np.log2(sizes[1] / sizes[0])
    repeats = []
    for seed in range(5):  # of single trainings, some happen to differ by so much that no more are wanted
        strategy = engine(tolerance=3e-4, gain=gain, max_depth=11, min_width=64, micro=False)
        candidates = [c for c, _ in searched(strategy, judge(0.2, seed))]
        assert len(set(candidates)) == len(candidates)
        repeats.append(max(c.budget.repeat for c in candidates))
    assert max(repeats) > 0


@given(st.integers(0, 10_000))
@settings(max_examples=3, deadline=None)
def test_what_is_found_was_trained_and_trends_are_plain_values(seed):
    strategy = engine(tolerance=3e-4)
    course = searched(strategy, judge(0.3, seed))
    trained = {c.architecture for c, _ in course if c.phase in ("depth", "width")}
    trends, found = strategy.result()["trends"], strategy.result()
    assert any((a.depth, a.width) == (strategy.best.depth, found["macro_width"]) for a in trained)
    for phase in ("depth", "width"):
        told = trends[phase]
        assert len(told["sizes"]) == len(told["mean"]) == len(told["low"]) == len(told["high"])
        assert all(
            low <= mean <= high for low, mean, high in zip(told["low"], told["mean"], told["high"], strict=True)
        )
    assert all(a <= b + 1e-3 for a, b in pairwise(trends["width"]["mean"])), "curves over widths rise"
    assert len(trends["depth"]["points"]) == sum(c.phase == "depth" for c, _ in course)
    assert trends["width"]["chosen"] == found["macro_width"]
    last = next(c for c, _ in reversed(course) if c.phase in ("depth", "width"))
    assert last.architecture.width in {size for size, _, _ in trends["width"]["points"]}


@pytest.mark.parametrize("noise", [0.0, 0.2])
@pytest.mark.parametrize("slope", [0.1, 1.0])
def test_where_accuracy_falls_with_depth_a_shallow_network_is_found(slope, noise):
    """About the shallowest; where it rises first, by 3 points, about the peak."""
    for rise in (0, 3):
        rng = np.random.default_rng(0)

        def law(depth: int, rise: float = rise) -> float:
            return 92 - rise * np.exp(-(depth - 10) / 3) - slope * (depth - 10)

        def result(candidate: Candidate, law=law, rng=rng) -> TrialResult:
            accuracy = law(candidate.architecture.depth) + rng.normal(0, noise)
            return TrialResult(accuracy=accuracy, validated=10_000)

        strategy = engine(micro=False, min_width=64, max_depth=60)
        searched(strategy, result)
        assert max(map(law, range(10, 61))) - law(strategy.best.depth) < 0.5


def test_no_accuracy_beyond_all_images_is_hoped_for():
    """The third depth has all right: what is deeper can only cost, and the curve ends at 100."""
    accuracies = {10: 99.9, 15: 100.0}
    strategy = engine(micro=False)
    searched(strategy, lambda c: TrialResult(accuracy=accuracies.get(c.architecture.depth, 100), validated=360))
    assert strategy.best.depth <= 22
    for told in strategy.result()["trends"].values():
        assert max(told["mean"]) <= max(told["high"]) <= 100


@pytest.mark.parametrize(("number", "given"), [(0, {}), (1, {}), (2, {"inherit": 2})])
def test_it_ends_and_keeps_its_contract_whichever_trainings_fail(number, given):
    """Of a place that was trained, of a smaller one, of the baseline: no place twice, and no crash."""

    def result(candidate: Candidate, number: int) -> TrialResult:
        rng = random.Random(f"{candidate.architecture} {candidate.budget} {number}")
        if rng.random() < 0.2:
            return TrialResult(status="failed", reason="diverged")
        accuracy = 80 + 0.2 * candidate.architecture.depth + rng.gauss(0, 2)
        return TrialResult(accuracy=accuracy, correct=round(accuracy * 5), validated=500)

    space = Plain(min_depth=3, max_depth=7, min_width=4, max_width=10).bind(ImageFacts(1, 10, 28))
    strategy = Trend(min_epochs=4, gain=0.05, micro_epochs=1, **given)
    check_strategy(strategy, space, partial(result, number=number), most_trials=100)


def test_a_start_that_fails_is_tried_half_as_wide():
    def fails(candidate):
        wide = candidate.architecture.width > 40
        return TrialResult(status="failed", reason="memory") if wide else judge()(candidate)

    strategy = engine(micro=False)
    course = searched(strategy, fails)
    assert [(c.phase, c.architecture.width) for c, _ in course[:3]] == [("depth", w) for w in (64, 32, 32)]
    assert max(c.architecture.width for c, _ in course[1:]) == 32
    assert strategy.best.depth > 20


def test_where_no_training_succeeds_the_search_ends():
    assert len(searched(engine(), lambda _: TrialResult(status="failed"))) == 3  # widths 64, 32, 16


def test_failed_trainings_tell_nothing():
    def fails(candidate):
        deep = candidate.architecture.depth > 20
        return TrialResult(status="failed", reason="diverged") if deep else judge()(candidate)

    strategy = engine()
    course = searched(strategy, fails)
    assert sum(c.architecture.depth > 20 for c, _ in course) <= 2
    assert strategy.best.depth <= 20
    assert strategy.result()["accuracy"] > 0


# Micro search.


def bits(right: np.ndarray) -> str:
    return np.packbits(right).tobytes().hex()


def by_swaps(gain: float, layers: set[int], scatter: float = 0.0):
    """Each swapped layer of `layers` turns `gain` percent of the images from wrong to right; others harm."""
    difficulty = np.random.default_rng(0).random(4000)

    def result(candidate: Candidate) -> TrialResult:
        arch, rng = candidate.architecture, np.random.default_rng(zlib.crc32(repr(candidate).encode()))
        swapped = {i for i, op in enumerate(arch.operations) if op}
        swapped |= {100 + i for i, kernel in enumerate(arch.kernels) if kernel == 5}
        share = 0.5 + gain / 100 * (len(swapped & layers) - len(swapped - layers)) + rng.normal(0, scatter)
        right = difficulty + rng.normal(0, 0.02, 4000) < share
        return TrialResult(accuracy=100 * right.mean(), validated=4000, right_bits=bits(right))

    return result


def micro(judge, **given):
    strategy = engine(min_depth=9, max_depth=9, min_width=32, max_width=32, param_slack=10**7, **given)
    course = searched(strategy, judge)
    return strategy, [c for c, _ in course if c.phase in ("ops", "kernels")]


def test_the_third_of_the_network_that_gains_is_swapped():
    strategy, asked = micro(by_swaps(2, {0, 1, 2}))
    assert strategy.best.operations == (1, 1, 1, 0, 0, 0, 0, 0, 0)
    assert strategy.best.kernels == (3,) * 9
    assert (
        len(asked) == 1 + 6 + 2 * 2 + 2
    )  # baseline, parts, the winner and the baseline twice more, its halves


def test_of_a_part_that_wins_a_half_that_does_better_is_taken():
    strategy, _ = micro(by_swaps(3, {4, 5}))
    assert strategy.best.operations == (0, 0, 0, 0, 1, 1, 0, 0, 0)


def test_where_nothing_is_to_be_gained_micro_search_costs_seven_short_trainings():
    _, asked = micro(by_swaps(2, set()))
    assert len(asked) == 7


def test_the_baseline_of_micro_search_is_a_training_of_its_own():
    strategy, asked = micro(by_swaps(2, set()), min_epochs=2, depth_epoch_step=0, micro_epochs=2)
    assert asked[0].architecture == strategy.best
    assert asked[0].budget.repeat > 0


def test_scatter_of_short_trainings_is_hardly_taken_for_a_gain():
    kept = 0
    for seed in range(20):
        noisy = by_swaps(0.0, set(), scatter=0.02)
        strategy, _ = micro(
            lambda c, noisy=noisy, seed=seed: noisy(
                Candidate(c.architecture, c.budget, c.phase, f"{c.reason} {seed}")
            )
        )
        kept += 5 in strategy.best.kernels or 1 in strategy.best.operations
    assert kept <= 6  # a bare comparison keeps one in all


def test_a_training_without_bits_is_compared_by_accuracy_and_says_so():
    strategy = engine(min_depth=9, max_depth=9, min_width=32, max_width=32)
    notes = []
    while wanted := strategy.ask():
        strategy.tell(judge()(wanted[0]))
        notes.append(strategy.note)
    assert sum("by accuracies alone" in note for note in notes) == 6


# Looking ahead.


def test_what_lies_ahead_is_the_course_when_results_are_known():
    strategy, known = engine(), judge(0.2)
    strategy.tell(known(strategy.ask()[0]))
    ahead, course = strategy.look_ahead(100, known), [c for c, _ in searched(strategy, known)]
    assert ahead == course[1:]


def test_the_coarse_depths_and_all_parts_of_micro_search_are_foreseen():
    strategy = engine()
    assert [c.architecture.depth for c in strategy.look_ahead(2, lambda _: None)] == [15, 22]
    while strategy.ask()[0].phase != "ops":
        strategy.tell(judge()(strategy.ask()[0]))
    foreseen = strategy.look_ahead(6, lambda _: None)
    assert foreseen == [c for c, _ in searched(strategy, judge())][1:]
