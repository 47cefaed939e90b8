"""One image of one identity: drawn, lit, and taken by a camera."""

from __future__ import annotations

from typing import Any, cast

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from facenas.data.faces.generated.covers import draw_covers
from facenas.data.faces.generated.features import draw_features, landmarks
from facenas.data.faces.generated.geometry import View, aligned_view
from facenas.data.faces.generated.hair import draw_back_hair, draw_beard, draw_hair
from facenas.data.faces.generated.head import draw_behind, draw_marks, draw_skin
from facenas.data.faces.generated.identity import Identity
from facenas.data.faces.generated.light import light_maps
from facenas.data.faces.generated.nuisance import Camera, Light, Nuisance
from facenas.data.faces.generated.sketch import ENLARGED, Sketch
from facenas.data.faces.store import SIDE
from facenas.data.images import Pixels

_Image = NDArray[Any]  # (112, 112, 3) float32: red, green, blue on the 0..255 scale


def picture(who: Identity, now: Nuisance) -> bytes:
    """The JPEG bytes (112x112, RGB) of an identity under the circumstances of one image."""
    rng = np.random.default_rng(now.seed)
    view = aligned_view(landmarks(who, now.expression), now.pose)
    image = _lit(_drawn(who, now, view, rng), who, view, now.light)
    return _taken(image, now.camera, rng)


def _drawn(who: Identity, now: Nuisance, view: View, rng: np.random.Generator) -> _Image:
    """The face in its own colours: from what lies behind to what lies in front."""
    sketch = Sketch()
    draw_back_hair(sketch, who)
    draw_behind(sketch, who, now.clothes)
    draw_skin(sketch, who, now.expression)
    draw_beard(sketch, who, now.expression)
    draw_marks(sketch, who)
    draw_features(sketch, who, now.expression)
    draw_hair(sketch, who)
    draw_covers(sketch, who, now)
    canvas = _background(now, rng)
    sketch.draw(canvas, view)
    return cv2.resize(canvas, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)


def _background(now: Nuisance, rng: np.random.Generator) -> Pixels:
    """Three colours that run into each other, on the enlarged canvas."""
    places = np.array(now.background, np.uint8)[rng.integers(0, 3, (3, 3))]
    side = SIDE * ENLARGED
    return cast(Pixels, cv2.resize(places, (side, side), interpolation=cv2.INTER_CUBIC))


def _lit(image: _Image, who: Identity, view: View, light: Light) -> _Image:
    gain, gloss = light_maps(who, view, light, SIDE)
    image *= gain[..., None] * np.array(light.colour, np.float32)
    image += 255 * gloss[..., None]
    # x / (1 + x^4)^(1/4): bright parts lose contrast instead of being cut off.
    image *= 1 / 255
    soft = cv2.pow(1 + cv2.pow(image, 4), -light.gamma / 4)
    return 255 * cv2.pow(image, light.gamma) * soft


def _taken(image: _Image, camera: Camera, rng: np.random.Generator) -> bytes:
    if camera.side < SIDE:
        small = cv2.resize(image, (camera.side, camera.side), interpolation=cv2.INTER_AREA)
        image = cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    if camera.blur > 0.2:
        image = cv2.GaussianBlur(image, (0, 0), camera.blur)
    image = image + camera.noise * rng.standard_normal(image.shape, np.float32)
    pixels = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return cast(bytes, simplejpeg.encode_jpeg(pixels, camera.quality, "RGB", "420"))
