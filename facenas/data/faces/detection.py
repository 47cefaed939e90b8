"""Where faces are in photographs, their five landmarks, and the file of the network that finds them.

The detector is YuNet (Wu et al., Machine Intelligence Research 2023) as OpenCV runs it. It knows faces of
about 10 to 300 pixels, so every photograph is looked at twice, as it is and small with a border; and what
was small in a photograph that had to be shrunk is looked at once more by itself.

Its file is YuNet of March 2023, 232,589 bytes, MIT license: given, or found in the cache, where it is fetched
when somebody asks for it. The sha256 is the one that
`opencv/opencv_zoo:models/face_detection_yunet/face_detection_yunet_2023mar.onnx` (a Git LFS pointer) states.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.request import urlopen

import cv2
import numpy as np
from numpy.typing import NDArray

from facenas.data.cache import default_cache
from facenas.data.images import Pixels
from facenas.errors import UserError
from facenas.files import write_bytes

NAME = "face_detection_yunet_2023mar.onnx"
SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
URL = f"https://media.githubusercontent.com/media/opencv/opencv_zoo/main/models/face_detection_yunet/{NAME}"
_SECONDS = 20  # without an answer
_MOST_BYTES = 10_000_000

_LEAST_SCORE = 0.8  # 0..1
# Pixels: no room for a face, and of one row OpenCV 4 reads memory beyond the picture.
_LEAST_SIDE = 10
_FAR_SIDE = 1280  # pixels of the longest side, at most: for faces that are small in the picture
_NEAR_SIDE = 320  # pixels of the longest side, border included: for faces that fill the picture
_BORDER = 0.25  # of the longest side; landmarks at the rim of a picture are poor without it
_SMALL = 64  # pixels; with a second look, the landmarks of smaller faces in shrunk photographs are better
_FILLS = 0.3  # of the longest side; from here on a face is taken from the small picture
# By how much a turned crop's score must be higher. Of 48 faces of LFW in pictures, the score of the crop as it
# is less the best of its turns was 0.03 to 0.94, and the same in pictures tilted by 20 degrees; upside down it
# was -0.95 to -0.03, on their sides -0.94 to -0.04.
_SURER = 0.01
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
                "face_detection_yunet_2023mar.onnx as the detector (--detector)"
            ) from None

    def __call__(self, image: Pixels) -> list[Face]:
        """The faces in (h, w, 3) uint8 RGB pixels, the largest first."""
        side = max(image.shape[:2])
        scale = min(1.0, _FAR_SIDE / side)
        far = [self._closer(image, face, scale) for face in self._look(image, scale, border=0)]
        border = round(_BORDER * side)
        near = self._look(image, _NEAR_SIDE / (side + 2 * border), border)
        # Each look is trusted most with faces of its kind: sorting is stable, near before far.
        seen = [(face, True) for face in near] + [(face, False) for face in far]
        seen.sort(key=lambda pair: bool(max(pair[0].box[2:]) > _FILLS * side) is not pair[1])
        kept: list[Face] = []
        for face, _ in seen:
            if not any(_overlap(face, other) > _SAME for other in kept):
                kept.append(face)
        return sorted(kept, key=lambda face: -face.area)

    def is_upright(self, crop: Pixels) -> bool:
        """Whether an aligned crop (112, 112, 3) shows a face no better after a quarter or half turn.

        The detector's landmarks alone do not tell: of a face upside down it gives those of an upright one.
        """
        side = max(crop.shape[:2])
        border = round(_BORDER * side)
        turns = [np.ascontiguousarray(np.rot90(crop, turn)) for turn in range(4)]
        looks = [self._look(turned, _NEAR_SIDE / (side + 2 * border), border) for turned in turns]
        as_it_is, *others = (max((face.score for face in look), default=0.0) for look in looks)
        return max(others) <= as_it_is + _SURER

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
        corner = np.array([left, top])
        for other in found:
            box = other.box + np.array([left, top, 0, 0])
            seen = Face(box, other.points + corner, other.score)
            if _overlap(seen, face) > _SAME:
                return seen
        return face

    def _look(self, image: Pixels, scale: float, border: int) -> list[Face]:
        """The faces seen in the image at `scale`, with `border` black pixels of the image's around it."""
        height, width = (max(1, round(scale * side)) for side in image.shape[:2])
        if min(height, width) < _LEAST_SIDE:
            return []
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        small = cv2.cvtColor(cv2.resize(image, (width, height), interpolation=how), cv2.COLOR_RGB2BGR)
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


def find_detector(given: Path | None = None) -> Path:
    """The detector's file: `given`, else the one in the cache; nothing is fetched (`fetch_detector` does).

    What is found in the cache has the pinned sha256; `given` may be another one. Raises UserError when there
    is none.
    """
    if given is not None:
        if not given.is_file():
            raise UserError(f"{given}: there is no such file; the detector is {NAME}")
        return given
    path = default_cache() / NAME
    if not path.is_file():
        raise UserError(
            f"{path}: the face detector is not there; let it be fetched once (--download; 227 KiB, MIT "
            f"license), or get {URL} and give it as the detector (--detector)"
        )
    if sha256_of(path) != SHA256:
        raise UserError(f"{path}: is damaged; delete it and have it fetched anew (--download)")
    return path


def fetch_detector() -> Path:
    """The detector's file in the cache, fetched from its public address unless it is there and whole.

    Raises UserError when it cannot be fetched or the cache is no place to write, SearchStoppedError when the
    disk is full.
    """
    path = default_cache() / NAME
    if not (path.is_file() and sha256_of(path) == SHA256):
        _fetch(path)
    return path


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hexadecimal; raises UserError when it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def _face(row: NDArray[np.float32], rim: int, factors: NDArray[np.float64]) -> Face:
    """A row of OpenCV's (x, y, w, h, five times x and y, score), in pixels of the photograph."""
    values = row.astype(np.float64)
    corner, size = (values[:2] - rim) * factors, values[2:4] * factors
    points = (values[4:14].reshape(5, 2) - rim + 0.5) * factors - 0.5
    return Face(np.concatenate([corner, size]), points, float(values[14]))


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


def _fetch(path: Path) -> None:
    """Downloads to `path` what has the right sha256."""
    try:
        with urlopen(URL, timeout=_SECONDS) as answer:
            data = bytes(answer.read(_MOST_BYTES))
    except (OSError, HTTPException) as error:  # URLError is an OSError
        cause = getattr(error, "reason", error)  # URLError's
        reason = getattr(cause, "strerror", None) or cause
        raise UserError(
            f"the face detector cannot be fetched ({reason}); get {URL} and give "
            f"it as the detector (--detector), or put it at {path}"
        ) from None
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise UserError(
            f"{URL}: gave another file than expected (its sha256 differs); get {NAME} elsewhere and "
            f"give it as the detector, or put it at {path}"
        )
    write_bytes(path, data, remedy="set FACENAS_CACHE to another folder, or give a detector")
