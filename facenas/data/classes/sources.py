"""What an import of classification images reads: which files, of which class and which part of the set."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from facenas.data.folders import listed_classes, listed_names, part_number, test_from
from facenas.data.found import Unread
from facenas.data.images import Files, FolderFiles, list_folders, open_files, told_ignored
from facenas.data.lists import LISTS, listed_name, read_list, refuse_repeated
from facenas.data.parts import HELD_OUT, PARTS, decide_parts, parts_of_folders
from facenas.errors import UserError


class ClassSource(NamedTuple):
    """Images in `files`: every call of `names` gives those of all, in a fixed order.

    title: what it is, in words; labels: (n,) int32, indices into `classes`; parts: (n,) int8, see
    `facenas.data.parts.PARTS`; test_from: where test images come from, ignored: what belongs to no part, both
    in words; left_out: what was not even listed.
    """

    title: str
    files: Files
    classes: tuple[str, ...]
    labels: NDArray[np.int32]
    parts: NDArray[np.int8]
    names: Callable[[], Iterator[str]]
    test_from: str
    ignored: tuple[str, ...] = ()
    left_out: tuple[Unread, ...] = ()


def open_classes(path: Path) -> ClassSource:
    """The images at `path`, a folder, a .zip or a list, as `--data` of a search takes them.

    Raises UserError when there is no such thing, or it is no set of two or more classes.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    if path.suffix.lower() in LISTS and path.is_file():
        return _in_list(path)
    files = open_files(path)
    kind = "folder" if path.is_dir() else "zip"
    return _in_folders(f"{kind} {path.resolve().name}", files)


def _in_folders(title: str, files: Files) -> ClassSource:
    """Arranged folder by folder: of each image, memory holds its own name alone, 25 bytes."""
    inside: dict[str, str] = {}  # the first image of each folder, which stands for all, and their own names
    left_out: list[Unread] = []
    others = 0
    for listing in list_folders(files):
        if listing.names:
            inside[listing.names[0]] = "/".join(name.rpartition("/")[2] for name in listing.names)
        left_out += [Unread(-1, name, f"it {reason}") for name, reason in listing.left_out]
        others += listing.others
    counts = {first: names.count("/") + 1 for first, names in inside.items()}
    found = parts_of_folders(inside, files.root, counts.__getitem__)
    folders = [
        (first, label, part)
        for part, some in zip(PARTS, (found.train, found.validation, found.test), strict=True)
        for first, label in some
    ]
    each = [counts[first] for first, _, _ in folders]
    labels = np.repeat(np.array([label for _, label, _ in folders], np.int32), each)
    told = np.repeat(np.array([part for _, _, part in folders], np.int8), each)
    parts = decide_parts(labels, told, found.classes, files.root)

    def names() -> Iterator[str]:
        for first, _, _ in folders:
            place = first[: first.rfind("/") + 1]
            yield from (place + name for name in inside[first].split("/"))

    ignored = (*found.ignored, *told_ignored(others))
    origin = found.test_from or HELD_OUT
    return ClassSource(title, files, found.classes, labels, parts, names, origin, ignored, tuple(left_out))


def _in_list(path: Path) -> ClassSource:
    """Rows of a list, which is read anew each time: but for labels and parts, memory holds none of them."""
    refuse_repeated(path, with_parts=True)
    files = FolderFiles(path.parent)
    classes = listed_classes(path, {row.label for row in read_list(path, with_parts=True)})
    label_of = {label: number for number, label in enumerate(classes)}
    numbers, told, there = array("i"), array("b"), True
    for row in read_list(path, with_parts=True):
        numbers.append(label_of[row.label])
        told.append(part_number(row))
        there = there and listed_name(files, row.path) is not None
    labels, said = np.array(numbers, np.int32), np.array(told, np.int8)
    parts = decide_parts(labels, said, classes, path)
    # Where they have to be looked for, all names are held.
    found = None if there else listed_names(path, files, list(read_list(path, with_parts=True)))

    def names() -> Iterator[str]:
        if found is not None:
            return iter(found)
        return (listed_name(files, row.path) or row.path for row in read_list(path, with_parts=True))

    return ClassSource(f"list {path.name}", files, classes, labels, parts, names, test_from(path, said))
