"""Image folders and .zip files in the ImageFolder convention.

Either `train/<class>/...` with `test/<class>/...` (or `val`, `valid`), or `<class>/...` alone, of
which a fixed fifth becomes the test images. One folder around it all is looked through.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from facenas.data.cache import Decoded, cached, stamp
from facenas.data.images import (
    Files,
    FolderFiles,
    Pixels,
    image_names,
    is_grey,
    open_files,
    open_image,
    reason_of,
    to_pixels,
)
from facenas.data.splits import hold_out_test
from facenas.errors import UserError

# In any case. Taken for classes, "Training" and "Testing" would make a set that trains all too well.
_TRAIN_FOLDERS = ("train", "training")
_TEST_FOLDERS = ("test", "testing", "val", "valid", "validation")
_File = tuple[tuple[str, ...], str]  # a name's parts from some folder on, and the whole name


def cached_folder(path: Path, image_size: int | None, cache: Path) -> Path:
    """The cache entry of the folder or .zip at `path`, resized to `image_size` when that is given.

    Its identity is the .zip's size and time, or those of every image of a folder.
    """
    identity: list[object] = [image_size]
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


class Arrangement(NamedTuple):
    """Which images make up a set: (name, label) in order, labels counted from 0 along `classes`."""

    classes: tuple[str, ...]
    train: list[tuple[str, int]]
    test: list[tuple[str, int]]


def arrange(names: Iterable[str], root: Path) -> Arrangement:
    """Sort image names (with forward slashes) into classes and parts.

    Classes and images are ordered by name; images outside any class folder are left out. Raises
    UserError, naming `root`, when there are fewer than two classes, no test images, or test images
    of a class without training images.
    """
    files = sorted((tuple(name.split("/")), name) for name in names)
    if len({parts[0] for parts, _ in files}) == 1 and any(len(parts) > 2 for parts, _ in files):
        files = [(parts[1:], name) for parts, name in files if len(parts) > 1]
    train = _below(_TRAIN_FOLDERS, files)
    test = _below(_TEST_FOLDERS, files) if train else []
    present = [parts[0] for parts, _ in files if parts[0].lower() in _TEST_FOLDERS]
    if train and present and not test:
        raise UserError(
            f"{root}: {present[0]}/ has images but no class folders; sort them into "
            f"{present[0]}/<class>/, or remove it to test on a fifth of the training images"
        )
    train = train or [file for file in files if len(file[0]) > 1]
    classes = tuple(sorted({parts[0] for parts, _ in train}))
    if len(classes) < 2:
        raise UserError(
            f"{root}: holds images of {len(classes)} class(es) where two or more are needed; give "
            "each class a folder, as <class>/<image> or train/<class>/<image>"
        )
    strangers = sorted({parts[0] for parts, _ in test} - set(classes))
    if strangers:
        raise UserError(
            f"{root}: class {strangers[0]!r} has test images but no training images; add some or "
            "remove the class"
        )
    label_of = {name: label for label, name in enumerate(classes)}
    kept, held_out = ([(name, label_of[p[0]]) for p, name in part] for part in (train, test))
    if not test:
        parts = hold_out_test(np.array([label for _, label in kept], np.int64))
        kept, held_out = ([kept[index] for index in part] for part in parts)
    if not held_out:
        raise UserError(
            f"{root}: has one image a class, too few to hold out test images; add images, or "
            "train/ and test/ folders"
        )
    return Arrangement(classes, kept, held_out)


def _below(folders: tuple[str, ...], files: list[_File]) -> list[_File]:
    """The files in class folders of the first of `folders` that has any, from the class on."""
    for folder in folders:
        found = [(p[1:], name) for p, name in files if p[0].lower() == folder and len(p) > 2]
        if found:
            return found
    return []


def _decode(files: Files, image_size: int | None) -> Decoded:
    plan = arrange(image_names(files), files.root)
    first = plan.train[0][0]
    with _opened(files, first) as image:
        if image_size is None and image.width != image.height:
            raise _unfit(files, first, image, "and not square")
        size = image_size or image.width
    grey = _all_grey(files, [name for name, _ in plan.train + plan.test])
    train, test = (
        (
            _FileImages(files, [name for name, _ in part], size, grey, image_size is not None),
            np.array([label for _, label in part], np.int64),
        )
        for part in (plan.train, plan.test)
    )
    return Decoded(train, test, plan.classes, size, flip=True)


class _FileImages:
    """The images `names`, decoded when a slice of them is asked for (see `Images`)."""

    def __init__(self, files: Files, names: list[str], size: int, grey: bool, may_resize: bool) -> None:
        self.shape = (len(names), size, size, 1 if grey else 3)
        self._files, self._names, self._grey, self._may_resize = files, names, grey, may_resize

    def __getitem__(self, run: slice) -> Pixels:
        names, size = self._names[run], self.shape[1]
        block = np.empty((len(names), *self.shape[1:]), np.uint8)
        for row, name in enumerate(names):
            with _opened(self._files, name) as image:
                if not self._may_resize and image.size != (size, size):
                    raise _unfit(self._files, name, image, f"where others are {size}x{size}")
                block[row] = to_pixels(image, self._grey, size)
        return block


def _unfit(files: Files, name: str, image: Image.Image, fault: str) -> UserError:
    return UserError(
        f"{files.root}: {name} is {image.width}x{image.height} pixels {fault}; give data.image_size to "
        "resize all images"
    )


def _all_grey(files: Files, names: list[str]) -> bool:
    """Whether no image has colors. Reads headers, and only up to the first image in color."""
    for name in tqdm(names, "looking for colors", disable=None, leave=False, unit="image"):
        with _opened(files, name) as image:
            if not is_grey(image):
                return False
    return True


@contextmanager
def _opened(files: Files, name: str) -> Iterator[Image.Image]:
    """The image `name`; whatever goes wrong with it becomes a UserError that names it."""
    try:
        with open_image(files.read(name)) as image:
            yield image
    except UserError:
        raise
    except Exception as error:  # Pillow's plugins and zipfile raise many kinds
        raise UserError(
            f"{files.root}: {name} cannot be read as an image ({reason_of(error)}); replace or remove it"
        ) from None
