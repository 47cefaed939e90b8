"""Image files from anywhere: a folder or a .zip of them, and one file -> pixels, safe with untrusted files.

The one place that lists, reads and decodes image files of any kind; JPEG crops of faces, which must be exact
and fast, have `facenas.data.faces.store` besides.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import re
import threading
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from facenas.errors import UserError, counted
from facenas.files import Walked, open_regular, reading, walk_files, walk_folders

log = logging.getLogger(__name__)

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
_WITH_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
# HEIF: once pillow-heif is registered.
_FORMATS = (
    *("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "DIB", "PPM", "TIFF", "AVIF", "JPEG2000"),
    *("HEIF", "PCX", "SGI", "ICO"),
)
_LEFTOVERS = ("thumbs.db", "desktop.ini", "align.json", "align.jsonl", "skipped.csv", "several.csv")
_HEAD = 32  # bytes, which tell any format
_HEADS = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"II*\0", b"MM\0*"),
    *(b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51", b"\0\0\0\x0cJXL ", b"8BPS"),  # JPEG 2000, JPEG XL, Photoshop
)
_PNM = re.compile(rb"P[1-6]\s+[\d#]")
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"avif", b"avis")
_OTHER_ENDINGS = (".heic", ".heif", ".avif", ".gif", ".jfif", ".jpe", ".jp2", ".j2k", ".jxl", ".svg")
_TURNS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class FolderFiles:
    """A folder and its subfolders, by relative names with forward slashes, for several threads at once.

    Links are followed, hidden folders are not (see `walk_files`).
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def walk(self) -> Walked:
        """All files, sorted, and what was left out; raises UserError when they cannot be listed."""
        return walk_files(self.root)

    def folders(self) -> Iterator[Walked]:
        """The same, a folder at a time."""
        return walk_folders(self.root)

    def names(self) -> list[str]:
        """All files, sorted; raises UserError when they cannot be listed."""
        return self.walk().files

    def head(self, name: str) -> bytes:
        """The first bytes of a file, enough to tell its format. Raises OSError."""
        with open_regular(self.root / name) as file:
            return file.read(_HEAD)

    def read(self, name: str) -> bytes:
        """One file. Raises OSError, or ValueError when it is larger than any image (`MAX_BYTES`)."""
        with open_regular(self.root / name) as file:
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
            with reading(path):
                self._archive = zipfile.ZipFile(path)
        except UserError as error:  # of a version or with names that zipfile cannot read, too
            raise UserError(f"{path}: is neither a folder nor a readable .zip file") from error.__cause__
        self._lock = threading.Lock()
        self._members: dict[str, zipfile.ZipInfo] = {}
        for member in self._archive.infolist():
            name = _member_name(member)
            if member.is_dir():
                continue
            if name in self._members:
                raise UserError(f"{path}: member {name!r} is in it twice; pack it anew")
            self._members[name] = member
            if name.startswith("/") or name[1:2] == ":" or ".." in name.split("/"):
                raise UserError(f"{path}: member {name!r} points outside the archive; refused")

    def walk(self) -> Walked:
        return Walked(self.names(), [])

    def folders(self) -> Iterator[Walked]:
        inside: dict[str, list[str]] = {}
        for name in self.names():
            inside.setdefault(name.rpartition("/")[0], []).append(name)
        return (Walked(names, []) for names in inside.values())

    def names(self) -> list[str]:
        return sorted(self._members)

    def head(self, name: str) -> bytes:
        return self.read(name)[:_HEAD]

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


def _member_name(member: zipfile.ZipInfo) -> str:
    """With forward slashes (Windows); UTF-8 where it is that and not said to be (macOS)."""
    name = member.filename
    if not member.flag_bits & 0x800 and not name.isascii():
        with suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return name.replace("\\", "/")


Files: TypeAlias = FolderFiles | ZipFiles


def open_files(path: Path) -> Files:
    """The folder or .zip at `path`; raises UserError when it is neither."""
    return FolderFiles(path) if path.is_dir() else ZipFiles(path)


class Listing(NamedTuple):
    """The images of `Files`, sorted by name.

    left_out: (name, reason) of links that lead in circles or nowhere, pipes and the like; others: how many
    files are no images.
    """

    names: list[str]
    left_out: list[tuple[str, str]]
    others: int


def told_ignored(others: int, empty: Sequence[str] = ()) -> tuple[str, ...]:
    """In words: so many files that are no images, and folders of people that hold none."""
    files = f"{counted(others, 'file')} without an image" if others else ""
    people = f"{counted(len(empty), 'person')} without an image (the first, {empty[0]})" if empty else ""
    return tuple(filter(None, (files, people)))


def list_files(files: Files) -> Listing:
    """Images by their endings, and by their content where the ending says nothing.

    Nothing hidden, no leftovers of macOS and Windows, no lists of ours.
    """
    return _listing(files, files.walk())


def list_folders(files: Files) -> Iterator[Listing]:
    """As `list_files`, a folder at a time."""
    return (_listing(files, walked) for walked in files.folders())


def _listing(files: Files, walked: Walked) -> Listing:
    visible = [name for name in walked.files if is_visible(name)]
    names = [name for name in visible if name.lower().endswith(ENDINGS) or _has_image_head(files, name)]
    left_out = [(name, reason) for name, reason in walked.skipped if is_visible(name)]
    return Listing(names, left_out, len(visible) - len(names))


def image_names(files: Files) -> list[str]:
    """Sorted names of the images: see `list_files`."""
    return list_files(files).names


def is_visible(name: str) -> bool:
    """Whether a file, by its name with forward slashes, is neither hidden nor a leftover: see `list_files`."""
    parts = name.split("/")
    leftover = parts[-1].lower() in _LEFTOVERS
    return not leftover and not any(part.startswith(".") or part == "__MACOSX" for part in parts)


def _has_image_head(files: Files, name: str) -> bool:
    """Whether a file of another ending, or of none, is an image."""
    try:
        head = files.head(name)
    except (OSError, ValueError) as error:
        reason_of(error)  # a machine that fails is no reason to leave out an image
        return name.lower().endswith(_OTHER_ENDINGS)
    return (
        head.startswith(_HEADS)
        or (head[:2] == b"BM" and head[6:10] == bytes(4))
        or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
        or _PNM.match(head) is not None
        or _is_heif(head)
        or name.lower().endswith(_OTHER_ENDINGS)
    )


def _is_heif(head: bytes) -> bool:
    return head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS


def find_images(path: Path) -> tuple[Files, list[str]]:
    """The files at `path` (a folder, a .zip, or the folder of one image) and the images' sorted names.

    Raises UserError when there is no such thing, and when it holds no images.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    if path.is_file() and path.suffix.lower() != ".zip":
        return FolderFiles(path.parent), [path.name]
    files = open_files(path)
    listing = list_files(files)
    if not listing.names:
        raise UserError(f"{path}: holds no images; give a folder or .zip of them, or one image")
    for name, reason in listing.left_out[:1]:
        log.warning("%s: %d left out, %s the first: it %s", path, len(listing.left_out), name, reason)
    for what in told_ignored(listing.others):
        log.warning("%s: ignored: %s", path, what)
    return files, listing.names


def open_image(data: bytes) -> Image.Image:
    """The image's header (`mode`, and `upright_size`); its pixels are decoded on first use.

    Raises ValueError for an image of more than 50 megapixels or of floating-point pixels, and what
    Pillow raises for something it cannot identify: `reason_of` puts either into words.
    """
    try:
        with warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning):
            image = Image.open(io.BytesIO(data), formats=_formats())
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise ValueError("it has more than 50 megapixels") from None
    except UnidentifiedImageError:
        if _is_heif(data[:_HEAD]):
            raise ValueError("it is a HEIC or AVIF photograph, which is not read here; convert it") from None
        raise
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range")
    return image


@lru_cache
def _formats() -> list[str]:
    """Those of `_FORMATS` that this Pillow knows; of the others, some would start other programs."""
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) of an open image as it is looked at: its EXIF data may turn it."""
    width, height = image.size
    # Pillow gives those of TIFF turned already.
    return (height, width) if image.format != "TIFF" and _orientation(image) >= 5 else (width, height)


def is_turned(data: bytes) -> bool:
    """Whether the EXIF data of an image file say that its pixels are to be turned or mirrored."""
    if b"Exif\0" not in data and b"tiff:Orientation" not in data:  # nearly all crops of faces
        return False
    try:
        with open_image(data) as image:
            return _orientation(image) != 1
    except Exception:  # whoever decodes it will say what is wrong with it
        return False


def _orientation(image: Image.Image) -> int:
    """1 to 8 as EXIF numbers them; 1, upright, when they say nothing that makes sense."""
    try:
        said = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF data raise many kinds, and the pixels may be whole
        return 1
    return said if said in _TURNS else 1


def is_grey(image: Image.Image) -> bool:
    """Whether the image has no colors: 1, 8 or 16 bits of grey, with alpha or without."""
    return image.mode in ("1", "L", "LA", "La", *_DEEP_GREY)


def to_pixels(image: Image.Image, grey: bool = False, size: int | None = None) -> Pixels:
    """(h, w, 1 or 3) uint8 of an open image, upright; with `size`, the whole of it at size x size.

    What is transparent shows white. 12- and 16-bit grey keep their upper 8 bits (Pillow's own conversion
    would clip at 255). Raises ValueError for grey of a range that cannot be known.
    """
    image.load()  # turns TIFF
    turn = _TURNS.get(_orientation(image))
    if image.mode in _DEEP_GREY:
        image = _upper_bits(image)
    elif image.mode in _WITH_ALPHA or "transparency" in image.info:
        image = _over_white(image)
    image = image.convert("L" if grey else "RGB")
    if turn is not None:
        image = image.transpose(turn)
    pixels = np.array(image if size is None else resize(image, size))
    return pixels[..., None] if grey else pixels


def _upper_bits(image: Image.Image) -> Image.Image:
    """8 bits of 12 where the file says so, else of 16.

    Raises ValueError where 16 bits would be nearly black, which they are when they hold 12 or fewer, and for
    whole numbers of 32 bits.
    """
    values = np.asarray(image)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535 or (image.mode == "I" and image.format == "TIFF"):
        raise ValueError("its pixels are 32-bit numbers of unknown range; store it with 8 or 16 bits")
    # BitsPerSample of TIFF 6.0
    twelve = getattr(image, "tag_v2", {}).get(258) == (12,)
    if not twelve and 0 < high < 1 << 12:
        raise ValueError(f"its 16-bit pixels reach {high} of 65535, too dark to tell; store it with 8 bits")
    return Image.fromarray((values >> (4 if twelve else 8)).astype(np.uint8))


def _over_white(image: Image.Image) -> Image.Image:
    """The image on white paper; one that lets nothing through stays as it is, to the bit."""
    clear = image.convert("RGBA")
    if clear.getchannel("A").getextrema() == (255, 255):
        return image
    return Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear)


def decode_image(data: bytes) -> Pixels:
    """(h, w, 3) uint8 RGB of an image file, upright: see `to_pixels`.

    Raises what `open_image` does, and what Pillow raises for damaged pixels.
    """
    with open_image(data) as image:
        return to_pixels(image)


def to_png(pixels: Pixels) -> bytes:
    """A PNG file of (h, w, 3) uint8 RGB pixels."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "png", compress_level=1)
    return stream.getvalue()


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
