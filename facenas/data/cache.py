"""The cache of decoded sets: four .npy arrays and meta.json an entry, memory-mapped by every process.

The pixels are in memory once, however many processes train on them. An entry's name follows from where its
images come from and how they are decoded; its fingerprint from the pixels and labels alone.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from facenas.data.found import Unread, write_found
from facenas.data.images import Pixels, resize
from facenas.errors import UserError
from facenas.files import publish_folder

if TYPE_CHECKING:
    from facenas.data.datasets import ClassData

Labels = NDArray[np.int64]

# Raise it when a decoded set would look different: old entries are then not used.
FORMAT_VERSION = 1
_ARRAYS = {"train_images": 4, "train_labels": 1, "test_images": 4, "test_labels": 1}
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, eq=False)
class ImageSet:
    """A classification set.

    images: (n, h, w, c) uint8 with h = w; labels: (n,) int64, indices into `classes`; mean, std:
    per channel, on the 0..1 scale; flip: whether training may mirror images; crop_size: side of
    training crops in pixels; fingerprint: sha256 of the four arrays; validation_images: how many of the
    training images, the last ones, are the set's own validation images.
    """

    name: str
    train_images: Pixels
    train_labels: Labels
    test_images: Pixels
    test_labels: Labels
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool
    crop_size: int
    fingerprint: str
    validation_images: int = 0

    @property
    def in_channels(self) -> int:
        """1 for grey images, 3 for color."""
        return int(self.train_images.shape[3])

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def image_size(self) -> int:
        """Side of the stored images, in pixels."""
        return int(self.train_images.shape[1])


def crop_side(image_set: ClassData, pad: int, crop: int | None) -> int:
    """Side of the training crops in pixels; raises UserError when the padded images are smaller."""
    side, size = crop or image_set.crop_size, image_set.image_size
    if side > size + 2 * pad:
        raise UserError(
            f"recipe.crop {side}: images of {size} pixels padded by {pad} are smaller; "
            "raise recipe.pad or lower recipe.crop"
        )
    return side


class Images(Protocol):
    """Images that may not be in memory: an array (n, h, w, c) uint8 as far as its shape and slices go.

    What cannot be read is missing in the slices, and listed in an attribute `unread` then.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __getitem__(self, run: slice, /) -> Pixels: ...


@dataclass(frozen=True)
class Decoded:
    """A whole set, to be written at `size` x `size` pixels.

    `mean` and `std` (per channel, 0..1 scale) at None: compute from training; `crop_size` at None: `size`;
    validation_images: as in `ImageSet`; test_from, ignored: see `Arrangement`; left_out: what was not even
    listed.
    """

    train: tuple[Images, Labels]
    test: tuple[Images, Labels]
    classes: tuple[str, ...]
    size: int
    flip: bool
    crop_size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    validation_images: int = 0
    test_from: str = ""
    ignored: tuple[str, ...] = ()
    left_out: tuple[Unread, ...] = ()


def default_cache() -> Path:
    """`$FACENAS_CACHE`, else `$XDG_CACHE_HOME/facenas`, else `~/.cache/facenas`."""
    if own := os.environ.get("FACENAS_CACHE"):
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "facenas"


def cached(name: str, identity: list[Any], decode: Callable[[], Decoded], cache: Path | None = None) -> Path:
    """The entry of a set in `cache`, decoded on the first call only; raises UserError as `decode` does.

    identity: JSON values that change whenever the decoded set could (paths, sizes, times, options).
    """
    digest = hashlib.sha256(json.dumps([FORMAT_VERSION, name, identity]).encode()).hexdigest()
    key = f"{re.sub(r'[^A-Za-z0-9_-]+', '_', name)[:60]}-{digest[:16]}"
    entry = (cache or default_cache()) / key
    if not entry.is_dir():
        publish_folder(
            entry,
            lambda folder: write_entry(name, decode(), folder),
            replace=False,
            remedy="set FACENAS_CACHE to another folder",
        )
    used(entry)
    return entry


@dataclass(frozen=True)
class Kept:
    """Something in the cache: what it is, its bytes on disk, when it was last used (seconds since 1970)."""

    path: Path
    kind: str
    bytes: int
    used: float


# What facenas names so, and nothing else in the folder, is its own.
_KINDS = (
    ("crops", re.compile(r".+-crops-[0-9a-f]{16}\.zarr")),
    ("copy of a store", re.compile(r"remote-[0-9a-f]{16}")),
    ("generated faces", re.compile(r"generated-.+\.zarr")),
    ("data set", re.compile(r".+-[0-9a-f]{16}")),
    ("face detector", re.compile(r"face_detection_yunet_\w+\.onnx")),
    ("embeddings", re.compile(r"[0-9a-f]{32}")),
)


def kept(cache: Path | None = None) -> list[Kept]:
    """All that is in the cache, the least recently used first."""
    cache = cache or default_cache()
    found = []
    for path in [*cache.glob("*"), *cache.glob("embeddings/*")]:
        for kind, pattern in _KINDS:
            if pattern.fullmatch(path.name) and (kind == "embeddings") == (path.parent != cache):
                files = [path, *path.rglob("*")] if path.is_dir() else [path]
                status = [file.stat() for file in files]
                size = sum(s.st_size for f, s in zip(files, status, strict=True) if f.is_file())
                found.append(Kept(path, kind, size, max(s.st_mtime for s in status)))
                break
    return sorted(found, key=lambda entry: entry.used)


def shrink(limit: int, cache: Path | None = None) -> list[Kept]:
    """Removes the least recently used until at most `limit` bytes are left; gives what it removed.

    Embeddings that a process is computing stay.
    """
    entries, removed = kept(cache), []
    total = sum(entry.bytes for entry in entries)
    for entry in entries:
        if total <= limit or (entry.kind == "embeddings" and _is_locked(entry.path)):
            continue
        shutil.rmtree(entry.path) if entry.path.is_dir() else entry.path.unlink()
        total -= entry.bytes
        removed.append(entry)
    return removed


def _is_locked(folder: Path) -> bool:
    lock = FileLock(folder / ".lock")
    try:
        with lock.acquire(timeout=0):
            return False
    except Timeout:
        return True


def used(entry: Path) -> None:
    """Notes that somebody uses an entry: the least recently used goes first."""
    with suppress(OSError):  # of somebody else, or on a disk that is read only
        os.utime(entry)


def stamp(path: Path) -> list[Any]:
    """What tells a file's versions apart: resolved path, bytes, modification time in ns."""
    status = path.stat()
    return [str(path.resolve()), status.st_size, status.st_mtime_ns]


def is_entry(folder: Path) -> bool:
    """Whether the folder is an entry of the cache."""
    return all((folder / name).is_file() for name in ("meta.json", "train_images.npy"))


def write_entry(name: str, decoded: Decoded, folder: Path) -> None:
    """Decode the set into `folder`, block by block, without the images that cannot be read.

    Raises UserError when a class loses all its training images so.
    """
    unread = list(decoded.left_out)
    validation_images = decoded.validation_images
    for part, (images, labels) in (("train", decoded.train), ("test", decoded.test)):
        _write_images(folder / f"{part}_images.npy", images, decoded.size, f"{name} {part}")
        lost: list[Unread] = getattr(images, "unread", [])
        kept = np.delete(labels, [one.row for one in lost])
        np.save(folder / f"{part}_labels.npy", kept)
        if part == "train":
            rest = len(labels) - decoded.validation_images
            _check_lost(name, decoded.classes, labels[:rest], [one for one in lost if one.row < rest])
            validation_images -= sum(one.row >= rest for one in lost)
        elif not len(kept):
            raise UserError(f"{name}: none of its test images can be read (the first, {_told(lost[0])})")
        unread += lost
    arrays = {key: np.load(folder / f"{key}.npy", mmap_mode="r") for key in _ARRAYS}
    mean, std = decoded.mean, decoded.std
    if mean is None or std is None:
        mean, std = mean_std(arrays["train_images"])
    print_of_set = fingerprint(arrays.values())
    if validation_images:  # other parts of the same images are another set
        text = f"{print_of_set} {validation_images}"
        print_of_set = hashlib.sha256(text.encode()).hexdigest()
    meta = {
        "name": name,
        "classes": decoded.classes,
        "mean": mean,
        "std": std,
        "flip": decoded.flip,
        "crop_size": decoded.crop_size or decoded.size,
        "fingerprint": print_of_set,
        "validation_images": validation_images,
    }
    (folder / "meta.json").write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
    train, test = (_blocks(arrays[key]) for key in ("train_images", "test_images"))
    write_found(folder, train, test, unread, decoded.test_from, decoded.ignored)


def _blocks(images: Pixels) -> Iterator[Pixels]:
    return (images[run] for run in slices(images.shape))


def _check_lost(name: str, classes: tuple[str, ...], labels: Labels, lost: list[Unread]) -> None:
    """Raises UserError when a class has no image left; labels: with those of the lost."""
    had, left = (
        np.bincount(some, minlength=len(classes))
        for some in (labels, np.delete(labels, [one.row for one in lost]))
    )
    for label in np.flatnonzero((had > 0) & (left == 0))[:1]:
        first = next(one for one in lost if labels[one.row] == label)
        raise UserError(
            f"{name}: none of the {had[label]} training image(s) of class {classes[label]!r} can be read (the "
            f"first, {_told(first)}); replace or remove them"
        )


def _told(image: Unread) -> str:
    return f"{image.name}: {image.reason}"


def open_image_set(folder: Path) -> ImageSet:
    """The set in a cache entry; its arrays are memory-mapped, copy-on-write.

    Raises UserError when a file is missing, torn or of another shape.
    """
    arrays: dict[str, Any] = {}
    for name, ndim in _ARRAYS.items():
        try:
            arrays[name] = np.load(folder / f"{name}.npy", mmap_mode="c")
        except (OSError, ValueError, EOFError):
            raise _damaged(folder / f"{name}.npy") from None
        kind = (ndim, np.dtype(np.uint8 if ndim == 4 else np.int64))
        images = arrays[name.replace("labels", "images")]
        if (arrays[name].ndim, arrays[name].dtype) != kind or len(arrays[name]) != len(images):
            raise _damaged(folder / f"{name}.npy")
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        meta |= {key: tuple(meta[key]) for key in ("classes", "mean", "std")}
        return ImageSet(**arrays, **meta)
    except (OSError, ValueError, TypeError, KeyError):
        raise _damaged(folder / "meta.json") from None


def fingerprint(arrays: Iterable[NDArray[Any]]) -> str:
    """sha256 over the bytes of C-ordered arrays, each with its dtype and shape before it."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).data)
    return digest.hexdigest()


def mean_std(images: Pixels) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Per-channel mean and standard deviation of images (n, h, w, c) uint8, on the 0..1 scale.

    Sums are of whole numbers, so exact in any order. The deviation is 1/255 at least: images of one
    color are then normalized to 0, not to NaN.
    """
    channels = images.shape[3]
    total, squares = np.zeros(channels, np.int64), np.zeros(channels, np.int64)
    for run in slices(images.shape):
        values = images[run].reshape(-1, channels).astype(np.int64)
        total += values.sum(axis=0)
        squares += (values * values).sum(axis=0)
    count = images.size // channels
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 1.0))
    return tuple((mean / 255).tolist()), tuple((std / 255).tolist())


def slices(shape: tuple[int, ...]) -> Iterator[slice]:
    """Cuts images (n, h, w, c) uint8 into runs of about 1 MiB: the extra memory of any pass."""
    step = max(1, _BLOCK_BYTES // math.prod(shape[1:]))
    return (slice(start, min(start + step, shape[0])) for start in range(0, shape[0], step))


def _write_images(path: Path, images: Images, size: int, label: str) -> None:
    """Stream blocks into a .npy file: on a full disk, an error where a mapped file would crash."""
    shape = (images.shape[0], size, size, images.shape[3])
    header: dict[str, Any] = {"descr": "|u1", "fortran_order": False, "shape": shape}
    written = 0
    bar = tqdm(total=shape[0], desc=label, unit="image", disable=None, leave=False)
    with bar, path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for run in slices(images.shape):
            block = _resized(images[run], size)
            file.write(np.ascontiguousarray(block).data)
            bar.update(len(block))
            written += len(block)
        if written < shape[0]:  # NumPy leaves room for the number of rows, so it fits again
            header["shape"] = (written, *shape[1:])
            file.seek(0)
            np.lib.format.write_array_header_1_0(file, header)


def _resized(block: Pixels, size: int) -> Pixels:
    if block.shape[1:3] == (size, size):
        return block
    grey = block.shape[3] == 1
    pictures = map(Image.fromarray, block[..., 0] if grey else block)
    resized = np.stack([np.asarray(resize(picture, size)) for picture in pictures])
    return resized[..., None] if grey else resized


def _damaged(path: Path) -> UserError:
    return UserError(
        f"{path}: is missing or damaged; delete the cache entry {path.parent} to have it made anew"
    )
