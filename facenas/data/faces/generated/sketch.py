"""A list of shapes in face coordinates, drawn in order with smooth edges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from facenas.data.faces.generated.geometry import Points, View
from facenas.data.faces.generated.identity import Colour

ENLARGED = 2  # shapes are drawn on a canvas this many times the crop's size, then averaged
_SUBPIXEL = 4  # bits of coordinates behind the point


@dataclass(frozen=True, eq=False)
class _Shape:
    kind: Literal["fill", "line", "tint"]
    points: Points
    colour: Colour
    size: float = 0  # width of a line, blur of a tint
    opacity: float = 1


class Sketch:
    """Shapes to be drawn; points are (n, 4) as of `geometry.on_face`, sizes in crop pixels."""

    def __init__(self) -> None:
        self._shapes: list[_Shape] = []

    def fill(self, points: Points, colour: Colour) -> None:
        """The polygon inside the points."""
        self._shapes.append(_Shape("fill", points, colour))

    def line(self, points: Points, colour: Colour, width: float) -> None:
        """The open line through the points; through one point alone, a dot."""
        self._shapes.append(_Shape("line", points, colour, width))

    def tint(self, points: Points, colour: Colour, opacity: float, blur: float) -> None:
        """The polygon mixed into what lies below, with edges blurred by `blur` pixels."""
        self._shapes.append(_Shape("tint", points, colour, blur, opacity))

    def draw(self, canvas: NDArray[np.uint8], view: View) -> None:
        """Draw all shapes onto `canvas` (h, w, 3) uint8 RGB, `ENLARGED` times the crop's size."""
        seen = view.crop(np.concatenate([shape.points for shape in self._shapes]))
        # OpenCV's coordinates are of pixel centres.
        scaled = np.column_stack([seen.real, seen.imag]) * ENLARGED + (ENLARGED - 1) / 2
        whole = np.rint(scaled * 2**_SUBPIXEL).astype(np.int32)
        enlarged, start = abs(view.scale) * ENLARGED, 0
        for shape in self._shapes:
            points = whole[start : start + len(shape.points)]
            start += len(points)
            if shape.kind == "fill":
                cv2.fillPoly(canvas, [points], shape.colour, cv2.LINE_AA, _SUBPIXEL)
            elif shape.kind == "line":
                _line(canvas, points, shape.colour, shape.size * enlarged)
            else:
                _tint(canvas, points, shape.colour, shape.opacity, shape.size * enlarged)


_TURN = np.linspace(0, 2 * np.pi, 16, endpoint=False)
_CIRCLE = np.column_stack([np.cos(_TURN), np.sin(_TURN)])


def ellipse(centre: ArrayLike, radii: ArrayLike, turn: float = 0.0) -> Points:
    """(16, 2) points of an ellipse turned by `turn` radians."""
    cos, sin = np.cos(turn), np.sin(turn)
    rotation = np.array(((cos, sin), (-sin, cos)))
    found: Points = _CIRCLE * np.asarray(radii) @ rotation + np.asarray(centre, float)
    return found


def mixed(one: Colour, other: Colour, share: float) -> Colour:
    """`one` with a share (0..1) of `other`."""
    red, green, blue = ((1 - share) * a + share * b for a, b in zip(one, other, strict=True))
    return red, green, blue


def shaded(colour: Colour, gain: float) -> Colour:
    """The colour times `gain`."""
    return colour[0] * gain, colour[1] * gain, colour[2] * gain


def _line(
    canvas: NDArray[np.uint8], points: NDArray[np.int32], colour: Colour, width: float
) -> None:
    """Lines below a pixel's width are drawn a pixel wide, mixed with what lies below their middle."""
    if width < 1:
        x, y = points[len(points) // 2] >> _SUBPIXEL
        height, across = canvas.shape[:2]
        below = canvas[min(max(y, 0), height - 1), min(max(x, 0), across - 1)]
        colour = mixed((float(below[0]), float(below[1]), float(below[2])), colour, width)
    if len(points) == 1:
        radius = int(width * 2 ** (_SUBPIXEL - 1))
        cv2.circle(canvas, points[0].tolist(), radius, colour, -1, cv2.LINE_AA, _SUBPIXEL)
    else:
        thickness = max(1, round(width))
        cv2.polylines(canvas, [points], False, colour, thickness, cv2.LINE_AA, _SUBPIXEL)


def _tint(
    canvas: NDArray[np.uint8],
    points: NDArray[np.int32],
    colour: Colour,
    opacity: float,
    blur: float,
) -> None:
    """Mixes within the polygon's bounds and as far as the blur reaches, nowhere else."""
    reach = int(3 * blur) + 2
    low = np.maximum((points.min(axis=0) >> _SUBPIXEL) - reach, 0)
    high = np.minimum((points.max(axis=0) >> _SUBPIXEL) + reach, canvas.shape[1::-1])
    if (high <= low).any():
        return
    part = canvas[low[1] : high[1], low[0] : high[0]]
    mask = np.zeros(part.shape[:2], np.float32)
    cv2.fillPoly(mask, [points - (low << _SUBPIXEL)], opacity, cv2.LINE_8, _SUBPIXEL)
    share = cv2.GaussianBlur(mask, (0, 0), blur)
    cover = np.full_like(part, np.clip(colour, 0, 255))
    cv2.blendLinear(part, cover, 1 - share, share, part)
