"""Where a set comes from, seen by the cache: a name, an identity, and a way to decode it."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from facenas.data.images import Pixels, resize

Labels = NDArray[np.int64]

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Part:
    """The training or the test half of a set, not yet in memory.

    shape: (n, h, w, c); blocks: arrays (m, h, w, c) uint8 in order, n images together;
    labels: (n,) int64. The blocks can be walked through once.
    """

    shape: tuple[int, int, int, int]
    blocks: Iterable[Pixels]
    labels: Labels


@dataclass(frozen=True)
class Decoded:
    """A whole set. `mean` and `std` (per channel, 0..1 scale) at None: compute from training."""

    train: Part
    test: Part
    classes: tuple[str, ...]
    flip: bool
    crop_size: int
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Source:
    """A set that was found but not read.

    identity: JSON values that change whenever the decoded set could (paths, sizes, times, options).
    """

    name: str
    identity: list[Any]
    decode: Callable[[], Decoded]

    def key(self, version: int) -> str:
        """Folder name of the cache entry that format `version` gives this source."""
        digest = hashlib.sha256(json.dumps([version, self.name, self.identity]).encode())
        return f"{re.sub(r'[^A-Za-z0-9_-]+', '_', self.name)[:60]}-{digest.hexdigest()[:16]}"


def stamp(path: Path) -> list[Any]:
    """What tells a file's versions apart: resolved path, bytes, modification time in ns."""
    status = path.stat()
    return [str(path.resolve()), status.st_size, status.st_mtime_ns]


def slices(shape: tuple[int, ...]) -> Iterator[slice]:
    """Cuts images (n, h, w, c) uint8 into runs of about 1 MiB: the extra memory of any pass."""
    step = max(1, _BLOCK_BYTES // math.prod(shape[1:]))
    return (slice(start, min(start + step, shape[0])) for start in range(0, shape[0], step))


def part_of(images: Pixels, labels: Labels, size: int) -> Part:
    """A part out of images (n, h, w, c) uint8 in memory, resized where they are not size x size."""
    shape = (len(images), size, size, images.shape[3])
    return Part(shape, (_resized(images[run], size) for run in slices(images.shape)), labels)


def _resized(block: Pixels, size: int) -> Pixels:
    if block.shape[1:3] == (size, size):
        return block
    pictures = (Image.fromarray(image[..., 0] if image.shape[2] == 1 else image) for image in block)
    stacked = np.stack([np.asarray(resize(picture, size)) for picture in pictures])
    return stacked.reshape(len(block), size, size, block.shape[3])
