"""Embeddings of all images of a bench: computed once, kept on disk, and gone on with after an interruption."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from filelock import FileLock, Timeout
from tqdm import tqdm

from facenas.data.faces.loader import ahead
from facenas.data.image_sets import default_cache
from facenas.device import core_count
from facenas.errors import UserError
from facenas.evaluation.embedders import Embedder
from facenas.evaluation.protocols.images import Images
from facenas.evaluation.stored_rows import Rows, StoredRows

log = logging.getLogger(__name__)
# Raise it when the same network and images would give other embeddings: old ones are then not used.
_VERSION = 1
_SAVE_SECONDS = 5.0
_BLOCK = 1 << 16  # rows that are added at a time
PLAIN, MIRRORED = "plain", "mirrored"


def extract(
    embedder: Embedder,
    images: Images,
    *,
    flip: bool = True,
    batch_size: int = 64,
    workers: int | None = None,
    cache: Path | None = None,
) -> Rows:
    """(n, E) float32 embeddings of all images, not normalised, read-only; `flip`: plus the mirror images'.

    `workers` threads (by default one a core) each read a batch and run the network on it, so that one decodes
    while another computes: open the embedder with one thread. Rows go to disk as they come, below `cache` (by
    default facenas' own), in a folder of this network and these images: what is there is not computed again,
    plain and mirror images apart, and memory does not grow with n. Raises UserError when an image cannot be
    read, an embedding is not finite, or the cache cannot be written.
    """
    key = f"{_VERSION} {embedder.fingerprint} {images.fingerprint} {len(images)} {embedder.size}"
    name = hashlib.sha256(key.encode()).hexdigest()[:32]
    folder = (cache or default_cache()) / "embeddings" / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            kinds = (PLAIN, MIRRORED) if flip else (PLAIN,)
            stored = {kind: StoredRows(folder / kind, embedder.size) for kind in kinds}
            _fill(stored, embedder, images, batch_size, workers or core_count())
            return _sum([rows.read() for rows in stored.values()])
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written ({error.strerror or error}); make room, or set FACENAS_CACHE to "
            "another folder, and run it again: it goes on where it was"
        ) from None


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time; another waits, and then finds the work done."""
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("another process computes these embeddings; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


class _Chunk(NamedTuple):
    """Images start..stop-1, and what is still to be computed of them: plain, mirrored or both."""

    start: int
    stop: int
    kinds: tuple[str, ...]


def _chunks(done: Mapping[str, int], count: int, batch_size: int) -> Iterator[_Chunk]:
    start = min(done.values())
    while start < count:
        ends = (start + batch_size, count, *(rows for rows in done.values() if rows > start))
        stop = min(ends)
        yield _Chunk(start, stop, tuple(kind for kind, rows in done.items() if rows <= start))
        start = stop


def _fill(
    stored: Mapping[str, StoredRows],
    embedder: Embedder,
    images: Images,
    batch_size: int,
    workers: int,
) -> None:
    """Appends what is missing. Whatever stops it, what was computed before counts."""
    done = {kind: rows.rows for kind, rows in stored.items()}
    chunks = list(_chunks(done, len(images), batch_size))
    if not chunks:
        return
    results = ahead(lambda chunk: _embed(embedder, images, chunk), chunks, workers)
    total, first = len(images), chunks[0].start
    label = f"embeddings of {embedder.name}"
    bar = tqdm(total=total, initial=first, desc=label, unit="image", disable=None, leave=False)
    saved = time.monotonic()
    try:
        with bar:
            for chunk, found in zip(chunks, results, strict=True):
                for kind, rows in found.items():
                    stored[kind].append(rows)
                bar.update(chunk.stop - chunk.start)
                if time.monotonic() - saved > _SAVE_SECONDS:
                    _save(stored)
                    saved = time.monotonic()
    finally:
        _save(stored)
        for kind in stored:
            stored[kind].close()


def _save(stored: Mapping[str, StoredRows]) -> None:
    for rows in stored.values():
        rows.save()


def _embed(embedder: Embedder, images: Images, chunk: _Chunk) -> dict[str, Rows]:
    pixels = images.read(np.arange(chunk.start, chunk.stop))
    found = {}
    for kind in chunk.kinds:
        turned = pixels if kind == PLAIN else np.ascontiguousarray(pixels[:, :, ::-1])
        found[kind] = rows = embedder(turned)
        wrong = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if len(wrong):
            raise UserError(
                f"{embedder.name}: its embedding of image {chunk.start + wrong[0]} is not finite (NaN or "
                "infinity); check the network, and --mean and --std"
            )
    return found


def _sum(arrays: list[Rows]) -> Rows:
    """Of one array itself, mapped; of two their sum, in memory. Source: `mk-minchul/AdaFace:utils.py`."""
    if len(arrays) == 1:
        return arrays[0]
    plain, mirrored = arrays
    total = np.empty(plain.shape, np.float32)
    for start in range(0, len(total), _BLOCK):
        part = slice(start, start + _BLOCK)
        np.add(plain[part], mirrored[part], out=total[part])
    total.setflags(write=False)
    return total
