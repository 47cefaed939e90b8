"""Verification against the peers' procedure written out plainly, and rates against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.model_selection import KFold

from facenas.evaluation.verification import roc_points, tar_at_far, verify


def drawn(seed: int, count: int, grid: bool) -> tuple[np.ndarray, np.ndarray]:
    """Distances that overlap; on the grid many are equal to a threshold, where < and <= part."""
    rng = np.random.default_rng(seed)
    same = rng.random(count) < 0.5
    same[:2] = True, False
    distances = np.clip(rng.normal(np.where(same, 1.2, 1.9), 0.4), 0, 4)
    return (np.round(distances, 2) if grid else distances), same


def written_out(distances: np.ndarray, same: np.ndarray, folds: int) -> tuple[list, list]:
    """As the peers do it: every threshold, every fold."""
    thresholds = np.arange(0, 4, 0.01)
    accuracies, chosen = [], []
    for train, test in KFold(folds, shuffle=False).split(same):
        tried = [np.mean((distances[train] < t) == same[train]) for t in thresholds]
        best = thresholds[int(np.argmax(tried))]
        accuracies.append(np.mean((distances[test] < best) == same[test]))
        chosen.append(best)
    return accuracies, chosen


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(20, 200), st.booleans(), st.sampled_from([2, 10]))
def test_equals_the_peers_procedure(seed, count, grid, folds):
    distances, same = drawn(seed, count, grid)
    found = verify(distances, same, folds)
    accuracies, thresholds = written_out(distances, same, folds)
    np.testing.assert_allclose(found.accuracies, accuracies, rtol=0, atol=1e-15)
    np.testing.assert_array_equal(found.thresholds, thresholds)
    assert found.accuracy == pytest.approx(np.mean(accuracies))
    assert found.std == pytest.approx(np.std(accuracies))


def test_right_pairs_are_those_of_the_folds():
    distances, same = drawn(3, 103, grid=False)
    found = verify(distances, same)
    sizes = [len(test) for _, test in KFold(10).split(same)]
    parts = np.split(found.right, np.cumsum(sizes)[:-1])
    np.testing.assert_allclose([part.mean() for part in parts], found.accuracies)


def test_perfect_and_hopeless():
    same = np.tile([True, False], 30)
    assert verify(np.where(same, 0.3, 1.7), same).accuracy == 1
    assert verify(np.ones(60), same).accuracy == 0.5


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(10, 300), st.booleans())
def test_tar_at_far_is_the_strict_point_of_the_full_roc(seed, count, grid):
    distances, same = drawn(seed, count, grid)
    scores = 1 - distances / 2
    far, tar, _ = roc_curve(same, scores, drop_intermediate=False)
    for rate in (0.5, 0.1, 0.01, 0.001):
        assert tar_at_far(scores, same, rate) == pytest.approx(tar[far <= rate + 1e-12].max())


def test_the_picture_of_the_roc_has_its_area():
    distances, same = drawn(5, 3000, grid=False)
    far, tar = roc_points(1 - distances / 2, same)
    assert len(far) <= 200
    assert (far[0], tar[0], far[-1], tar[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(tar, far) == pytest.approx(roc_auc_score(same, -distances), abs=0.005)


@pytest.mark.parametrize(
    ("distances", "same", "sentence"),
    [
        ([0.1] * 20, [True] * 20, "all pairs are genuine"),
        ([0.1] * 20, [False] * 20, "all pairs are impostor"),
        ([0.1, float("nan")] * 10, [True, False] * 10, "not finite"),
        ([0.1, 0.2] * 3, [True, False] * 3, "fewer than 10 folds"),
    ],
)
def test_what_cannot_be_verified(distances, same, sentence):
    with pytest.raises(ValueError, match=sentence):
        verify(np.array(distances), np.array(same))
