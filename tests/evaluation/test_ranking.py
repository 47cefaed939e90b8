"""Ranks of a gallery against the peers' full sort written out, and precision against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score
from sklearn.preprocessing import normalize

from facenas.evaluation import rank_k
from facenas.evaluation.metrics import ranking
from facenas.evaluation.metrics.identification import RANKS, Subjects, identify_templates_merged
from facenas.evaluation.metrics.templates import Templates


def drawn(seed, probes, gallery, people, dtype=np.float64):
    """Unit embeddings round their person's own, and ids; some of the gallery are distractors (-100)."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(people, 16))
    probe_ids, gallery_ids = rng.integers(0, people, probes), rng.integers(0, people, gallery)
    probe, of_gallery = (
        normalize(centres[ids] + 1.2 * rng.normal(size=(len(ids), 16))).astype(dtype)
        for ids in (probe_ids, gallery_ids)
    )
    gallery_ids[rng.random(gallery) < 0.5] = -100
    gallery_ids[0] = probe_ids[0]
    return probe, of_gallery, probe_ids, gallery_ids


def written_out(probe, gallery, probe_ids, gallery_ids, ks):
    """As the peers do it: all scores, all labels, a full sort of each row."""
    scores = np.dot(probe, gallery.T)
    labels = probe_ids[:, None] == gallery_ids[None, :]
    mated = labels.any(axis=1)
    scores, labels = scores[mated], labels[mated]
    order = np.argsort(scores, axis=1)[:, ::-1]
    ordered = np.take_along_axis(labels, order, axis=1)
    rank = {k: ordered[:, 0:k].any(axis=1).mean() for k in ks}
    precisions = [average_precision_score(*row) for row in zip(labels, scores, strict=True)]
    return rank, np.mean(precisions), ordered.argmax(1) + 1, mated


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 30), st.integers(1, 60), st.integers(1, 20))
def test_equals_the_full_sort(seed, probes, gallery, people):
    arrays, ks = drawn(seed, probes, gallery, people), (1, 2, 5, 100)
    rank, precision, ranks, mated = written_out(*arrays, ks)
    found = rank_k(*arrays, ks)
    assert found.rank == pytest.approx(rank, abs=1e-12)
    assert found.mean_average_precision == pytest.approx(precision, abs=1e-12)
    np.testing.assert_array_equal(found.ranks[mated], ranks)
    assert not found.ranks[~mated].any()
    assert found.probes_without_mate == (~mated).sum()
    assert found.probes_with_tie == 0
    assert len(found.cmc) == 100
    assert [found.cmc[k - 1] for k in ks] == list(found.rank.values())
    assert np.diff(found.cmc).min() >= 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_blocks_do_not_show(monkeypatch, dtype):
    arrays = drawn(1, 50, 400, 30, dtype)
    whole = rank_k(*arrays)
    for rows in (1, 7):
        monkeypatch.setattr(ranking, "_BLOCK_BYTES", rows * 400 * np.dtype(dtype).itemsize)
        found = rank_k(*arrays)
        np.testing.assert_array_equal(found.ranks, whole.ranks)
        assert found.mean_average_precision == whole.mean_average_precision
        assert (found.rank, found.probes_with_tie) == (whole.rank, 0)


def test_raw_embeddings_are_ranked_by_cosine():
    probe, gallery, *ids = drawn(2, 20, 90, 10)
    long = np.random.default_rng(0).uniform(3, 40, (90, 1))
    np.testing.assert_array_equal(
        rank_k(2 * probe, gallery * long, *ids).ranks, rank_k(probe, gallery, *ids).ranks
    )


CORNERS = np.eye(3)


def test_a_mate_goes_after_others_with_the_same_score_and_the_tie_is_told():
    gallery = CORNERS[[1, 0, 0, 0, 2]]
    found = rank_k(CORNERS[[0, 1]], gallery, np.array([7, 8]), np.array([8, -100, 7, -100, 9]))
    assert found.ranks.tolist() == [3, 1]
    assert (found.rank[1], found.mean_average_precision, found.probes_with_tie) == (0.5, 2 / 3, 1)


@pytest.mark.parametrize("seed", range(20))
def test_ties_are_those_of_identification(seed):
    """The 1:N procedure on the same numbers, many of them equal: one convention for both."""
    rng = np.random.default_rng(seed)
    vectors = rng.integers(-1, 2, (24, 3)).astype(float)
    vectors[~vectors.any(axis=1)] = 1
    vectors = normalize(np.round(vectors))
    people = np.arange(12)
    gallery = Subjects("g", np.arange(12), people)
    probes = Subjects("p", np.arange(12, 24), people)
    merged = identify_templates_merged(Templates(np.arange(24), vectors), [gallery], probes)
    assert rank_k(vectors[12:], vectors[:12], people, people, ks=RANKS).rank == merged.rank


def test_mates_with_the_same_score_are_no_tie():
    found = rank_k(CORNERS[[0]], CORNERS[[0, 0, 1]], np.array([7]), np.array([7, 7, 8]))
    assert (found.mean_average_precision, found.probes_with_tie) == (1, 0)


def test_a_dead_network_is_told_by_its_ties():
    ids = np.arange(6)
    found = rank_k(np.zeros((6, 4)), np.zeros((6, 4)), ids, ids)
    assert (found.rank, found.probes_with_tie) == ({1: 0, 5: 0, 20: 1}, 6)


def test_every_mate_counts_for_the_precision():
    """Mates at places 2 and 4: (1/2 + 2/4) / 2."""
    angles = np.arange(1, 6) / 10
    gallery = np.stack([np.cos(angles), np.sin(angles)], 1)
    found = rank_k(np.array([[1.0, 0]]), gallery, np.array([3]), np.array([-1, 3, 5, 3, -1]))
    assert found.mean_average_precision == 0.5
    assert found.ranks.tolist() == [2]
    assert found.rank == {1: 0, 5: 1, 20: 1}


def test_distractors_are_mates_of_nobody():
    """Not even of a probe with the same number."""
    found = rank_k(CORNERS, CORNERS, np.array([-100, 5, 6]), np.array([-100, 5, -100]))
    assert found.ranks.tolist() == [0, 1, 0]
    assert found.probes_without_mate == 2


ONE = np.ones((1, 4))


@pytest.mark.parametrize(
    ("probe", "gallery", "probe_ids", "gallery_ids", "sentence"),
    [
        (ONE, np.empty((0, 4)), [1], np.empty(0, int), "there are no gallery images"),
        (np.empty((0, 4)), ONE, np.empty(0, int), [1], "there are no probes"),
        (ONE, np.ones((1, 5)), [1], [1], "have 4 and 5 numbers, not equally many"),
        (ONE * np.nan, ONE, [1], [1], "probes are not finite, first in row 0"),
        (ONE, ONE * np.inf, [1], [1], "gallery images are not finite, first in row 0"),
        (ONE, ONE, [1], [1, 2], r"1 gallery images and ids of shape \(2,\)"),
        (ONE, ONE, [[1]], [1], r"1 probes and ids of shape \(1, 1\)"),
        (ONE, ONE, [1.5], [1], "ids of probes are float64, not whole numbers"),
        (ONE, ONE, [1], [-100], "none of 1 probes has a mate in the gallery"),
        (np.ones(4), ONE, [1], [1], "is needed"),
    ],
)
def test_what_cannot_be_ranked(probe, gallery, probe_ids, gallery_ids, sentence):
    with pytest.raises(ValueError, match=sentence):
        rank_k(probe, gallery, np.array(probe_ids), np.array(gallery_ids))


@pytest.mark.parametrize("ks", [(), (0, 1)])
def test_ranks_begin_with_one(ks):
    with pytest.raises(ValueError, match="from 1 on are needed"):
        rank_k(ONE, ONE, np.array([1]), np.array([1]), ks)
