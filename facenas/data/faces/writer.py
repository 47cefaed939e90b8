"""Writes a store image by image in constant memory; it appears under its name when it is whole."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from facenas.data.faces.store import (
    COLOR,
    FIELDS,
    FILES,
    FORMAT,
    SIDE,
    VERSION,
    Field,
    Layout,
    decode_jpeg,
    encode_jpeg,
    files_digest,
    fingerprint,
    is_store,
)
from facenas.data.images import Pixels
from facenas.data.places import check_folder, check_url, place_of, writing
from facenas.data.remote import IMAGES, is_url
from facenas.data.sharded import ShardedWriter
from facenas.errors import UserError

_NAMES_AT_ONCE = 4096
_ODD = "backslashreplace"  # for file names that are no Unicode


class StoreWriter:
    """A context manager: on a clean exit the store is there under the name `path`; else nothing is left.

    path: a folder, or a URL; disks: folders on other disks, over which the shards of images are spread.

    Identities are numbered in the order in which they first come. With `numbered` they are the
    numbers 0..numbered-1 instead, given to `add` as text, whether they have images or not.
    `source` says in words where the images come from; with `files`, `append` is told what each is called
    there. Raises UserError when `path` is there (with `overwrite`: when it is something else than a store),
    when it cannot be written, and when no image was added; an old store is replaced only by a whole one.
    """

    def __init__(
        self,
        path: Path | str,
        source: str,
        layout: Layout = "jpeg",
        overwrite: bool = False,
        numbered: int | None = None,
        disks: Sequence[Path] = (),
        files: bool = False,
    ) -> None:
        self.path, self._source, self._layout, self._numbered = path, source, layout, numbered
        self._place, self._overwrite = place_of(path, disks), overwrite
        self._check_target()
        self._fields: tuple[Field, ...] = (*FIELDS[layout], *(FILES if files else ()))
        self._label_of: dict[str, int] = {}
        self.images = 0

    def __enter__(self) -> StoreWriter:
        import zarr  # half a second: too long to be told of a wrong argument

        with writing(self.path):
            self.folder = self._place.begin()
            self._group = zarr.create_group(self.folder, zarr_format=3)
        self._arrays = {
            f.name: ShardedWriter(self._group, *f, ship=self._place.ship if f.name in IMAGES else _stay)
            for f in self._fields
        }
        if "files" in self._arrays:
            self._append("file_offsets", np.array([0]))
        if self._layout == "jpeg":
            self._append("offsets", np.array([0]))
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        try:
            if kind is None:
                self._finish()
                if not is_url(str(self.path)):  # where our own shards lie by now
                    self._check_target()  # it may have come in the meantime
                with writing(self.path):
                    self._place.publish()
        finally:
            self._place.clear()

    @property
    def identities(self) -> int:
        """Number of identities so far; with `numbered`, that number."""
        return len(self._label_of) if self._numbered is None else self._numbered

    def has(self, identity: str) -> bool:
        """Whether an image of the identity was added; with `numbered`, always."""
        return self._numbered is not None or identity in self._label_of

    def add(self, identity: str, image: bytes | Pixels) -> None:
        """One face, see `as_kept`; raises what that and `append` do, and then adds nothing."""
        self.append([identity], [as_kept(image, self._layout)])

    def append(
        self, identities: Sequence[str], images: Sequence[bytes | Pixels], files: Sequence[str] = ()
    ) -> None:
        """Faces as `as_kept` gives them. Raises UserError when a number is out of range or the disk is full."""
        self._append("labels", np.array([self._label(identity) for identity in identities], np.int32))
        if self._layout == "jpeg":
            start = self._arrays["jpeg"].rows
            self._append("jpeg", np.frombuffer(b"".join(cast("Sequence[bytes]", images)), np.uint8))
            self._append("offsets", start + np.cumsum([len(image) for image in images]))
        else:
            self._append("pixels", np.stack(cast("Sequence[Pixels]", images)))
        if "files" in self._arrays:
            self._append_names("files", "file_offsets", files)
        self.images += len(images)

    def _append(self, name: str, rows: NDArray[Any]) -> None:
        with writing(self.path):
            self._arrays[name].append(rows)

    def _append_names(self, letters: str, offsets: str, names: Sequence[str]) -> None:
        encoded = [name.encode(errors=_ODD) for name in names]
        self._append(offsets, self._arrays[letters].rows + np.cumsum([len(name) for name in encoded]))
        self._append(letters, np.frombuffer(b"".join(encoded), np.uint8))

    def _label(self, identity: str) -> int:
        if self._numbered is None:
            return self._label_of.setdefault(identity, len(self._label_of))
        if not 0 <= int(identity) < self._numbered:
            raise UserError(
                f"{self._source}: label {identity} is out of range, for there are {self._numbered} "
                "identities; correct their number or the label"
            )
        return int(identity)

    def _finish(self) -> None:
        """Names, last shards and attributes."""
        if not self.images:
            raise UserError(f"{self._source}: has no image that could be used; nothing was written")
        with writing(self.path):
            self._append("name_offsets", np.array([0]))
            numbers = range(self._numbered or 0)
            rest = iter(self._label_of) if self._numbered is None else map(str, numbers)
            while some := list(islice(rest, _NAMES_AT_ONCE)):
                self._append_names("names", "name_offsets", some)
            digests = {name: array.finish() for name, array in self._arrays.items()}
            self._group.attrs.update(
                format=FORMAT,
                version=VERSION,
                layout=self._layout,
                colour=COLOR,
                images=self.images,
                identities=self.identities,
                source=self._source,
                fingerprint=fingerprint(self._layout, digests),
                **({"files": files_digest(digests)} if "files" in digests else {}),
            )

    def _check_target(self) -> None:
        if is_url(str(self.path)):
            check_url(str(self.path), self._overwrite, FORMAT)
        else:
            check_folder(Path(self.path), self._overwrite, is_store, "face store")


def as_kept(image: bytes | Pixels, layout: Layout) -> bytes | Pixels:
    """What a store keeps of a face: JPEG bytes of 112x112 pixels, or (112, 112, 3) uint8 RGB pixels.

    In the layout "jpeg", JPEG bytes are kept as they are and pixels are encoded. JPEG is always decoded once.
    Raises ValueError when an image does not decode or has another size.
    """
    if isinstance(image, bytes):
        pixels = decode_jpeg(image)
        return image if layout == "jpeg" else pixels
    if image.shape != (SIDE, SIDE, 3) or image.dtype != np.uint8:
        raise ValueError(f"pixels of shape {image.shape} and type {image.dtype}")
    return encode_jpeg(image) if layout == "jpeg" else image


def _stay(name: str) -> None:
    """Shards of small arrays, which every reader needs, stay with the store."""
