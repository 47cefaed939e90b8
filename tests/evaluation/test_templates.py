"""Templates against the peers' loops, written out plainly, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_curve
from sklearn.preprocessing import normalize

from facenas.evaluation.metrics import templates as module
from facenas.evaluation.metrics.templates import (
    FARS,
    FUSIONS,
    Templates,
    places_of,
    pool_templates,
    score_pairs,
    verify_templates,
)


def drawn(seed: int, images: int, templates: int = 7, size: int = 16) -> dict[str, np.ndarray]:
    """Images in no order, some templates without any, media ids shared between templates."""
    rng = np.random.default_rng(seed)
    return {
        "features": rng.normal(size=(images, size)).astype(np.float32) * 20,
        "templates": rng.integers(3, 3 + templates, images) * 10,
        "media": rng.integers(0, 5, images) + 60_000,
        "detector_scores": rng.random(images).astype(np.float32),
    }


def peers_features(images: dict[str, np.ndarray], norm: bool, detector: bool) -> np.ndarray:
    """The switches as `ijb_11.py` and CVLface's `evaluate.py` have them."""
    features = images["features"]
    if not norm:
        features = features / np.sqrt(np.sum(features**2, -1, keepdims=True))
    return features * images["detector_scores"][:, np.newaxis] if detector else features


def peers_pooling(
    features: np.ndarray, templates: np.ndarray, media: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`image2template_feature`: for each template the mean of each medium, summed, normalised."""
    unique = np.unique(templates)
    pooled = np.zeros((len(unique), features.shape[1]))
    for row, template in enumerate(unique):
        (own,) = np.where(templates == template)
        media_features = []
        for medium, count in zip(*np.unique(media[own], return_counts=True), strict=True):
            (here,) = np.where(media[own] == medium)
            found = features[own][here]
            media_features.append(found if count == 1 else np.mean(found, axis=0, keepdims=True))
        pooled[row] = np.sum(np.array(media_features), axis=0)
    return normalize(pooled), unique


def peers_scores(pooled: np.ndarray, unique: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """`verification`, without its chunks."""
    place = np.zeros(unique.max() + 1, int)
    place[unique] = np.arange(len(unique))
    return np.sum(pooled[place[pairs[:, 0]]] * pooled[place[pairs[:, 1]]], -1)


def peers_tars(same: np.ndarray, scores: np.ndarray) -> list[float]:
    """The table of `write_result`."""
    far, tar, _ = roc_curve(same, scores)
    far, tar = np.flipud(far), np.flipud(tar)
    return [tar[min(zip(abs(far - x), range(len(far)), strict=True))[1]] for x in FARS]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 90), st.sampled_from(sorted(FUSIONS)))
def test_pooling_is_the_peers_to_the_last_bit(seed, count, preset):
    images, switches = drawn(seed, count), FUSIONS[preset]
    scores = images["detector_scores"] if switches["use_detector_score"] else None
    found = pool_templates(
        *(images[k] for k in ("features", "templates", "media")),
        detector_scores=scores,
        keep_norm=switches["keep_norm"],
    )
    features = peers_features(images, switches["keep_norm"], switches["use_detector_score"])
    vectors, unique = peers_pooling(features, images["templates"], images["media"])
    np.testing.assert_array_equal(found.ids, unique)
    np.testing.assert_array_equal(found.vectors, vectors)


@pytest.mark.parametrize("at_once", [1, 5, 17])
def test_blocks_change_nothing(monkeypatch, at_once):
    images = drawn(1, 200)
    del images["detector_scores"]
    whole = pool_templates(**images)
    monkeypatch.setattr(module, "_IMAGES_AT_ONCE", at_once)
    np.testing.assert_array_equal(pool_templates(**images).vectors, whole.vectors)


def test_a_template_of_zeros_stays_zero():
    pooled = pool_templates(np.zeros((2, 4), np.float32), np.array([1, 1]), np.array([1, 2]))
    assert not pooled.vectors.any()
    kept = pool_templates(np.zeros((1, 4), np.float32), np.array([1]), np.array([1]), keep_norm=False)
    assert not kept.vectors.any()


@pytest.mark.parametrize("preset", sorted(FUSIONS))
@pytest.mark.parametrize("ties", [False, True])
def test_verification_is_the_peers(preset, ties):
    images = drawn(5, 400, templates=60)
    if ties:  # half the templates are copies of one
        images["features"][images["templates"] > 330] = images["features"][0]
    unique = np.unique(images["templates"])
    rng = np.random.default_rng(6)
    pairs, same = rng.choice(unique, (5000, 2)), rng.random(5000) < 0.05
    found = verify_templates(**images, pairs=pairs, same=same, **FUSIONS[preset])
    switches = FUSIONS[preset]
    features = peers_features(images, switches["keep_norm"], switches["use_detector_score"])
    vectors, unique = peers_pooling(features, images["templates"], images["media"])
    scores = peers_scores(vectors, unique, pairs)
    np.testing.assert_allclose(found.scores, scores, rtol=0, atol=1e-15)
    assert list(found.tar_at_nearest_far.values()) == peers_tars(same, found.scores)
    far, tar, _ = roc_curve(same, found.scores, drop_intermediate=False)
    strict = [tar[far <= x + 1e-12].max() for x in FARS]
    np.testing.assert_allclose(list(found.tar_at_far.values()), strict)


def test_presets_are_what_the_peers_do():
    assert FUSIONS["adaface"] == {"keep_norm": True, "use_detector_score": False}
    assert FUSIONS["insightface"] == {"keep_norm": True, "use_detector_score": True}
    assert FUSIONS["cvlface"] == {"keep_norm": False, "use_detector_score": True}
    images = drawn(7, 50)
    pairs = np.random.default_rng(0).choice(np.unique(images["templates"]), (40, 2))
    same = np.arange(40) % 2 == 0
    default, adaface = (
        verify_templates(**images, pairs=pairs, same=same, **switches).scores
        for switches in ({}, FUSIONS["adaface"])
    )
    np.testing.assert_array_equal(default, adaface)


@pytest.mark.parametrize("waste", [0, 10**6])
def test_gathered_pairs_and_the_matrix_agree(monkeypatch, waste):
    images = drawn(8, 300, templates=50)
    del images["detector_scores"]
    pooled = pool_templates(**images)
    pairs = np.random.default_rng(9).choice(pooled.ids, (1000, 2))
    monkeypatch.setattr(module, "_WASTE", waste)
    monkeypatch.setattr(module, "_PAIRS_AT_ONCE", 64)
    monkeypatch.setattr(module, "_PAIRS_GATHERED", 64)
    np.testing.assert_allclose(
        score_pairs(pooled, pairs),
        peers_scores(pooled.vectors, pooled.ids, pairs),
        rtol=0,
        atol=1e-15,
    )


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(-(2**40), 2**40) | st.integers(0, 50), min_size=1, unique=True),
    st.lists(st.integers(-(2**40), 2**40) | st.integers(0, 50)),
)
def test_places(ids, wanted):
    ids = sorted(ids)
    expected = [ids.index(one) if one in ids else -1 for one in wanted]
    found = places_of(np.array(ids, np.int64), np.array(wanted, np.int64))
    assert found.tolist() == expected


def with_nan(where: str) -> dict[str, np.ndarray]:
    images = drawn(2, 30)
    images[where][17] = np.nan
    return images


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (with_nan("features"), "features of image 17, template .* not finite"),
        (with_nan("detector_scores"), "detector score of image 17 is not"),
        (drawn(2, 30) | {"media": np.arange(29)}, r"30 images but media ids of shape \(29,\)"),
        (drawn(2, 30) | {"features": np.empty((0, 4))}, "should be .images, numbers."),
    ],
)
def test_images_that_cannot_be_pooled(images, sentence):
    with pytest.raises(ValueError, match=sentence):
        pool_templates(**images)


@pytest.mark.parametrize(
    ("pairs", "same", "switches", "sentence"),
    [
        ([[30, 40], [40, 77]], [1, 0], {}, "pair 1 names template 77, which has no images"),
        ([[30, 40], [40, 30]], [1, 1], {}, "all 2 pairs are genuine"),
        ([[30, 40], [40, 30]], [0, 0], {}, "all 2 pairs are impostor"),
        (np.empty((0, 2), int), [], {}, "no pairs"),
        ([[30, 40]], [1, 0], {}, "2 labels for 1 pairs"),
        ([[30, 40]], [1], {"use_detector_score": True}, "needs detector_scores"),
    ],
)
def test_pairs_that_cannot_be_verified(pairs, same, switches, sentence):
    images = drawn(3, 60)
    del images["detector_scores"]
    with pytest.raises(ValueError, match=sentence):
        verify_templates(**images, pairs=np.array(pairs), same=np.array(same, bool), **switches)


def test_one_pair_of_each_kind_is_enough():
    pooled = Templates(np.array([1, 2, 3]), np.eye(3))
    found = module.verify_pooled(pooled, np.array([[1, 1], [2, 3]]), np.array([True, False]))
    assert found.scores.tolist() == [1, 0]
    assert set(found.tar_at_far.values()) == set(found.tar_at_nearest_far.values()) == {1.0}
