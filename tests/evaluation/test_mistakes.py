"""The worst mistakes: wrong pairs alone, the farthest from the threshold first."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facenas.evaluation.mistakes import worst_mistakes


def test_both_kinds_by_distance() -> None:
    scores = np.array([0.9, 0.1, 0.3, 0.8, 0.35, 0.5])
    same = np.array([True, True, True, False, False, False])
    assert worst_mistakes(scores, same, 0.4).tolist() == [3, 1, 2, 5]
    assert worst_mistakes(scores, same, 0.4, 2).tolist() == [3, 1]


def test_at_the_threshold_a_pair_is_rejected() -> None:
    scores, same = np.array([0.5, 0.5]), np.array([True, False])
    assert worst_mistakes(scores, same, 0.5).tolist() == [0]


def test_none_are_wrong() -> None:
    assert worst_mistakes(np.array([0.1, 0.9]), np.array([False, True]), 0.5).size == 0
    assert worst_mistakes(np.empty(0), np.empty(0, bool), 0.5).size == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(pairs=st.lists(st.tuples(st.integers(-8, 8), st.booleans()), max_size=40))
def test_as_sorting_all_wrong_ones(dtype: type, pairs: list[tuple[int, bool]]) -> None:
    scores = np.array([score / 8 for score, _ in pairs], dtype)
    same = np.array([kind for _, kind in pairs], bool)
    wrong = [i for i in range(len(pairs)) if (scores[i] > 0.25) != same[i]]
    expected = sorted(wrong, key=lambda i: -abs(scores[i] - 0.25))[:10]
    assert worst_mistakes(scores, same, 0.25).tolist() == expected
