"""One entry of the cache: four .npy arrays and meta.json, and the set that they hold."""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from facenas.data.images import Pixels
from facenas.data.source import Decoded, Labels, Part, slices
from facenas.errors import UserError

# Raise it when a decoded set would look different: old entries are then not used.
FORMAT_VERSION = 1
_ARRAYS = {"train_images": 4, "train_labels": 1, "test_images": 4, "test_labels": 1}


@dataclass(frozen=True, eq=False)
class ImageSet:
    """A classification set.

    images: (n, h, w, c) uint8 with h = w; labels: (n,) int64, indices into `classes`; mean, std:
    per channel, on the 0..1 scale; flip: whether training may mirror images; crop_size: side of
    training crops in pixels; fingerprint: sha256 of the four arrays.
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

    @property
    def in_channels(self) -> int:
        """1 for grey images, 3 for colour."""
        return int(self.train_images.shape[3])

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def image_size(self) -> int:
        """Side of the stored images, in pixels."""
        return int(self.train_images.shape[1])


def write_entry(name: str, decoded: Decoded, folder: Path) -> None:
    """Decode the set into `folder`, block by block."""
    for part, half in (("train", decoded.train), ("test", decoded.test)):
        _write_images(folder / f"{part}_images.npy", half, f"{name} {part}")
        np.save(folder / f"{part}_labels.npy", half.labels)
    arrays = {key: np.load(folder / f"{key}.npy", mmap_mode="r") for key in _ARRAYS}
    if decoded.mean is None or decoded.std is None:
        mean, std = mean_std(arrays["train_images"])
    else:
        mean, std = decoded.mean, decoded.std
    meta = {
        "name": name,
        "classes": decoded.classes,
        "mean": mean,
        "std": std,
        "flip": decoded.flip,
        "crop_size": decoded.crop_size,
        "fingerprint": fingerprint(arrays.values()),
    }
    (folder / "meta.json").write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")


def read_entry(folder: Path) -> ImageSet:
    """The set in `folder`; raises UserError when a file is missing, torn or of another shape."""
    arrays: dict[str, Any] = {k: _load(folder / f"{k}.npy", ndim) for k, ndim in _ARRAYS.items()}
    for part in ("train", "test"):
        if len(arrays[f"{part}_images"]) != len(arrays[f"{part}_labels"]):
            raise _damaged(folder / f"{part}_labels.npy")
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
    colour are then normalised to 0, not to NaN.
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


def _write_images(path: Path, part: Part, label: str) -> None:
    """Stream blocks into a .npy file: on a full disk, an error where a mapped file would crash."""
    header = {"descr": "|u1", "fortran_order": False, "shape": part.shape}
    bar = tqdm(total=part.shape[0], desc=label, unit="image", disable=None, leave=False)
    with bar, path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for block in part.blocks:
            file.write(np.ascontiguousarray(block).data)
            bar.update(len(block))


def _load(path: Path, ndim: int) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="c")
    except (OSError, ValueError, EOFError):
        raise _damaged(path) from None
    if array.ndim != ndim or array.dtype != (np.uint8 if ndim == 4 else np.int64):
        raise _damaged(path)
    return array


def _damaged(path: Path) -> UserError:
    return UserError(
        f"{path}: is missing or damaged; delete the cache entry {path.parent} to have it made anew"
    )


def publish(entry: Path, write: Callable[[Path], object]) -> None:
    """Has `write` fill a new folder beside `entry`, and renames it: the entry is whole or not there.

    A killed process can leave the other, hidden folder behind, which nothing reads. Raises UserError when
    the cache cannot be written.
    """
    partial = entry.with_name(f".{entry.name}.{uuid.uuid4().hex}")
    try:
        partial.mkdir(parents=True)
        write(partial)
        _rename(partial, entry)
    except OSError as error:
        raise UserError(
            f"{entry.parent}: cannot be written ({error.strerror or error}); set FACENAS_CACHE to another "
            "folder"
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _rename(partial: Path, entry: Path) -> None:
    try:
        partial.rename(entry)
    except OSError:
        # Another process was faster; what it published is the same.
        if not entry.is_dir():
            raise
