"""The faces in image files of any size: what `facenas embed`, `verify`, `enroll` and `identify` read."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facenas.data.faces.detection import Detector, Face, crop_face
from facenas.data.faces.detector_file import find_detector, sha256_of
from facenas.data.faces.jpeg import SIDE, decode, is_face
from facenas.data.images import Pixels, decode_image, find_images, reason_of
from facenas.errors import UserError

_VERSION = 1  # raise it when the same files would give other faces


class FaceImages:
    """The faces in image files, in the order of their names: `Images` as the benches have them.

    An image of 112x112 pixels is taken for a crop on the template, as it is. Of any other the largest face is
    found and aligned, with the detector file `detector` or the one at hand (`find_detector`).
    """

    def __init__(self, path: Path, detector: Path | None = None) -> None:
        self._files, names = find_images(path)
        self.names = tuple(names)
        self._detector_file, self._lock = detector, threading.Lock()
        self._detector: Detector | None = None
        given = sha256_of(detector) if detector else None
        stamps = [[name, *self._files.stamp(name)] for name in names]
        text = json.dumps([_VERSION, given, stamps])
        self.fingerprint = hashlib.sha256(text.encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.names)

    def read(self, numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(m, 112, 112, 3) uint8 RGB; raises UserError that names an image which gives no face.

        Several threads may read at once.
        """
        faces = np.empty((len(numbers), SIDE, SIDE, 3), np.uint8)
        for row, number in enumerate(numbers.tolist()):
            name = self.names[number]
            try:
                faces[row] = self._face(self._files.read(name))
            except UserError:
                raise
            except Exception as error:  # Pillow's plugins raise many kinds
                raise UserError(
                    f"{self._files.root / name}: {reason_of(error)}; remove it, or use `facenas align`, "
                    "which lists such images and goes on"
                ) from None
        return faces

    def _face(self, data: bytes) -> Pixels:
        if is_face(data):
            return decode(data)
        image = decode_image(data)
        if image.shape == (SIDE, SIDE, 3):
            return image
        found = self._detect(image)
        if not found:
            raise ValueError("no face was found in it")
        return crop_face(image, found[0].points)

    def _detect(self, image: Pixels) -> list[Face]:
        with self._lock:  # crops need no detector, so it is looked for when it is needed
            if self._detector is None:
                self._detector = Detector(find_detector(self._detector_file))
        return self._detector(image)
