"""Identification against the peers' two procedures, written out plainly."""

from __future__ import annotations

import heapq
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facenas.evaluation.metrics import identification as module
from facenas.evaluation.metrics.identification import (
    FPIRS,
    RANKS,
    Subjects,
    identify_templates,
    identify_templates_merged,
)
from facenas.evaluation.metrics.templates import Templates


def drawn(seed: int, subjects: int = 30, probes: int = 80) -> tuple[Templates, list, Subjects]:
    """Two galleries with half of the subjects each, in no order, and probes of all of them."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(subjects, 12))
    halves = np.array_split(rng.permutation(subjects), 2)
    of_probe = rng.integers(0, subjects, probes)
    of_probe[:2] = halves[0][0], halves[1][0]  # some for either gallery
    vectors = np.concatenate([centres, centres[of_probe] + rng.normal(size=(probes, 12))])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = np.sort(rng.choice(10_000, len(vectors), replace=False))
    place = rng.permutation(len(vectors))  # of a row of `vectors` in the pooled templates
    pooled = Templates(ids, vectors[np.argsort(place)])
    of_row = ids[place]
    galleries = [Subjects(f"G{i}", of_row[half], half + 500) for i, half in enumerate(halves, 1)]
    return pooled, galleries, Subjects("probes", of_row[subjects:], of_probe + 500)


def vectors_of(pooled: Templates, part: Subjects) -> np.ndarray:
    return pooled.vectors[[pooled.ids.tolist().index(one) for one in part.templates]]


def peers_1n(queries, gallery, query_ids, gallery_ids) -> tuple[list[int], int, list, list]:
    """`evaluation_1N` of ijb_evals.py: counts at ranks, mated probes, thresholds, recalls."""
    similarity = np.dot(queries, gallery.T)
    counts, positive, negative, strangers = [0, 0, 0], [], [], []
    for row, query_id in enumerate(query_ids):
        if query_id in gallery_ids:
            label = np.argwhere(gallery_ids == query_id)[0, 0]
            falling = np.argsort(similarity[row])[::-1]
            for i, k in enumerate(RANKS):
                counts[i] += label in falling[:k]
            positive.append(similarity[row][gallery_ids == query_id][0])
            negative.append(similarity[row][gallery_ids != query_id])
        else:
            strangers.append(similarity[row])
    positive, negative, strangers = (np.array(part) for part in (positive, negative, strangers))
    right = positive > negative.max(1)
    falling = np.sort(strangers.max(1))[::-1]
    thresholds = [falling[max(int(falling.shape[0] * far) - 1, 0)] for far in FPIRS]
    recalls = [np.logical_and(right, positive > limit).sum() / len(positive) for limit in thresholds]
    return counts, len(positive), thresholds, recalls


def peers_merged(queries, gallery, mask) -> tuple[list[float], list[float]]:
    """`evaluation` of ijb_1n.py: rates at ranks, recalls that it prints as TPIR."""
    similarity = np.dot(queries, gallery.T)
    falling = np.argsort(-similarity)
    top = [np.mean([mask[i] in falling[i, :k] for i in range(len(queries))]) for k in RANKS]
    needed = [math.ceil(len(queries) * far) for far in FPIRS]
    positive = []
    for i, mate in enumerate(mask):
        positive.append(similarity[i, mate])
        similarity[i, mate] = -2.0
    negative = heapq.nlargest(max(needed), similarity[np.where(similarity > -2.0)])
    return top, [np.sum(np.array(positive) > negative[k - 1]) / len(queries) for k in needed]


@pytest.mark.parametrize("at_once", [7, 2048])
@pytest.mark.parametrize("seed", range(4))
def test_equals_the_peers_search_of_each_gallery(monkeypatch, seed, at_once):
    monkeypatch.setattr(module, "_PROBES_AT_ONCE", at_once)
    pooled, galleries, probes = drawn(seed, probes=300)
    found = identify_templates(pooled, galleries, probes)
    counts, mated, recalls = [], [], []
    for gallery, one in zip(galleries, found.galleries, strict=True):
        count, positives, thresholds, recall = peers_1n(
            vectors_of(pooled, probes),
            vectors_of(pooled, gallery),
            probes.subjects,
            gallery.subjects,
        )
        assert one.name == gallery.name
        assert (one.mated, one.non_mated) == (positives, len(probes.subjects) - positives)
        np.testing.assert_allclose(list(one.rank.values()), np.array(count) / positives)
        np.testing.assert_allclose(list(one.thresholds.values()), thresholds, atol=1e-15)
        assert list(one.tpir.values()) == recall
        counts.append(count)
        mated.append(positives)
        recalls.append(recall)
    np.testing.assert_allclose(list(found.rank.values()), np.sum(counts, 0) / sum(mated))
    np.testing.assert_allclose(list(found.tpir.values()), np.mean(recalls, 0))


@pytest.mark.parametrize("at_once", [7, 2048])
@pytest.mark.parametrize("seed", range(4))
def test_equals_the_peers_merged_search(monkeypatch, seed, at_once):
    monkeypatch.setattr(module, "_PROBES_AT_ONCE", at_once)
    pooled, galleries, probes = drawn(seed, probes=300)
    found = identify_templates_merged(pooled, galleries, probes)
    subjects = np.concatenate([gallery.subjects for gallery in galleries]).tolist()
    vectors = np.concatenate([vectors_of(pooled, gallery) for gallery in galleries])
    mask = [subjects.index(one) for one in probes.subjects]
    top, recalls = peers_merged(vectors_of(pooled, probes), vectors, mask)
    np.testing.assert_allclose(list(found.rank.values()), top)
    assert list(found.recall_by_share.values()) == recalls


def test_small_by_hand():
    """Four subjects on the axes; the probe of 2 looks like 3, and 4 is a stranger."""
    pooled = Templates(np.arange(8), np.concatenate([np.eye(4), np.eye(4)[[0, 2, 2, 3]]]))
    gallery = Subjects("G", np.array([0, 1, 2]), np.array([1, 2, 3]))
    probes = Subjects("probes", np.array([4, 5, 6, 7]), np.array([1, 2, 3, 4]))
    found = identify_templates(pooled, [gallery], probes)
    assert (found.galleries[0].mated, found.galleries[0].non_mated) == (3, 1)
    assert found.galleries[0].thresholds == {0.01: 0, 0.1: 0}
    # The probe of 2 ties with subject 1 at similarity 0, below 3: a tie counts against it, so rank 3.
    assert found.rank == {1: pytest.approx(2 / 3), 5: 1, 10: 1}
    assert found.tpir == {0.01: pytest.approx(2 / 3), 0.1: pytest.approx(2 / 3)}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 12), st.integers(2, 30))
def test_ties_count_against_the_probe(seed, subjects, probes):
    pooled, galleries, searched = drawn(seed, subjects, probes)
    rounded = Templates(pooled.ids, np.round(pooled.vectors))  # many equal similarities
    found = identify_templates(rounded, galleries, searched)
    for gallery, one in zip(galleries, found.galleries, strict=True):
        similarity = vectors_of(rounded, searched) @ vectors_of(rounded, gallery).T
        ranks = []
        for row, subject in zip(similarity, searched.subjects, strict=True):
            if subject in gallery.subjects:
                mate = gallery.subjects.tolist().index(subject)
                ranks.append(1 + sum(row[i] >= row[mate] for i in range(len(row)) if i != mate))
        assert one.rank == {k: pytest.approx(np.mean(np.array(ranks) <= k)) for k in RANKS}


NOBODY = np.empty(0, np.int64)


@pytest.mark.parametrize("identify", [identify_templates, identify_templates_merged])
@pytest.mark.parametrize(
    ("galleries", "probes", "sentence"),
    [
        ([], ([3], [1]), "there is no gallery"),
        ([(NOBODY, NOBODY)], ([3], [1]), "G: has no templates"),
        ([([0], [1])], (NOBODY, NOBODY), "P: has no templates"),
        ([([0, 1], [7, 7])], ([3], [7]), "subject 7 has more than one template"),
    ],
)
def test_lists_that_cannot_be_searched(identify, galleries, probes, sentence):
    pooled = Templates(np.arange(4), np.eye(4))
    lists = [Subjects("G", *map(np.array, gallery)) for gallery in galleries]
    with pytest.raises(ValueError, match=sentence):
        identify(pooled, lists, Subjects("P", *map(np.array, probes)))


@pytest.mark.parametrize("identify", [identify_templates, identify_templates_merged])
def test_templates_without_images(identify):
    pooled = Templates(np.arange(4), np.eye(4))
    galleries = [
        Subjects("G1", np.array([0]), np.array([1])),
        Subjects("G2", np.array([9]), np.array([2])),
    ]
    with pytest.raises(ValueError, match=r"G.*: template 9 has no images"):
        identify(pooled, galleries, Subjects("P", np.array([3, 2]), np.array([1, 2])))
    galleries[1].templates[:] = 1
    with pytest.raises(ValueError, match="P: template 8 has no images"):
        identify(pooled, galleries, Subjects("P", np.array([3, 8]), np.array([1, 2])))


def test_probes_of_one_kind_only():
    pooled = Templates(np.arange(4), np.eye(4))
    gallery = [Subjects("G", np.array([0, 1]), np.array([1, 2]))]
    all_mated, none_mated = (Subjects("P", np.array([2, 3]), np.array(ids)) for ids in ([1, 2], [8, 9]))
    with pytest.raises(ValueError, match="2 of 2 probes have their subject in it"):
        identify_templates(pooled, gallery, all_mated)
    with pytest.raises(ValueError, match="0 of 2 probes have their subject in it"):
        identify_templates(pooled, gallery, none_mated)
    with pytest.raises(ValueError, match="probe template 2 has no mate in the galleries G"):
        identify_templates_merged(pooled, gallery, none_mated)


def test_too_few_impostors_for_a_threshold():
    pooled = Templates(np.arange(4), np.eye(4))
    gallery = [Subjects("G", np.array([0]), np.array([1]))]
    with pytest.raises(ValueError, match="too few templates"):
        identify_templates_merged(pooled, gallery, Subjects("P", np.array([2]), np.array([1])))
