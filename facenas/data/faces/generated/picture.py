"""One image of one identity: drawn, lit, and taken by a camera."""

from __future__ import annotations

from typing import Any, cast

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from facenas.data.faces.generated.drawing import EYE, draw, landmarks, mouth_level, nose_level
from facenas.data.faces.generated.drawing import SIDE as HALF_WIDTH
from facenas.data.faces.generated.factors import Identity, Nuisance
from facenas.data.faces.generated.sketch import DEPTH, ENLARGED, Sketch, View, aligned_view, on_face
from facenas.data.faces.store import SIDE

_Image = NDArray[Any]  # (112, 112, 3) float32: red, green, blue on the 0..255 scale
Map = NDArray[Any]  # float32

_STEP = 2.0  # pixels between the places where light is reckoned; it varies slowly enough
_GRID = np.arange(-72, 84, _STEP)  # across and down, the middle of the eyes at 0
_DOWN = _GRID - 8  # y of the head's center


def picture(who: Identity, now: Nuisance) -> bytes:
    """The JPEG bytes (112x112, RGB) of an identity under the circumstances of one image."""
    rng = np.random.default_rng(now.seed)
    view = aligned_view(landmarks(who, now), now)
    image = _lit(_drawn(who, now, view, rng), who, view, now)
    return _taken(image, now, rng)


def _drawn(who: Identity, now: Nuisance, view: View, rng: np.random.Generator) -> _Image:
    """The face in its own colors."""
    sketch = Sketch()
    draw(sketch, who, now)
    # Behind it, three colors that run into each other.
    places = np.array(now.background, np.uint8)[rng.integers(0, 3, (3, 3))]
    side = SIDE * ENLARGED
    canvas = cv2.resize(places, (side, side), interpolation=cv2.INTER_CUBIC).astype(np.uint8)
    sketch.draw(canvas, view)
    return cv2.resize(canvas, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)


def _lit(image: _Image, who: Identity, view: View, now: Nuisance) -> _Image:
    gain, gloss = light_maps(who, view, now)
    image *= gain[..., None] * np.array(now.cast, np.float32)
    image += 255 * gloss[..., None]
    # x / (1 + x^4)^(1/4): bright parts lose contrast instead of being cut off.
    image *= 1 / 255
    soft = cv2.pow(1 + cv2.pow(image, 4), -now.gamma / 4)
    return 255 * cv2.pow(image, now.gamma) * soft


def _taken(image: _Image, now: Nuisance, rng: np.random.Generator) -> bytes:
    if now.side < SIDE:
        small = cv2.resize(image, (now.side, now.side), interpolation=cv2.INTER_AREA)
        image = cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    if now.blur > 0.2:
        image = cv2.GaussianBlur(image, (0, 0), now.blur)
    image = image + now.noise * rng.standard_normal(image.shape, np.float32)
    pixels = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return cast(bytes, simplejpeg.encode_jpeg(pixels, now.quality, "RGB", "420"))


def _bumps(who: Identity) -> NDArray[np.float64]:
    """(n, 5) what stands out of an ellipsoid: x, y, half width, half height, height."""
    nose, mouth, eye = nose_level(who), mouth_level(who), EYE + who.eye_spacing
    pairs = [
        (eye, 0, 8.5, 5.0, -3.2 * who.eye_depth),
        (eye - 8, 0, 4, 5, -2.2 * who.nose_bridge),
        (eye, -9 - who.brow_height, 9, 3.6, 2.2 * who.eye_depth),
        (24, 15, 8, 6.5, 2.5 * who.cheekbones),
        (4.8 * who.nose_width, nose, 2.8, 2.8, 1.8),
    ]
    middle = [
        (0, 0.45 * nose, 3.4 * who.nose_width, 8.5, 4.6 * who.nose_bridge),
        (0, nose - 2, 4.6 * who.nose_width, 4.4, 4.6 * who.nose_tip),
        (0, mouth - 2.5, 9, 2.2, 1.1 * who.upper_lip),
        (0, mouth + 3.4, 8, 2.6, 2.0 * who.lower_lip),
        (0, mouth + 9.0, 9, 2.8, -2.0),
        (0, 55 + who.chin, 7.5 * who.chin_width, 5.5, 3.2),
    ]
    return np.array([*pairs, *((-x, *rest) for x, *rest in pairs), *middle])


def _slopes(who: Identity, view: View) -> tuple[Map, Map]:
    """(grid, grid) dz/dx and dz/dy of the head, seen turned but not aligned."""
    bumps = _bumps(who)
    seen = view.seen(on_face(bumps[:, :2], 4 * (bumps[:, 0] == 0)))
    x = (_GRID - seen.real[:, None]) / bumps[:, 2:3]
    y = (_GRID - seen.imag[:, None]) / bumps[:, 3:4]
    across, down = np.exp(-0.5 * x * x), np.exp(-0.5 * y * y) * bumps[:, 4:5]
    head_x, head_y = _GRID / (HALF_WIDTH * who.head_width + 4), _DOWN / 70
    rest = DEPTH / np.sqrt(np.maximum(1 - head_x**2 - head_y[:, None] ** 2, 0.12))
    slope_x = -rest * head_x / (HALF_WIDTH * who.head_width + 4) - down.T @ (x / bumps[:, 2:3] * across)
    slope_y = -rest * head_y[:, None] / 70 - (y / bumps[:, 3:4] * down).T @ across
    return slope_x.astype(np.float32), slope_y.astype(np.float32)


def light_maps(who: Identity, view: View, now: Nuisance) -> tuple[Map, Map]:
    """(112, 112) float32 gains and glosses of the crop's pixels, from the head's slopes."""
    slope_x, slope_y = _slopes(who, view)
    length = np.sqrt(slope_x**2 + slope_y**2 + 1)
    right, down, front = now.direction
    lamp = (front - right * slope_x - down * slope_y) / length
    half = np.array((right, down, front + 1)) / np.linalg.norm((right, down, front + 1))
    mirror = np.maximum((half[2] - half[0] * slope_x - half[1] * slope_y) / length, 0)
    # Light wraps around: a lamp's shadow has a soft edge, as under a large lamp.
    gain = 1 - now.strength + now.strength * 1.25 * np.maximum(0.25 + 0.75 * lamp, 0) ** 1.3
    gloss = now.gloss * mirror**22
    scale, start = view.scale * _STEP, view.origin + view.scale * (_GRID[0] * (1 + 1j))
    place = np.array(((scale.real, -scale.imag, start.real), (scale.imag, scale.real, start.imag)))
    both = np.dstack([gain, gloss]).astype(np.float32)
    maps = cv2.warpAffine(both, place, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE)
    return maps[..., 0], maps[..., 1]
