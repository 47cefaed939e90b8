"""Stratified splits: their invariants, over any labels."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from facenas.data import split_indices

LABELS = st.lists(st.integers(0, 5), min_size=1, max_size=120).map(lambda x: np.array(x, np.int64))
FRACTION = st.floats(0.01, 0.99)
SEED = st.integers(0, 2**32)


@settings(deadline=None)
@given(LABELS, FRACTION, st.floats(0.01, 1.0), SEED)
def test_parts_are_sorted_disjoint_and_keep_every_class(labels, validation, data, seed):
    train, held_out = split_indices(labels, validation, data, seed)
    for part in (train, held_out):
        assert part.dtype == np.int64
        assert (np.diff(part) > 0).all()
    assert not set(train) & set(held_out)
    for label, count in zip(*np.unique(labels, return_counts=True), strict=True):
        assert (labels[train] == label).any()
        assert (labels[held_out] == label).any() == (count > 1)


@settings(deadline=None)
@given(LABELS, FRACTION, st.floats(0.01, 1.0), st.floats(0.01, 1.0), SEED)
def test_thinning_nests_and_leaves_validation_alone(labels, validation, one, other, seed):
    small, large = sorted((one, other))
    small_train, small_held_out = split_indices(labels, validation, small, seed)
    large_train, large_held_out = split_indices(labels, validation, large, seed)
    np.testing.assert_array_equal(small_held_out, large_held_out)
    assert set(small_train) <= set(large_train)


def test_sizes_are_exact_and_the_same_for_every_class():
    labels = np.repeat(np.arange(10), 100)
    train, validation = split_indices(labels, 0.1, 0.5, seed=3)
    assert np.bincount(labels[validation]).tolist() == [10] * 10
    assert np.bincount(labels[train]).tolist() == [45] * 10
    everything, _ = split_indices(labels, 0.1, 1.0, seed=3)
    assert len(everything) + len(validation) == 1000


def test_the_seed_fixes_the_split_and_global_state_does_not():
    labels = np.repeat(np.arange(4), 50)
    np.random.seed(0)
    first = split_indices(labels, 0.2, 0.7, seed=1)
    np.random.seed(1)
    again = split_indices(labels, 0.2, 0.7, seed=1)
    other = split_indices(labels, 0.2, 0.7, seed=2)
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)


def test_no_validation_part_and_no_labels():
    train, validation = split_indices(np.array([0, 0, 1, 1]), 0.0, 1.0, seed=0)
    assert train.tolist() == [0, 1, 2, 3]
    assert validation.tolist() == []
    train, validation = split_indices(np.empty(0, np.int64), 0.1, 1.0, seed=0)
    assert len(train) == len(validation) == 0


def test_validation_images_of_ones_own_come_last_and_are_all():
    labels = np.tile(np.arange(4), 10)
    train, validation = split_indices(labels, 0.1, 0.5, 3, validation_images=8)
    assert validation.tolist() == list(range(32, 40))
    assert np.bincount(labels[train]).tolist() == [4] * 4
    assert train.max() < 32
    everything, nothing = split_indices(labels, 0.0, 1.0, 3, validation_images=8)  # judged on the test images
    assert (len(everything), len(nothing)) == (40, 0)
