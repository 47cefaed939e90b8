"""Imports classification images into a store, and says what became of every image."""

from __future__ import annotations

import hashlib
import shutil
import time
from array import array
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import compress
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from facenas.data.classes.crops import as_jpeg
from facenas.data.classes.sources import ClassSource, open_classes
from facenas.data.classes.store import FIELDS, About, fingerprint, is_image_store
from facenas.data.found import FOUND, SKIPPED, Unread, tell, write_skipped
from facenas.data.images import Files, FolderFiles, reason_of
from facenas.data.parts import PART_NAMES, PARTS, TEST, TRAIN, VALIDATION
from facenas.data.places import check_folder, writing
from facenas.data.sharded import ShardedWriter
from facenas.data.workers import in_order, workers_for
from facenas.errors import UserError
from facenas.files import check_place, folder_beside, put_in_place, write_json

_BATCH, _BATCH_BYTES = 64, 1 << 20  # images that are prepared at once, and their bytes, but for the last one's
_SAMPLE = 10_000  # images to train or validate on whose mean and deviation are taken, evenly spread over all
_LEAST_STD = 1 / 255  # as `facenas.data.cache.mean_std` has it


def import_classes(source: Path, out: Path, overwrite: bool = False, workers: int | None = 1) -> dict[str, Any]:
    """Writes the images at `source` (see `open_classes`) to the store `out`.

    JPEG is kept byte for byte unless EXIF turns it, all else is encoded. Images that cannot be read are listed
    with the reason in `out`/skipped.csv. workers: processes that decode; None: one for each core when there are
    many images. The store is the same, byte for byte, for any number of them.

    Returns the store, its images by part, its classes, how many images were skipped and encoded, and the
    seconds it took. Raises UserError when the source makes no set, a class or a part loses all its images, or
    `out` cannot be written; then nothing is left of it.
    """
    started = time.perf_counter()
    check_place(out.parent)
    _check_target(out, overwrite)
    images = open_classes(source)
    counts = _Counts(len(images.classes))
    with ImageStoreWriter(out, overwrite) as writer:
        with (
            tqdm(total=len(images.labels), desc="import", unit="image", disable=None) as bar,
            closing(_prepared(images, workers_for(len(images.labels), workers))) as batches,
        ):
            for part, batch in batches:
                writer.append(part, [one for one in batch if not one.reason])
                counts.add(part, batch)
                bar.update(len(batch))
        counts.check(str(source), images)
        writer.finish(images, counts)
        unread = [*images.left_out, *counts.lost]
        if unread:
            write_skipped(writer.folder / SKIPPED, unread)
        facts = {"test_from": images.test_from, "ignored": list(images.ignored), "skipped": len(unread)}
        write_json(writer.folder / FOUND, {**facts, "train_in_test": counts.twice, "one_color": counts.plain})
    tell(out.resolve())
    return {
        "store": str(out),
        **{f"{name}_images": count for name, count in zip(PART_NAMES, writer.images, strict=True)},
        "classes": len(images.classes),
        "skipped": len(unread),
        "encoded": counts.encoded,
        "seconds": round(time.perf_counter() - started, 3),
    }


class Prepared(NamedTuple):
    """An image as the store keeps it, or the reason why it is skipped.

    plain: whether it is of one color; digest: of its bytes; moments: (2, 3), the mean of its pixels and of
    their squares by channel, 0..255, if they were asked for.
    """

    name: str
    label: int
    data: bytes = b""
    size: tuple[int, int] = (0, 0)
    grey: bool = False
    encoded: bool = False
    plain: bool = False
    digest: int = 0
    moments: NDArray[np.float64] | None = None
    reason: str = ""


class _Batch(NamedTuple):
    """Images of one part: their names, labels, whether moments are asked for, and bytes or why there are none.

    Without bytes, whoever works on the batch reads them.
    """

    part: int
    rows: list[tuple[str, int, bool]]
    read: list[bytes | Exception] | None


def _prepared(images: ClassSource, workers: int) -> Generator[tuple[int, list[Prepared]], None, None]:
    """The part of each batch, and its images; all of one part come before those of the next."""
    apart = workers == 1 or isinstance(images.files, FolderFiles)  # a .zip is read by this process alone
    make = partial(_prepare, images.files if apart else None)
    jobs = (batch for part in PARTS for batch in _batches(images, part, None if apart else images.files))
    with closing(in_order(make, jobs, workers)) as batches:
        for batch, prepared in batches:
            yield batch.part, prepared


def _batches(images: ClassSource, part: int, files: Files | None) -> Iterator[_Batch]:
    """With their bytes, if `files` is given."""
    chosen = images.parts == part
    every = -(-int((images.parts != TEST).sum()) // _SAMPLE)
    found = compress(zip(images.names(), images.labels.tolist(), strict=True), chosen.tolist())
    rows = ((name, label, part != TEST and number % every == 0) for number, (name, label) in enumerate(found))
    batch, read, left = _Batch(part, [], None if files is None else []), None, _BATCH_BYTES
    for row in rows:
        if files is not None and batch.read is not None:
            read = _read(files, row[0])
            batch.read.append(read)
        batch.rows.append(row)
        left -= len(read) if isinstance(read, bytes) else _size(images.files, row[0])
        if len(batch.rows) == _BATCH or left < 0:
            yield batch
            batch, left = _Batch(part, [], None if files is None else []), _BATCH_BYTES
    if batch.rows:
        yield batch


def _size(files: Files, name: str) -> int:
    try:
        return int(str(files.stamp(name)[0]))
    except OSError:  # it is told when the image's turn comes
        return 0


def _read(files: Files, name: str) -> bytes | Exception:
    try:
        return files.read(name)
    except Exception as error:  # whatever it is, it is told when the image's turn comes
        return error


def _prepare(files: Files | None, batch: _Batch) -> list[Prepared]:
    """Reads and decodes; raises UserError when the machine is to blame that an image cannot be read."""
    found = []
    for number, (name, label, sampled) in enumerate(batch.rows):
        try:
            data = _read(files, name) if files else (batch.read or [])[number]
            if isinstance(data, Exception):
                raise data
            kept = as_jpeg(data, 1 if sampled else 8)
        except Exception as error:  # Pillow's plugins and zipfile raise many kinds
            found.append(Prepared(name, label, reason=reason_of(error)))
            continue
        digest = int.from_bytes(hashlib.blake2b(kept.data, digest_size=8).digest())
        plain = bool((kept.pixels == kept.pixels[:1, :1]).all())
        moments = _moments(kept.pixels) if sampled else None
        encoded = kept.data is not data
        found.append(Prepared(name, label, kept.data, kept.size, kept.grey, encoded, plain, digest, moments))
    return found


def _moments(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    mean, deviation = (np.broadcast_to(value[:, 0], 3) for value in cv2.meanStdDev(pixels))
    return np.stack([mean, deviation**2 + mean**2])


@dataclass
class _Counts:
    """What became of the images; side: of all that were square and of one size so far."""

    classes: int
    encoded: int = 0
    grey: bool = True
    plain: bool = True
    side: int | None = 0
    lost: list[Unread] = field(default_factory=list)
    lost_of: dict[tuple[int, int], Unread] = field(default_factory=dict)  # the first of each part and class
    sampled: int = 0
    moments: NDArray[np.float64] = field(default_factory=lambda: np.zeros((2, 3)))

    def __post_init__(self) -> None:
        self.kept = np.zeros((len(PARTS), self.classes), np.int64)
        self.digests = array("Q"), array("Q")  # of images that are not to test on, and of those that are

    def add(self, part: int, batch: Sequence[Prepared]) -> None:
        """Counts a batch."""
        for one in batch:
            if one.reason:
                unread = Unread(-1, one.name, one.reason)
                self.lost.append(unread)
                self.lost_of.setdefault((part, one.label), unread)
                continue
            self.kept[part, one.label] += 1
            self.encoded += one.encoded
            self.grey &= one.grey
            self.plain &= one.plain or part != TRAIN
            if self.side is not None and (one.size[0] != one.size[1] or self.side not in (0, one.size[0])):
                self.side = None
            elif self.side is not None:
                self.side = one.size[0]
            self.digests[part == TEST].append(one.digest)
            if one.moments is not None:
                self.sampled += 1
                self.moments += one.moments

    @property
    def twice(self) -> int:
        """How many test images are training or validation images too."""
        others, tests = (np.frombuffer(digests, np.uint64) for digests in self.digests)
        return int(np.isin(tests, others).sum())

    def check(self, source: str, images: ClassSource) -> None:
        """Raises UserError when a class has no training image left, or a part no image."""
        had = np.bincount(images.labels[images.parts == TRAIN], minlength=self.classes)
        for label in np.flatnonzero((had > 0) & (self.kept[TRAIN] == 0))[:1]:
            raise UserError(
                f"{source}: none of the {had[label]} training image(s) of class {images.classes[label]!r} can "
                f"be read (the first, {_told(self.lost_of[TRAIN, label])}); replace or remove them"
            )
        for part in (VALIDATION, TEST):
            if (images.parts == part).any() and not self.kept[part].any():
                first = next(unread for (where, _), unread in self.lost_of.items() if where == part)
                raise UserError(
                    f"{source}: none of its {PART_NAMES[part]} images can be read (the first, {_told(first)})"
                )

    def mean_std(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """By channel on the 0..1 scale, every image counting as much."""
        mean, squares = self.moments / max(self.sampled, 1) / [[255.0], [255.0**2]]
        deviation = np.maximum(np.sqrt(np.maximum(squares - mean**2, 0)), _LEAST_STD)
        channels = 1 if self.grey else 3
        return tuple(mean[:channels].tolist()), tuple(deviation[:channels].tolist())


def _told(image: Unread) -> str:
    return f"{image.name}: {image.reason}"


class ImageStoreWriter:
    """A context manager: on a clean exit the store is renamed to `path`; else nothing is left.

    images: how many of each part were added. Raises UserError when `path` is there (with `overwrite`: when it
    is something else than such a store), or cannot be written.
    """

    def __init__(self, path: Path, overwrite: bool = False) -> None:
        _check_target(path, overwrite)
        self.path, self._overwrite = path, overwrite
        self.images = [0] * len(PARTS)

    def __enter__(self) -> ImageStoreWriter:
        import zarr  # half a second: too long to be told of a wrong argument

        with writing(self.path):
            self.folder = folder_beside(self.path)
            self._group = zarr.create_group(self.folder, zarr_format=3)
        self._arrays = {f.name: ShardedWriter(self._group, *f) for f in FIELDS}
        self._arrays["offsets"].append(np.array([0]))
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        try:
            if kind is None:
                _check_target(self.path, self._overwrite)  # it may have come in the meantime
                with writing(self.path):
                    put_in_place(self.folder, self.path)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def append(self, part: int, images: Sequence[Prepared]) -> None:
        """Images of one part, after those of the parts before it. Raises UserError when the disk is full."""
        if not images:
            return
        start = self._arrays["jpeg"].rows
        with writing(self.path):
            self._arrays["labels"].append(np.array([one.label for one in images]))
            self._arrays["sizes"].append(np.array([one.size for one in images]))
            self._arrays["jpeg"].append(np.frombuffer(b"".join(one.data for one in images), np.uint8))
            self._arrays["offsets"].append(start + np.cumsum([len(one.data) for one in images]))
        self.images[part] += len(images)

    def finish(self, images: ClassSource, counts: _Counts) -> None:
        """The last shards, and attributes."""
        mean, std = counts.mean_std()
        with writing(self.path):
            digests = {name: writer.finish() for name, writer in self._arrays.items()}
            parts = (self.images[0], self.images[1], self.images[2])
            about = About(
                source=images.title,
                classes=images.classes,
                images=parts,
                mean=mean,
                std=std,
                side=counts.side or None,
                fingerprint=fingerprint(parts, images.classes, digests),
            )
            self._group.attrs.update(about.model_dump(mode="json"))


def _check_target(path: Path, overwrite: bool) -> None:
    check_folder(path, overwrite, is_image_store, "store of images by class")
