"""Intervals over people, calibration, discard and groups: against restatements, scikit-learn, simulation."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from conftest import ROOT

from facenas.evaluation.metrics import calibration as cal
from facenas.evaluation.metrics.discard import error_versus_discard, rank_correlation
from facenas.evaluation.metrics.groups import compare_groups, holm
from facenas.evaluation.metrics.people import Z, error_rate, operating_points, variance, wilson

_SPEC = importlib.util.spec_from_file_location("simulate_intervals", ROOT / "tools" / "simulate_intervals.py")
tool = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(tool)

# Holm's own procedure by hand, smallest first times 4, 3, 2, 1, never falling.
HOLM = [0.01, 0.02, 0.03, 0.005], [0.03, 0.04, 0.04, 0.02]


@pytest.fixture(scope="module")
def scored():
    return tool.people_of(30, np.random.default_rng(0))


def test_variance_is_the_sum_over_pairs_that_share_somebody():
    rng = np.random.default_rng(1)
    people, wrong = rng.integers(0, 9, (60, 2)), rng.random(60) < 0.3
    u, who = wrong - wrong.mean(), [set(row) for row in people.tolist()]
    total = sum(u[k] * u[m] for k in range(60) for m in range(60) if who[k] & who[m])
    names = len(np.unique(people))
    assert variance(wrong, people) == pytest.approx(max(total, 0) / 60**2 * names / (names - 1))


def test_intervals_over_people_hold_what_they_promise():
    """Of 95 %: 300 simulated benches of 40 people; more by `tools/simulate_intervals.py`."""
    scores, same, _ = tool.people_of(1500, np.random.default_rng(2))
    threshold = np.quantile(scores[~same], 0.99)
    truth = {True: np.mean(scores[same] <= threshold), False: np.mean(scores[~same] > threshold)}
    held, naive = {True: 0, False: 0}, 0
    for seed in range(300):
        scores, same, people = tool.people_of(40, np.random.default_rng([3, seed]))
        wrong = (scores > threshold) != same
        for kind in (True, False):
            found = error_rate(wrong[same == kind], people[same == kind])
            held[kind] += found.low <= truth[kind] <= found.high
        low, high = wilson(float(wrong[same].mean()), int(same.sum()))
        naive += low <= truth[True] <= high
    assert held[True] >= 0.88 * 300
    assert held[False] >= 0.92 * 300
    assert naive < 0.8 * 300  # pairs as if they were independent


def test_the_tool_tells_it_of_every_method(capsys):
    truth = tool.people_of(200, np.random.default_rng(2))
    tool.coverage(20, 0.01, truth, benches=3)
    tool.false_alarms(20, 2, truth, benches=3)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert all(f"{method} " in lines[0] for method in tool.METHODS)
    assert lines[3].startswith("2 groups of 10 people, all alike: false alarms in FNMR ")


def test_without_an_error_people_count_and_not_pairs():
    found = error_rate(np.zeros(60, bool), np.arange(6).repeat(10)[:, None].repeat(2, 1))
    assert (found.value, found.low, found.effective) == (0.0, 0.0, 6.0)
    assert found.high == pytest.approx(Z**2 / (6 + Z**2))


def test_thresholds_are_the_lowest_that_keep_the_rate(scored):
    scores, same, people = scored
    for point in operating_points(scores, same, people, [0.1, 0.01], draws=50):
        rates = {t: np.mean(scores[~same] > t) for t in scores[~same]}
        assert point.threshold == min(t for t, rate in rates.items() if rate <= point.wanted)
        assert point.fnmr.value == np.mean(scores[same] <= point.threshold)
        fixed = error_rate(scores[same] <= point.threshold, people[same])
        assert point.fnmr.effective <= fixed.effective  # a threshold chosen here is less sure
    assert operating_points(scores, same, people, [0.01])[0].carried is (435 * 0.01 >= 3)


def test_calibrations_are_those_of_scikit_learn(scored):
    from sklearn.isotonic import IsotonicRegression
    from sklearn.linear_model import LogisticRegression

    scores, same, _ = scored
    weights = np.where(same, 0.5 / same.sum(), 0.5 / (~same).sum())
    plain = LogisticRegression(C=1e9, tol=1e-10, max_iter=1000)
    plain.fit(scores[:, None], same, sample_weight=weights * len(same))
    assert cal.fit_logistic(scores, same) == pytest.approx((plain.coef_[0, 0], plain.intercept_[0]), rel=1e-3)
    share = (1 + scores) / 2  # of these scores the first exponent would be negative: the other is left
    plain.fit(-np.log(1 - share)[:, None], same, sample_weight=weights * len(same))
    assert cal.fit_beta(scores, same) == pytest.approx((0, plain.coef_[0, 0], plain.intercept_[0]), rel=1e-2)
    rng = np.random.default_rng(7)
    share, kinds = np.append(rng.beta(5, 2, 300), rng.beta(2, 4, 300)), np.arange(600) < 300
    plain.fit(np.stack([np.log(share), -np.log(1 - share)], 1), kinds)
    found = cal.fit_beta(2 * share - 1, kinds)
    assert found == pytest.approx((*plain.coef_[0], plain.intercept_[0]), abs=0.01)
    assert min(found[:2]) > 1
    rising = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(scores, same, weights)
    grid = np.linspace(-0.5, 1, 100)
    assert cal.fit("isotonic", scores, same)(grid) == pytest.approx(rising.predict(grid), abs=2e-6)


def test_reliability_is_that_of_scikit_learn():
    from sklearn.calibration import calibration_curve

    chance = np.random.default_rng(4).random(400)
    same = np.arange(400) % 2 == 0  # as many of either kind
    found = cal.reliability(chance, same)
    genuine, mean = calibration_curve(same, chance, n_bins=10)
    assert found.genuine == pytest.approx(genuine)
    assert found.probability == pytest.approx(mean)
    assert found.error == pytest.approx(found.weight @ abs(genuine - mean))


def test_nobody_is_judged_by_a_function_fitted_on_him(scored):
    scores, same, people = scored
    chance = cal.cross_fitted("logistic", scores, same, people)
    dealt = np.random.default_rng(0).permutation(30) % 5
    for pair in (0, 500):  # of one person, and of two
        folds = set(dealt[people[pair]].tolist())
        apart = np.array([not folds & set(dealt[who].tolist()) for who in people])
        wanted = cal.fit("logistic", scores[apart], same[apart])(scores[pair : pair + 1])
        assert chance[pair] == pytest.approx(wanted[0])
    with pytest.raises(ValueError, match="people are too few"):
        cal.cross_fitted("logistic", scores[:2], np.array([True, False]), np.array([[0, 0], [0, 1]]))


def test_discard_by_plain_loops(scored):
    scores, same, people = scored
    wrong, quality = scores[same] < 0.5, np.random.default_rng(5).integers(0, 9, int(same.sum())).astype(float)
    found = error_versus_discard(wrong, quality - 3 * wrong, people[same])
    for share, rate in zip(found.discarded, found.rate, strict=True):
        least = np.sort(quality - 3 * wrong)[round(share * len(wrong))]
        assert rate == pytest.approx(wrong[quality - 3 * wrong >= least].mean())
    assert found.verdict == "follows"
    assert error_versus_discard(wrong, -(quality - 3 * wrong), people[same]).verdict == "contradicts"
    assert error_versus_discard(wrong, quality, people[same]).verdict == "unclear"


def test_groups_of_independent_pairs_are_compared_by_the_chi_square_test():
    """Where nobody is in two pairs: the score test of two shares is that of the table, without correction."""
    from scipy.stats import chi2_contingency

    people = np.arange(4000)[:, None].repeat(2, 1)
    wrong, groups = np.arange(4000) % 40 < 9, np.where(np.arange(4000) % 40 < 20, "a", "b")
    wrong[:25] = True
    table = [[(wrong[groups == g] == w).sum() for w in (True, False)] for g in "ab"]
    rates, _ = compare_groups(wrong, people, groups)
    assert [one.p for one in rates] == pytest.approx(
        [chi2_contingency(table, correction=False).pvalue] * 2, rel=0.2
    )


def test_rank_correlation_is_that_of_scipy():
    from scipy.stats import spearmanr

    first, second = np.random.default_rng(8).integers(0, 9, (2, 50)).astype(float)
    assert rank_correlation(first, second) == pytest.approx(spearmanr(first, second)[0])


def test_holm_and_groups_that_are_alike():
    assert holm(HOLM[0]) == pytest.approx(HOLM[1])
    alarms = 0
    for seed in range(150):
        scores, same, people = tool.people_of(60, np.random.default_rng([6, seed]))
        groups = people[same][:, 0] % 4  # four that are no different
        rates, gap = compare_groups(scores[same] < 0.35, people[same], groups.astype(str))
        alarms += any(one.differs for one in rates)
        assert gap.difference >= 0
    assert alarms <= 0.08 * 150  # 5 % promised


def test_small_groups_are_told_and_not_ranked(scored):
    scores, same, people = scored
    groups = np.where(people[same][:, 0] < 5, "few", "many")
    (few, many), gap = compare_groups(scores[same] < 0.5, people[same], groups)
    assert (few.p, many.p, gap, few.rate.people) == (None, None, None, 5)
