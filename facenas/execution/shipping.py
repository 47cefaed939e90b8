"""Files for nodes of a cluster that do not see the driver's disks: whether they are there, and bringing them.

On a node they lie in `shipped/` of the cache for as long as a worker there uses them. Each holds a shared lock,
which the system takes away when it dies, however it dies: the next worker removes what nobody holds.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from filelock import FileLock

from facenas.files import publish_folder

_ENDS = 1 << 16  # bytes of each end of a file that its stamp takes in
_PIECE = 64 << 20  # bytes that are sent at once


@dataclass(frozen=True)
class Parcel:
    """A file or folder on its way. key: its stamp; pieces: (file, where a part of its bytes is), in order."""

    key: str
    name: str
    pieces: list[tuple[str, Any]]


def stamp(path: Path) -> str:
    """sha256 over the names, sizes and both ends of all its files: of a file, or of a folder.

    The ends hold what tells two of ours apart: small files lie in them whole, such as that with the
    fingerprint of a data set, and so do the checksums of a checkpoint. Raises OSError when one cannot be read.
    """
    digest = hashlib.sha256()
    for name, file in _files(path):
        size = file.stat().st_size
        digest.update(f"{name}\n{size}\n".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(_ENDS))
            stream.seek(max(0, size - _ENDS))
            digest.update(stream.read(_ENDS))
    return digest.hexdigest()


def total_bytes(path: Path) -> int:
    """Of a file, or of all files in a folder."""
    return sum(file.stat().st_size for _, file in _files(path))


def look(stamps: dict[Path, str]) -> dict[Path, str]:
    """What is wrong with each path on this machine: "" (nothing), "is missing" or "differs"."""
    return {path: _fault(path, expected) for path, expected in stamps.items()}


def _fault(path: Path, expected: str) -> str:
    try:
        return "" if stamp(path) == expected else "differs"
    except OSError:
        return "is missing"


def pack(path: Path, key: str, put: Callable[[bytes], Any]) -> Parcel:
    """The file or folder, its bytes handed to `put` in pieces."""
    pieces = [
        (f"{path.name}/{name}" if name else path.name, put(piece))
        for name, file in _files(path)
        for piece in _read(file)
    ]
    return Parcel(key, path.name, pieces)


def unpack(parcel: Parcel, get: Callable[[Any], bytes], root: Path) -> Path:
    """Where the file or folder lies in `root` from now on; unpacked by the first worker of the machine.

    Raises UserError when it cannot be written.
    """

    def write(folder: Path) -> None:
        for name, piece in parcel.pieces:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            with (folder / name).open("ab") as file:
                file.write(get(piece))

    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / ".lock"):
        _remove_unused(root)
        _HELD[root, parcel.key] = _share(root / f"{parcel.key}.used")
        if not (root / parcel.key).is_dir():
            publish_folder(root / parcel.key, write, replace=False)
    return root / parcel.key / parcel.name


def leave() -> None:
    """This process uses nothing any more that was unpacked for it; what nobody uses is removed."""
    for root in {root for root, _ in _HELD}:
        with FileLock(root / ".lock"):
            for held in [held for held in _HELD if held[0] == root]:
                _HELD.pop(held).close()
            _remove_unused(root)


_HELD: dict[tuple[Path, str], IO[bytes]] = {}


def _share(path: Path) -> IO[bytes]:
    import fcntl  # Windows has none

    file = path.open("ab")
    fcntl.flock(file, fcntl.LOCK_SH)
    return file


def _remove_unused(root: Path) -> None:
    import fcntl

    for path in root.glob("*.used"):
        with path.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # somebody holds it
                continue
            shutil.rmtree(path.with_suffix(""), ignore_errors=True)
            path.unlink()


def _files(path: Path) -> list[tuple[str, Path]]:
    """(name relative to the folder, place) of its files, sorted; of a file itself, with an empty name."""
    if not path.is_dir():
        return [("", path)]
    found = ((file.relative_to(path).as_posix(), file) for file in path.rglob("*") if file.is_file())
    return sorted(found)


def _read(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        piece = stream.read(_PIECE)
        yield piece
        while piece := stream.read(_PIECE):
            yield piece
