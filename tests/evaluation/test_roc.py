"""Error rates against scikit-learn's curve, and against the peers' reading of it written out plainly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import interp1d
from scipy.optimize import brentq
from sklearn.metrics import roc_auc_score, roc_curve

from facenas.evaluation import (
    auc,
    eer,
    roc,
    tar_at_far,
    tar_at_fars,
    tar_at_nearest_far,
    tar_at_nearest_fars,
)
from facenas.evaluation.metrics.roc import roc_points, worst_mistakes

FARS = (1e-4, 1e-3, 0.01, 0.1, 0.3, 0.5, 0.7)


@st.composite
def scored(draw):
    """(scores, same) of 2 to 400 pairs: few genuine or many, no ties or nearly nothing else, both dtypes."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    count = draw(st.integers(2, 12) | st.integers(2, 400))
    same = rng.random(count) < draw(st.sampled_from([0.02, 0.2, 0.5, 0.9]))
    same[rng.permutation(count)[:2]] = True, False
    scores = rng.normal(same * draw(st.sampled_from([0.0, 1.0, 3.0])))
    scores = np.round(scores, draw(st.sampled_from([0, 1, 2, 15])))
    return scores.astype(draw(st.sampled_from([np.float32, np.float64]))), same


def as_the_peers_print(scores: np.ndarray, same: np.ndarray, far: float) -> float:
    """Scikit-learn's thinned curve, turned round; the first of the nearest points."""
    far_of, tar_of, _ = roc_curve(same, scores)
    far_of, tar_of = np.flipud(far_of), np.flipud(tar_of)
    _, place = min(zip(abs(far_of - far), range(len(far_of)), strict=True))
    return tar_of[place]


@settings(max_examples=200, deadline=None)
@given(scored(), st.floats(0, 1))
def test_nearest_point_is_the_peers(pairs, far):
    expected = {rate: as_the_peers_print(*pairs, rate) for rate in (*FARS, far)}
    assert tar_at_nearest_fars(*pairs, [*FARS, far]) == expected
    assert {rate: tar_at_nearest_far(*pairs, rate) for rate in expected} == expected


@settings(max_examples=150, deadline=None)
@given(scored(), st.floats(0, 1))
def test_strict_rate_is_that_of_the_full_curve(pairs, far):
    far_of, tar_of, _ = roc_curve(pairs[1], pairs[0], drop_intermediate=False)
    expected = {rate: tar_of[far_of <= rate].max() for rate in (*FARS, far)}
    assert tar_at_fars(*pairs, [*FARS, far]) == expected
    assert {rate: tar_at_far(*pairs, rate) for rate in expected} == expected


@pytest.mark.parametrize("digits", [3, 15])
def test_rates_of_a_bench_like_ijb(digits):
    """Few genuine pairs among many, most of the curve never looked at."""
    rng = np.random.default_rng(1)
    same = np.arange(300_000) < 400
    scores = np.round(rng.normal(2.5 * same), digits)
    fars = [10**-x for x in range(6, 0, -1)]
    found = tar_at_nearest_fars(scores, same, fars)
    assert found == {far: as_the_peers_print(scores, same, far) for far in fars}
    assert found != tar_at_fars(scores, same, fars)


def test_a_rate_of_three_in_ten_allows_three():
    """0.3 * 10 and 0.7 * 10 are not exact in binary."""
    scores, same = np.arange(20.0), np.tile([True, False], 10)
    found = tar_at_fars(scores, same, [0.3, 0.7, 0, 1])
    assert found == {0.3: 0.3, 0.7: 0.7, 0: 0, 1: 1}


@settings(max_examples=100, deadline=None)
@given(scored())
def test_curve_area_and_equal_error(pairs):
    scores, same = pairs
    far, tar, thresholds = roc_curve(same, scores, drop_intermediate=False)
    found = roc(scores, same)
    np.testing.assert_array_equal(found.far, far)
    np.testing.assert_array_equal(found.tar, tar)
    np.testing.assert_array_equal(found.thresholds, thresholds)
    assert auc(scores, same) == pytest.approx(roc_auc_score(same, scores), abs=1e-12)
    crossing = brentq(lambda x: 1 - x - interp1d(far, tar)(x), 0, 1) if tar[far == 0].max() < 1 else 0
    assert eer(scores, same) == pytest.approx(crossing, abs=1e-9)


def test_area_is_the_share_of_ordered_pairs():
    rng = np.random.default_rng(2)
    genuine, impostors = rng.integers(0, 5, 30), rng.integers(0, 4, 40)
    above = (genuine[:, None] > impostors).sum() + 0.5 * (genuine[:, None] == impostors).sum()
    scores, same = np.concatenate([genuine, impostors]), np.arange(70) < 30
    assert auc(scores, same) == above / 1200


def test_perfect_reversed_and_all_equal():
    same = np.tile([True, False], 10)
    for scores, area, error in ((1.0 * same, 1, 0), (-1.0 * same, 0, 1), (np.ones(20), 0.5, 0.5)):
        assert (auc(scores, same), eer(scores, same)) == (area, error)
    assert tar_at_far(np.ones(20), same, 0.1) == 0
    assert tar_at_nearest_far(np.ones(20), same, 0.6) == 1


def test_labels_may_be_numbers():
    scores, same = np.array([0.9, 0.8, 0.1, 0.2]), np.array([1, 0, 1, 0])
    assert auc(scores, same) == auc(scores, same == 1)


@settings(max_examples=50, deadline=None)
@given(scored())
def test_the_picture_of_the_roc_has_points_of_the_curve(pairs):
    scores, same = pairs
    far, tar = roc_points(scores, same)
    assert len(far) <= 202
    assert (far[0], tar[0], far[-1], tar[-1]) == (0, 0, 1, 1)
    assert np.diff(far).min() >= 0
    assert np.diff(tar).min() >= 0
    curve = {
        (float(f"{x:.6g}"), float(f"{y:.6g}"))
        for x, y in zip(*roc_curve(same, scores, drop_intermediate=False)[:2], strict=True)
    }
    assert set(zip(far, tar, strict=True)) <= curve


def test_the_picture_of_the_roc_has_its_area():
    rng = np.random.default_rng(5)
    same = rng.random(3000) < 0.5
    scores = rng.normal(1.5 * same)
    far, tar = roc_points(scores, same)
    assert np.trapezoid(tar, far) == pytest.approx(roc_auc_score(same, scores), abs=0.005)


@pytest.mark.parametrize(
    "metric",
    [roc, auc, eer, roc_points]
    + [lambda scores, same, rate=rate: rate(scores, same, 0.1) for rate in (tar_at_far, tar_at_nearest_far)],
)
@pytest.mark.parametrize(
    ("scores", "same", "sentence"),
    [
        ([0.1, 0.2], [True, True], "all 2 pairs are genuine"),
        ([0.1, 0.2], [False, False], "all 2 pairs are impostor"),
        ([0.1, float("nan")], [True, False], "scores are not finite, first that of pair 1"),
        ([0.1, 0.2, 0.3], [True, False], r"scores of shape \(3,\) and labels of shape \(2,\)"),
        ([], [], "there are no pairs"),
    ],
)
def test_what_has_no_rates(metric, scores, same, sentence):
    with pytest.raises(ValueError, match=sentence):
        metric(np.array(scores), np.array(same))


@pytest.mark.parametrize("fars", [[], [-0.1], [1.5], [float("nan")]])
def test_rates_lie_between_none_and_all(fars):
    for rates in (tar_at_fars, tar_at_nearest_fars):
        with pytest.raises(ValueError, match="from 0 to 1 are needed"):
            rates(np.array([0.1, 0.2]), np.array([True, False]), fars)


def test_worst_mistakes_of_both_kinds_by_distance() -> None:
    scores = np.array([0.9, 0.1, 0.3, 0.8, 0.35, 0.5])
    same = np.array([True, True, True, False, False, False])
    assert worst_mistakes(scores, same, 0.4).tolist() == [3, 1, 2, 5]
    assert worst_mistakes(scores, same, 0.4, 2).tolist() == [3, 1]


def test_at_the_threshold_a_pair_is_rejected() -> None:
    scores, same = np.array([0.5, 0.5]), np.array([True, False])
    assert worst_mistakes(scores, same, 0.5).tolist() == [0]


def test_no_mistakes() -> None:
    assert worst_mistakes(np.array([0.1, 0.9]), np.array([False, True]), 0.5).size == 0
    assert worst_mistakes(np.empty(0), np.empty(0, bool), 0.5).size == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(pairs=st.lists(st.tuples(st.integers(-8, 8), st.booleans()), max_size=40))
def test_worst_mistakes_as_sorting_all_wrong_ones(dtype: type, pairs: list[tuple[int, bool]]) -> None:
    scores = np.array([score / 8 for score, _ in pairs], dtype)
    same = np.array([kind for _, kind in pairs], bool)
    wrong = [i for i in range(len(pairs)) if (scores[i] > 0.25) != same[i]]
    expected = sorted(wrong, key=lambda i: -abs(scores[i] - 0.25))[:10]
    assert worst_mistakes(scores, same, 0.25).tolist() == expected
