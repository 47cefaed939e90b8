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
from facenas.data.faces.photographs import photograph, reason_of
from facenas.data.folders import image_names
from facenas.data.pictures import MAX_PIXELS
from facenas.data.source import Pixels
from facenas.errors import UserError
from facenas.evaluation.protocols.files import Files, FolderFiles, open_files

_MOST_BYTES = 8 * MAX_PIXELS  # 4 channels of 16 bits
_VERSION = 1  # raise it when the same files would give other faces


def find_images(path: Path) -> tuple[Files, list[str]]:
    """The files at `path` (a folder, a .zip, or the folder of one image) and the images' sorted names.

    Raises UserError when there is no such thing, and when it holds no images.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    if path.is_file() and path.suffix.lower() != ".zip":
        return FolderFiles(path.parent), [path.name]
    files = open_files(path)
    names = image_names(files)
    if not names:
        raise UserError(f"{path}: holds no images; give a folder or .zip of them, or one image")
    return files, names


def read_image(files: Files, name: str) -> bytes:
    """The bytes of an image; raises ValueError when it has more than any image that is taken."""
    if int(str(files.stamp(name)[0])) > _MOST_BYTES:
        raise ValueError("it has more bytes than any image of 50 megapixels")
    return files.read(name)


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
                faces[row] = self._face(read_image(self._files, name))
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
        image = photograph(data)
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
