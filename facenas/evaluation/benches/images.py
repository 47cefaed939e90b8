"""Where a bench's pixels come from: aligned faces of 112x112 pixels, in files or in memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from facenas.data.faces.store import SIDE, decode_jpeg
from facenas.data.images import Files, is_turned, open_image, reason_of, to_pixels, upright_size
from facenas.errors import UserError

_JPEG = b"\xff\xd8"


class Images(Protocol):
    """The images of a bench, by number. `fingerprint` changes when any of them does."""

    fingerprint: str

    def __len__(self) -> int: ...

    def read(self, numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(m, 112, 112, 3) RGB, C-ordered. Several threads may read at once.

        Raises UserError naming the image that is missing, damaged or of another size.
        """


class EncodedImages:
    """Image files of `where`, called `names`; `load(i)` gives the bytes of image i."""

    def __init__(
        self, names: Sequence[str], load: Callable[[int], bytes], where: Path, fingerprint: str
    ) -> None:
        self.names, self.fingerprint = tuple(names), fingerprint
        self._load, self.where = load, where

    def __len__(self) -> int:
        return len(self.names)

    def read(self, numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        """See `Images`."""
        batch = np.empty((len(numbers), SIDE, SIDE, 3), np.uint8)
        for row, number in enumerate(numbers.tolist()):
            try:
                self.decode(number, batch[row])
            except UserError:
                raise
            except Exception as error:  # Pillow's plugins raise many kinds
                raise UserError(self.fault(self.names[number], error)) from None
        return batch

    def decode(self, number: int, out: NDArray[np.uint8]) -> None:
        """Image `number` into `out` (112, 112, 3), upright."""
        data = self._load(number)
        if data.startswith(_JPEG) and not is_turned(data):
            height, width, _, _ = simplejpeg.decode_jpeg_header(data)
            _check_size(width, height)
            decode_jpeg(data, out)
            return
        with open_image(data) as image:
            _check_size(*upright_size(image))
            out[:] = to_pixels(image)

    def fault(self, name: str, error: Exception) -> str:
        """The sentence of an image that cannot be read or decoded."""
        reason = reason_of(error)
        if isinstance(error, OSError) and error.strerror:
            reason = f"it cannot be read ({reason})"
        elif not reason.startswith(("it is ", "it has ")):
            reason = f"it is damaged ({reason})"
        return f"{self.where}: {name}: {reason}"


def file_images(files: Files, names: Sequence[str]) -> EncodedImages:
    """The images `names` of a folder or .zip, in this order; raises UserError when one is not there."""
    try:
        stamps = [[name, *files.stamp(name)] for name in names]
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror})") from None
    fingerprint = hashlib.sha256(json.dumps(stamps).encode()).hexdigest()
    return EncodedImages(names, lambda number: files.read(names[number]), files.root, fingerprint)


def _check_size(width: int, height: int) -> None:
    if (width, height) != (SIDE, SIDE):
        raise ValueError(
            f"it is {width}x{height} pixels, not {SIDE}x{SIDE}; align the photographs by `facenas align`"
        )
