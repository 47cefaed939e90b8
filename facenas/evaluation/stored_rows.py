"""Rows of float32 in a file that grows, with a record beside it of how many of them can be trusted."""

from __future__ import annotations

import json
import logging
import os
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]

log = logging.getLogger(__name__)
_BLOCK_BYTES = 1 << 24


class StoredRows:
    """`<path>.f32`, rows one after another, and `<path>.json`, their number and CRC-32.

    The record is written after the rows are on disk: what lies behind the rows it counts came to be just
    before a kill or a full disk, and is cut off. A file that does not match its record counts as empty.
    One process at a time may have it open. Errors of the disk are raised as OSError.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.path, self.size = path.with_name(f"{path.name}.f32"), size
        self._record = path.with_name(f"{path.name}.json")
        self._file: IO[bytes] | None = None
        self.rows, self._crc = self._trusted()

    def append(self, rows: Rows) -> None:
        """Writes rows (m, size) behind the others; `save` makes them count."""
        if self._file is None:
            self._file = self._open()
        left = np.ascontiguousarray(rows, np.float32).data.cast("B")
        crc = zlib.crc32(left, self._crc)
        while left:  # unbuffered: on a full disk it writes less, then raises
            left = left[self._file.write(left) :]
        self.rows, self._crc = self.rows + len(rows), crc

    def save(self) -> None:
        """Forces the rows to disk, then the record, in the place of the one before."""
        if self._file is None:
            return
        os.fsync(self._file.fileno())
        temporary = self._record.with_suffix(".tmp")
        with temporary.open("w", encoding="utf-8") as file:
            json.dump({"rows": self.rows, "crc32": self._crc}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._record)

    def close(self) -> None:
        """Without saving; a further `append` opens it anew."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def read(self) -> Rows:
        """(rows, size), mapped and read-only."""
        if not self.rows:
            return np.zeros((0, self.size), np.float32)
        return np.memmap(self.path, np.float32, "r", shape=(self.rows, self.size))

    def _open(self) -> IO[bytes]:
        file: IO[bytes] = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", 0)
        file.truncate(self.rows * self.size * 4)
        file.seek(0, os.SEEK_END)
        return file

    def _trusted(self) -> tuple[int, int]:
        """Rows that the record counts, and their CRC-32."""
        if not self._record.exists():
            return 0, 0
        try:
            said: Any = json.loads(self._record.read_text(encoding="utf-8"))
            rows, crc = int(said["rows"]), int(said["crc32"])
            if self._crc_of(rows * self.size * 4) == crc:
                return rows, crc
        except (OSError, ValueError, KeyError, TypeError):
            pass
        log.warning("%s: is damaged; its embeddings are computed again", self.path)
        return 0, 0

    def _crc_of(self, length: int) -> int | None:
        """Of the first `length` bytes; None when there are fewer."""
        crc = 0
        with self.path.open("rb") as file:
            while length and (block := file.read(min(length, _BLOCK_BYTES))):
                crc, length = zlib.crc32(block, crc), length - len(block)
        return None if length else crc
