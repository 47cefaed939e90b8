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

from facenas.data.faces.jpeg import SIDE, decode
from facenas.data.images import Files, open_image, reason_of, to_pixels
from facenas.errors import UserError

_JPEG, _PNG, _BMP = b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"BM"


class Images(Protocol):
    """The images of a bench, by number. `fingerprint` changes when any of them does."""

    fingerprint: str

    def __len__(self) -> int:
        """How many there are."""
        ...

    def read(self, numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(m, 112, 112, 3) RGB, C-ordered. Several threads may read at once.

        Raises UserError naming the image that is missing, damaged or of another size.
        """
        ...


class FileImages:
    """The images `names` of a folder or .zip, in this order: JPEG, PNG and BMP files."""

    def __init__(self, files: Files, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._files = files
        try:
            stamps = [[name, *files.stamp(name)] for name in self.names]
        except OSError as error:
            raise UserError(f"{error.filename}: cannot be read ({error.strerror})") from None
        self.fingerprint = hashlib.sha256(json.dumps(stamps).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.names)

    def read(self, numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        """See `Images`."""
        return _read(self._files.root, self.names, numbers, lambda name, _: self._files.read(name))


class EncodedImages:
    """Image files held in memory, which came out of the file `where`: JPEG, PNG or BMP."""

    def __init__(self, items: Sequence[bytes], where: Path, fingerprint: str) -> None:
        self.names = tuple(f"image {number}" for number in range(len(items)))
        self.fingerprint = fingerprint
        self._items, self._where = items, where

    def __len__(self) -> int:
        return len(self._items)

    def read(self, numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        """See `Images`."""
        return _read(self._where, self.names, numbers, lambda _, number: self._items[number])


def _read(
    where: Path,
    names: tuple[str, ...],
    numbers: NDArray[np.int64],
    load: Callable[[str, int], bytes],
) -> NDArray[np.uint8]:
    batch = np.empty((len(numbers), SIDE, SIDE, 3), np.uint8)
    for row, number in enumerate(numbers.tolist()):
        try:
            _decode(load(names[number], number), batch[row])
        except Exception as error:  # Pillow's plugins raise many kinds
            raise UserError(f"{where}: {names[number]}: {_reason(error)}") from None
    return batch


def _decode(data: bytes, out: NDArray[np.uint8]) -> None:
    """One image into `out` (112, 112, 3). Only formats that need no other program to be read."""
    if data.startswith(_JPEG):
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        _check_size(width, height)
        decode(data, out)
    elif data.startswith((_PNG, _BMP)):
        with open_image(data) as image:
            _check_size(*image.size)
            out[:] = to_pixels(image)
    else:
        raise ValueError("it is not a JPEG, PNG or BMP image")


def _check_size(width: int, height: int) -> None:
    if (width, height) != (SIDE, SIDE):
        raise ValueError(
            f"it is {width}x{height} pixels, not {SIDE}x{SIDE}; align the photographs by `facenas align`"
        )


def _reason(error: Exception) -> str:
    reason = reason_of(error)
    if isinstance(error, OSError) and error.strerror:
        return f"it cannot be read ({reason})"
    return reason if reason.startswith(("it is ", "it has ")) else f"it is damaged ({reason})"
