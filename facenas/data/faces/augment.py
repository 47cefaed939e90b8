"""AdaFace's augmentations on whole uint8 batches, with draws of their own for every image.

Crop, low resolution, photometric, each with its own probability and in this order, then a
horizontal flip (`mk-minchul/AdaFace:dataset/augmenter.py`). Only chosen images are touched, in
place, with OpenCV's vector code. Our images are RGB, so contrast and saturation weigh red, green and
blue as luma does (.299, .587, .114); AdaFace gives Pillow BGR images, which swaps red's and blue's
weights.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache
from itertools import permutations
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from facenas.data.faces.store import SIDE
from facenas.data.images import Pixels

# Of RandomResizedCrop: share of the image's area, natural logarithm of width / height, attempts.
AREA = (0.2, 1.0)
LOG_RATIO = (float(np.log(3 / 4)), float(np.log(4 / 3)))
ATTEMPTS = 10
LOW_RES = (0.2, 1.0)  # side of the low-resolution image, as a share of SIDE
FACTOR = (0.5, 1.5)  # of brightness, contrast and saturation

Floats = NDArray[np.float32]
INTERPOLATIONS = (
    cv2.INTER_NEAREST,
    cv2.INTER_LINEAR,
    cv2.INTER_AREA,
    cv2.INTER_CUBIC,
    cv2.INTER_LANCZOS4,
)
ORDERS = tuple(permutations(range(3)))  # of brightness (0), contrast (1) and saturation (2)
_GREY = np.tile([0.299, 0.587, 0.114], (3, 1))  # luma three times
_FLOOR = 5e-5 - 0.5  # OpenCV rounds to nearest, Pillow downwards


@dataclass(frozen=True)
class FaceDraws:
    """What chance decides for n images; every field is (n,)."""

    crop: NDArray[np.bool_]  # whether the image is cropped
    top: NDArray[np.int64]  # first row that is kept, in pixels, ...
    left: NDArray[np.int64]
    height: NDArray[np.int64]
    width: NDArray[np.int64]
    low_res: NDArray[np.bool_]
    side: NDArray[np.int64]  # pixels, 22..111
    down: NDArray[np.int64]  # number in INTERPOLATIONS, from the image to the small one
    up: NDArray[np.int64]  # and back
    photometric: NDArray[np.bool_]
    order: NDArray[np.int64]  # number in ORDERS
    brightness: NDArray[np.float64]
    contrast: NDArray[np.float64]
    saturation: NDArray[np.float64]
    flip: NDArray[np.bool_]

    def rows(self, rows: slice) -> FaceDraws:
        """The draws of these images alone."""
        return FaceDraws(*(getattr(self, field.name)[rows] for field in fields(self)))


class FaceAugment:
    """crop, low_res, photometric: probabilities in [0, 1]; flip: half of all images are mirrored."""

    def __init__(self, crop: float, low_res: float, photometric: float, flip: bool) -> None:
        self.crop, self.low_res, self.photometric, self.flip = crop, low_res, photometric, flip

    def draw(self, count: int, rng: np.random.Generator) -> FaceDraws:
        """Draws for `count` images, always all of them: a switched-off step does not shift the others."""
        return FaceDraws(
            rng.random(count) < self.crop,
            *draw_boxes(count, rng),
            rng.random(count) < self.low_res,
            (SIDE * rng.uniform(*LOW_RES, count)).astype(np.int64),
            rng.integers(len(INTERPOLATIONS), size=count),
            rng.integers(len(INTERPOLATIONS), size=count),
            rng.random(count) < self.photometric,
            rng.integers(len(ORDERS), size=count),
            rng.uniform(*FACTOR, count),
            rng.uniform(*FACTOR, count),
            rng.uniform(*FACTOR, count),
            rng.random(count) < 0.5 * self.flip,
        )

    def apply(self, images: Pixels, draws: FaceDraws) -> Pixels:
        """The same array, changed in place: (n, 112, 112, 3) uint8 RGB, C-ordered.

        As in the original, for given draws: crop and flip exactly; low resolution to within 2 grey
        levels; photometric to the last digit in 99 % of values, and at most 3 levels off, where
        Pillow rounds luma the other way.
        """
        for i in np.flatnonzero(draws.crop).tolist():
            # The crop stays where it is: the original pastes it at its own place on black.
            image, top, left = images[i], draws.top[i], draws.left[i]
            image[:top] = image[top + draws.height[i] :] = 0
            image[:, :left] = image[:, left + draws.width[i] :] = 0
        for i in np.flatnonzero(draws.low_res).tolist():
            small = _resized(images[i], int(draws.side[i]), draws.down[i])
            _resized(small, SIDE, draws.up[i], out=images[i])
        for i in np.flatnonzero(draws.photometric).tolist():
            for step in ORDERS[draws.order[i]]:
                _STEPS[step](images[i], draws, i)
        for i in np.flatnonzero(draws.flip).tolist():
            cv2.flip(images[i], 1, dst=images[i])
        return images


def draw_boxes(
    count: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Top, left, height and width, each (count,), as torchvision's RandomResizedCrop draws them.

    The first of ten attempts that fits into the image counts; the whole image when none does.
    """
    area = SIDE * SIDE * rng.uniform(*AREA, (ATTEMPTS, count))
    ratio = np.exp(rng.uniform(*LOG_RATIO, (ATTEMPTS, count)))
    heights = np.rint(np.sqrt(area / ratio)).astype(np.int64)
    widths = np.rint(np.sqrt(area * ratio)).astype(np.int64)
    fits = (heights <= SIDE) & (widths <= SIDE)
    first, image = fits.argmax(axis=0), np.arange(count)
    height = np.where(fits.any(axis=0), heights[first, image], SIDE)
    width = np.where(fits.any(axis=0), widths[first, image], SIDE)
    return rng.integers(SIDE - height + 1), rng.integers(SIDE - width + 1), height, width


def _resized(image: Pixels, side: int, interpolation: int, out: Pixels | None = None) -> Pixels:
    """(side, side, 3) uint8, by number `interpolation` of INTERPOLATIONS; in `out` when it is given."""
    kind, size = INTERPOLATIONS[interpolation], (side, side)
    if kind == cv2.INTER_LANCZOS4:
        return _lanczos(image, side, out)
    # The same to the bit, and quicker than on uint8.
    if kind == cv2.INTER_AREA and side < len(image):
        small = cv2.resize(image.astype(np.float32), size, interpolation=kind)
        return cast(Pixels, cv2.convertScaleAbs(small, out))
    return cast(Pixels, cv2.resize(image, size, out, interpolation=kind))


def _lanczos(image: Pixels, side: int, out: Pixels | None) -> Pixels:
    """INTER_LANCZOS4 to within a grey level, in a third of the time: OpenCV has no vector code for uint8."""
    before = len(image)
    rows = _product(before, side, image.reshape(before, -1).astype(np.float32))
    turned = cast(Floats, cv2.transpose(rows.reshape(side, before, 3)))
    both = _product(before, side, turned.reshape(before, -1)).reshape(side, side, 3)
    # To uint8: rounded, and clipped above by itself but below by hand, for it drops the sign.
    cv2.threshold(both, 0, 0, cv2.THRESH_TOZERO, dst=both)
    return cast(Pixels, cv2.transpose(cv2.convertScaleAbs(both), out))


def _product(before: int, after: int, values: Floats) -> Floats:
    """(before, k) -> (after, k): every column resampled."""
    out = np.empty((after, values.shape[1]), np.float32)
    for rows, columns, weights in _lanczos_bands(before, after):
        np.matmul(weights, values[columns], out=out[rows])
    return out


@cache
def _lanczos_bands(before: int, after: int) -> list[tuple[slice, slice, Floats]]:
    """OpenCV's weights as a matrix (after, before), in four bands of rows with the columns they need."""
    unit, size = np.eye(before, dtype=np.float32), (before, after)
    weights = cast(Floats, cv2.resize(unit, size, interpolation=cv2.INTER_LANCZOS4))
    bands = []
    for part in np.array_split(np.arange(after), 4):
        used = np.flatnonzero(np.abs(weights[part]).max(axis=0) > 1e-6)
        rows, columns = slice(part[0], part[-1] + 1), slice(used[0], used[-1] + 1)
        bands.append((rows, columns, np.ascontiguousarray(weights[rows, columns])))
    return bands


def _brightness(image: Pixels, draws: FaceDraws, i: int) -> None:
    """Towards black or away from it."""
    cv2.convertScaleAbs(image, image, draws.brightness[i], _FLOOR)  # nothing falls below -0.5


def _contrast(image: Pixels, draws: FaceDraws, i: int) -> None:
    """Towards the image's mean luma or away from it."""
    factor = draws.contrast[i]
    red, green, blue, _ = cv2.mean(image)
    mean = int(0.299 * red + 0.587 * green + 0.114 * blue + 0.5)
    cv2.addWeighted(image, factor, image, 0, (1 - factor) * mean + _FLOOR, dst=image)


def _saturation(image: Pixels, draws: FaceDraws, i: int) -> None:
    """Towards every pixel's own luma or away from it."""
    factor = draws.saturation[i]
    grey = cv2.transform(image, _GREY)
    cv2.addWeighted(image, factor, grey, 1 - factor, _FLOOR, dst=image)


_STEPS = (_brightness, _contrast, _saturation)
