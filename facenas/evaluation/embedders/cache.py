"""Embeddings of all images of a bench: computed once, kept on disk, and gone on with after an interruption."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from filelock import FileLock, Timeout
from tqdm import tqdm

from facenas.data.cache import default_cache, used
from facenas.data.feed import ahead
from facenas.device import core_count, threads
from facenas.errors import SearchStoppedError, UserError
from facenas.evaluation.benches.images import Images
from facenas.evaluation.embedders.embedder import Embedder, Later, Mirrored, Pixels, Rows
from facenas.files import is_place, scratch_folder, write_json

log = logging.getLogger(__name__)
# Raise it when the same network and images would give other embeddings: old ones are then not used.
_VERSION = 1
_SAVE_SECONDS = 5.0
_HEADER = 128  # bytes of a .npy file before its first row, whatever the number of rows
PLAIN, MIRRORED = "plain", "mirrored"


def extract(
    embedder: Embedder,
    images: Images,
    *,
    flip: bool = True,
    batch_size: int | None = None,
    workers: int | None = None,
    cache: Path | None = None,
    keep: bool = True,
) -> Rows:
    """(n, E) float32 embeddings of all images, not normalized, read-only; `flip`: plus the mirror images'.

    `workers` threads (by default one a core) each read a batch and run the network on it, or hand it to a GPU
    that computes while they read the next. batch_size: by default what pays there, 64 images, on a GPU 512.
    Rows go to disk as they come, below `cache` (by default facenas' own), in a folder of this network and these
    images: what is there is not computed again, plain and mirror images apart, and memory does not grow with n.
    Without `keep`, and for modules and functions, whose code nobody can compare, nothing stays there.
    Raises UserError when an image cannot be read, an embedding is not finite, or the cache cannot be written.
    """
    keep, kinds = keep and embedder.cacheable, (PLAIN, MIRRORED) if flip else (PLAIN,)
    with (
        _written(cache or default_cache()) as root,
        _folder(root, _name(embedder, images), keep) as folder,
    ):
        found = _fill_in(folder, kinds, embedder, images, batch_size, workers)
        # Of two their sum. Source: `mk-minchul/AdaFace:utils.py`.
        result = np.add(*found) if flip else found[0] if keep else np.array(found[0])
        result.setflags(write=False)
        return result


def keep_units(embedder: Embedder, images: Images, dtype: str = "float32", cache: Path | None = None) -> Path:
    """The folder with `plain.npy` and `mirrored.npy`: unit embeddings of all images and of their mirror images.

    Each is (n, E) of `dtype`, float32 or float16. What is there is not computed again. Raises as `extract`.
    """
    unit = replace(embedder, run=_units(embedder.run), fingerprint=f"{embedder.fingerprint} unit {dtype}")
    with _written(cache or default_cache()) as root, _folder(root, _name(unit, images), True) as folder:
        _fill_in(folder, (PLAIN, MIRRORED), unit, images, dtype=dtype)
        return folder


def _units(run: Callable[[Pixels, Mirrored], Later]) -> Callable[[Pixels, Mirrored], Later]:
    """The same `Embedder.run` with rows of unit length."""

    def begin(images: Pixels, mirrored: Mirrored) -> Later:
        later = run(images, mirrored)
        return lambda: [rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12) for rows in later()]

    return begin


def _name(embedder: Embedder, images: Images) -> str:
    key = f"{_VERSION} {embedder.fingerprint} {images.fingerprint} {len(images)} {embedder.size}"
    return hashlib.sha256(key.encode()).hexdigest()[:32]


@contextmanager
def _written(root: Path) -> Iterator[Path]:
    """Turns the errors of writing there into a UserError."""
    try:
        yield root
    except (OSError, SearchStoppedError) as error:
        reason = getattr(error, "strerror", None) or error
        remedy = "set" if is_place(error) else "make room, or set"
        raise UserError(
            f"{root}: cannot be written ({reason}); {remedy} FACENAS_CACHE to another folder, and run "
            "it again: it goes on where it was"
        ) from None


def _fill_in(
    folder: Path,
    kinds: tuple[str, ...],
    embedder: Embedder,
    images: Images,
    batch_size: int | None = None,
    workers: int | None = None,
    dtype: str = "float32",
) -> list[Rows]:
    """The rows of each kind, (n, E), in files of `folder` that are whole then."""
    stored = {kind: RowFile(folder / f"{kind}.npy", len(images), embedder.size, dtype) for kind in kinds}
    # Many calls of one thread are faster than one of many; what runs alone may use all.
    with nullcontext() if embedder.alone else threads(1):
        _fill(stored, embedder, images, batch_size or embedder.batch, workers or core_count())
    return [np.asarray(rows.read()) for rows in stored.values()]


@contextmanager
def _folder(root: Path, name: str, keep: bool) -> Iterator[Path]:
    """One process at a time has it; another waits, and then finds the work done."""
    if not keep:
        with scratch_folder(root) as scratch:
            yield scratch
        return
    folder = root / "embeddings" / name
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("another process computes these embeddings; waiting for it")
        lock.acquire()
    used(folder)
    try:
        yield folder
    finally:
        lock.release()


class _Chunk(NamedTuple):
    """Images start..stop-1, and what is still to be computed of them: plain, mirrored or both."""

    start: int
    stop: int
    kinds: tuple[str, ...]


def _chunks(stored: Mapping[str, RowFile], count: int, batch_size: int) -> Iterator[_Chunk]:
    done = {kind: rows.count for kind, rows in stored.items()}
    start = min(done.values())
    while start < count:
        stop = min(start + batch_size, count, *(rows for rows in done.values() if rows > start))
        yield _Chunk(start, stop, tuple(kind for kind, rows in done.items() if rows <= start))
        start = stop


def _fill(
    stored: Mapping[str, RowFile],
    embedder: Embedder,
    images: Images,
    batch_size: int,
    workers: int,
) -> None:
    """Appends what is missing. Whatever stops it, what was computed before counts."""
    chunks = list(_chunks(stored, len(images), batch_size))
    if not chunks:
        return
    results = ahead(lambda chunk: _begun(embedder, images, chunk), chunks, workers)
    bar = tqdm(
        desc=f"embeddings of {embedder.name}",
        total=len(images),
        initial=chunks[0].start,
        unit="image",
        disable=None,
        leave=False,
    )
    saved = time.monotonic()
    try:
        with bar:
            for chunk, later in zip(chunks, results, strict=True):
                for kind, rows in _rows(embedder, chunk, later).items():
                    stored[kind].append(rows)
                bar.update(chunk.stop - chunk.start)
                if time.monotonic() - saved > _SAVE_SECONDS:
                    for kept in stored.values():
                        kept.save()
                    saved = time.monotonic()
    finally:
        for kept in stored.values():
            kept.close()


def _begun(embedder: Embedder, images: Images, chunk: _Chunk) -> Later:
    pixels = images.read(np.arange(chunk.start, chunk.stop))
    return embedder.begin(pixels, [kind == MIRRORED for kind in chunk.kinds])


def _rows(embedder: Embedder, chunk: _Chunk, later: Later) -> dict[str, Rows]:
    found = dict(zip(chunk.kinds, later(), strict=True))
    for rows in found.values():
        wrong = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if len(wrong):
            raise UserError(
                f"{embedder.name}: its embedding of image {chunk.start + wrong[0]} is not finite (NaN or "
                "infinity); check the network, and the mean and std of its input"
            )
    return found


class RowFile:
    """A .npy file of (total, size) numbers, filled row by row, and `<name>.json`: how many can be trusted.

    The record is written after the rows are on disk: what lies behind the rows it counts came to be just
    before a kill or a full disk, and is written over. Rows that do not have the record's CRC-32 count for
    nothing. Rows are appended, not assigned to a memory map: a map on a full disk ends the process by SIGBUS.
    One process at a time may have it open. Errors of the disk are raised as OSError.
    """

    def __init__(self, path: Path, total: int, size: int, dtype: str = "float32") -> None:
        self.path, self._record, self._shape = path, path.with_suffix(".json"), (total, size)
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._file: IO[bytes] | None = None
        self.count, self._crc = 0, 0
        if not self._record.exists():
            return
        try:
            said = json.loads(self._record.read_text(encoding="utf-8"))
            self.count, self._crc = int(said["rows"]), int(said["crc32"])
            if self.count <= total and zlib.crc32(self.read().data) == self._crc:
                return
        except (OSError, ValueError, KeyError, TypeError):
            pass
        log.warning("%s: is damaged; its embeddings are computed again", self.path)
        self.count, self._crc = 0, 0

    def append(self, rows: Rows) -> None:
        """Writes rows (m, size) behind the others; `save` makes them count."""
        if self._file is None:
            self._file = self._open()
        left = np.ascontiguousarray(rows, self._dtype).data.cast("B")
        crc = zlib.crc32(left, self._crc)
        while left:  # unbuffered: on a full disk it writes less, then raises
            left = left[self._file.write(left) :]
        self.count, self._crc = self.count + len(rows), crc

    def save(self) -> None:
        """Forces the rows to disk, then the record, in the place of the one before."""
        if self._file is not None:
            os.fsync(self._file.fileno())
            write_json(self._record, {"rows": self.count, "crc32": self._crc})

    def close(self) -> None:
        """Saves; a further `append` opens it anew."""
        try:
            self.save()
        finally:
            if self._file is not None:
                self._file.close()
                self._file = None

    def read(self) -> Rows:
        """(rows so far, size), mapped and read-only."""
        shape = (self.count, self._shape[1])
        if not self.count:
            return np.zeros(shape, self._dtype)
        return np.memmap(self.path, self._dtype, "r", _HEADER, shape)

    def _open(self) -> IO[bytes]:
        file: IO[bytes] = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", 0)
        header = {"descr": self._dtype.str, "fortran_order": False, "shape": self._shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.seek(_HEADER + self.count * self._shape[1] * self._dtype.itemsize)
        file.truncate()
        return file
