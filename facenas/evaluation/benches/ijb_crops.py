"""The face crops of IJB-B and IJB-C: aligned once, then read like any store of faces."""

from __future__ import annotations

import hashlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from tqdm import tqdm

from facenas.data.cache import default_cache
from facenas.data.faces.align import align
from facenas.data.faces.store import SIDE, FaceStore, open_store
from facenas.data.faces.writer import StoreWriter
from facenas.data.images import MAX_PIXELS, Pixels
from facenas.errors import UserError

_VERSION = 1  # of how crops are aligned: kept ones of another are not used
_AT_ONCE = 1024  # 38 MB aligned


class AlignedCrops:
    """Images of a bench out of the store in the cache that `open_crops` keeps."""

    def __init__(self, store: FaceStore) -> None:
        self._store, self.fingerprint = store, store.fingerprint

    def __len__(self) -> int:
        return len(self._store)

    def read(self, numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(m, 112, 112, 3) uint8 RGB, C-ordered; raises UserError when the store was damaged."""
        try:
            return self._store.read(numbers)
        except UserError as error:
            reason = str(error).split(";")[0]
            raise UserError(f"{reason}; delete {self._store.path}, it is made anew") from None


def open_crops(
    folder: Path,
    names: NDArray[np.str_],
    points: NDArray[np.float32],
    templates: NDArray[np.int64],
) -> AlignedCrops:
    """The JPEG files `names` (n,) in `folder`, aligned by their `points` (n, 5, 2) in pixels.

    The first call writes a raw store of faces to the cache (37 kB an image, 17.7 GB for IJB-C), in
    constant memory and whole or not at all; its identities are the template ids (n,). Changed names,
    sizes, times or points make another. Raises UserError that names a crop which is missing or
    damaged, and when the cache has no room.
    """
    cache = default_cache()
    path = cache / f"{folder.parent.name.lower()}-crops-{_key(folder, names, points)[:16]}.zarr"
    try:
        return AlignedCrops(open_store(path))
    except UserError:  # it is not there, or damaged
        shutil.rmtree(path, ignore_errors=True)
    _check_room(cache, len(names))

    def aligned(row: int) -> Pixels:
        return _align(folder / str(names[row]), points[row])

    source = f"{folder}, aligned by the points of its meta file"
    with (
        StoreWriter(path, source, "raw", overwrite=True) as writer,
        ThreadPoolExecutor() as pool,
        tqdm(total=len(names), desc=f"align {folder.parent.name}", disable=None) as bar,
    ):
        for start in range(0, len(names), _AT_ONCE):
            rows = range(start, min(start + _AT_ONCE, len(names)))
            for row, crop in zip(rows, pool.map(aligned, rows), strict=True):
                writer.add(str(templates[row]), crop)
                bar.update()
    return AlignedCrops(open_store(path))


def _key(folder: Path, names: NDArray[np.str_], points: NDArray[np.float32]) -> str:
    """sha256 of everything that the aligned crops depend on."""
    facts = np.empty((len(names), 2), np.int64)
    for row, name in enumerate(names.tolist()):
        try:
            status = os.stat(f"{folder}/{name}")
        except OSError as error:
            raise UserError(
                f"{folder}/{name}: cannot be read ({error.strerror}), but the meta files name it; "
                "unpack all of the bench"
            ) from None
        facts[row] = status.st_size, status.st_mtime_ns
    digest = hashlib.sha256(f"{_VERSION}\n{folder.resolve()}\n".encode(errors="backslashreplace"))
    for array in (names, facts, points):
        digest.update(f"{array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _check_room(cache: Path, images: int) -> None:
    """Before an hour's work, not after."""
    place = next(parent for parent in (cache, *cache.parents) if parent.exists())
    needed, free = images * SIDE * SIDE * 3, shutil.disk_usage(place).free
    if free < needed:
        raise UserError(
            f"{cache}: has {free / 1e9:.1f} GB free, but the aligned crops take {needed / 1e9:.1f} GB; "
            "make room or set FACENAS_CACHE to another folder"
        )


def _align(path: Path, points: NDArray[np.float32]) -> Pixels:
    try:
        data = path.read_bytes()
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        if height * width > MAX_PIXELS:
            raise ValueError("it has more than 50 megapixels")
        return align(simplejpeg.decode_jpeg(data, "RGB"), points)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise UserError(f"{path}: is damaged ({error}); unpack it again") from None
