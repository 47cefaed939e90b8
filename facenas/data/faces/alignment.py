"""Faces brought to the template that all published 112x112 face networks were trained on.

Source of the template and of the procedure: `deepinsight/insightface:recognition/_evaluation_/ijb/ijb_11.py`
(the 96x112 points of SphereFace, moved 8 pixels to the right).
"""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from facenas.data.faces.jpeg import SIDE
from facenas.data.images import Pixels

# Where an aligned crop has its (right eye, left eye, nose, right and left corner of the mouth), x and y
# in pixels; right and left are those of the person, so the first point lies on the left of the picture.
REFERENCE: NDArray[np.float32] = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ],
    np.float32,
)
_LEAST_SPREAD = 1e-3  # pixels; points closer together are one point, and fit any size of face
_FARTHEST = 1e9  # pixels; beyond it, squares of distances lose the face
_LONGEST_SIDE = 32_766  # pixels; OpenCV counts source pixels in 16 bits


def similarity(points: NDArray[np.floating]) -> NDArray[np.float64]:
    """(2, 3) float64: the rotation, scale and shift that bring `points` closest to `REFERENCE`.

    points: (5, 2) x and y in pixels, in the template's order. Least squares without reflection, Umeyama
    1991 (doi 10.1109/34.88573); of points in the plane the solution is one complex factor and one shift.
    Raises ValueError when points are not five, not finite, beyond 1e9, or all in one place.
    """
    if np.shape(points) != REFERENCE.shape:
        raise ValueError(f"landmarks of shape {np.shape(points)}; they should be five of x, y")
    given, wanted = (_complex(array) for array in (points, REFERENCE))
    if not (np.abs(given) < _FARTHEST).all():
        raise ValueError("a landmark is not a number, or lies far outside any image")
    spread = given - given.mean()
    size = float(np.vdot(spread, spread).real)
    factor = np.vdot(spread, wanted - wanted.mean()) / max(size, _LEAST_SPREAD**2)
    if size <= _LEAST_SPREAD**2 or not factor:
        raise ValueError("the landmarks lie all in one place")
    shift = wanted.mean() - factor * given.mean()
    return np.array(
        [[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]]
    )


def align(image: Pixels, points: NDArray[np.floating]) -> Pixels:
    """(112, 112, 3) uint8: the face with landmarks `points` in `image`, on the template.

    image: (h, w, 3) uint8, of any order of colours; points: (5, 2) as for `similarity`. Bilinear; what
    lies outside the image is black. Raises ValueError as `similarity` does, and for an image that is
    empty or has a side of more than 32,766 pixels.
    """
    if image.ndim != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(f"pixels of shape {image.shape} and type {image.dtype}")
    if max(image.shape) > _LONGEST_SIDE:
        raise ValueError(f"it has a side of more than {_LONGEST_SIDE} pixels")
    crop = cv2.warpAffine(image, similarity(points), (SIDE, SIDE), flags=cv2.INTER_LINEAR)
    return cast(Pixels, crop)


def five_points(points: NDArray[np.floating]) -> NDArray[np.float64]:
    """(5, 2) landmarks out of the (68, 2) of the iBUG scheme: eyes as the mean of their two corners.

    Raises ValueError when there are not 68.
    """
    if np.shape(points) != (68, 2):
        raise ValueError(f"landmarks of shape {np.shape(points)}; they should be 68 of x, y")
    all_points = np.asarray(points, np.float64)
    right_eye, left_eye = all_points[[36, 39]].mean(0), all_points[[42, 45]].mean(0)
    return np.stack([right_eye, left_eye, *all_points[[30, 48, 54]]])


def _complex(points: NDArray[np.floating]) -> NDArray[np.complex128]:
    """(5,) x + iy."""
    return np.ascontiguousarray(points, np.float64).view(np.complex128)[:, 0]
