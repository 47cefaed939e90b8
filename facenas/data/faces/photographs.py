"""Image files as they come from cameras -> upright pixels."""

from __future__ import annotations

import io

import numpy as np
from PIL import ImageOps, UnidentifiedImageError

from facenas.data.pictures import is_grey, open_picture
from facenas.data.source import Pixels


def photograph(data: bytes) -> Pixels:
    """(h, w, 3) uint8 RGB of an image file of up to 50 megapixels, turned upright as its EXIF data say.

    16-bit grey keeps its upper 8 bits, alpha is dropped. Raises ValueError, or what Pillow raises.
    """
    with open_picture(io.BytesIO(data)) as image:
        upright = ImageOps.exif_transpose(image)
        if is_grey(upright) and upright.mode not in ("1", "L", "LA"):  # of 16 bits a pixel
            grey = np.clip(np.asarray(upright, np.int64), 0, 65535) >> 8
            return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
        return np.array(upright.convert("RGB"))


def reason_of(error: Exception) -> str:
    """What was wrong with an image, in a few words."""
    if isinstance(error, UnidentifiedImageError):  # its own words hold a memory address
        return "it is no image"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).splitlines()[0] if str(error) else type(error).__name__
