"""How the images that a list names are found in a folder or .zip."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from facenas.data.images import Files, image_names
from facenas.errors import UserError

_SAMPLE = 200  # listed images that tell in which folder all of them lie


def read_text(files: Files, name: str) -> str:
    """A text file; raises UserError when it cannot be read or is no text."""
    try:
        return files.read(name).decode("utf-8-sig")
    except OSError as error:
        reason = error.strerror or "damaged"
    except ValueError as error:
        reason = "it is no text" if isinstance(error, UnicodeDecodeError) else str(error)
    raise UserError(f"{files.root}: {name} cannot be read ({reason})")


def plain_path(text: str) -> str:
    """A listed path with forward slashes, and without `.` and `..`."""
    return "/".join(part for part in text.replace("\\", "/").split("/") if part.strip(".") != "")


def locate(files: Files, listed: Sequence[str]) -> list[str | None]:
    """For every listed path the name of its image in `files`, or None where there is none.

    All of them lie in one folder, however deep, with the ending listed or another one. Leading folders that
    all listed paths share need not be there. Raises UserError when two folders fit.
    """
    names = image_names(files)
    by_stem = {_stem(name): name for name in names}  # a.jpg and a.png: the exact name goes first
    exact = set(names)
    shorter = list(listed)
    while shorter:
        folder = _folder(files.root, by_stem, shorter)
        if folder is not None:
            places = [folder + name for name in shorter]
            return [name if name in exact else by_stem.get(_stem(name)) for name in places]
        tops = {name.partition("/")[0] for name in shorter}
        if len(tops) > 1 or not all("/" in name for name in shorter):
            break
        shorter = [name.partition("/")[2] for name in shorter]
    return [None] * len(listed)


def _folder(root: Path, by_stem: dict[str, str], listed: list[str]) -> str | None:
    """The folder, "" or with a slash at its end, in which most of a sample of listed images lie."""
    sample = [_stem(name) for name in listed[:: max(1, len(listed) // _SAMPLE)]]
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


def _stem(name: str) -> str:
    path = PurePosixPath(name)
    return name[: len(name) - len(path.suffix)]
