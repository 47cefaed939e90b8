"""Own data from Python: arrays, or a `torch.utils.data.Dataset`, put into the cache as a set like any other.

What is returned names the data from then on (`DataConfig.name`), so a search, its workers and a resumed run
open it from the cache and need neither the arrays nor the dataset again.
"""

from __future__ import annotations

import operator
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from facenas.data.cache import Decoded, Labels, cached, fingerprint
from facenas.data.images import Pixels, is_grey, reason_of, to_pixels
from facenas.data.parts import HELD_OUT
from facenas.data.splits import hold_out_test
from facenas.errors import UserError
from facenas.files import open_regular

if TYPE_CHECKING:
    from torch.utils.data import Dataset

_Arrays = tuple[Any, Any]  # images, labels


def from_arrays(
    train: _Arrays,
    test: _Arrays | None = None,
    *,
    classes: Sequence[str] | None = None,
    flip: bool = True,
    image_size: int | None = None,
    name: str = "arrays",
    cache: Path | None = None,
) -> str:
    """Puts (images, labels) into the cache; returns the value of `DataConfig.name` that means them.

    images: (n, h, w, c) or (n, h, w) uint8, with c = 1 or 3 and h = w unless `image_size` is given, to which
    they are then resized; labels: (n,) integers from 0 on, every class with training images. Without `test`
    a fixed stratified fifth of the images is held out, as of a folder. classes: their names, else the
    numbers; flip: whether training may mirror images. The same arrays are the same data, and are written
    once. Raises UserError for anything else.
    """
    images, labels = _pair(train, "train")
    if test is not None:
        test_images, test_labels = _pair(test, "test")
    else:
        kept, held_out = hold_out_test(labels)
        test_images, test_labels = images[held_out], labels[held_out]
        images, labels = images[kept], labels[kept]
    if not len(test_labels):
        raise UserError("images: one a class is too few to hold out test images; add images, or give test")
    size = image_size or images.shape[1]
    for part in (images, test_images):
        if image_size is None and part.shape[1:3] != (size, size):
            raise UserError(
                f"images: {part.shape[2]}x{part.shape[1]} pixels, where squares of one size are needed; "
                "give image_size to resize them"
            )
    if images.shape[3] != test_images.shape[3]:
        raise UserError("test images: have another number of channels than the train images; convert them")
    names = _class_names(labels, test_labels, classes)
    test_from = HELD_OUT if test is None else ""
    decoded = Decoded((images, labels), (test_images, test_labels), names, size, flip, test_from=test_from)
    identity = [size, flip, fingerprint((images, labels, test_images, test_labels)), *names]
    return str(cached(name, identity, lambda: decoded, cache).resolve())


def from_dataset(
    train: Dataset[Any],
    test: Dataset[Any] | None = None,
    *,
    classes: Sequence[str] | None = None,
    flip: bool = True,
    image_size: int | None = None,
    name: str | None = None,
    cache: Path | None = None,
) -> str:
    """Reads datasets of (image, label) once and puts them into the cache, as `from_arrays` does.

    An image is a PIL image, a uint8 array (h, w) or (h, w, c), or a tensor (h, w) or (c, h, w), of uint8 or of
    floats in 0..1; a label is an integer. Random transforms and normalization do not belong in it: the
    recipe augments and normalizes. classes: by default the dataset's own `classes`. All images are held in
    memory while they are read. Raises UserError for anything else; what the dataset raises propagates.
    """
    parts = [_read(dataset, image_size) for dataset in (train, test) if dataset is not None]
    if classes is None:
        own = getattr(train, "classes", None)
        count = max(int(labels.max()) for _, labels in parts) + 1
        classes = own if own is not None and len(own) == count else None
    name = name or type(train).__name__
    return from_arrays(*parts, classes=classes, flip=flip, image_size=image_size, name=name, cache=cache)


_NPZ = (
    ("train_images", "train_labels", "test_images", "test_labels"),
    ("x_train", "y_train", "x_test", "y_test"),
    ("images", "labels"),
    ("x", "y"),
    ("data", "labels"),
)


_PLAUSIBLE, _MOST_PACKED = 1 << 30, 50  # bytes that anybody may unpack; times the file's size, beyond it


def from_npz(path: Path, image_size: int | None, cache: Path | None = None) -> str:
    """As `from_arrays`, of a .npz file with `images` and `labels`, or the like (`x_train`, `y_train`, ...).

    Raises UserError for other names, objects (which would be unpickled), and what `from_arrays` refuses.
    """
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            total = sum(member.file_size for member in archive.infolist())
        if total > max(_PLAUSIBLE, _MOST_PACKED * path.stat().st_size):
            raise ValueError(f"{total:,} bytes are packed to a small part of that, as no images are")
        with np.load(path, allow_pickle=False) as arrays:
            by_name = {name.lower(): name for name in arrays.files}
            names = next((some for some in _NPZ if all(name in by_name for name in some)), None)
            if names is None:
                raise UserError(
                    f"{path}: holds {', '.join(arrays.files) or 'nothing'}, where images and labels, or "
                    "train_images, train_labels, test_images and test_labels are needed"
                )
            found = [arrays[by_name[name]] for name in names]
    except UserError:
        raise
    except Exception as error:  # zipfile, zlib and NumPy raise many kinds
        raise UserError(f"{path}: is no readable .npz file of arrays ({reason_of(error)})") from None
    parts = [(found[i], np.reshape(found[i + 1], -1)) for i in range(0, len(found), 2)]
    try:
        return from_arrays(*parts, image_size=image_size, name=path.stem, cache=cache)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _pair(given: Any, part: str) -> tuple[Pixels, Labels]:
    """Images (n, h, w, c) and labels (n,) of what was given as such."""
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise UserError(f"{part}: a {type(given).__name__}, where a pair (images, labels) is needed")
    images, labels = map(np.asarray, given)
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise UserError(
            f"{part} images: {images.dtype} of shape {np.shape(given[0])}, where uint8 of shape (n, h, w, c) "
            "or (n, h, w) is needed, with 1 or 3 channels last; convert them"
        )
    if not images.size:
        raise UserError(f"{part} images: there are none; give some")
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
        raise UserError(
            f"{part} labels: {labels.dtype} of shape {labels.shape}, where an integer for each of "
            f"{len(images):,} images is needed"
        )
    return images, labels.astype(np.int64)


def _class_names(train: Labels, test: Labels, classes: Sequence[str] | None) -> tuple[str, ...]:
    """Their names by label, once every label is known to have one, and training images."""
    least, most = (int(limit(np.concatenate([train, test]))) for limit in (np.min, np.max))
    count = len(classes) if classes is not None else most + 1
    if least < 0 or most >= count:
        raise UserError(f"labels: {least} to {most}, where 0 to {count - 1} are the classes; correct them")
    missing = np.flatnonzero(np.bincount(train, minlength=count) == 0)
    if len(missing):
        raise UserError(
            f"labels: class {missing[0]} has no training images; number the classes that have some from 0 on"
        )
    if count < 2:
        raise UserError("labels: all images are of one class where two or more are needed; add another")
    return tuple(map(str, range(count) if classes is None else classes))


def _read(dataset: Dataset[Any], image_size: int | None) -> tuple[Pixels, Labels]:
    kind = type(dataset).__name__
    if not hasattr(dataset, "__len__"):
        raise UserError(f"{kind}: has no length; give a Dataset that can be indexed")
    images: list[Pixels] = []
    labels: list[int] = []
    for number in tqdm(range(len(dataset)), "read", unit="image", disable=None, leave=False):
        sample = dataset[number]
        if not isinstance(sample, (tuple, list)) or len(sample) != 2:
            raise UserError(
                f"{kind}: gives a {type(sample).__name__} where a pair (image, label) is needed; wrap it in "
                "a Dataset that gives pairs"
            )
        images.append(_pixels(sample[0], number, image_size))
        if images[-1].shape != images[0].shape:
            raise UserError(
                f"image {number}: is of shape {images[-1].shape} where the first is of {images[0].shape}; "
                "convert them, or give image_size to resize them"
            )
        try:
            labels.append(operator.index(sample[1]))
        except (TypeError, ValueError, RuntimeError):
            raise UserError(
                f"label of image {number}: {sample[1]!r} is not an integer; give class numbers"
            ) from None
    if not images:
        raise UserError(f"{kind}: is empty; give a Dataset with images")
    return np.stack(images), np.array(labels, np.int64)


def _pixels(image: Any, number: int, image_size: int | None) -> Pixels:
    """(h, w, c) uint8 of any kind of image."""
    if isinstance(image, Image.Image):
        return to_pixels(image, grey=is_grey(image), size=image_size)
    array = np.asarray(image)
    if array.ndim == 3 and not isinstance(image, np.ndarray):  # a tensor
        array = array.transpose(1, 2, 0)
    if array.dtype.kind == "f":
        if not (array.min(initial=0) >= 0 and array.max(initial=1) <= 1):
            raise UserError(
                f"image {number}: its floats reach beyond 0..1; leave out Normalize, which the recipe does"
            )
        array = np.rint(array * 255).astype(np.uint8)
    channels = array.shape[2:]
    if array.dtype != np.uint8 or array.ndim < 2 or channels not in ((), (1,), (3,)):
        raise UserError(
            f"image {number}: {array.dtype} of shape {np.shape(image)} is no image; give a PIL image, a "
            "uint8 array (h, w, c), or a tensor (c, h, w) of 1 or 3 channels"
        )
    picture = Image.fromarray(array.squeeze(2) if channels == (1,) else array)
    return to_pixels(picture, grey=is_grey(picture), size=image_size)
