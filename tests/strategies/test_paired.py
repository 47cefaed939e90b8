"""Paired comparison of trials against scipy's exact test, and its laws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facenas.strategies import TrialResult
from facenas.strategies.paired import better, discordant, evidence


def trial(right: np.ndarray) -> TrialResult:
    bits = np.packbits(right).tobytes().hex()
    count = int(right.sum())
    return TrialResult(accuracy=100 * count / len(right), correct=count, validated=len(right), right_bits=bits)


def differing(only_first: int, only_second: int, same: int = 13) -> tuple[TrialResult, TrialResult]:
    """Two trials that disagree on so many images, and both are right on `same` others."""
    kinds = [(1, 0)] * only_first + [(0, 1)] * only_second + [(1, 1)] * same + [(0, 0)] * 5
    pairs = np.random.default_rng(0).permutation(np.array(kinds, bool))
    return trial(pairs[:, 0]), trial(pairs[:, 1])


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 60), st.integers(0, 60))
def test_it_is_one_less_the_mid_p_value_of_the_exact_test(only_first, only_second):
    from scipy.stats import binomtest

    first, second = differing(only_first, only_second)
    assert discordant(first, second) == (only_first, only_second)
    total = only_first + only_second
    # The mid-p value counts what was seen half: between "as many or more" and "more".
    as_many, more = 1.0, 0.0
    if total:
        as_many = binomtest(only_first, total, alternative="greater").pvalue
        more = 1 - binomtest(only_first, total, alternative="less").pvalue
    assert better(first, second) == pytest.approx(1 - (as_many + more) / 2, abs=1e-12)
    assert better(first, second) + better(second, first) == pytest.approx(1, abs=1e-15)


def test_many_images_need_no_float_that_overflows():
    assert better(*differing(2_600, 2_400)) == pytest.approx(0.99766, abs=1e-4)  # 2.83 standard deviations
    assert better(*differing(3_000, 0)) == 1.0


def test_pairs_tell_more_than_counts_and_counts_more_than_nothing():
    first, second = differing(12, 3, same=100)
    unpaired = better(replace(first, right_bits=""), second)
    assert 0.5 < unpaired < 0.97 < better(first, second)  # 112 against 103 of 120 images
    assert evidence(first, second) == "12 images won, 3 lost"
    assert evidence(replace(first, right_bits=""), second) == "by accuracies alone"
    assert evidence(first, TrialResult(accuracy=50)) == "by accuracies alone, of images untold"
    other_images = trial(np.ones(700, bool))
    assert better(other_images, second) > 0.99  # bits of other images are not compared one by one
    assert [better(TrialResult(accuracy=a), TrialResult(accuracy=50)) for a in (49, 50, 51)] == [0, 0.5, 1]


def test_a_failed_trial_is_worse_than_any_other():
    failed, poor = TrialResult(status="failed"), trial(np.zeros(20, bool))
    assert (better(failed, poor), better(poor, failed), better(failed, failed)) == (0, 1, 0.5)
