"""Parts of images of any size, decoded to squares of one size: random ones to train on, the middle to judge by.

A box is (top, left, height, width) in pixels of the whole image. Where it is much larger than what is wanted of
it, JPEG is decoded at a half, a quarter or an eighth of its size, which the format allows for.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple, cast

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from facenas.data.images import MAX_PIXELS, Pixels, is_grey, is_turned, open_image, to_pixels

Boxes = NDArray[np.int64]  # (n, 4)

QUALITY = 95  # of what did not arrive as JPEG; without color subsampling
SCALE, RATIO = (
    (0.08, 1.0),
    (3 / 4, 4 / 3),
)  # of the area of a random crop to the image's, of its width to its height
_COLORS = ("YCbCr", "RGB", "Gray")  # of JPEG that is kept
_TRIES = 10  # to draw one that fits; then it is the largest in the middle that does
DRAWS = 2 * _TRIES + 2
_FACTORS = (8, 4, 2, 1)  # other fractions of its size take longer to decode than the whole


def random_boxes(sizes: NDArray[np.integer], draws: NDArray[np.float64]) -> Boxes:
    """Crops of images of `sizes` (n, 2), height and width, as torchvision's RandomResizedCrop makes them.

    draws: (n, `DRAWS`), uniform in [0, 1); always so many, whatever the size of an image.
    """
    whole = sizes.astype(np.float64)[:, None, :]
    area = np.prod(whole, axis=2) * (SCALE[0] + (SCALE[1] - SCALE[0]) * draws[:, :_TRIES])
    low, high = np.log(RATIO)
    ratio = np.exp(low + (high - low) * draws[:, _TRIES:-2])
    tried = np.round(np.sqrt(np.stack([area / ratio, area * ratio], axis=2)))
    fits = ((tried > 0) & (tried <= whole)).all(axis=2)
    chosen = tried[np.arange(len(sizes)), fits.argmax(axis=1)]
    chosen = np.where(fits.any(axis=1)[:, None], chosen, _largest(sizes))
    rest = sizes - chosen
    corner = np.where(fits.any(axis=1)[:, None], np.floor(draws[:, -2:] * (rest + 1)), rest // 2)
    return np.concatenate([corner, chosen], axis=1).astype(np.int64)


def _largest(sizes: NDArray[np.integer]) -> NDArray[np.float64]:
    """(n, 2): the whole of each image, but for what is too long for `RATIO`."""
    height, width = sizes[:, 0].astype(np.float64), sizes[:, 1].astype(np.float64)
    return np.round(
        np.stack([np.minimum(height, width / RATIO[0]), np.minimum(width, height * RATIO[1])], axis=1)
    )


def center_boxes(sizes: NDArray[np.integer], fraction: float) -> Boxes:
    """The square in the middle of each image whose side is `fraction` of the shorter side, (n, 4).

    To shrink images to 256 pixels and crop 224, as ImageNet is judged, is a fraction of 224/256.
    """
    side = np.maximum(1, np.round(sizes.min(axis=1, keepdims=True) * fraction)).astype(np.int64)
    return np.concatenate([(sizes - side) // 2, side, side], axis=1)


def decode_box(data: bytes | NDArray[np.uint8], size: Sequence[int], box: Sequence[int], out: Pixels) -> None:
    """Fills `out` (side, side, 1 or 3) with a box of the JPEG `data`, whose height and width are `size`.

    Shrunk by the mean of the pixels that fall on one, enlarged bilinearly. Raises ValueError for damage.
    """
    (top, left, tall, wide), side = box, len(out)
    factor = next(f for f in _FACTORS if f == 1 or min(tall, wide) >= side * f)
    pixels = decode_jpeg(data, size, out.shape[2] == 1, factor)
    rows, columns = (
        slice(start * now // whole, -(-(start + length) * now // whole))
        for start, length, now, whole in zip((top, left), (tall, wide), pixels.shape, size, strict=False)
    )
    cropped = pixels[rows, columns]
    if cropped.shape[:2] == (side, side):
        out[:] = cropped
    else:
        cv2.resize(cropped, (side, side), dst=out, interpolation=cv2.INTER_AREA)


def decode_center(data: bytes, fraction: float, side: int, grey: bool) -> Pixels:
    """(side, side, 1 or 3) uint8: the middle of an image file of any kind, as images of a store are judged.

    Raises what `as_jpeg` does.
    """
    kept = as_jpeg(data)
    out = np.empty((side, side, 1 if grey else 3), np.uint8)
    decode_box(kept.data, kept.size, center_boxes(np.array([kept.size]), fraction)[0].tolist(), out)
    return out


class Jpeg(NamedTuple):
    """An image as a store keeps it; size: height and width; pixels: (h, w, 1 or 3) uint8, maybe smaller."""

    data: bytes
    size: tuple[int, int]
    pixels: Pixels

    @property
    def grey(self) -> bool:
        """Whether it has no colors."""
        return bool(self.pixels.shape[2] == 1)


def as_jpeg(data: bytes, factor: int = 8) -> Jpeg:
    """An image file of any kind, decoded once, at 1/`factor` of its size.

    JPEG stays as it is, unless EXIF turns it, it is CMYK, or Pillow alone can read it; all else is encoded.
    Raises what `open_image` does, and what Pillow raises for damaged pixels.
    """
    with suppress(
        ValueError
    ):  # of no JPEG, or of one that is not whole: Pillow reads more, and tells what is wrong
        height, width, colors, _ = simplejpeg.decode_jpeg_header(data)
        if colors in _COLORS and height * width <= MAX_PIXELS and not is_turned(data):
            return Jpeg(data, (height, width), decode_jpeg(data, (height, width), colors == "Gray", factor))
    with open_image(data) as image:
        pixels = to_pixels(image, grey=is_grey(image))
    kinds = ("GRAY", "Gray") if pixels.shape[2] == 1 else ("RGB", "444")
    encoded = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), QUALITY, *kinds)
    return Jpeg(encoded, (pixels.shape[0], pixels.shape[1]), pixels)


def decode_jpeg(
    data: bytes | NDArray[np.uint8], size: Sequence[int], grey: bool = False, factor: int = 1
) -> Pixels:
    """(h, w, 1 or 3) uint8 at 1/`factor` of `size`, height and width. Raises ValueError for any damage."""
    height, width = (-(-side // factor) for side in size)
    found = simplejpeg.decode_jpeg(
        data, "GRAY" if grey else "RGB", min_height=height, min_width=width, min_factor=factor
    )
    if found.shape[:2] != (height, width):
        raise ValueError(f"it is {found.shape[1]}x{found.shape[0]} pixels, not {width}x{height}, at 1/{factor}")
    return cast(Pixels, found)
