"""Where in the data given a bench lies, and its list of pairs."""

from __future__ import annotations

import os
from pathlib import Path

from facenas.data.images import Files, FolderFiles, open_files
from facenas.errors import UserError
from facenas.evaluation.benches import BenchFacts
from facenas.evaluation.protocols.cfp import FIRST_FILE

_ANY_LIST = "pairs.txt"  # whose, only the name of its folder tells
ListFile = tuple[Files, str]  # a text file, or the first file of CFP's protocol folder, by its name


def find_place(facts: BenchFacts, data: Path, with_bin: bool) -> Path:
    """The `.bin` file, .zip or folder of images: `data`, or what is named for the bench in it.

    Raises UserError when `data` does not exist.
    """
    if not data.exists():
        raise UserError(f"{data}: does not exist")
    for name in facts.files if data.is_dir() else ():
        if (data / name).exists() and (with_bin or not name.endswith(".bin")):
            return find_place(facts, data / name, with_bin)
    return data


def find_list(facts: BenchFacts, images: Files) -> ListFile | None:
    """The bench's list of pairs: in the folder or .zip of images, or beside it."""
    place = Path(os.path.abspath(images.root))
    own = (*facts.lists, _ANY_LIST) if place.name in facts.files else facts.lists
    if not place.is_dir() and (inside := _in_archive(images, own)) is not None:
        return images, inside
    folders = [(place, own)] if place.is_dir() else []
    for folder, names in [*folders, (place.parent, facts.lists)]:
        for path in (folder / name for name in names):
            if path.exists():
                return open_list(path)
    return None


def open_list(path: Path) -> ListFile:
    """A text file, or CFP's protocol as a folder or .zip; raises UserError when it is neither."""
    if not path.exists():
        raise UserError(f"{path}: does not exist")
    if not path.is_dir() and path.suffix != ".zip":
        return FolderFiles(path.parent), path.name
    files = open_files(path)
    found = [name for name in files.names() if name.rpartition("/")[2] == FIRST_FILE]
    if not found:
        raise UserError(f"{path}: has no {FIRST_FILE}, with which CFP's protocol begins")
    return files, min(found, key=len)


def _in_archive(images: Files, lists: tuple[str, ...]) -> str | None:
    """The first of `lists` in a .zip, at its top or in the one folder around everything."""
    names = images.names()
    around = {name.partition("/")[0] if "/" in name else "" for name in names}
    tops = ["", *(f"{top}/" for top in around if len(around) == 1 and top)]
    wanted = (top + name for name in lists for top in tops)
    there = set(names)
    for name in wanted:
        if name in there:
            return name
        if f"{name}/{FIRST_FILE}" in there:
            return f"{name}/{FIRST_FILE}"
    return None
