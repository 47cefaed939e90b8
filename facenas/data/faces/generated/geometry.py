"""Curves on a head, the head turned, and the alignment of its landmarks to the crop."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facenas.data.faces.generated.nuisance import Pose

Points = NDArray[np.float64]

# Eyes, nose tip and mouth corners of the common 112x112 crop (`deepinsight/insightface:
# python-package/insightface/utils/face_align.py`), as x + 1j * y.
TEMPLATE = np.array(
    (
        38.2946 + 51.6963j,
        73.5318 + 51.5014j,
        56.0252 + 71.7366j,
        41.5493 + 92.3655j,
        70.7299 + 92.2041j,
    )
)
DEPTH = 45.0  # of the head, from its centre to the front
_RADII = (47.0, 78.0)  # at which the surface of the face has fallen back to the centre's depth


def mirrored(half: ArrayLike) -> Points:
    """The whole round of points (n, 2) from one half's, of which the first and last have x = 0."""
    points = np.asarray(half, float)
    return np.concatenate([points, points[-2:0:-1] * (-1.0, 1.0)])


def curve(control: ArrayLike, closed: bool = False, steps: int = 5) -> Points:
    """A smooth (Catmull-Rom) curve through the control points (k, d): `steps` points a segment."""
    points = np.asarray(control, float)
    found: Points = _basis(len(points), closed, steps) @ points
    return found


@lru_cache(maxsize=64)
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


def on_face(points: ArrayLike, lift: ArrayLike = 0.0) -> Points:
    """(n, 4) of points (n, 2) on the face's surface: x, y, height above it, and 1 as they turn."""
    return _placed(points, lift, 1)


def on_outline(points: ArrayLike, z: ArrayLike = 0.0) -> Points:
    """(n, 4) of points (n, 2) on the head's outline: x, y, z, and 0 as a turn leaves them there."""
    return _placed(points, z, 0)


def _placed(points: ArrayLike, z: ArrayLike, turns: float) -> Points:
    flat = np.asarray(points, float)
    placed = np.empty((len(flat), 4))
    placed[:, :2], placed[:, 2], placed[:, 3] = flat, z, turns
    return placed


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


def aligned_view(landmarks: Points, pose: Pose) -> View:
    """The view that brings the five landmarks (5, 4) closest to the template, but for pose's errors.

    The least-squares similarity, as of umeyama (1991), is a complex regression line.
    """
    turned = View(pose.yaw, pose.pitch, 1, 0).seen(landmarks)
    centre, goal = turned.mean(), TEMPLATE.mean()
    scale = np.vdot(turned - centre, TEMPLATE - goal) / np.vdot(turned - centre, turned - centre)
    scale *= pose.zoom * np.exp(1j * pose.roll)
    return View(pose.yaw, pose.pitch, complex(scale), complex(goal - scale * centre + pose.shift))
