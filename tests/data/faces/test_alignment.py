"""Landmarks to the template: against Umeyama's formula with an SVD, and against plain least squares."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facenas.data.faces.align import NOTE, REFERENCE, _claim, align, similarity

COORDINATES = st.lists(st.floats(-2000, 2000, width=32), min_size=10, max_size=10)


def umeyama(source, target):
    """Equations 39 to 42 of Umeyama 1991, as scikit-image's SimilarityTransform has them."""
    source, target = source.astype(np.float64), target.astype(np.float64)
    mean, wanted = source.mean(0), target.mean(0)
    covariance = (target - wanted).T @ (source - mean) / len(source)
    u, sizes, v = np.linalg.svd(covariance)
    signs = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(v))])
    rotation = u @ np.diag(signs) @ v
    scale = (sizes * signs).sum() / (source - mean).var(0).sum()
    return np.column_stack([scale * rotation, wanted - scale * rotation @ mean])


def least_squares(source, target):
    """a, b, tx, ty of (a x - b y + tx, b x + a y + ty), by numpy's solver."""
    x, y = source.astype(np.float64).T
    one, zero = np.ones(len(x)), np.zeros(len(x))
    rows = np.concatenate([np.stack([x, -y, one, zero], 1), np.stack([y, x, zero, one], 1)])
    a, b, tx, ty = np.linalg.lstsq(rows, target.T.ravel().astype(np.float64), rcond=None)[0]
    return np.array([[a, -b, tx], [b, a, ty]])


def moved(points, scale, degrees, shift):
    turn = np.radians(degrees)
    rotation = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return points @ rotation.T + shift


@settings(deadline=None)
@given(COORDINATES)
def test_similarity_is_umeyamas_and_the_least_squares_solution(values):
    points = np.array(values).reshape(5, 2)
    if (points.std(0) < 1).any() or abs(similarity_factor(points)) < 1e-3:
        return  # the oracles themselves are ill-conditioned there
    found = similarity(points)
    span = np.abs(points).max()
    np.testing.assert_allclose(found, least_squares(points, REFERENCE), atol=1e-6 * (1 + span))
    np.testing.assert_allclose(found, umeyama(points, REFERENCE), atol=1e-6 * (1 + span))


def similarity_factor(points):
    spread = (points - points.mean(0)) @ [1, 1j]
    target = (REFERENCE - REFERENCE.mean(0)) @ [1, 1j]
    return np.vdot(spread, target) / np.vdot(spread, spread).real


@pytest.mark.parametrize(("scale", "degrees", "shift"), [(3.0, 25, (90, -7)), (0.2, -170, (5, 9))])
def test_a_moved_template_comes_back(scale, degrees, shift):
    points = moved(REFERENCE.astype(np.float64), scale, degrees, shift)
    matrix = similarity(points)
    assert matrix.shape == (2, 3)
    assert matrix.dtype == np.float64
    np.testing.assert_allclose(points @ matrix[:, :2].T + matrix[:, 2], REFERENCE, atol=1e-4)


def test_float32_points_are_computed_in_float64():
    points = moved(REFERENCE, 40.0, 3, (3000, 2000)).astype(np.float32)
    np.testing.assert_allclose(similarity(points), umeyama(points, REFERENCE), atol=1e-9)


def test_align_is_a_bilinear_warp_with_black_around():
    image = np.random.default_rng(0).integers(1, 256, (90, 130, 3), np.uint8)
    points = moved(REFERENCE, 1.3, 20, (10, -20)).astype(np.float32)
    matrix = umeyama(points, REFERENCE)
    crop = align(image, points)
    assert crop.shape == (112, 112, 3)
    assert crop.dtype == np.uint8
    inverse = cv2.invertAffineTransform(matrix)
    columns, rows = np.meshgrid(np.arange(112), np.arange(112))
    x, y = inverse @ np.stack([columns.ravel(), rows.ravel(), np.ones(112 * 112)])
    expected = bilinear(image.astype(np.float64), x, y).reshape(112, 112, 3)
    inside = ((x > 1) & (x < 128) & (y > 1) & (y < 88)).reshape(112, 112)
    outside = ((x < -1) | (x > 130) | (y < -1) | (y > 90)).reshape(112, 112)
    assert inside.sum() > 2000
    assert outside.sum() > 500
    # OpenCV may round places to 1/32 pixel: in noise of 255 levels that is up to 8 of them in x and in y.
    assert np.abs(crop - expected)[inside].max() <= 17
    assert not crop[outside].any()


def bilinear(image, x, y):
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    clipped = lambda rows, columns: image[rows.clip(0, 89), columns.clip(0, 129)]  # noqa: E731
    across, down = (x - left)[:, None], (y - top)[:, None]
    upper = (1 - across) * clipped(top, left) + across * clipped(top, left + 1)
    lower = (1 - across) * clipped(top + 1, left) + across * clipped(top + 1, left + 1)
    return (1 - down) * upper + down * lower


def test_an_aligned_face_stays_as_it_is():
    image = np.random.default_rng(1).integers(0, 256, (112, 112, 3), np.uint8)
    difference = np.abs(align(image, REFERENCE).astype(int) - image)
    assert difference[:-1, :-1].max() <= 1


@pytest.mark.parametrize(
    ("points", "words"),
    [
        (np.full((5, 2), np.nan), "not a number"),
        (np.where(np.eye(5, 2), np.inf, REFERENCE), "not a number"),
        (np.full((5, 2), 30.0), "one place"),
        (REFERENCE * 1e-6, "one place"),
        (REFERENCE.astype(np.float64) * 1e200, "far outside"),
        (REFERENCE[:4], "five"),
        (np.zeros((2, 5)), "five"),
    ],
)
def test_points_that_say_nothing(points, words):
    with pytest.raises(ValueError, match=words):
        similarity(points)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((0, 5, 3), np.uint8),
        np.zeros((50, 50), np.uint8),
        np.zeros((50, 50, 3), np.float32),
    ],
)
def test_what_is_no_image(image):
    with pytest.raises(ValueError, match="shape"):
        align(image, REFERENCE)


def test_an_image_too_long_for_opencv():
    with pytest.raises(ValueError, match="32766"):
        align(np.zeros((2, 32_767, 3), np.uint8), REFERENCE)


def test_a_call_killed_while_it_noted_what_a_folder_is_for_is_gone_on_with(tmp_path):
    """The note under its temporary name is nobody's file."""
    out = tmp_path / "crops"
    out.mkdir()
    die = "import os, sys; from pathlib import Path; from facenas.files import write_atomically"
    die += "; write_atomically(Path(sys.argv[1]), lambda t: (t.touch(), os.kill(os.getpid(), 9)))"
    assert subprocess.run([sys.executable, "-c", die, out / NOTE], check=False).returncode == -9
    assert len(list(out.iterdir())) == 1
    _claim(out, tmp_path / "photos", "largest", "detector", any_rotation=False)
    assert [path.name for path in out.iterdir()] == [NOTE]
