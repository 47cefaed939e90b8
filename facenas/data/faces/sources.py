"""What an import reads, one image after the other, each with its identity.

A folder or .zip by identity, a CSV list, or InsightFace's RecordIO (images 1..N, then identities, record
0 says where; `deepinsight/insightface:recognition/arcface_mxnet/common/rec_builder.py`).
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from facenas.data.faces.record_io import Index, Record, RecordFile
from facenas.data.images import ENDINGS, FolderFiles, ZipFiles, image_names
from facenas.errors import UserError

_EXACT = 1 << 24  # from here on, float32 leaves out whole numbers


class Item(NamedTuple):
    """One image: its name in the source, its identity, and its bytes, read when asked for.

    `load` may raise anything; the image is then skipped, with the reason.
    """

    name: str
    identity: str
    load: Callable[[], bytes]


class FaceSource(Protocol):
    """Images in a fixed order, listed anew by every call; reading may raise UserError for all of it.

    title: what it is, in words.
    """

    title: str

    @property
    def numbered(self) -> int | None:
        """The number of identities when they are the numbers from 0 on, as text."""
        ...

    def total(self) -> int:
        """Number of images."""
        ...

    def items(self) -> Iterator[Item]:
        """The images."""
        ...


def open_source(path: Path) -> FaceSource:
    """What lies at `path`, told by its name; raises UserError when it is nothing that can be imported."""
    if path.is_dir():
        return RecordSource(path / "train.rec") if _has_records(path) else FolderSource(path)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    kinds: dict[str, Callable[[Path], FaceSource]] = {
        ".rec": RecordSource,
        ".zip": ZipSource,
        ".csv": ListSource,
    }
    kind = kinds.get(path.suffix.lower())
    if kind is None:
        raise UserError(
            f"{path}: is neither a folder nor a .rec, .zip or .csv file, so there is nothing to import"
        )
    return kind(path)


def _has_records(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("train.rec", "train.idx"))


class FolderSource:
    """`<identity>/.../<image>` below a folder; one folder around it all is looked through.

    Listed an identity at a time: the names of all images of a large set would not fit in memory.
    """

    numbered: int | None = None

    def __init__(self, path: Path) -> None:
        self.title = f"folder {path.resolve().name}"
        self._path = path

    def total(self) -> int:
        return sum(1 for _ in self.items())

    def items(self) -> Iterator[Item]:
        root = self._identities_root()
        files = FolderFiles(root)
        for entry in _visible(root):
            if not entry.is_dir():
                names = [entry] if entry.name.lower().endswith(ENDINGS) else []
            else:
                found = image_names(FolderFiles(entry))
                names = [entry / name for name in sorted(found, key=_parts)]
            for path in names:
                name = path.relative_to(root).as_posix()
                yield _item(name, _parts(name), partial(files.read, name))

    def _identities_root(self) -> Path:
        """The folder itself, or the only folder in it when that holds folders."""
        inside = [entry for entry in _visible(self._path) if entry.is_dir()]
        wrapped = len(inside) == 1 and any(entry.is_dir() for entry in _visible(inside[0]))
        return inside[0] if wrapped else self._path


class ZipSource:
    """`<identity>/.../<image>` in a .zip file, never extracted; memory grows with its table of contents."""

    numbered: int | None = None

    def __init__(self, path: Path) -> None:
        self.title = f"zip {path.name}"
        self._zip = ZipFiles(path)
        names = sorted(image_names(self._zip), key=_parts)
        wrapped = len({_parts(n)[0] for n in names}) == 1 and any(len(_parts(n)) > 2 for n in names)
        self._files = [(name, _parts(name)[wrapped:]) for name in names]

    def total(self) -> int:
        return len(self._files)

    def items(self) -> Iterator[Item]:
        for name, parts in self._files:
            yield _item(name, parts, partial(self._zip.read, name))


class ListSource:
    """Rows `path,identity` of a UTF-8 CSV file; paths are relative to it; such a header is passed over."""

    numbered: int | None = None

    def __init__(self, path: Path) -> None:
        self.title = f"list {path.name}"
        self._path = path

    def total(self) -> int:
        return sum(1 for _ in self.items())

    def items(self) -> Iterator[Item]:
        files = FolderFiles(self._path.parent)
        for name, identity in self._rows():
            yield Item(name, identity, partial(files.read, name))

    def _rows(self) -> Iterator[list[str]]:
        try:
            with self._path.open(encoding="utf-8-sig", newline="") as file:
                rows = csv.reader(file)
                for row in rows:
                    cells = [cell.strip() for cell in row]
                    if rows.line_num == 1 and [c.lower() for c in cells] == ["path", "identity"]:
                        continue
                    if len(cells) == 2 and all(cells):
                        yield cells
                    elif any(cells):
                        raise UserError(
                            f"{self._path}: line {rows.line_num} is not `path,identity`; correct it"
                        )
        except OSError as error:
            raise UserError(f"{self._path}: cannot be read ({error.strerror})") from None
        except (UnicodeDecodeError, csv.Error) as error:
            raise UserError(f"{self._path}: is not UTF-8 CSV ({error}); correct it") from None


class RecordSource:
    """The images of a `.rec` file, in the order of their keys.

    Labels are kept as they are. There are as many identities as the file `property` beside it says
    (`identities,height,width`); without that file, as many as have an identity record. Raises
    UserError when a file is missing or damaged, and while reading when a label is out of range.
    """

    def __init__(self, path: Path) -> None:
        self.title = f"RecordIO {path.resolve().parent.name}/{path.name}"
        self._file, self._index = RecordFile(path), Index(path.with_suffix(".idx"))
        self._keys, identities = self._image_keys()
        told = _read_property(path.with_name("property")) or identities
        if told is None:
            raise UserError(
                f"{path.with_name('property')}: is missing; write it as `identities,112,112` in one line"
            )
        self.numbered = told

    def total(self) -> int:
        """Number of images."""
        return self._index.count(self._keys.start, self._keys.stop)

    def items(self) -> Iterator[Item]:
        """Every image with its number as the identity."""
        for key, offset in self._index.offsets(self._keys.start, self._keys.stop):
            record = self._file.record(offset)
            label = record.labels[0]
            if not (label.is_integer() and 0 <= label < self.numbered):
                raise UserError(
                    f"{self._file.path}: record {key} has label {label:g}, but there are "
                    f"{self.numbered} identities; correct `property`, or give a whole copy"
                )
            yield Item(f"record {key}", str(int(label)), partial(bytes, record.image))

    def _image_keys(self) -> tuple[range, int | None]:
        """The keys of images, and the number of identity records if there are any."""
        offset = self._index.offset(0)
        if offset is None:
            raise UserError(f"{self._index.path}: does not list record 0; give a whole copy")
        head = self._file.record(offset)
        if not head.several or head.image:
            return range(self._index.size), None
        keys, identities = key_ranges(head, self._index, self._has_image)
        if self._index.count(keys.start, keys.stop) != len(keys):
            raise UserError(
                f"{self._index.path}: lists {self._index.count(keys.start, keys.stop)} of "
                f"{len(keys)} images; give a whole copy"
            )
        return keys, identities

    def _has_image(self, key: int) -> bool:
        offset = self._index.offset(key)
        return offset is not None and len(self._file.record(offset).image) > 0


def key_ranges(head: Record, index: Index, has_image: Callable[[int], bool]) -> tuple[range, int]:
    """(keys of images, number of identities) out of record 0, `head`.

    Record 0 tells the keys of the identity records as float32 first and last + 1. Where these leave
    out whole numbers, the first record without an image is searched around the number told.
    Raises UserError when the numbers make no sense.
    """
    if len(head.labels) < 2 or not 1 <= head.labels[0] <= head.labels[1] < np.inf:
        raise UserError(
            f"{index.path}: record 0 tells key ranges {head.labels} that make no sense; give a whole copy"
        )
    first, last = int(head.labels[0]), int(head.labels[1])
    if last <= _EXACT:
        return range(1, first), last - first
    reach = int(np.spacing(np.float32(first)))
    low, high = max(1, first - reach), min(index.size, first + reach)
    while low < high:  # all images come before all identities
        middle = (low + high) // 2
        low, high = (middle + 1, high) if has_image(middle) else (low, middle)
    return range(1, low), index.size - low


def _read_property(path: Path) -> int | None:
    """The number of identities; None when there is no such file."""
    try:
        identities, height, width = map(int, path.read_text(encoding="utf-8").split(","))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        identities = height = width = 0
    if min(identities, height, width) < 1:
        raise UserError(f"{path}: should hold `identities,height,width` in one line; correct it")
    return identities


def _item(name: str, parts: list[str], read: Callable[[], bytes]) -> Item:
    """An image in a tree: its identity is the folder at the top."""
    if len(parts) == 1:
        return Item(name, "", _refuse_strayed)
    return Item(name, parts[0], read)


def _refuse_strayed() -> bytes:
    raise ValueError("it lies in no identity's folder")


def _visible(folder: Path) -> list[Path]:
    """What lies in `folder`, by name, without hidden things and macOS's leftovers."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed ({error.strerror})") from None
    return [folder / name for name in names if not name.startswith(".") and name != "__MACOSX"]


def _parts(name: str) -> list[str]:
    return name.split("/")
