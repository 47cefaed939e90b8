"""What an import reads, one image after the other, each with its identity.

A folder or .zip by identity, a list (`facenas.data.lists`), a store, or InsightFace's RecordIO (images 1..N,
then identities, record 0 says where;
`deepinsight/insightface:recognition/arcface_mxnet/common/rec_builder.py`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Set
from functools import partial
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np

from facenas.data.faces.drops import image_name, read_drops
from facenas.data.faces.record_io import Index, Record, RecordFile
from facenas.data.faces.store import FaceStore, Layout, is_store, open_store
from facenas.data.images import (
    ENDINGS,
    Files,
    FolderFiles,
    ZipFiles,
    is_visible,
    list_files,
    open_files,
    to_png,
    told_ignored,
)
from facenas.data.lists import LISTS, Row, read_list, read_listed, refuse_repeated
from facenas.data.parts import check_folder, class_name, people, refuse_parts
from facenas.errors import UserError
from facenas.files import open_regular

UNLABELED = "unlabeled"  # the one identity of images that nobody has told apart
_EXACT = 1 << 24  # from here on, float32 leaves out whole numbers


class Item(NamedTuple):
    """One image: its name in the source, and its identity and bytes, read when asked for.

    `load` may raise anything; the image is then skipped, with the reason, and one of `identity` is missing ("":
    nobody knows whose). held: bytes that it has read already.
    """

    name: str
    identity: str
    load: Callable[[], tuple[str, bytes]]
    held: int = 0


class FaceSource(NamedTuple):
    """`total` images; every call of `items` lists them anew, in a fixed order, and may raise UserError.

    title: what it is, in words; numbered: how many identities there are when they are the numbers from 0
    on, as text; apart: whether other processes can call `load`; dropped: how many more there would have been;
    layout: as which images are stored unless another is asked for; ignored: what else there is, in words;
    named: whether items are called as their files are.
    """

    title: str
    total: int
    items: Callable[[], Iterator[Item]]
    numbered: int | None = None
    apart: bool = True
    dropped: int = 0
    layout: Layout = "jpeg"
    ignored: tuple[str, ...] = ()
    named: bool = True


def open_source(path: Path, drop: Path | None = None) -> FaceSource:
    """What lies at `path`, told by its name; raises UserError when it is nothing that can be imported.

    drop: of a store, the list of images to leave out (see `read_drops`).
    """
    if path.is_dir() and is_store(path):
        store = open_store(path)
        return _open_stored(store, read_drops(drop, store) if drop is not None else frozenset())
    if drop is not None:
        raise UserError(f"{drop}: lists images of a store; give the store that was checked in place of {path}")
    if path.is_dir():
        if any((path / name).exists() for name in ("train.rec", "train.idx")):
            return open_records(path / "train.rec")
        return _open_folder(path)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    match path.suffix.lower():
        case ".rec":
            return open_records(path)
        case ".zip":
            return _open_zip(path)
        case ending if ending in LISTS:
            return _open_list(path)
    raise UserError(
        f"{path}: is neither a folder nor a .rec, .zip, .csv, .txt, .tsv or .lst file, so there is nothing to "
        "import"
    )


def open_crops(path: Path) -> FaceSource:
    """All images of a folder or .zip, however they are arranged, as images of one identity.

    Raises UserError when it is something else, which tells people apart.
    """
    if is_store(path) or (path.is_file() and path.suffix.lower() != ".zip"):
        raise UserError(f"{path}: tells identities of its own; leave out unlabeled")
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    files = open_files(path)
    names, left_out, others = list_files(files)

    def items() -> Iterator[Item]:
        for name, reason in left_out:
            yield Item(name, UNLABELED, partial(_refuse, f"it {reason}"))
        yield from (Item(name, UNLABELED, partial(_read, files, name, UNLABELED)) for name in names)

    title = f"unlabeled crops {path.resolve().name}"
    total = len(names) + len(left_out)
    return FaceSource(title, total, items, apart=path.is_dir(), ignored=told_ignored(others))


def _open_folder(path: Path) -> FaceSource:
    """Counted by listing once more: the names of all images of a large set would not fit in memory."""
    found = _Beside([], [])
    total = sum(1 for _ in _in_folder(path, found))
    ignored = told_ignored(sum(found.others), found.empty)
    items = partial(_in_folder, path, _Beside([], []))
    return FaceSource(f"folder {path.resolve().name}", total, items, ignored=ignored)


class _Beside(NamedTuple):
    """What a folder holds beside images: how many other files, and which folders without an image."""

    others: list[int]
    empty: list[str]


def _in_folder(path: Path, beside: _Beside) -> Iterator[Item]:
    """`<identity>/.../<image>`, an identity at a time; folders around it all are looked through."""
    root, strict = path, False
    while (deeper := _only_folder(root, strict)) is not None:
        root, strict = deeper, True
    files = FolderFiles(root)
    seen: dict[str, str] = {}
    targets = {place.resolve() for place in (root, *root.resolve().parents)}
    entries = _visible(root)
    refuse_parts(path, [entry.name for entry in entries if entry.is_dir()])
    for entry in entries:
        if not entry.is_dir():
            if entry.name.lower().endswith(ENDINGS):
                yield _in_tree(files, entry.name, [entry.name])
            else:
                beside.others.append(int(is_visible(entry.name)))
            continue
        if entry.is_symlink():
            target = entry.resolve()
            if target in targets or target.parent == root.resolve():
                yield Item(entry.name, "", partial(_refuse, f"it is a link to {target.name}, which is read"))
                continue
            targets.add(target)
        found = list_files(FolderFiles(entry))
        beside.others.append(found.others)
        if not found.names:
            beside.empty.append(entry.name)
        below = sorted(map(_parts, found.names))
        check_folder(path, entry.name, below, seen)
        for name, reason in found.left_out:
            yield Item(f"{entry.name}/{name}", "", partial(_refuse, f"it {reason}"))
        for parts in below:
            yield _in_tree(files, "/".join((entry.name, *parts)), [entry.name, *parts])


def _only_folder(folder: Path, strict: bool) -> Path | None:
    """The one folder in `folder`, when it holds folders itself; `strict`: and no images."""
    inside = [entry for entry in _visible(folder) if entry.is_dir()]
    if len(inside) != 1 or inside[0].is_symlink():
        return None
    below = _visible(inside[0])
    images = any(not entry.is_dir() and entry.name.lower().endswith(ENDINGS) for entry in below)
    deeper = any(entry.is_dir() and not entry.is_symlink() for entry in below)
    return inside[0] if deeper and not (strict and images) else None


def _open_zip(path: Path) -> FaceSource:
    """`<identity>/.../<image>`, never extracted; memory grows with the table of contents."""
    files = ZipFiles(path)
    listing = list_files(files)
    found = people(listing.names, path)

    def items() -> Iterator[Item]:
        return (_in_tree(files, name, list(parts)) for parts, name in found)

    # Half a million members would take each process seconds and 300 MB to list.
    ignored = told_ignored(listing.others)
    return FaceSource(f"zip {path.name}", len(found), items, apart=False, ignored=ignored)


def _in_tree(files: Files, name: str, parts: list[str]) -> Item:
    """An image whose identity is the folder at the top."""
    if len(parts) == 1:
        return Item(name, "", partial(_refuse, "it lies in no identity's folder"))
    identity = class_name(parts[0])
    return Item(name, identity, partial(_read, files, name, identity))


def read_here(item: Item) -> Item:
    """The item with its bytes, or with the error that reading them raised, for other processes."""
    try:
        identity, data = item.load()
        return item._replace(load=partial(_given, identity, data), held=len(data))
    except Exception as error:  # whatever it is, it is told when the item's turn comes
        return item._replace(load=partial(_fail, error))


def _given(identity: str, data: bytes) -> tuple[str, bytes]:
    return identity, data


def _read(files: Files, name: str, identity: str) -> tuple[str, bytes]:
    return identity, files.read(name)


def _refuse(reason: str) -> NoReturn:
    raise ValueError(reason)


def _fail(error: Exception) -> NoReturn:
    raise error


def _open_stored(store: FaceStore, dropped: Set[int]) -> FaceSource:
    """The images of a store but those dropped, byte for byte; pixels of the layout raw stay the same."""

    def items() -> Iterator[Item]:
        for number, label in enumerate(store.labels.tolist()):
            if number not in dropped:
                identity = store.names[label]
                name = image_name(store, number) if store.files is None else store.files[number]
                yield Item(name, identity, partial(_read_stored, store, number, identity))

    title = f"store {store.path.resolve().name}" + (f", {len(dropped)} images dropped" if dropped else "")
    # Each process would open the store anew for every image.
    return FaceSource(
        *(title, len(store) - len(dropped), items),
        apart=False,
        dropped=len(dropped),
        layout=store.layout,
        named=store.files is not None,
    )


def _read_stored(store: FaceStore, number: int, identity: str) -> tuple[str, bytes]:
    if store.layout == "jpeg":
        return identity, store.encoded(number).tobytes()
    return identity, to_png(store.read(np.array([number]))[0])


def _open_list(path: Path) -> FaceSource:
    """Rows of a path and an identity, see `facenas.data.lists`; paths are relative to the list."""
    files = FolderFiles(path.parent)

    def items() -> Iterator[Item]:
        return (Item(row.path, row.label, partial(_read_row, files, row)) for row in read_list(path))

    return FaceSource(f"list {path.name}", refuse_repeated(path), items)


def _read_row(files: FolderFiles, row: Row) -> tuple[str, bytes]:
    return row.label, read_listed(files, row.path)


def open_records(path: Path) -> FaceSource:
    """The images of a `.rec` file, in the order of their keys, each with its label as the identity.

    There are as many identities as the file `property` beside it says (`identities,height,width`); without
    that file, as many as have an identity record. Raises UserError when a file is missing or damaged, and
    while reading when a label is out of range.
    """
    file, index = RecordFile(path), Index(path.with_suffix(".idx"))
    keys, identities = _image_keys(file, index)
    told = _read_property(path.with_name("property")) or identities
    if told is None:
        raise UserError(
            f"{path.with_name('property')}: is missing; write it as `identities,112,112` in one line"
        )
    title = f"RecordIO {path.resolve().parent.name}/{path.name}"
    items = partial(_in_records, file, index, keys, told)
    return FaceSource(title, index.count(keys.start, keys.stop), items, told)


def _in_records(file: RecordFile, index: Index, keys: range, identities: int) -> Iterator[Item]:
    for key, offset in index.offsets(keys.start, keys.stop):
        yield Item(f"record {key}", "", partial(_read_record, file, key, offset, identities))


def _read_record(file: RecordFile, key: int, offset: int, identities: int) -> tuple[str, bytes]:
    record = file.record(offset)
    label = record.labels[0]
    if not (label.is_integer() and 0 <= label < identities):
        raise UserError(
            f"{file.path}: record {key} has label {label:g}, but there are {identities} identities; "
            "correct `property`, or give a whole copy"
        )
    return str(int(label)), record.image


def _image_keys(file: RecordFile, index: Index) -> tuple[range, int | None]:
    """The keys of images, and the number of identity records if there are any."""
    offset = index.offset(0)
    if offset is None:  # im2rec's, of a list numbered from 1: images alone
        ends = [index.offset(key) for key in (1, index.size - 1)]
        if any(place is None or not file.record(place).image for place in ends):
            raise UserError(f"{index.path}: does not list record 0; give a whole copy")
        return range(1, index.size), None
    head = file.record(offset)
    if not head.several or head.image:
        return range(index.size), None

    def has_image(key: int) -> bool:
        offset = index.offset(key)
        return offset is not None and len(file.record(offset).image) > 0

    keys, identities = key_ranges(head, index, has_image)
    listed = index.count(keys.start, keys.stop)
    if listed != len(keys):
        raise UserError(f"{index.path}: lists {listed} of {len(keys)} images; give a whole copy")
    return keys, identities


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
        with open_regular(path) as file:
            text = file.read(1000).decode("utf-8-sig").strip()
        identities, height, width = map(int, re.split(r"\s*,\s*|\s+", text))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        identities = height = width = 0
    if min(identities, height, width) < 1:
        raise UserError(f"{path}: should hold `identities,height,width` in one line; correct it")
    return identities


def _visible(folder: Path) -> list[Path]:
    """What lies in `folder`, by name, without hidden things and macOS's leftovers."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed ({error.strerror})") from None
    return [folder / name for name in names if not name.startswith(".") and name != "__MACOSX"]


def _parts(name: str) -> list[str]:
    return name.split("/")
