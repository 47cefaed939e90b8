"""Where in the data given a bench lies: its images, its list of pairs, and each listed image."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from os.path import splitext
from pathlib import Path

from facenas.data.images import Files, FolderFiles, image_names, open_files
from facenas.errors import UserError
from facenas.evaluation.benches.pair_lists import CFP_FIRST

ListFile = tuple[Files, str]  # a text file, or the first file of CFP's protocol folder, by its name

_ANY_LIST = "pairs.txt"  # whose, only the name of its folder tells
_SAMPLE = 200  # listed images that tell in which folder all of them lie


def find_place(data: Path, names: Sequence[str], with_bin: bool) -> Path:
    """The `.bin` file, .zip or folder of images: `data`, or the first of `names` that lies in it.

    Raises UserError when `data` does not exist.
    """
    if not data.exists():
        raise UserError(f"{data}: does not exist")
    for name in names if data.is_dir() else ():
        if (data / name).exists() and (with_bin or not name.endswith(".bin")):
            return find_place(data / name, names, with_bin)
    return data


def find_list(images: Files, places: Sequence[str], lists: tuple[str, ...]) -> ListFile | None:
    """The list of pairs, of a name in `lists`: in the folder or .zip of images, or beside it.

    `pairs.txt` counts too where the folder or .zip has a name of `places`, which are the bench's own.
    """
    place = Path(os.path.abspath(images.root))
    own = (*lists, _ANY_LIST) if place.name in places else lists
    if not place.is_dir() and (inside := _in_archive(images, own)) is not None:
        return images, inside
    folders = [(place, own)] if place.is_dir() else []
    for folder, names in [*folders, (place.parent, lists)]:
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
    found = [name for name in files.names() if name.rpartition("/")[2] == CFP_FIRST]
    if not found:
        raise UserError(f"{path}: has no {CFP_FIRST}, with which CFP's protocol begins")
    return files, min(found, key=len)


def _in_archive(images: Files, lists: tuple[str, ...]) -> str | None:
    """The first of `lists` in a .zip, at its top or in the one folder around everything."""
    there = set(images.names())
    around = {name.partition("/")[0] if "/" in name else "" for name in there}
    tops = ["", *(f"{top}/" for top in around if len(around) == 1 and top)]
    for name in (top + name for name in lists for top in tops):
        if name in there:
            return name
        if f"{name}/{CFP_FIRST}" in there:
            return f"{name}/{CFP_FIRST}"
    return None


def locate(files: Files, listed: Sequence[str]) -> list[str | None]:
    """For every listed path the name of its image in `files`, or None where there is none.

    All of them lie in one folder, however deep, with the ending listed or another one. Leading folders that
    all listed paths share need not be there. Raises UserError when two folders fit.
    """
    names = image_names(files)
    by_stem = {
        splitext(name)[0]: name for name in names
    }  # a.jpg and a.png: the exact name goes first
    exact = set(names)
    shorter = list(listed)
    while shorter:
        folder = _folder(files.root, by_stem, shorter)
        if folder is not None:
            places = [folder + name for name in shorter]
            return [name if name in exact else by_stem.get(splitext(name)[0]) for name in places]
        tops = {name.partition("/")[0] for name in shorter}
        if len(tops) > 1 or not all("/" in name for name in shorter):
            break
        shorter = [name.partition("/")[2] for name in shorter]
    return [None] * len(listed)


def _folder(root: Path, by_stem: dict[str, str], listed: list[str]) -> str | None:
    """The folder, "" or with a slash at its end, in which most of a sample of listed images lie."""
    sample = [splitext(name)[0] for name in listed[:: max(1, len(listed) // _SAMPLE)]]
    by_last: dict[str, list[str]] = {name.rpartition("/")[2]: [] for name in sample}
    for stem in by_stem:
        if (last := stem.rpartition("/")[2]) in by_last:
            by_last[last].append(stem)
    votes = Counter(
        stem[: -len(name)]
        for name in sample
        for stem in by_last[name.rpartition("/")[2]]
        if stem == name or stem.endswith("/" + name)
    )
    if not votes or votes[""] == len(sample):
        return "" if votes else None
    first, second = [*votes.most_common(2), ("", 0)][:2]
    if second[1] > first[1] / 2:
        raise UserError(
            f"{root}: holds the listed images twice, in {first[0]!r} and {second[0]!r}; give one of these"
        )
    return first[0]
