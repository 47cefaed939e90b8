"""How generated faces are drawn: curves, alignment, light, covers, camera."""

import itertools
from dataclasses import fields, replace

import numpy as np
import pytest
import simplejpeg

from facenas.data.faces.generated import identity_of, nuisance_of
from facenas.data.faces.generated.drawing import landmarks
from facenas.data.faces.generated.factors import COVERS
from facenas.data.faces.generated.picture import light_maps, picture
from facenas.data.faces.generated.sketch import (
    ENLARGED,
    TEMPLATE,
    Sketch,
    View,
    aligned_view,
    curve,
    ellipse,
    mirrored,
    on_face,
    on_outline,
)

CLEAN = {"blur": 0, "side": 112, "noise": 0, "quality": 95}
STRAIGHT = {"yaw": 0, "pitch": 0, "roll": 0, "zoom": 1, "shift": 0}


def drawn(who, now, **changes):
    return simplejpeg.decode_jpeg(picture(who, replace(now, **changes))).astype(float)


def plain(seed=0):
    """An identity, and circumstances without covers, blur and noise."""
    now = replace(nuisance_of(9, seed, 0), **CLEAN, glasses="", cover="")
    return identity_of(9, seed), now


def test_curve_runs_through_its_control_points_and_is_straight_on_a_line():
    control = np.random.default_rng(0).normal(size=(6, 2))
    assert np.allclose(curve(control, steps=4)[::4], control)
    assert np.allclose(curve(control, closed=True, steps=4)[::4], control)
    line = curve(np.column_stack([np.arange(5), 2 * np.arange(5)]))
    assert np.allclose(line[:, 1], 2 * line[:, 0])
    assert (np.diff(line[:, 0]) > 0).all()


def test_mirrored_is_symmetric():
    points = mirrored([(0, 0), (2, 1), (3, 4), (0, 6)])
    assert len(points) == 6
    assert {tuple(p) for p in points} == {(-x + 0.0, y) for x, y in points}


def test_alignment_is_the_least_squares_similarity():
    who, now = identity_of(0, 1), nuisance_of(0, 1, 2)
    marks = landmarks(who, now)
    view = aligned_view(marks, replace(now, roll=0, zoom=1, shift=0))
    seen = View(now.yaw, now.pitch, 1, 0).seen(marks)
    rows = [(x, -y, 1, 0) for x, y in zip(seen.real, seen.imag, strict=True)]
    rows += [(y, x, 0, 1) for x, y in zip(seen.real, seen.imag, strict=True)]
    goal = np.concatenate([TEMPLATE.real, TEMPLATE.imag])
    a, b, x, y = np.linalg.lstsq(np.array(rows), goal, rcond=None)[0]
    assert view.scale == pytest.approx(complex(a, b))
    assert view.origin == pytest.approx(complex(x, y))


def test_landmarks_lie_near_the_template():
    away = []
    for who, image in itertools.product(range(30), range(4)):
        now = nuisance_of(0, who, image)
        marks = landmarks(identity_of(0, who), now)
        away.append(abs(aligned_view(marks, now).crop(marks) - TEMPLATE))
    assert np.median(away) < 3.5
    assert np.max(away) < 16


def test_a_turn_moves_what_stands_out_and_leaves_the_outline():
    tip, rim = on_face([(0, 0)], 9), on_outline([(40, 0)])
    straight, turned = View(0, 0, 1, 0), View(0.3, 0, 1, 0)
    assert straight.crop(tip)[0] == 0
    assert turned.crop(tip)[0].real == pytest.approx((tip[0, 2] + 45) * np.sin(0.3), abs=0.3)
    assert turned.crop(rim)[0] == straight.crop(rim)[0] == 40


def test_a_fill_covers_its_area():
    canvas, sketch = np.zeros((112 * ENLARGED, 112 * ENLARGED, 3), np.uint8), Sketch()
    sketch.fill(on_outline(ellipse((50, 60), (20, 10))), (255, 255, 255))
    sketch.draw(canvas, View(0, 0, 1, 0))
    rows, columns = np.nonzero(canvas[..., 0] > 127)
    polygon = 0.5 * 16 * 20 * 10 * np.sin(2 * np.pi / 16)
    # Smooth edges reach less than a pixel of the canvas, half a one of the crop, further.
    assert len(rows) / ENLARGED**2 == pytest.approx(polygon, rel=0.08)
    assert columns.mean() / ENLARGED == pytest.approx(50, abs=0.5)
    assert rows.mean() / ENLARGED == pytest.approx(60, abs=0.5)


def test_light_comes_from_its_side():
    who, now = identity_of(0, 0), replace(plain()[1], **STRAIGHT)
    view = aligned_view(landmarks(who, now), now)
    for right in (-0.8, 0.8):
        now = replace(now, direction=(right, 0, 0.6), strength=0.8, gloss=0.1)
        gain, gloss = light_maps(who, view, now)
        assert gain.shape == gloss.shape == (112, 112)
        assert (gain > 0).all()
        brighter = gain[30:90, 70:90].mean() - gain[30:90, 22:42].mean()
        assert np.sign(brighter) == np.sign(right)


@pytest.mark.parametrize("cover", COVERS)
def test_covers_hide_their_part_of_the_face(cover):
    for seed in range(3):
        who, now = plain(seed)
        changed = abs(drawn(who, now, cover=cover) - drawn(who, now)).mean(axis=2) > 12
        above, below = changed[:50].mean(), changed[62:].mean()
        assert changed.mean() > 0.015
        assert above > below if cover == "hat" else below > above


def test_glasses_cover_the_eyes_alone():
    who, now = plain()
    now = replace(now, **STRAIGHT)
    for kind in ("rims", "dark"):
        changed = abs(drawn(who, now, glasses=kind) - drawn(who, now)).mean(axis=2) > 12
        assert changed[36:70].mean() > 0.1
        assert changed[80:].mean() < 0.01


def test_camera_blurs_adds_noise_and_compresses():
    who, now = plain()
    sharp = drawn(who, now)
    noisy = drawn(who, now, noise=6) - sharp
    assert 3 < noisy.std() < 7
    images = [drawn(who, now, **change) for change in ({}, {"blur": 1.5}, {"side": 48})]
    sharp, blurred, coarse = (abs(np.diff(image, axis=1)).mean() for image in images)
    assert blurred < 0.9 * sharp
    assert coarse < 0.9 * sharp
    sizes = [len(picture(who, replace(now, quality=q))) for q in (40, 95)]
    assert sizes[0] < sizes[1]


def test_any_factors_at_their_bounds_give_a_picture():
    """Corners of what can be drawn: nothing is empty or fails there."""
    who, now = plain()
    ranges = {part.name: part.metadata.get("range") for part in fields(who)}
    bounds = {name: pair for name, pair in ranges.items() if pair}
    for side, turn in itertools.product((0, 1), (-0.4, 0.4)):
        extreme = replace(who, **{name: pair[side] for name, pair in bounds.items()})
        extreme = replace(extreme, hair_length=90.0, moustache=0.9, chin_beard=0.9, cheek_beard=0.9)
        image = drawn(extreme, now, yaw=turn, pitch=turn / 2, roll=0.1, zoom=1.1, shift=3 + 3j)
        assert image.shape == (112, 112, 3)
        assert image.std() > 10
