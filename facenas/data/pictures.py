"""One image file -> pixels, with the limits that untrusted files need."""

from __future__ import annotations

import warnings
from typing import IO

import numpy as np
from PIL import Image

from facenas.data.source import Pixels, resize

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".webp", ".tif", ".tiff")
MAX_PIXELS = 50_000_000
_DEEP_GREY = ("I", "I;16", "I;16B", "I;16L", "I;16N")  # 16 bits a pixel, "I" in PGM files


def open_picture(stream: IO[bytes]) -> Image.Image:
    """The image's header; its pixels are read on first use.

    Raises ValueError for an image of more than 50 megapixels or of floating-point pixels, and what
    Pillow raises for something it cannot identify.
    """
    try:
        with warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning):
            image = Image.open(stream)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise ValueError("it has more than 50 megapixels") from None
    if image.width * image.height > MAX_PIXELS:
        raise ValueError("it has more than 50 megapixels")
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range")
    return image


def is_grey(image: Image.Image) -> bool:
    """Whether the image has no colours: 1, 8 or 16 bits of grey, with alpha or without."""
    return image.mode in ("1", "L", "LA", *_DEEP_GREY)


def pixels(image: Image.Image, grey: bool, size: int) -> Pixels:
    """(size, size, 1 or 3) uint8: the whole image, resized when it differs, alpha dropped.

    16-bit grey keeps its upper 8 bits (Pillow's own conversion would clip at 255).
    """
    if image.mode in _DEEP_GREY:
        upper = np.clip(np.asarray(image, np.int64), 0, 65535) >> 8
        image = Image.fromarray(upper.astype(np.uint8))
    array = np.asarray(resize(image.convert("L" if grey else "RGB"), size))
    return array[..., None] if grey else array
