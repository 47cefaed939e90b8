"""A folder or a .zip of images, read by several threads at once, and how listed images are found in it."""

from __future__ import annotations

import mmap
import os
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Protocol

from facenas.data.folders import FolderTree, Tree, ZipTree, image_names
from facenas.data.pictures import MAX_PIXELS
from facenas.errors import UserError

_LOCAL_HEADER = struct.Struct("<26xHH")  # the lengths of the name and of what follows it
_SAMPLE = 200  # listed images that tell in which folder all of them lie


class Files(Tree, Protocol):
    """A `Tree` whose files several threads may read at once."""

    def read(self, name: str) -> bytes:
        """One file. Raises OSError or ValueError when it cannot be read, or is damaged."""
        ...

    def stamp(self, name: str) -> list[object]:
        """What changes when the file does."""
        ...


class FolderFiles(FolderTree):
    """A folder; a file's stamp is its size and time."""

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def stamp(self, name: str) -> list[object]:
        status = os.stat(self.root / name)
        return [status.st_size, status.st_mtime_ns]


class ZipFiles(ZipTree):
    """A .zip file; a file's stamp is its size and CRC.

    `zipfile` keeps one file position under a lock; members are cut out of the mapped file instead.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with path.open("rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def read(self, name: str) -> bytes:
        member = self._members.get(name)
        if member is None:
            raise ValueError("it is not in the archive")
        if member.flag_bits & 1:
            raise ValueError("it is encrypted")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError("it is compressed by another method than deflate")
        try:
            lengths = _LOCAL_HEADER.unpack_from(self._bytes, member.header_offset)
            start = member.header_offset + _LOCAL_HEADER.size + sum(lengths)
            data = self._bytes[start : start + member.compress_size]
            if member.compress_type == zipfile.ZIP_DEFLATED:
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, 8 * MAX_PIXELS)
        except (struct.error, zlib.error):
            raise ValueError("it is damaged in the archive") from None
        if len(data) != member.file_size or zlib.crc32(data) != member.CRC:
            raise ValueError("it is damaged in the archive")
        return data

    def stamp(self, name: str) -> list[object]:
        member = self._members[name]
        return [member.file_size, member.CRC]


def open_files(path: Path) -> Files:
    """The folder or .zip at `path`; raises UserError when it is neither."""
    return FolderFiles(path) if path.is_dir() else ZipFiles(path)


def read_text(files: Files, name: str) -> str:
    """A text file; raises UserError when it cannot be read or is no text."""
    try:
        return files.read(name).decode("utf-8-sig")
    except OSError as error:
        reason = error.strerror or "damaged"
    except ValueError as error:
        reason = "it is no text" if isinstance(error, UnicodeDecodeError) else str(error)
    raise UserError(f"{files.root}: {name} cannot be read ({reason})")


def plain_path(text: str) -> str:
    """A listed path with forward slashes, and without `.` and `..`."""
    return "/".join(part for part in text.replace("\\", "/").split("/") if part.strip(".") != "")


def locate(files: Files, listed: Sequence[str]) -> list[str | None]:
    """For every listed path the name of its image in `files`, or None where there is none.

    All of them lie in one folder, however deep, with the ending listed or another one. Leading folders that
    all listed paths share need not be there. Raises UserError when two folders fit.
    """
    names = image_names(files)
    by_stem = {_stem(name): name for name in names}  # a.jpg and a.png: the exact name goes first
    exact = set(names)
    shorter = list(listed)
    while shorter:
        folder = _folder(files.root, by_stem, shorter)
        if folder is not None:
            places = [folder + name for name in shorter]
            return [name if name in exact else by_stem.get(_stem(name)) for name in places]
        tops = {name.partition("/")[0] for name in shorter}
        if len(tops) > 1 or not all("/" in name for name in shorter):
            break
        shorter = [name.partition("/")[2] for name in shorter]
    return [None] * len(listed)


def _folder(root: Path, by_stem: dict[str, str], listed: list[str]) -> str | None:
    """The folder, "" or with a slash at its end, in which most of a sample of listed images lie."""
    sample = [_stem(name) for name in listed[:: max(1, len(listed) // _SAMPLE)]]
    by_last: dict[str, list[str]] = {name.rpartition("/")[2]: [] for name in sample}
    for stem in by_stem:
        if (last := stem.rpartition("/")[2]) in by_last:
            by_last[last].append(stem)
    votes = Counter(
        stem[: -len(name)]
        for name in sample
        for stem in by_last[name.rpartition("/")[2]]
        if stem == name or stem.endswith("/" + name)
    )
    if not votes or votes[""] == len(sample):
        return "" if votes else None
    first, second = [*votes.most_common(2), ("", 0)][:2]
    if second[1] > first[1] / 2:
        raise UserError(
            f"{root}: holds the listed images twice, in {first[0]!r} and {second[0]!r}; give one of these"
        )
    return first[0]


def _stem(name: str) -> str:
    path = PurePosixPath(name)
    return name[: len(name) - len(path.suffix)]
