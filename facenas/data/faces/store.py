"""A store of faces: a zarr v3 group, memory-mapped, so that any number of processes share one copy in memory.

Its arrays: labels (n,) int32; names, UTF-8 bytes of all identity names, and name_offsets (identities + 1,)
int64; layout "jpeg": jpeg, the images' bytes, and offsets (n + 1,) int64; layout "raw": pixels
(n, 112, 112, 3) uint8 RGB. Imported ones have files, UTF-8 bytes of what each image was called in its source,
and file_offsets (n + 1,) int64. Its attributes tell version, layout, color order, counts, source, fingerprint,
and as `files` the sha256 of the names of files, which are no part of the fingerprint.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, cast

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from tqdm import tqdm

from facenas.data.images import Pixels
from facenas.data.remote import stored_bytes
from facenas.data.sharded import ShardedArray
from facenas.data.workers import in_order, workers_for
from facenas.errors import UserError
from facenas.files import read_json

SIDE = 112  # pixels, of every face image
QUALITY = 95  # of pixels that did not arrive as JPEG; without color subsampling
FORMAT = "facenas faces"
VERSION = 1
COLOR = "RGB"

Layout = Literal["jpeg", "raw"]


class Field(NamedTuple):
    """One array: its dtype, the shape of a row, and the bytes of a chunk."""

    name: str
    dtype: str
    row: tuple[int, ...]
    chunk_bytes: int


_SHARED = (
    Field("labels", "i4", (), 1 << 20),
    Field("names", "u1", (), 1 << 20),
    Field("name_offsets", "i8", (), 1 << 20),
)
FIELDS: dict[Layout, tuple[Field, ...]] = {
    "jpeg": (*_SHARED, Field("offsets", "i8", (), 1 << 20), Field("jpeg", "u1", (), 4 << 20)),
    "raw": (*_SHARED, Field("pixels", "u1", (SIDE, SIDE, 3), 4 << 20)),
}
FILES = (Field("files", "u1", (), 1 << 20), Field("file_offsets", "i8", (), 1 << 20))  # of imported ones
_Jpegs: TypeAlias = tuple[NDArray[np.int64], NDArray[np.uint8]]  # where k images begin and end (k + 1,); bytes
_BATCH = 64  # images that `check` decodes at once
_BLOCK = 128 * _BATCH  # images that it reads at once, about 50 MB of JPEG


def fingerprint(layout: Layout, digests: dict[str, str]) -> str:
    """sha256 over the layout and the sha256 of every array's little-endian values, in a fixed order."""
    parts = [layout, *(digests[field.name] for field in FIELDS[layout])]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def files_digest(digests: dict[str, str]) -> str:
    """sha256 over those of the two arrays of `FILES`."""
    return hashlib.sha256("\n".join(digests[field.name] for field in FILES).encode()).hexdigest()


def decode_jpeg(data: bytes | NDArray[np.uint8], out: Pixels | None = None) -> Pixels:
    """(112, 112, 3) uint8 RGB, written into `out` when that is given (C-ordered, same shape).

    Takes what libjpeg-turbo takes: baseline and progressive, color and grey. Raises ValueError for
    anything else, for another size, and for damage of any kind.
    """
    pixels = simplejpeg.decode_jpeg(data, "RGB", buffer=out)
    if pixels.shape != (SIDE, SIDE, 3):
        raise ValueError(f"it is {pixels.shape[1]}x{pixels.shape[0]} pixels, not {SIDE}x{SIDE}")
    return cast(Pixels, pixels)


def encode_jpeg(pixels: Pixels) -> bytes:
    """JPEG of quality 95 without color subsampling, from (112, 112, 3) uint8 RGB pixels."""
    image = np.ascontiguousarray(pixels)
    return cast(bytes, simplejpeg.encode_jpeg(image, QUALITY, "RGB", "444"))


def is_face_jpeg(data: bytes) -> bool:
    """Whether `data` begins as a JPEG that a store can hold: 112x112, color or grey, not CMYK."""
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return False
    return (height, width) == (SIDE, SIDE) and colors in ("YCbCr", "RGB", "Gray")


class FaceStore:
    """n aligned faces of 112x112 pixels with their identities, read-only.

    layout: "jpeg" or "raw"; source: where the faces came from, in words; labels: (n,) int32, in
    0..identities-1; names: of the identities, by label; files: of the images in `source`, None where nobody
    kept them; fingerprint: sha256 of all of it but `source` and `files`. Can be handed to other processes: it
    is opened anew there. Made by `open_store`.
    """

    def __init__(self, path: Path, attributes: dict[str, Any], arrays: dict[str, ShardedArray]):
        self.path = path
        self.layout: Layout = attributes["layout"]
        self.source: str = attributes["source"]
        self.fingerprint: str = attributes["fingerprint"]
        self.files_digest: str | None = attributes.get("files")
        self.arrays = arrays
        labels = arrays["labels"]
        self.labels = cast(NDArray[np.int32], labels.span(0, len(labels)))
        self.names = _Names(path, "identity", arrays["names"], arrays["name_offsets"])
        self.files = _Names(path, "file", *(arrays[f.name] for f in FILES)) if "files" in arrays else None

    def __len__(self) -> int:
        return len(self.labels)

    def __reduce__(self) -> tuple[Callable[[Path], FaceStore], tuple[Path]]:
        return open_store, (self.path.resolve(),)

    @property
    def identities(self) -> int:
        """Number of identities."""
        return len(self.names)

    def encoded(self, index: int) -> NDArray[np.uint8]:
        """The JPEG bytes of image `index`, (k,) uint8, of a store of layout "jpeg".

        Raises UserError when the offsets are damaged, IndexError when there is no such image.
        """
        index = range(len(self))[index]
        start, stop = self.arrays["offsets"].take(np.array([index, index + 1])).tolist()
        return self._bytes(np.array([index]), [start], [stop])[0]

    def read(self, indices: NDArray[np.int64], out: Pixels | None = None) -> Pixels:
        """(m, 112, 112, 3) uint8 RGB: the images at `indices` (m,), in their order, each in 0..n-1.

        Written into `out` (C-ordered, of that shape) when it is given. Raises UserError, naming the
        image, when one is damaged, and IndexError for an index out of range.
        """
        indices = np.asarray(indices, np.int64)
        if len(indices) and not 0 <= indices.min() <= indices.max() < len(self):
            raise IndexError(f"image indices {indices.min()}..{indices.max()} of {len(self)} images")
        if out is None:
            out = np.empty((len(indices), SIDE, SIDE, 3), np.uint8)
        if self.layout == "raw":
            return self.arrays["pixels"].take(indices, out)
        ends = self.arrays["offsets"].take(np.concatenate([indices, indices + 1]))
        starts, stops = ends.reshape(2, -1).tolist()
        for row, (index, data) in enumerate(
            zip(indices.tolist(), self._bytes(indices, starts, stops), strict=True)
        ):
            try:
                decode_jpeg(data, out[row])
            except ValueError as error:
                raise _damaged(self.path, index, str(error)) from None
        return out

    def _bytes(
        self, indices: NDArray[np.int64], starts: list[int], stops: list[int]
    ) -> list[NDArray[np.uint8]]:
        jpeg = self.arrays["jpeg"]
        for index, start, stop in zip(indices.tolist(), starts, stops, strict=True):
            if not 0 <= start < stop <= len(jpeg):
                raise _damaged(self.path, index, f"its bytes are said to be {start}..{stop}")
        return jpeg.spans(starts, stops)


def open_store(path: Path) -> FaceStore:
    """The store in the folder `path`.

    Raises UserError when there is none, it is not ours, of a newer format, or not whole. Damage
    inside images is found by reading them: see `check`.
    """
    attributes = _read_attributes(path)
    if attributes.get("format") != FORMAT:
        raise _foreign(path)
    if attributes.get("version") != VERSION or attributes.get("colour") != COLOR:
        raise UserError(
            f"{path}: is a face store of format {attributes.get('version')!r}, color order "
            f"{attributes.get('colour')!r}, but this facenas reads {VERSION} and {COLOR!r}; update facenas"
        )
    layout = attributes.get("layout")
    expected = {"source": str, "fingerprint": str, "images": int, "identities": int}
    if layout not in FIELDS or any(type(attributes.get(k)) is not t for k, t in expected.items()):
        raise UserError(f"{path}: its attributes are damaged; import it anew")
    fields = (*FIELDS[layout], *(FILES if "files" in attributes else ()))
    arrays = {f.name: ShardedArray(path, f.name, f.dtype, f.row) for f in fields}
    store = FaceStore(path, attributes, arrays)
    _check_counts(store, attributes)
    return store


def is_store(path: Path) -> bool:
    """Whether `path` is a store of ours, whole or not, of any version."""
    try:
        return _read_attributes(path).get("format") == FORMAT
    except UserError:
        return False


def describe(path: Path) -> dict[str, Any]:
    """Counts, layout, source and size of a store; raises UserError when it is none."""
    store = open_store(path)
    each = np.bincount(store.labels, minlength=store.identities)
    return {
        "store": str(path),
        "layout": store.layout,
        "color": COLOR,
        "source": store.source,
        "images": len(store),
        "identities": store.identities,
        "images_per_identity_min": int(each.min()),
        "images_per_identity_median": float(np.median(each)),
        "images_per_identity_max": int(each.max()),
        "bytes": stored_bytes(path),
        "fingerprint": store.fingerprint,
    }


def check(path: Path, workers: int | None = 1) -> dict[str, Any]:
    """Decodes every image and computes the fingerprint anew, by so many processes (None: one for each core).

    Raises UserError, in one sentence, at the first thing that is not as it should be.
    """
    started = time.perf_counter()
    store = open_store(path)
    if store.layout == "jpeg":
        _check_offsets(store, "offsets", "jpeg")
    _check_offsets(store, "name_offsets", "names")
    if store.files is not None:
        _check_offsets(store, "file_offsets", "files")
    for number in range(store.identities):
        store.names[number]  # decodes
    found = {name: _digest(array) for name, array in store.arrays.items() if name != "jpeg"}
    if store.layout == "jpeg":
        found["jpeg"] = _check_images(store, workers_for(len(store), workers))
    named = files_digest(found) if store.files is not None else None
    if fingerprint(store.layout, found) != store.fingerprint or named != store.files_digest:
        raise UserError(f"{path}: its contents do not match its fingerprint; import it anew")
    return {
        "store": str(path),
        "images": len(store),
        "identities": store.identities,
        "fingerprint": store.fingerprint,
        "seconds": round(time.perf_counter() - started, 3),
    }


def _digest(array: ShardedArray) -> str:
    """sha256 of the values, little-endian."""
    digest = hashlib.sha256()
    for block in array.blocks():
        digest.update(block.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _check_images(store: FaceStore, workers: int) -> str:
    """Decodes all JPEGs; sha256 of their bytes, which are read once for both."""
    digest = hashlib.sha256()
    bar = tqdm(total=len(store), desc="check", unit="image", disable=None)
    with bar, closing(in_order(_first_damaged, _jpegs(store, digest), workers)) as checked:
        for number, ((ends, _), fault) in enumerate(checked):
            if fault is not None:
                raise _damaged(store.path, number * _BATCH + fault[0], fault[1])
            bar.update(len(ends) - 1)
    return digest.hexdigest()


def _jpegs(store: FaceStore, digest: hashlib._Hash) -> Iterator[_Jpegs]:
    """The images a few at a time, once `digest` has taken their bytes."""
    jpeg, offsets = store.arrays["jpeg"], store.arrays["offsets"]
    for first in range(0, len(store), _BLOCK):
        jpeg.release()
        offsets.release()
        ends = offsets.span(first, min(first + _BLOCK, len(store)) + 1)
        data = jpeg.span(int(ends[0]), int(ends[-1]))
        ends = ends - ends[0]
        digest.update(data.data)
        for start in range(0, len(ends) - 1, _BATCH):
            some = ends[start : start + _BATCH + 1]
            yield some - some[0], data[some[0] : some[-1]]


def _first_damaged(images: _Jpegs) -> tuple[int, str] | None:
    """(which of them, the reason) of the first image that does not decode."""
    (ends, data), pixels = images, np.empty((SIDE, SIDE, 3), np.uint8)
    for number, (start, stop) in enumerate(pairwise(ends.tolist())):
        try:
            decode_jpeg(data[start:stop], pixels)
        except ValueError as error:
            return number, str(error)
    return None


def _read_attributes(path: Path) -> dict[str, Any]:
    """The attributes of the zarr v3 group at `path`."""
    if not path.exists():
        raise UserError(f"{path}: no such store; make one with `facenas data import SOURCE {path}`")
    try:
        tree = read_json(path / "zarr.json")
    except UserError:
        raise _foreign(path) from None
    attributes = tree.get("attributes")
    is_group = (tree.get("zarr_format"), tree.get("node_type")) == (3, "group")
    if not is_group or not isinstance(attributes, dict):
        raise _foreign(path)
    return attributes


def _check_counts(store: FaceStore, attributes: dict[str, Any]) -> None:
    """Attributes and array lengths agree, and every label has a name."""
    images, identities = attributes["images"], attributes["identities"]
    lengths = {"labels": images, "name_offsets": identities + 1}
    lengths |= {"offsets": images + 1} if store.layout == "jpeg" else {"pixels": images}
    lengths |= {"file_offsets": images + 1} if store.files is not None else {}
    for name, length in lengths.items():
        if len(store.arrays[name]) != length:
            raise UserError(
                f"{store.path}: should have {length} {name} but has {len(store.arrays[name])}; import it anew"
            )
    if images and not 0 <= store.labels.min() <= store.labels.max() < identities:
        raise UserError(
            f"{store.path}: has labels {store.labels.min()}..{store.labels.max()} but {identities} "
            "identities; import it anew"
        )


def _foreign(path: Path) -> UserError:
    return UserError(
        f"{path}: is not a facenas face store; make one with `facenas data import SOURCE OUT.zarr`"
    )


def _damaged(path: Path, index: int, reason: str) -> UserError:
    return UserError(f"{path}: image {index} is damaged ({reason}); import the store anew")


class _Names:
    """Names decoded on use: two million strings would cost every process 150 MB."""

    def __init__(self, path: Path, of: str, names: ShardedArray, offsets: ShardedArray) -> None:
        self._path, self._of, self._names, self._offsets = path, of, names, offsets

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, index: int) -> str:  # with its IndexError, iteration too
        index = range(len(self))[index]
        start, stop = self._offsets.take(np.array([index, index + 1])).tolist()
        try:
            return self._names.span(start, stop).tobytes().decode()
        except UnicodeDecodeError:
            raise UserError(f"{self._path}: {self._of} name {index} is damaged; import it anew") from None


def _check_offsets(store: FaceStore, offsets: str, values: str) -> None:
    """They begin at 0, never fall, and end at the number of values."""
    last, fits = 0, True
    for number, block in enumerate(store.arrays[offsets].blocks()):
        fits &= bool(last <= block[0] and (number or block[0] == 0) and (np.diff(block) >= 0).all())
        last = int(block[-1])
    if not fits or last != len(store.arrays[values]):
        raise UserError(f"{store.path}: its {offsets} are damaged; import it anew")
