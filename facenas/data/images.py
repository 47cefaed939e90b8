"""Image files from anywhere: a folder or a .zip of them, and one file -> pixels, safe with untrusted files.

The one place that lists, reads and decodes image files of any kind; JPEG crops of faces, which must be exact
and fast, have `facenas.data.faces.store` besides.
"""

from __future__ import annotations

import errno
import io
import os
import threading
import warnings
import zipfile
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from facenas.errors import UserError

Pixels = NDArray[np.uint8]

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".webp", ".tif", ".tiff")
MAX_PIXELS = 50_000_000
MAX_BYTES = 8 * MAX_PIXELS  # 4 channels of 16 bits, not compressed
_MACHINE = tuple(
    getattr(errno, name)
    for name in ("EIO", "EMFILE", "ENFILE", "ENOMEM", "ENOSPC", "EROFS", "ESTALE")
    if hasattr(errno, name)
)
_DEEP_GREY = ("I", "I;16", "I;16B", "I;16L", "I;16N")  # 16 bits a pixel, "I" in PGM files


class FolderFiles:
    """A folder and its subfolders, by relative names with forward slashes, for several threads at once.

    Links are followed, hidden folders are not.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> list[str]:
        """All files, sorted; raises UserError when they cannot be listed."""
        found = []
        for folder, folders, files in os.walk(self.root, onerror=_not_listed, followlinks=True):
            folders[:] = [name for name in folders if not name.startswith(".")]
            inside = Path(folder).relative_to(self.root).as_posix()
            found += [name if inside == "." else f"{inside}/{name}" for name in files]
        return sorted(found)

    def read(self, name: str) -> bytes:
        """One file. Raises OSError, or ValueError when it is larger than any image (`MAX_BYTES`)."""
        with (self.root / name).open("rb") as file:
            _check_bytes(os.fstat(file.fileno()).st_size)
            return file.read()

    def stamp(self, name: str) -> list[object]:
        """Its bytes and time: what changes when the file does. Raises OSError."""
        status = os.stat(self.root / name)
        return [status.st_size, status.st_mtime_ns]


class ZipFiles:
    """A .zip file as `FolderFiles` is a folder; members are read in memory, never extracted.

    Raises UserError when it is no .zip, or a member's name points outside it; `read` raises ValueError for
    a damaged member.
    """

    def __init__(self, path: Path) -> None:
        self.root = path
        try:
            self._archive = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile):
            raise UserError(f"{path}: is neither a folder nor a readable .zip file") from None
        self._lock = threading.Lock()
        # Some archivers on Windows write backslashes.
        members = [member for member in self._archive.infolist() if not member.is_dir()]
        self._members = {member.filename.replace("\\", "/"): member for member in members}
        for name in self._members:
            if name.startswith("/") or name[1:2] == ":" or ".." in name.split("/"):
                raise UserError(f"{path}: member {name!r} points outside the archive; refused")

    def names(self) -> list[str]:
        return sorted(self._members)

    def read(self, name: str) -> bytes:
        member = self._members.get(name)
        if member is None:
            raise ValueError("it is not in the archive")
        if member.flag_bits & 1:
            raise ValueError("it is encrypted")
        _check_bytes(member.file_size)
        try:
            # `zipfile` guards its reads, but not its count of open members. One handle for all threads: half
            # a million members take seconds and 300 MB to list, too much for a handle of each.
            with self._lock:
                stream = self._archive.open(member)
            try:
                return stream.read()  # checks the CRC, and stops at the size it told
            finally:
                with self._lock:
                    stream.close()
        except NotImplementedError:
            raise ValueError("it is compressed by an unknown method") from None
        except (OSError, MemoryError):
            raise
        except Exception:  # every method of compression has errors of its own
            raise ValueError("it is damaged in the archive") from None

    def stamp(self, name: str) -> list[object]:
        """Its bytes and CRC."""
        member = self._members[name]
        return [member.file_size, member.CRC]


Files: TypeAlias = FolderFiles | ZipFiles


def open_files(path: Path) -> Files:
    """The folder or .zip at `path`; raises UserError when it is neither."""
    return FolderFiles(path) if path.is_dir() else ZipFiles(path)


def image_names(files: Files) -> list[str]:
    """Sorted names of the images: known endings, nothing hidden, no macOS leftovers."""
    return [
        name
        for name in files.names()
        if name.lower().endswith(ENDINGS)
        and not any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))
    ]


def find_images(path: Path) -> tuple[Files, list[str]]:
    """The files at `path` (a folder, a .zip, or the folder of one image) and the images' sorted names.

    Raises UserError when there is no such thing, and when it holds no images.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    if path.is_file() and path.suffix.lower() != ".zip":
        return FolderFiles(path.parent), [path.name]
    files = open_files(path)
    names = image_names(files)
    if not names:
        raise UserError(f"{path}: holds no images; give a folder or .zip of them, or one image")
    return files, names


def open_image(data: bytes) -> Image.Image:
    """The image's header (`size`, `mode`); its pixels are decoded on first use.

    Raises ValueError for an image of more than 50 megapixels or of floating-point pixels, and what
    Pillow raises for something it cannot identify: `reason_of` puts either into words.
    """
    try:
        with warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning):
            image = Image.open(io.BytesIO(data))
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise ValueError("it has more than 50 megapixels") from None
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range")
    return image


def is_grey(image: Image.Image) -> bool:
    """Whether the image has no colors: 1, 8 or 16 bits of grey, with alpha or without."""
    return image.mode in ("1", "L", "LA", *_DEEP_GREY)


def to_pixels(image: Image.Image, grey: bool = False, size: int | None = None) -> Pixels:
    """(h, w, 1 or 3) uint8 of an open image, alpha dropped; with `size`, the whole of it at size x size.

    16-bit grey keeps its upper 8 bits (Pillow's own conversion would clip at 255).
    """
    if image.mode in _DEEP_GREY:
        upper = np.clip(np.asarray(image, np.int64), 0, 65535) >> 8
        image = Image.fromarray(upper.astype(np.uint8))
    image = image.convert("L" if grey else "RGB")
    pixels = np.array(image if size is None else resize(image, size))
    return pixels[..., None] if grey else pixels


def decode_image(data: bytes) -> Pixels:
    """(h, w, 3) uint8 RGB of an image file, turned upright as its EXIF data say.

    Raises what `open_image` does, and what Pillow raises for damaged pixels.
    """
    with open_image(data) as image:
        return to_pixels(ImageOps.exif_transpose(image))


def resize(image: Image.Image, size: int) -> Image.Image:
    """The whole image as size x size pixels (bilinear, smoothed when it shrinks)."""
    if image.size == (size, size):
        return image
    return image.resize((size, size), Image.Resampling.BILINEAR)


def reason_of(error: Exception) -> str:
    """What was wrong with an image that could not be read or decoded, in a few words.

    Raises UserError when the image is not to blame: the disk fails, or memory or open files have run out.
    """
    if isinstance(error, MemoryError) or getattr(error, "errno", None) in _MACHINE:
        what = getattr(error, "filename", None) or "an image"
        reason = getattr(error, "strerror", None) or "out of memory"
        raise UserError(f"{what}: cannot be read ({reason}); this machine failed, not the image") from error
    if isinstance(error, UnidentifiedImageError):  # its own words hold a memory address
        return "it is no image"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _check_bytes(size: int) -> None:
    if size > MAX_BYTES:
        raise ValueError("it has more bytes than any image of 50 megapixels")


def _not_listed(error: OSError) -> None:
    raise UserError(f"{error.filename}: cannot be listed ({error.strerror})")
