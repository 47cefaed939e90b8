"""IDX, the file format of MNIST and its successors: big-endian header, then raw bytes.

Header: two zero bytes, a type code (8 = unsigned byte), the number of dimensions, and one uint32 a
dimension (http://yann.lecun.com/exdb/mnist). Files are read with or without gzip, by content, and
without checksums: repacked copies of the same images are common.
"""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facenas.data.images import Pixels
from facenas.data.source import Labels
from facenas.errors import UserError

_GZIP_MAGIC = b"\x1f\x8b"
_UNSIGNED_BYTE = 8


def read_idx(path: Path, ndim: int) -> Pixels:
    """The unsigned bytes of an IDX file with `ndim` dimensions, read-only, in the file's shape.

    Raises UserError when the file cannot be read, is truncated or is something else.
    """
    data = _bytes_of(path)
    header = 4 + 4 * ndim
    if data[:4] != bytes([0, 0, _UNSIGNED_BYTE, ndim]) or len(data) < header:
        raise _damaged(path, f"is not an IDX file of unsigned bytes with {ndim} dimension(s)")
    shape = tuple(int(side) for side in np.frombuffer(data, ">u4", ndim, offset=4))
    promised, held = math.prod(shape), len(data) - header
    if held != promised:
        raise _damaged(path, f"holds {held:,} bytes where its header promises {promised:,}")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


@dataclass(frozen=True)
class IdxLayout:
    """Four IDX files in one folder: `<prefix>-images-idx3-ubyte` and `<prefix>-labels-idx1-ubyte`.

    folders: where they may lie, relative to the data root; prefixes: (train, test).
    """

    folders: tuple[str, ...]
    prefixes: tuple[str, str] = ("train", "t10k")

    def places(self, root: Path) -> list[Path]:
        """Folders to look in, the first that is whole wins."""
        return [root / folder for folder in self.folders]

    def files(self, place: Path) -> list[Path] | None:
        """Train images, train labels, test images, test labels; None when one is missing."""
        stems = [f"{p}-{k}-ubyte" for p in self.prefixes for k in ("images-idx3", "labels-idx1")]
        found = [
            next((f for f in (place / stem, place / f"{stem}.gz") if f.is_file()), None)
            for stem in stems
        ]
        whole = [path for path in found if path is not None]
        return whole if len(whole) == len(stems) else None

    def read(self, files: list[Path]) -> tuple[Pixels, Labels, Pixels, Labels]:
        """The four files of `files()`: images (n, h, w, 1) uint8 and labels (n,) int64, twice.

        EMNIST's files hold transposed images. They stay so, as torchvision returns them: numbers
        are then comparable, and networks do not mind.
        """
        train, train_labels, test, test_labels = (
            read_idx(path, ndim) for path, ndim in zip(files, (3, 1, 3, 1), strict=True)
        )
        return (
            train[..., None],
            train_labels.astype(np.int64),
            test[..., None],
            test_labels.astype(np.int64),
        )


def _bytes_of(path: Path) -> bytes:
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if data.startswith(_GZIP_MAGIC) else data
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise _damaged(path, "is a truncated or corrupt gzip file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def _damaged(path: Path, fault: str) -> UserError:
    return UserError(f"{path}: {fault}; delete it and fetch it again")
