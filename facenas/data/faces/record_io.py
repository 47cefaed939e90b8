"""MXNet's RecordIO, read without mxnet: `.rec`, `.idx`, and InsightFace's use of them.

A `.rec` is a row of chunks, little-endian: magic, a word of 3 bits (0 whole, 1 first, 2 middle, 3 last
part) and 29 bits of length, the bytes, zeros up to a multiple of 4. A payload is cut where it holds
the magic at a multiple of 4, and that magic is left out. A payload is a header (flag, label, id, id2),
`flag` more float32 labels, and the image file. Sources: `dmlc/dmlc-core:src/recordio.cc`,
`apache/mxnet:python/mxnet/recordio.py`.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facenas.errors import UserError
from facenas.files import open_regular

MAGIC = 0xCED7230A
_MAGIC_BYTES = struct.pack("<I", MAGIC)
_HEADER = struct.Struct("<IfQQ")
_BUFFER = 1 << 20
_MOST_KEYS = 1 << 28  # more would be nonsense, and a table of over 2 GB
_LINES_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class Record:
    """One payload, taken apart; `image` is empty in records that tell of identities."""

    labels: tuple[float, ...]
    several: bool  # whether the labels came as an array: so do key ranges
    image: bytes


class RecordFile:
    """An open `.rec` file. Raises UserError when it cannot be read.

    Read, not mapped: the pages of a mapped file would count as this process's memory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = open_regular(path, _BUFFER)
            self._size = os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from None

    def __reduce__(self) -> tuple[Callable[[Path], RecordFile], tuple[Path]]:
        return _opened, (self.path.resolve(),)

    def payload(self, offset: int) -> bytes:
        """The bytes of the record whose first chunk begins at `offset`.

        Raises UserError when there is no chunk, or the file ends within it.
        """
        kind, data, following = self._chunk(offset)
        if kind == 0:
            return data
        if kind != 1:
            raise self._broken(offset, "is not the first part of a record")
        parts = [data]
        while kind != 3:
            kind, data, following = self._chunk(following)
            if kind not in (2, 3):
                raise self._broken(offset, "is a record without its last part")
            parts.append(data)
        return _MAGIC_BYTES.join(parts)

    def record(self, offset: int) -> Record:
        """The record at `offset`, taken apart; raises UserError when it is none."""
        payload = self.payload(offset)
        if len(payload) < _HEADER.size:
            raise self._broken(offset, f"is a record of only {len(payload)} bytes")
        flag, label, _, _ = _HEADER.unpack_from(payload)
        start = _HEADER.size + 4 * flag
        if start > len(payload):
            raise self._broken(offset, f"is a record of {len(payload)} bytes with {flag} labels")
        labels = struct.unpack_from(f"<{flag}f", payload, _HEADER.size) if flag else (label,)
        return Record(labels, flag > 0, payload[start:])

    def _chunk(self, offset: int) -> tuple[int, bytes, int]:
        """(kind, bytes, offset of the next chunk)."""
        if offset > self._size - 8:
            raise self._broken(offset, f"is past its end at byte {self._size}: it is truncated")
        try:
            self._file.seek(offset)
            magic, word = struct.unpack("<II", self._file.read(8))
            if magic != MAGIC:
                raise self._broken(offset, "is no record: the magic number is wrong")
            size = word & (1 << 29) - 1
            data = self._file.read(size)
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read ({error.strerror})") from None
        if len(data) < size:
            raise self._broken(offset, "is a record that the file's end cuts off: it is truncated")
        return word >> 29, data, offset + 8 + (size + 3) // 4 * 4

    def _broken(self, offset: int, what: str) -> UserError:
        return UserError(f"{self.path}: byte {offset} {what}; give a whole copy with its own .idx")


@lru_cache(1)
def _opened(path: Path) -> RecordFile:
    """In another process, which is handed the file again and again."""
    return RecordFile(path)


class Index:
    """An `.idx` file: lines `key<TAB>offset` in any order, keys 0 or more.

    A table by key: sorting two columns of 44 million lines would take over a gigabyte. Raises
    UserError when the file is missing, empty, has other lines, or lists a key twice.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 1 + max((int(block[:, 0].max()) for block in self._blocks()), default=-1)
        self._table = np.zeros(self.size, np.int64)  # offset + 1, and 0 where there is no such key
        lines = 0
        for block in self._blocks():
            self._table[block[:, 0]] = block[:, 1] + 1
            lines += len(block)
        if not lines or self.count(0, self.size) != lines:
            raise UserError(f"{path}: is empty or lists a key twice; give a whole copy")

    def offset(self, key: int) -> int | None:
        """The byte where the record `key` begins; None when it is not listed."""
        return int(self._table[key]) - 1 if key < self.size and self._table[key] else None

    def count(self, start: int, stop: int) -> int:
        """How many of the keys start..stop-1 are listed."""
        return int(np.count_nonzero(self._table[start:stop]))

    def offsets(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """(key, offset) of the listed keys in start..stop-1, by key."""
        for first in range(start, stop, _LINES_AT_ONCE):
            some = self._table[first : min(stop, first + _LINES_AT_ONCE)]
            listed = np.flatnonzero(some)
            yield from zip((listed + first).tolist(), (some[listed] - 1).tolist(), strict=True)

    def _blocks(self) -> Iterator[NDArray[np.int64]]:
        """The lines in their order, as blocks (m, 2) of key and offset."""
        try:
            with open_regular(self.path) as file:
                while lines := file.readlines(_BUFFER):
                    block = np.loadtxt(lines, np.int64, comments=None, ndmin=2)
                    if block.shape[1] != 2 or block.min() < 0 or block[:, 0].max() >= _MOST_KEYS:
                        raise ValueError
                    yield block
        except OSError as error:
            raise UserError(
                f"{self.path}: cannot be read ({error.strerror}); it belongs beside the .rec file"
            ) from None
        except ValueError:
            raise UserError(
                f"{self.path}: should hold lines of a key, a tab and a byte offset; give a whole copy"
            ) from None
