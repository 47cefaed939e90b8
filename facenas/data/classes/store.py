"""A store of classification images: a zarr v3 group, memory-mapped, of any number of images of any size.

Its arrays, over all images, those to train on first, then those to validate on, then those to test on: labels
(n,) int32; sizes (n, 2) int32, height and width; jpeg, the images' bytes, and offsets (n + 1,) int64. Its
attributes tell version, classes, counts of the parts, mean and deviation, source and fingerprint.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field as Limits
from tqdm import tqdm

from facenas.config import Config, validate
from facenas.data.classes.crops import Boxes, center_boxes, decode_box, decode_jpeg
from facenas.data.faces.store import Field
from facenas.data.images import Pixels
from facenas.data.remote import stored_bytes
from facenas.data.sharded import ShardedArray
from facenas.data.workers import in_order, workers_for
from facenas.errors import UserError
from facenas.files import read_json

FORMAT = "facenas images"
VERSION = 1
FIELDS = (
    Field("labels", "i4", (), 1 << 20),
    Field("sizes", "i4", (2,), 1 << 20),
    Field("offsets", "i8", (), 1 << 20),
    Field("jpeg", "u1", (), 4 << 20),
)
IMAGE_SIZE = 224  # pixels a side, unless another is asked for or all images are squares of one size
_BATCH = 64  # images whose bytes are mapped at once


class About(Config):
    """Attributes of a store; images: how many there are to train on, to validate on and to test on.

    mean, std: per channel on the 0..1 scale, of training images; side: of all images, when they are squares of
    one size.
    """

    format: str = FORMAT
    version: int = VERSION
    source: str
    classes: tuple[str, ...]
    images: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[Annotated[float, Limits(gt=0)], ...]
    side: int | None
    fingerprint: str


@dataclass(frozen=True, eq=False)
class ImageStore:
    """A classification set on disk, for a training that sees its images at `image_size` pixels a side.

    sizes: (n, 2) height and width; train_labels, test_labels: (n,) int64, indices into `classes`; of those to
    train on, the last `validation_images` are the set's own validation images. Images are numbered in that
    order, test images last. Made by `open_image_store`; several threads may read at once.
    """

    path: Path
    about: About
    arrays: dict[str, ShardedArray]
    image_size: int
    train_labels: NDArray[np.int64]
    test_labels: NDArray[np.int64]
    sizes: NDArray[np.int32]
    flip: bool = True

    @property
    def name(self) -> str:
        """That of its folder, without `.zarr`."""
        return self.path.stem

    @property
    def classes(self) -> tuple[str, ...]:
        """Names in the order of the labels."""
        return self.about.classes

    @property
    def num_classes(self) -> int:
        return len(self.about.classes)

    @property
    def mean(self) -> tuple[float, ...]:
        """Per channel, on the 0..1 scale."""
        return self.about.mean

    @property
    def std(self) -> tuple[float, ...]:
        """Per channel, on the 0..1 scale."""
        return self.about.std

    @property
    def in_channels(self) -> int:
        """1 when all images are grey, else 3."""
        return len(self.about.mean)

    @property
    def validation_images(self) -> int:
        """How many images the set brings to choose on."""
        return self.about.images[1]

    @property
    def crop_size(self) -> int:
        """Side of training crops."""
        return self.image_size

    @property
    def fingerprint(self) -> str:
        """Of the store and of the size its images are seen at."""
        return hashlib.sha256(f"{self.about.fingerprint} {self.image_size}".encode()).hexdigest()

    def encoded(self, indices: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        """The JPEG bytes of each image, (k,) uint8. Raises UserError when offsets are damaged."""
        ends = self.arrays["offsets"].take(np.concatenate([indices, indices + 1])).reshape(2, -1)
        wrong = (ends[0] < 0) | (ends[0] >= ends[1]) | (ends[1] > len(self.arrays["jpeg"]))
        for row in np.flatnonzero(wrong)[:1]:
            where = f"{ends[0, row]}..{ends[1, row]}"
            raise _damaged(self.path, int(indices[row]), f"its bytes are said to be {where}")
        return self.arrays["jpeg"].spans(*ends.tolist())

    def read(
        self, indices: NDArray[np.int64], boxes: Boxes, mirrored: NDArray[np.bool_] | None = None
    ) -> Pixels:
        """(m, image_size, image_size, c) uint8: a box (m, 4) of each image of `indices` (m,), see `decode_box`.

        mirrored: (m,), which of them are; None: none. Raises UserError, naming the image, when one is damaged.
        """
        out = np.empty((len(indices), self.image_size, self.image_size, self.in_channels), np.uint8)
        sizes = self.sizes[indices].tolist()
        for row, data in enumerate(self._each_encoded(indices)):
            try:
                decode_box(data, sizes[row], boxes[row].tolist(), out[row])
            except ValueError as error:
                raise _damaged(self.path, int(indices[row]), str(error)) from None
            if mirrored is not None and mirrored[row]:
                cv2.flip(out[row], 1, out[row])
        return out

    def read_centers(self, indices: NDArray[np.int64], fraction: float) -> Pixels:
        """The same of the middle of each image, see `center_boxes`."""
        return self.read(indices, center_boxes(self.sizes[indices], fraction))

    def _each_encoded(self, indices: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
        """JPEG bytes image by image. What is mapped is let go every 64: Linux maps up to 2 MiB around each."""
        for start in range(0, len(indices), _BATCH):
            yield from self.encoded(indices[start : start + _BATCH])
            for array in self.arrays.values():
                array.release()


def open_image_store(path: Path, image_size: int | None = None) -> ImageStore:
    """The store in the folder `path`, at `image_size` pixels a side: see `IMAGE_SIZE`.

    Raises UserError when there is none, it is not ours, of a newer format, or not whole. Damage inside images
    is found by reading them: see `check_images`.
    """
    attributes = _attributes(path)
    if attributes.get("format") != FORMAT:
        raise UserError(
            f"{path}: is no store of images by class; make one with `facenas data import SOURCE OUT.zarr "
            "--classes`"
        )
    if attributes.get("version") != VERSION:
        raise UserError(
            f"{path}: is an image store of format {attributes.get('version')!r}, but this facenas reads "
            f"{VERSION}; update facenas"
        )
    try:
        about = validate(About, attributes, str(path))
    except UserError as error:
        raise UserError(f"{error}; import it anew") from None
    arrays = {f.name: ShardedArray(path, f.name, f.dtype, f.row) for f in FIELDS}
    _check_counts(path, about, arrays)
    total, test = sum(about.images), about.images[2]
    labels = np.array(arrays["labels"].span(0, total), np.int64)
    if total and not 0 <= labels.min() <= labels.max() < len(about.classes):
        raise UserError(f"{path}: has labels beyond its {len(about.classes)} classes; import it anew")
    sizes = np.array(arrays["sizes"].span(0, total))
    size = image_size or about.side or IMAGE_SIZE
    return ImageStore(path, about, arrays, size, labels[: total - test], labels[total - test :], sizes)


def is_image_store(path: Path) -> bool:
    """Whether `path` is a store of classification images, whole or not, of any version."""
    try:
        return _attributes(path).get("format") == FORMAT
    except UserError:
        return False


def fingerprint(images: tuple[int, int, int], classes: tuple[str, ...], digests: dict[str, str]) -> str:
    """sha256 over counts of parts, classes, and the sha256 of every array's little-endian values."""
    parts = [*map(str, images), *classes, *(digests[field.name] for field in FIELDS)]
    return hashlib.sha256("\n".join(parts).encode(errors="surrogatepass")).hexdigest()


def describe_store(path: Path) -> dict[str, Any]:
    """Counts, sizes, source and bytes of a store; raises UserError when it is none."""
    store = open_image_store(path)
    about, sizes = store.about, store.sizes
    each = np.bincount(store.train_labels, minlength=store.num_classes)
    return {
        "store": str(path),
        "source": about.source,
        "classes": store.num_classes,
        "in_channels": store.in_channels,
        **dict(zip(("train_images", "validation_images", "test_images"), about.images, strict=True)),
        "images_per_class_min": int(each.min()),
        "images_per_class_median": float(np.median(each)),
        "images_per_class_max": int(each.max()),
        "height_median": float(np.median(sizes[:, 0])),
        "width_median": float(np.median(sizes[:, 1])),
        "image_size": store.image_size,
        "mean": list(about.mean),
        "std": list(about.std),
        "bytes": stored_bytes(path),
        "fingerprint": about.fingerprint,
    }


def check_images(path: Path, workers: int | None = 1) -> dict[str, Any]:
    """Decodes every image and computes the fingerprint anew, by so many processes (None: one for each core).

    Raises UserError, in one sentence, at the first thing that is not as it should be.
    """
    started = time.perf_counter()
    store = open_image_store(path)
    total = sum(store.about.images)
    first = partial(_first_damaged, grey=store.in_channels == 1)
    bar = tqdm(total=total, desc="check", unit="image", disable=None)
    with bar, closing(in_order(first, _runs(store), workers_for(total, workers))) as runs:
        for number, (run, fault) in enumerate(runs):
            if fault is not None:
                raise _damaged(path, number * _BATCH + fault[0], fault[1])
            bar.update(len(run))
    digests = {name: _digest(array.blocks()) for name, array in store.arrays.items()}
    if fingerprint(store.about.images, store.classes, digests) != store.about.fingerprint:
        raise UserError(f"{path}: its contents do not match its fingerprint; import it anew")
    return {
        "store": str(path),
        "images": total,
        "classes": store.num_classes,
        "fingerprint": store.about.fingerprint,
        "seconds": round(time.perf_counter() - started, 3),
    }


def _runs(store: ImageStore) -> Iterator[list[tuple[NDArray[np.uint8], list[int]]]]:
    """JPEG bytes and sizes of all images, a few at a time."""
    total = sum(store.about.images)
    for start in range(0, total, _BATCH):
        indices = np.arange(start, min(start + _BATCH, total))
        yield list(zip(store.encoded(indices), store.sizes[indices].tolist(), strict=True))
        store.arrays["jpeg"].release()


def _first_damaged(run: list[tuple[NDArray[np.uint8], list[int]]], grey: bool) -> tuple[int, str] | None:
    """(which of them, the reason) of the first image that does not decode."""
    for number, (data, size) in enumerate(run):
        try:
            decode_jpeg(data, size, grey)
        except ValueError as error:
            return number, str(error)
    return None


def _digest(blocks: Iterator[NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _attributes(path: Path) -> dict[str, Any]:
    """The attributes of the zarr v3 group at `path`."""
    if not path.exists():
        raise UserError(f"{path}: no such store; make one with `facenas data import SOURCE {path} --classes`")
    try:
        found = read_json(path / "zarr.json").get("attributes")
    except UserError:
        found = None
    return found if isinstance(found, dict) else {}


def _check_counts(path: Path, about: About, arrays: dict[str, ShardedArray]) -> None:
    """Attributes and lengths of arrays agree."""
    total = sum(about.images)
    for name, length in (("labels", total), ("sizes", total), ("offsets", total + 1)):
        if len(arrays[name]) != length or min(about.images) < 0:
            raise UserError(f"{path}: should have {length} {name} but has {len(arrays[name])}; import it anew")


def _damaged(path: Path, index: int, reason: str) -> UserError:
    return UserError(f"{path}: image {index} is damaged ({reason}); import the store anew")
