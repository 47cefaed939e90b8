"""The journal: one JSON object a line, forced to disk before the next decision.

Whatever kills the process, the file holds every finished line; a torn last line is dropped when it is
opened again. `Journal` keeps both files of a search: `trials.jsonl`, and `ahead.jsonl` with speculative
results whose turn has not come.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from facenas.errors import SearchStoppedError, UserError
from facenas.files import reading, remedy_of, write_text

log = logging.getLogger(__name__)


class Journal:
    """An append-only file of JSON lines, opened by one process at a time (see `Run.lock`)."""

    def __init__(self, path: Path) -> None:
        """Reads what is there and cuts off a torn last line. Raises UserError when another line is damaged."""
        self.path = path
        data = _read(path)
        self.records, self._length = _parse_lines(path, data)
        if len(data) > self._length:
            log.warning("%s: a torn last line (%d bytes) is dropped", path, len(data) - self._length)
            os.truncate(path, self._length)

    def append(self, record: dict[str, Any]) -> None:
        """Writes one line and waits until it is on disk; on a full disk the file is left as it was."""
        line = json.dumps(record, allow_nan=False).encode() + b"\n"
        try:
            with self.path.open("ab") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            self._cut_back()
            raise SearchStoppedError(
                f"{self.path}: cannot be written ({error.strerror}); "
                f"{remedy_of(error, 'make room and resume the run')}"
            ) from None
        self._length += len(line)
        self.records.append(record)

    def keep(self, wanted: Callable[[dict[str, Any]], bool]) -> None:
        """Drops all lines but those that are wanted."""
        kept = [record for record in self.records if wanted(record)]
        if len(kept) < len(self.records):
            write_text(self.path, "".join(json.dumps(record) + "\n" for record in kept))
            self.records, self._length = kept, self.path.stat().st_size

    def _cut_back(self) -> None:
        if self.path.exists() and self.path.stat().st_size > self._length:
            os.truncate(self.path, self._length)


def read_journal(path: Path) -> list[dict[str, Any]]:
    """The finished lines of a journal; an empty list when there is none yet.

    A line that another process is just writing is left out. Raises UserError when any other is damaged.
    """
    return _parse_lines(path, _read(path))[0]


def _read(path: Path) -> bytes:
    """The whole file at one moment: a search beside us may append to it at any time."""
    if not path.exists():
        return b""
    with reading(path, "restore the file, or start a new run"):
        return path.read_bytes()


def _parse_lines(path: Path, data: bytes) -> tuple[list[dict[str, Any]], int]:
    """The whole lines of `data`, and how many bytes they are."""
    end, records = _whole_length(data), []
    for number, line in enumerate(data[:end].splitlines(), start=1):
        record = _parse(line)
        if record is None:
            raise UserError(f"{path}: line {number} is damaged; restore the file, or start a new run")
        records.append(record)
    return records, end


def _whole_length(data: bytes) -> int:
    """Bytes up to the end of the last line that was written whole."""
    end = data.rfind(b"\n") + 1
    if end < len(data) or end == 0:
        return end
    # A crash of the file system can leave the last line's newline but not its text.
    start_of_last = data.rfind(b"\n", 0, end - 1) + 1
    return end if _parse(data[start_of_last:]) is not None else start_of_last


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None
