"""Faces in photographs: where they are, their five landmarks, and their crops on the template.

The detector is YuNet (Wu et al., Machine Intelligence Research 2023) as OpenCV runs it. It knows faces of
about 10 to 300 pixels, so every photograph is looked at twice, as it is and small with a border; and what
was small in a photograph that had to be shrunk is looked at once more by itself.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from facenas.data.faces.alignment import align, similarity
from facenas.data.faces.detector_file import sha256_of
from facenas.data.images import Pixels
from facenas.errors import UserError

_LEAST_SCORE = 0.8  # 0..1
_LEAST_SIDE = (
    10  # pixels: no room for a face, and of one row OpenCV 4 reads memory beyond the picture
)
_FAR_SIDE = 1280  # pixels of the longest side, at most: for faces that are small in the picture
_NEAR_SIDE = 320  # pixels of the longest side, border included: for faces that fill the picture
_BORDER = 0.25  # of the longest side; landmarks at the rim of a picture are poor without it
_SMALL = 64  # pixels; with a second look, the landmarks of smaller faces in shrunk photographs are better
_FILLS = 0.3  # of the longest side; from here on a face is taken from the small picture
_SAME = 0.5  # of the smaller face's box inside the other's: one face, seen twice


@dataclass(frozen=True, eq=False)
class Face:
    """A face in a photograph, in its pixels.

    box: (4,) float64 left, top, width, height, which may reach beyond the picture; points: (5, 2) float64
    in the order of `alignment.REFERENCE`; score: how sure the detector is, 0..1.
    """

    box: NDArray[np.float64]
    points: NDArray[np.float64]
    score: float

    @property
    def area(self) -> float:
        """Of the box, in square pixels."""
        return float(self.box[2] * self.box[3])

    def moved(self, right: int, down: int) -> Face:
        """The face so many pixels further to the right and below."""
        box = self.box + np.array([right, down, 0, 0])
        return Face(box, self.points + np.array([right, down]), self.score)


class Detector:
    """Finds faces; may be called from several threads at once.

    fingerprint: sha256 of the file. Raises UserError when the file is not a YuNet that OpenCV can run.
    """

    def __init__(self, path: Path) -> None:
        self.fingerprint = sha256_of(path)
        self._path = path
        self._local = threading.local()  # OpenCV's detector keeps the picture's size in itself
        try:
            self(np.zeros((_NEAR_SIDE, _NEAR_SIDE, 3), np.uint8))  # another network fails here
        except (cv2.error, SystemError):
            raise UserError(
                f"{path}: is not a YuNet face detector that OpenCV can run; give "
                "face_detection_yunet_2023mar.onnx by --detector"
            ) from None

    def __call__(self, image: Pixels) -> list[Face]:
        """The faces in (h, w, 3) uint8 RGB pixels, the largest first."""
        side = max(image.shape[:2])
        scale = min(1.0, _FAR_SIDE / side)
        far = [self._closer(image, face, scale) for face in self._look(image, scale, border=0)]
        border = round(_BORDER * side)
        near = self._look(image, _NEAR_SIDE / (side + 2 * border), border)
        preferred = [f for f in near if _fills(f, side)] + [f for f in far if not _fills(f, side)]
        others = [f for f in near if not _fills(f, side)] + [f for f in far if _fills(f, side)]
        return sorted(_distinct(preferred + others), key=lambda face: -face.area)

    def _closer(self, image: Pixels, face: Face, scale: float) -> Face:
        """The face, seen at `scale`, as it is seen in the part of the image around it."""
        size = float(face.box[2:].max())
        if scale == 1 or scale * size >= _SMALL:
            return face
        middle = face.box[:2] + face.box[2:] / 2
        left, top = np.maximum(middle - size, 0).astype(int).tolist()
        right, bottom = np.maximum(np.ceil(middle + size), 0).astype(int).tolist()
        part = image[top:bottom, left:right]
        found = self._look(part, _NEAR_SIDE / max(part.shape), border=0) if part.size else []
        seen = (other.moved(left, top) for other in found)
        return next((other for other in seen if _overlap(other, face) > _SAME), face)

    def _look(self, image: Pixels, scale: float, border: int) -> list[Face]:
        """The faces seen in the image at `scale`, with `border` black pixels of the image's around it."""
        height, width = (max(1, round(scale * side)) for side in image.shape[:2])
        if min(height, width) < _LEAST_SIDE:
            return []
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        small = cv2.cvtColor(
            cv2.resize(image, (width, height), interpolation=how), cv2.COLOR_RGB2BGR
        )
        rim = round(scale * border)
        small = cv2.copyMakeBorder(small, rim, rim, rim, rim, cv2.BORDER_CONSTANT)
        network = self._network()
        network.setInputSize((small.shape[1], small.shape[0]))
        _, found = network.detect(small)
        factors = np.array([image.shape[1] / width, image.shape[0] / height])
        return [] if found is None else [_face(row, rim, factors) for row in found]

    def _network(self) -> cv2.FaceDetectorYN:
        if not hasattr(self._local, "network"):
            _hush()
            self._local.network = cv2.FaceDetectorYN.create(
                str(self._path), "", (_NEAR_SIDE, _NEAR_SIDE), score_threshold=_LEAST_SCORE
            )
        network: cv2.FaceDetectorYN = self._local.network
        return network


def crop_face(image: Pixels, points: NDArray[np.floating]) -> Pixels:
    """(112, 112, 3) uint8: the face with landmarks (5, 2) in a photograph (h, w, 3) of any size.

    A large face is halved first, each pixel the mean of four, until it is less than twice the template's
    size: `align` alone would take one pixel in many, noise and all. Raises ValueError as `align` does.
    """
    scaled, places = image, np.asarray(points, np.float64)
    while np.hypot(*similarity(places)[:, 0]) <= 0.5 and min(scaled.shape[:2]) > 1:
        height, width = scaled.shape[0] // 2, scaled.shape[1] // 2
        # An odd row or column is left out, so that the scale is exactly a half.
        even = scaled[: 2 * height, : 2 * width]
        scaled = cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8)
        places = (places + 0.5) / 2 - 0.5  # a pixel's place is that of its centre
    return align(scaled, places)


def _face(row: NDArray[np.float32], rim: int, factors: NDArray[np.float64]) -> Face:
    """A row of OpenCV's (x, y, w, h, five times x and y, score), in pixels of the photograph."""
    values = row.astype(np.float64)
    corner, size = (values[:2] - rim) * factors, values[2:4] * factors
    points = (values[4:14].reshape(5, 2) - rim + 0.5) * factors - 0.5
    return Face(np.concatenate([corner, size]), points, float(values[14]))


def _fills(face: Face, side: int) -> bool:
    return bool(max(face.box[2:]) > _FILLS * side)


def _distinct(faces: list[Face]) -> list[Face]:
    """Without those that overlap one before them."""
    kept: list[Face] = []
    for face in faces:
        if not any(_overlap(face, other) > _SAME for other in kept):
            kept.append(face)
    return kept


def _overlap(face: Face, other: Face) -> float:
    """The share of the smaller box that lies in the other, 0..1."""
    low = np.maximum(face.box[:2], other.box[:2])
    high = np.minimum(face.box[:2] + face.box[2:], other.box[:2] + other.box[2:])
    common = float(np.prod(np.maximum(high - low, 0)))
    return common / max(min(face.area, other.area), 1e-9)


def _hush() -> None:
    """OpenCV writes warnings of its own on standard error, such as which hardware it does not use."""
    modern = getattr(getattr(cv2, "utils", None), "logging", None)
    if modern is not None:
        modern.setLogLevel(modern.LOG_LEVEL_ERROR)
    else:
        cv2.setLogLevel(2)  # type: ignore[attr-defined]  # OpenCV 4; errors only
