"""Image folders and .zip files in the ImageFolder convention; see `facenas.data.parts` for how they are told.

Images that cannot be read are left out, and named in the entry's `skipped.csv`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from facenas.data.cache import Decoded, cached, stamp
from facenas.data.found import Unread
from facenas.data.images import (
    Files,
    FolderFiles,
    Pixels,
    image_names,
    is_grey,
    list_files,
    open_files,
    open_image,
    reason_of,
    to_pixels,
    told_ignored,
    upright_size,
)
from facenas.data.lists import LISTS, Row, listed_name, locate, read_list, refuse_repeated
from facenas.data.parts import (
    HELD_OUT,
    PARTS,
    TEST,
    TRAIN,
    VALIDATION,
    Arrangement,
    arrange,
    decide_parts,
)
from facenas.errors import UserError


class UnreadError(Exception):
    """An image cannot be read; what it says is the reason."""


_READER = 2  # raise it when the same folder would give other images


def cached_folder(path: Path, image_size: int | None, cache: Path) -> Path:
    """The cache entry of the folder or .zip at `path`, resized to `image_size` when that is given.

    Its identity is the .zip's size and time, or those of every image of a folder.
    """
    identity: list[object] = [image_size, _READER]
    if path.suffix.lower() in LISTS and path.is_file():
        return _cached_list(path, image_size, cache)
    if path.is_dir():
        name, files = path.resolve().name, FolderFiles(path)
        identity.append(str(path.resolve()))
        try:
            identity += [[image, *files.stamp(image)] for image in image_names(files)]
        except OSError as error:
            raise UserError(f"{error.filename}: cannot be read ({error.strerror})") from None
    else:
        name = path.stem
        identity.append(stamp(path))
    return cached(name, identity, lambda: _decode(open_files(path), image_size), cache)


def _cached_list(path: Path, image_size: int | None, cache: Path) -> Path:
    """As `cached_folder`, of a list of images and classes; where it tells no parts, a fixed fifth tests.

    Paths are relative to the list, or to wherever below its folder the images lie.
    """
    refuse_repeated(path, with_parts=True)
    files, rows = FolderFiles(path.parent), list(read_list(path, with_parts=True))
    names = listed_names(path, files, rows)
    classes = listed_classes(path, {row.label for row in rows})
    label_of = {label: number for number, label in enumerate(classes)}
    labels = [label_of[row.label] for row in rows]
    told = np.array([part_number(row) for row in rows], np.int8)
    parts = decide_parts(np.array(labels), told, classes, path)
    train, validation, test = (
        [(names[i], labels[i]) for i in np.flatnonzero(parts == part).tolist()] for part in PARTS
    )
    plan = Arrangement(classes, train, test, validation, test_from(path, told), ())
    identity: list[object] = [image_size, _READER, stamp(path)]
    identity += [[name, *files.stamp(name)] for name in names]
    return cached(path.stem, identity, lambda: decode_listed(files, plan, image_size), cache)


def listed_names(path: Path, files: FolderFiles, rows: Sequence[Row]) -> list[str]:
    """The file of each row of the list `path`; raises UserError, naming a line, when some are missing."""
    wanted = [listed_name(files, row.path) for row in rows]
    if None in wanted:
        found = locate(files, [row.path.replace("\\", "/") for row in rows])
        wanted = [name or other for name, other in zip(wanted, found, strict=True)]
    missing = [row for row, name in zip(rows, wanted, strict=True) if name is None]
    if missing:
        raise UserError(
            f"{path}: line {missing[0].line} lists {missing[0].path}, which is not there; in all "
            f"{len(missing)} of {len(rows)} images are missing"
        )
    return [name for name in wanted if name is not None]


def listed_classes(path: Path, labels: Iterable[str]) -> tuple[str, ...]:
    """Labels of a list in order; raises UserError when there are fewer than two."""
    classes = tuple(sorted(labels, key=_in_order))
    if len(classes) < 2:
        raise UserError(f"{path}: lists images of {len(classes)} class(es) where two or more are needed")
    return classes


def part_number(row: Row) -> int:
    """Which of `PARTS` the row tells; TRAIN when none."""
    return {"validation": VALIDATION, "test": TEST}.get(row.part, TRAIN)


def test_from(path: Path, told: NDArray[np.int8]) -> str:
    """Where test images come from, in words; told: the parts as the list has them."""
    return f"as {path.name} tells" if told.any() else HELD_OUT


def _in_order(label: str) -> tuple[int, str]:
    """Numbers by their size, before names."""
    return (int(label), "") if label.isdecimal() and label.isascii() else (1 << 62, label)


def _decode(files: Files, image_size: int | None) -> Decoded:
    listing = list_files(files)
    plan = arrange(listing.names, files.root)
    ignored = [*plan.ignored, *told_ignored(listing.others)]
    left_out = tuple(Unread(-1, name, f"it {reason}") for name, reason in listing.left_out)
    decoded = decode_listed(files, plan, image_size)
    return replace(decoded, ignored=tuple(ignored), left_out=left_out)


def decode_listed(files: Files, plan: Arrangement, image_size: int | None) -> Decoded:
    """The images that `plan` names in `files`, decoded when they are asked for; grey when all are.

    Raises UserError when they are not square or of one size and `image_size` is not given.
    """
    size = image_size or _first_size(files, [name for name, _ in plan.train])
    parts = (plan.train + plan.validation, plan.test)
    grey = _all_grey(files, [name for part in parts for name, _ in part])
    train, test = (
        (
            _FileImages(files, [name for name, _ in part], size, grey, image_size is not None),
            np.array([label for _, label in part], np.int64),
        )
        for part in parts
    )
    return Decoded(
        *(train, test, plan.classes, size),
        flip=True,
        validation_images=len(plan.validation),
        test_from=plan.test_from,
        ignored=plan.ignored,
    )


def _first_size(files: Files, names: list[str]) -> int:
    """The side of the first image that can be read; 1 when none can, which decoding then tells."""
    for name in names:
        with suppress(UnreadError), _opened(files, name) as image:
            width, height = upright_size(image)
            if width != height:
                raise _unfit(files, name, image, "and not square")
            return width
    return 1


class _FileImages:
    """The images `names`, decoded when a slice of them is asked for (see `Images`)."""

    def __init__(self, files: Files, names: list[str], size: int, grey: bool, may_resize: bool) -> None:
        self.shape = (len(names), size, size, 1 if grey else 3)
        self._files, self._names, self._grey, self._may_resize = files, names, grey, may_resize
        self.unread: list[Unread] = []

    def __getitem__(self, run: slice) -> Pixels:
        names, size = self._names[run], self.shape[1]
        block = np.empty((len(names), *self.shape[1:]), np.uint8)
        read = 0
        for row, name in enumerate(names, run.start):
            try:
                with _opened(self._files, name) as image:
                    if not self._may_resize and upright_size(image) != (size, size):
                        raise _unfit(self._files, name, image, f"where others are {size}x{size}")
                    block[read] = to_pixels(image, self._grey, size)
            except UnreadError as error:
                self.unread.append(Unread(row, name, str(error)))
            else:
                read += 1
        return block[:read]


def _unfit(files: Files, name: str, image: Image.Image, fault: str) -> UserError:
    width, height = upright_size(image)
    return UserError(
        f"{files.root}: {name} is {width}x{height} pixels {fault}; give data.image_size to resize all images"
    )


def _all_grey(files: Files, names: list[str]) -> bool:
    """Whether no image has colors. Reads headers, and only up to the first image in color."""
    for name in tqdm(names, "looking for colors", disable=None, leave=False, unit="image"):
        with suppress(UnreadError), _opened(files, name) as image:
            if not is_grey(image):
                return False
    return True


@contextmanager
def _opened(files: Files, name: str) -> Iterator[Image.Image]:
    """The image `name`; what is wrong with its content becomes an UnreadError with the reason."""
    try:
        with open_image(files.read(name)) as image:
            yield image
    except UserError:
        raise
    except Exception as error:  # Pillow's plugins and zipfile raise many kinds
        reason = reason_of(error)
        if isinstance(error, OSError) and error.strerror:  # of the file, not of what is in it
            raise UserError(
                f"{files.root}: {name} cannot be read ({reason}); correct it or remove it"
            ) from None
        raise UnreadError(reason) from None
