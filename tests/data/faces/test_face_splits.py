"""Invariants of held-out identities, subsets and verification pairs, over any labels."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from facenas.data.faces.splits import (
    draw_pairs,
    hold_out_identities,
    relabelled,
    stratified_subset,
    subset_of_identities,
)
from facenas.errors import UserError

LABELS = st.lists(st.integers(0, 12), min_size=1, max_size=90).map(lambda x: np.array(x, np.int32))
SEED = st.integers(0, 2**32)


@settings(deadline=None)
@given(LABELS, st.integers(0, 6), SEED)
def test_identities_are_held_out_whole(labels, count, seed):
    identities, images = np.unique(labels, return_counts=True)
    able = set(identities[images >= 2])
    if count > min(len(able), len(identities) - 1):
        with pytest.raises(UserError, match="cannot be held out"):
            hold_out_identities(labels, count, seed)
        return
    train, held = hold_out_identities(labels, count, seed)
    assert sorted([*train, *held]) == list(range(len(labels)))
    assert not set(labels[train]) & set(labels[held])
    assert len(set(labels[held])) == count
    assert set(labels[held]) <= able
    assert (np.diff(train) > 0).all()
    assert (np.diff(held) > 0).all()
    assert train.dtype == held.dtype == np.int64
    if count:
        assert set(hold_out_identities(labels, count - 1, seed)[1]) < set(held)


def test_a_fraction_counts_identities():
    labels = np.repeat(np.arange(40), np.arange(1, 41))
    _, held = hold_out_identities(labels, 0.25, seed=0)
    assert len(set(labels[held])) == 10
    other = hold_out_identities(labels, 0.25, seed=1)[1]
    assert set(labels[held]) != set(labels[other])
    everything, none = hold_out_identities(labels, 0.0, seed=0)
    assert (len(everything), len(none)) == (len(labels), 0)


@settings(deadline=None)
@given(LABELS, st.floats(0.01, 1.0), st.floats(0.01, 1.0), SEED)
def test_subsets_nest_and_keep_every_identity(labels, one, other, seed):
    indices = np.flatnonzero(labels != 3)
    assume(len(indices))
    small, large = (stratified_subset(labels, indices, f, seed) for f in sorted((one, other)))
    assert set(small) <= set(large) <= set(indices)
    assert set(labels[small]) == set(labels[indices])
    for identity, count in Counter(labels[indices].tolist()).items():
        assert (labels[large] == identity).sum() == max(1, round(count * max(one, other)))


@settings(deadline=None)
@given(LABELS, st.floats(0.01, 1), st.floats(0.01, 1), SEED)
def test_subsets_of_identities_nest_and_keep_them_whole(labels, one, other, seed):
    indices = np.flatnonzero(labels != 3)
    assume(len(indices))
    small, large = (subset_of_identities(labels, indices, f, seed) for f in sorted((one, other)))
    assert set(small) <= set(large) <= set(indices)
    identities = set(labels[indices].tolist())
    kept = set(labels[large].tolist())
    assert len(kept) == min(len(identities), max(2, round(len(identities) * max(one, other))))
    assert sorted(large) == [i for i in indices if labels[i] in kept]


def test_relabelled_numbers_without_gaps_in_order():
    found = relabelled(np.array([7, 3, 3, 900, 7], np.int32))
    assert found.dtype == np.int64
    assert found.tolist() == [1, 0, 0, 2, 1]


def available(labels, indices):
    """(genuine, impostor) pairs that there are, counted one by one."""
    same = [labels[a] == labels[b] for a, b in combinations(indices, 2)]
    return sum(same), len(same) - sum(same)


@settings(deadline=None)
@given(LABELS, st.integers(1, 120), st.integers(1, 5), SEED)
def test_pairs_are_balanced_different_and_as_many_as_there_are(labels, count, folds, seed):
    indices = np.flatnonzero(labels != 5)
    half = min(count // 2, *available(labels, indices)) // folds
    if half < 1:
        with pytest.raises(UserError, match="cannot make"):
            draw_pairs(labels, indices, count, seed, folds)
        return
    pairs, same = draw_pairs(labels, indices, count, seed, folds)
    assert pairs.shape == (2 * half * folds, 2)
    assert (pairs.dtype, same.dtype) == (np.int64, np.bool_)
    np.testing.assert_array_equal(labels[pairs[:, 0]] == labels[pairs[:, 1]], same)
    assert (same.reshape(folds, -1).sum(axis=1) == half).all()
    assert len({frozenset(pair) for pair in pairs.tolist()}) == len(pairs)
    assert all(len(set(pair)) == 2 for pair in pairs.tolist())
    assert set(pairs.ravel()) <= set(indices)
    again = draw_pairs(labels, indices, count, seed, folds)
    np.testing.assert_array_equal(again[0], pairs)


def test_folds_share_no_identities_when_there_are_enough():
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(200), 8))
    pairs, same = draw_pairs(labels, np.arange(1600), 1000, seed=1)
    assert len(same) == 1000
    folds = [set(fold) for fold in labels[pairs].reshape(10, -1)]
    assert not any(one & other for one, other in combinations(folds, 2))


def test_few_identities_are_shared_rather_than_pairs_lost():
    labels = np.repeat(np.arange(6), 20)  # ten folds of two identities need twenty
    pairs, same = draw_pairs(labels, np.arange(120), 1000, seed=1)
    assert (len(pairs), same.sum()) == (1000, 500)


def test_genuine_pairs_are_spread_evenly_over_identities():
    labels = np.repeat(np.arange(21), [100, *[10] * 20])
    pairs, same = draw_pairs(labels, np.arange(len(labels)), 840, seed=2, folds=1)
    given_by = np.bincount(labels[pairs[same][:, 0]])
    assert (given_by == 20).all()


def test_an_identity_of_few_pairs_gives_them_all():
    labels = np.repeat(np.arange(3), [3, 30, 30])  # 3, 435 and 435 genuine pairs
    pairs, same = draw_pairs(labels, np.arange(63), 206, seed=2, folds=1)
    assert np.bincount(labels[pairs[same][:, 0]]).tolist() == [3, 50, 50]


def test_seeds_draw_other_pairs():
    labels = np.repeat(np.arange(50), 6)
    one, other = (draw_pairs(labels, np.arange(300), 200, seed)[0] for seed in (0, 1))
    assert not np.array_equal(one, other)
