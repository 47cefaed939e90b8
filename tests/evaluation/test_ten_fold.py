"""Ten-fold verification against the peers' procedure written out plainly: equal to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_curve
from sklearn.model_selection import KFold
from sklearn.preprocessing import normalize

from facenas.evaluation import ten_fold, ten_fold_of
from facenas.evaluation.metrics.ten_fold import THRESHOLDS, squared_distances


def drawn(seed: int, count: int, grid: bool) -> tuple[np.ndarray, np.ndarray]:
    """Distances that overlap; on the grid many are equal to a threshold, where < and <= part."""
    rng = np.random.default_rng(seed)
    same = rng.random(count) < 0.5
    same[:2] = True, False
    distances = np.clip(rng.normal(np.where(same, 1.2, 1.9), 0.4), 0, 4)
    return (np.round(distances, 2) if grid else distances), same


def embeddings(seed: int, count: int, dtype: type) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of unit rows that overlap, and which of them are of one person."""
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(2, count, 24))
    same = rng.random(count) < 0.5
    same[:2] = True, False
    second[same] += 0.6 * first[same]
    return normalize(first).astype(dtype), normalize(second).astype(dtype), same


def written_out(distances: np.ndarray, same: np.ndarray, folds: int) -> tuple[list, list]:
    """As the peers do it: every threshold, every fold, four counts each."""
    thresholds = np.arange(0, 4, 0.01)
    accuracies, chosen = [], []
    for train, test in KFold(folds, shuffle=False).split(same):
        tried = [accuracy(t, distances[train], same[train]) for t in thresholds]
        best = thresholds[np.argmax(tried)]
        accuracies.append(accuracy(best, distances[test], same[test]))
        chosen.append(best)
    return accuracies, chosen


def accuracy(threshold: float, distances: np.ndarray, same: np.ndarray) -> float:
    accepted = np.less(distances, threshold)
    true_accepts = np.sum(np.logical_and(accepted, same))
    true_rejects = np.sum(np.logical_and(np.logical_not(accepted), np.logical_not(same)))
    return float(true_accepts + true_rejects) / distances.size


def assert_equal(found, distances, same, folds) -> None:
    accuracies, thresholds = written_out(distances, same, folds)
    np.testing.assert_array_equal(found.accuracies, accuracies)
    np.testing.assert_array_equal(found.thresholds, thresholds)
    assert (found.accuracy, found.std) == (np.mean(accuracies), np.std(accuracies))
    assert found.threshold_squared == np.mean(thresholds)
    assert found.threshold_cosine == 1 - np.mean(thresholds) / 2


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(10, 150), st.booleans(), st.sampled_from([2, 7, 10]))
def test_equals_the_peers_procedure(seed, count, grid, folds):
    distances, same = drawn(seed, count, grid)
    assert_equal(ten_fold_of(distances, same, folds), distances, same, folds)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_embeddings_are_compared_as_the_peers_do_in_their_dtype(dtype):
    a, b, same = embeddings(1, 603, dtype)
    distances = np.sum(np.square(np.subtract(a, b)), 1)
    assert distances.dtype == dtype
    np.testing.assert_array_equal(squared_distances(a, b), distances)
    assert_equal(ten_fold(a, b, same), distances, same, 10)


def test_a_float32_distance_is_not_rounded_to_its_threshold():
    """The float32 next to 1.13 is below it, the one next to 1.1 above: in float32 both would be equal."""
    near = THRESHOLDS[[110, 113]].astype(np.float32)
    assert near.astype(np.float64)[0] > THRESHOLDS[110]
    assert near.astype(np.float64)[1] < THRESHOLDS[113]
    same = np.tile([True, False], 30)
    for distance in near:
        distances = np.where(same, distance, np.float32(3))
        assert_equal(ten_fold_of(distances, same), distances, same, 10)
    assert ten_fold_of(np.where(same, near[0], np.float32(3)), same).threshold_squared > 1.105
    assert ten_fold_of(np.where(same, near[1], np.float32(3)), same).threshold_squared < 1.135


def test_raw_embeddings_are_brought_to_unit_length():
    a, b, same = embeddings(2, 200, np.float64)
    long = np.random.default_rng(0).uniform(5, 30, (200, 1))
    found = ten_fold(a * long, (b / long).tolist(), same)
    np.testing.assert_array_equal(found.accuracies, ten_fold(a, b, same).accuracies)
    whole = np.round(100 * a)
    expected = ten_fold(normalize(whole), b, same)
    np.testing.assert_array_equal(ten_fold(whole.astype(np.int8), b, same).accuracies, expected.accuracies)


def test_nearly_unit_rows_are_left_alone():
    a, b, same = embeddings(3, 100, np.float32)
    a *= np.float32(1.0005)
    assert_equal(ten_fold(a, b, same), np.sum(np.square(a - b), 1), same, 10)


def test_a_row_of_zeros_stays_zero():
    a, b, same = embeddings(4, 40, np.float64)
    a[5] = 0
    assert_equal(ten_fold(a, b, same), np.sum(np.square(a - b), 1), same, 10)


def test_right_pairs_are_those_of_the_folds():
    distances, same = drawn(3, 103, grid=False)
    found = ten_fold_of(distances, same)
    sizes = [len(test) for _, test in KFold(10).split(same)]
    parts = np.split(found.right, np.cumsum(sizes)[:-1])
    np.testing.assert_array_equal([part.mean() for part in parts], found.accuracies)


def test_accept_rates_are_those_of_all_pairs():
    distances, same = drawn(6, 5000, grid=True)
    far, tar, _ = roc_curve(same, -distances, drop_intermediate=False)
    expected = {rate: tar[far <= rate].max() for rate in (1e-3, 1e-4)}
    assert ten_fold_of(distances, same).tar_at_far == expected


def test_perfect_and_hopeless():
    same = np.tile([True, False], 30)
    assert ten_fold_of(np.where(same, 0.3, 1.7), same).accuracy == 1
    assert ten_fold_of(np.ones(60), same).accuracy == 0.5


PAIRS = [True, False] * 10


@pytest.mark.parametrize(
    ("distances", "same", "sentence"),
    [
        ([0.1] * 10, [True] * 10, "all 10 pairs are genuine: .* need pairs of both kinds"),
        ([0.1] * 20, [False] * 20, "all 20 pairs are impostor"),
        ([], [], "there are no pairs"),
        ([0.1, float("nan")] * 10, PAIRS, "not finite, first that of pair 1"),
        ([0.1, float("inf")] * 10, PAIRS, "not finite"),
        ([0.1, 0.2] * 3, PAIRS[:6], "6 pairs cannot be parted into 10 folds"),
        ([0.1, 0.2] * 9, PAIRS, r"distances of shape \(18,\) and labels of shape \(20,\)"),
        ([[0.1, 0.2]] * 20, PAIRS, r"shape \(20, 2\)"),
        ([0.1, -0.4] * 10, PAIRS, "from -0.4 to 0.1 are not squared distances"),
        ([0.1, 81.0] * 10, PAIRS, "from 0.1 to 81 are not squared distances"),
    ],
)
def test_what_cannot_be_verified(distances, same, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        ten_fold_of(np.array(distances), np.array(same))
    assert "\n" not in str(caught.value)


def test_folds_must_be_two_or_more():
    with pytest.raises(ValueError, match="20 pairs cannot be parted into 1 folds"):
        ten_fold_of(np.full(20, 0.1), np.array(PAIRS), folds=1)


@pytest.mark.parametrize(
    ("a", "b", "sentence"),
    [
        (np.ones((20, 4)), np.ones((20, 5)), r"shapes \(20, 4\) and \(20, 5\) are no pairs"),
        (np.ones((20, 4)), np.ones((19, 4)), "are no pairs"),
        (np.ones(20), np.ones(20), "is needed"),
        (np.full((20, 4), np.nan), np.ones((20, 4)), "embeddings are not finite, first in row 0"),
        (np.ones((18, 4)), np.ones((18, 4)), r"shape \(18,\) and labels of shape \(20,\)"),
    ],
)
def test_embeddings_that_are_no_pairs(a, b, sentence):
    with pytest.raises(ValueError, match=sentence):
        ten_fold(a, b, np.array(PAIRS))
