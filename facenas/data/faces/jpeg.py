"""JPEG bytes <-> 112x112 RGB pixels, strictly: a file that is cut short is an error, not grey."""

from __future__ import annotations

from typing import cast

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from facenas.data.images import Pixels

SIDE = 112  # pixels, of every face image
QUALITY = 95  # of pixels that did not arrive as JPEG; without colour subsampling


def decode(data: bytes | NDArray[np.uint8], out: Pixels | None = None) -> Pixels:
    """(112, 112, 3) uint8 RGB, written into `out` when that is given (C-ordered, same shape).

    Takes what libjpeg-turbo takes: baseline and progressive, colour and grey. Raises ValueError for
    anything else, for another size, and for damage of any kind.
    """
    pixels = simplejpeg.decode_jpeg(data, "RGB", buffer=out)
    if pixels.shape != (SIDE, SIDE, 3):
        raise ValueError(f"it is {pixels.shape[1]}x{pixels.shape[0]} pixels, not {SIDE}x{SIDE}")
    return cast(Pixels, pixels)


def encode(pixels: Pixels) -> bytes:
    """JPEG of quality 95 without colour subsampling, from (112, 112, 3) uint8 RGB pixels."""
    image = np.ascontiguousarray(pixels)
    return cast(bytes, simplejpeg.encode_jpeg(image, QUALITY, "RGB", "444"))


def is_face(data: bytes) -> bool:
    """Whether `data` begins as a JPEG that a store can hold: 112x112, colour or grey, not CMYK."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return False
    return (height, width) == (SIDE, SIDE) and colours in ("YCbCr", "RGB", "Gray")
