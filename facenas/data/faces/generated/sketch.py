"""Shapes on a head: curves, the head turned and aligned to the crop, and their drawing with smooth edges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from facenas.data.faces.generated.factors import Color, Nuisance, mixed

Points = NDArray[np.float64]
Pixels = NDArray[np.int32]  # (n, 2) x and y on the enlarged canvas, in sixteenths
Canvas = NDArray[np.uint8]  # (h, w, 3) RGB

ENLARGED = 2  # shapes are drawn on a canvas this many times the crop's size, then averaged
_SUBPIXEL = 4  # bits of coordinates behind the point

# The landmarks of the common 112x112 crop (`facenas.data.faces.align.REFERENCE`) as x + 1j * y.
TEMPLATE = np.array(
    [
        38.2946 + 51.6963j,
        73.5318 + 51.5014j,
        56.0252 + 71.7366j,
        41.5493 + 92.3655j,
        70.7299 + 92.2041j,
    ]
)
DEPTH = 45.0  # of the head, from its center to the front
_RADII = (47.0, 78.0)  # at which the surface of the face has fallen back to the center's depth


def mirrored(half: ArrayLike) -> Points:
    """The whole round of points (n, 2) from one half's, of which the first and last have x = 0."""
    points = np.asarray(half, float)
    return np.concatenate([points, points[-2:0:-1] * (-1.0, 1.0)])


def curve(control: ArrayLike, closed: bool = False, steps: int = 5) -> Points:
    """A smooth (Catmull-Rom) curve through the control points (k, d): `steps` points a segment."""
    points = np.asarray(control, float)
    found: Points = _basis(len(points), closed, steps) @ points
    return found


def blob(half: ArrayLike) -> Points:
    """(n, 2) the smooth closed curve of a symmetric shape, by the points of its half."""
    return curve(mirrored(half), closed=True)


@cache
def _basis(count: int, closed: bool, steps: int) -> Points:
    """(points of the curve, count): the weights of the control points."""
    segments = count if closed else count - 1
    t = np.linspace(0, 1, steps, endpoint=False)
    weights = 0.5 * np.stack(
        [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2]
    )
    basis = np.zeros((segments * steps + (not closed), count))
    for segment in range(segments):
        for offset, weight in zip(range(-1, 3), weights, strict=True):
            at = segment + offset
            at = at % count if closed else min(max(at, 0), count - 1)
            basis[segment * steps : (segment + 1) * steps, at] += weight
    if not closed:
        basis[-1, -1] = 1
    return basis


def on_face(points: ArrayLike, lift: ArrayLike = 0.0, turns: float = 1) -> Points:
    """(n, 4) of points (n, 2) on the face's surface: x, y, height above it, and 1 as they turn."""
    flat = np.asarray(points, float)
    placed = np.empty((len(flat), 4))
    placed[:, :2], placed[:, 2], placed[:, 3] = flat, lift, turns
    return placed


def on_outline(points: ArrayLike, z: ArrayLike = 0.0) -> Points:
    """(n, 4) of points (n, 2) on the head's outline: x, y, z, and 0 as a turn leaves them there."""
    return on_face(points, z, 0)


@dataclass(frozen=True)
class View:
    """How a head is seen: turned by yaw and pitch, then `crop = scale * seen + origin`.

    `scale` and `origin` are complex: a turn in the plane with a zoom, and a shift.
    """

    yaw: float
    pitch: float
    scale: complex
    origin: complex

    def seen(self, points: Points) -> NDArray[np.complex128]:
        """(n,) x + 1j * y of points (n, 4), before the alignment."""
        x, y, height, turns = points.T
        inside = 1 - (x / _RADII[0]) ** 2 - ((y - 5) / _RADII[1]) ** 2
        z = height + turns * DEPTH * np.sqrt(np.maximum(inside, 0.02))
        across = x * (1 - turns * (1 - np.cos(self.yaw))) + z * np.sin(self.yaw)
        down = y * (1 - turns * (1 - np.cos(self.pitch))) + z * np.sin(self.pitch)
        found: NDArray[np.complex128] = across + 1j * down
        return found

    def crop(self, points: Points) -> NDArray[np.complex128]:
        """(n,) x + 1j * y of points (n, 4), in pixels of the 112x112 crop."""
        return self.scale * self.seen(points) + self.origin


def aligned_view(landmarks: Points, now: Nuisance) -> View:
    """The view that brings the five landmarks (5, 4) closest to the template, but for the pose's errors.

    The least-squares similarity, as of umeyama (1991), is a complex regression line.
    """
    turned = View(now.yaw, now.pitch, 1, 0).seen(landmarks)
    center, goal = turned.mean(), TEMPLATE.mean()
    scale = np.vdot(turned - center, TEMPLATE - goal) / np.vdot(turned - center, turned - center)
    scale *= now.zoom * np.exp(1j * now.roll)
    return View(now.yaw, now.pitch, complex(scale), complex(goal - scale * center + now.shift))


class Sketch:
    """Shapes to be drawn one over the other; points are (n, 4) as of `on_face`, sizes in crop pixels."""

    def __init__(self) -> None:
        self._shapes: list[tuple[Points, Callable[[Canvas, Pixels, float], object]]] = []

    def fill(self, points: Points, color: Color) -> None:
        """The polygon inside the points."""
        self._shapes.append((points, partial(_fill, color)))

    def line(self, points: Points, color: Color, width: float) -> None:
        """The open line through the points; through one point alone, a dot."""
        self._shapes.append((points, partial(_line, color, width)))

    def tint(self, points: Points, color: Color, opacity: float, blur: float) -> None:
        """The polygon mixed into what lies below, with edges blurred by `blur` pixels."""
        self._shapes.append((points, partial(_tint, color, opacity, blur)))

    def draw(self, canvas: Canvas, view: View) -> None:
        """Draw all shapes onto `canvas` (h, w, 3) uint8 RGB, `ENLARGED` times the crop's size."""
        seen = view.crop(np.concatenate([points for points, _ in self._shapes]))
        # OpenCV's coordinates are of pixel centers.
        scaled = np.column_stack([seen.real, seen.imag]) * ENLARGED + (ENLARGED - 1) / 2
        whole, start = np.rint(scaled * 2**_SUBPIXEL).astype(np.int32), 0
        for points, paint in self._shapes:
            paint(canvas, whole[start : start + len(points)], abs(view.scale) * ENLARGED)
            start += len(points)


def _fill(color: Color, canvas: Canvas, points: Pixels, zoom: float) -> None:
    cv2.fillPoly(canvas, [points], color, cv2.LINE_AA, _SUBPIXEL)


def _line(color: Color, width: float, canvas: Canvas, points: Pixels, zoom: float) -> None:
    """Lines below a pixel's width are drawn a pixel wide, mixed with what lies below their middle."""
    width *= zoom
    if width < 1:
        x, y = np.clip(points[len(points) // 2] >> _SUBPIXEL, 0, canvas.shape[1::-1] - np.array(1))
        color = mixed(canvas[y, x].tolist(), color, width)
    if len(points) == 1:
        radius = int(width * 2 ** (_SUBPIXEL - 1))
        cv2.circle(canvas, points[0].tolist(), radius, color, -1, cv2.LINE_AA, _SUBPIXEL)
    else:
        thickness = max(1, round(width))
        cv2.polylines(canvas, [points], False, color, thickness, cv2.LINE_AA, _SUBPIXEL)


def _tint(color: Color, opacity: float, blur: float, canvas: Canvas, points: Pixels, zoom: float) -> None:
    """Mixes within the polygon's bounds and as far as the blur reaches, nowhere else."""
    blur *= zoom
    reach = int(3 * blur) + 2
    low = np.maximum((points.min(axis=0) >> _SUBPIXEL) - reach, 0)
    high = np.minimum((points.max(axis=0) >> _SUBPIXEL) + reach, canvas.shape[1::-1])
    if (high <= low).any():
        return
    part = canvas[low[1] : high[1], low[0] : high[0]]
    mask = np.zeros(part.shape[:2], np.float32)
    cv2.fillPoly(mask, [points - (low << _SUBPIXEL)], opacity, cv2.LINE_8, _SUBPIXEL)
    share = cv2.GaussianBlur(mask, (0, 0), blur)
    cover = np.full_like(part, np.clip(color, 0, 255))
    cv2.blendLinear(part, cover, 1 - share, share, part)


_TURN = np.linspace(0, 2 * np.pi, 16, endpoint=False)
_CIRCLE = np.column_stack([np.cos(_TURN), np.sin(_TURN)])


def ellipse(center: ArrayLike, radii: ArrayLike, turn: float = 0.0) -> Points:
    """(16, 2) points of an ellipse turned by `turn` radians."""
    cos, sin = np.cos(turn), np.sin(turn)
    rotation = np.array(((cos, sin), (-sin, cos)))
    found: Points = _CIRCLE * np.asarray(radii) @ rotation + np.asarray(center, float)
    return found
