"""Own data from Python: arrays, or a `torch.utils.data.Dataset`, put into the cache as a set like any other.

What is returned names the data from then on (`DataConfig.name`), so a search, its workers and a resumed run
open it from the cache and need neither the arrays nor the dataset again.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from facenas.data.cache import Decoded, Labels, Source, cached, fingerprint
from facenas.data.images import Pixels, is_grey, to_pixels
from facenas.data.splits import hold_out_test
from facenas.errors import UserError

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
        raise UserError(
            "images: one a class is too few to hold out test images; add images, or give test"
        )
    size = image_size or images.shape[1]
    for part in (images, test_images):
        if image_size is None and part.shape[1:3] != (size, size):
            raise UserError(
                f"images: {part.shape[2]}x{part.shape[1]} pixels, where squares of one size are needed; "
                "give image_size to resize them"
            )
    if images.shape[3] != test_images.shape[3]:
        raise UserError(
            "test images: have another number of channels than the train images; convert them"
        )
    names = _class_names(labels, test_labels, classes)
    decoded = Decoded((images, labels), (test_images, test_labels), names, size, flip)
    identity = [size, flip, fingerprint((images, labels, test_images, test_labels)), *names]
    return str(cached(Source(name, identity, lambda: decoded), cache).resolve())


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
    return from_arrays(
        *parts,
        classes=classes,
        flip=flip,
        image_size=image_size,
        name=name or type(train).__name__,
        cache=cache,
    )


def _pair(given: Any, part: str) -> tuple[Pixels, Labels]:
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise UserError(
            f"{part}: a {type(given).__name__}, where a pair (images, labels) is needed"
        )
    images = _images(given[0], part)
    return images, _labels(given[1], len(images), part)


def _images(given: Any, part: str) -> Pixels:
    images = np.asarray(given)
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise UserError(
            f"{part} images: {images.dtype} of shape {np.shape(given)}, where uint8 of shape (n, h, w, c) or "
            "(n, h, w) is needed, with 1 or 3 channels last; convert them"
        )
    if not images.size:
        raise UserError(f"{part} images: there are none; give some")
    return images


def _labels(given: Any, images: int, part: str) -> Labels:
    labels = np.asarray(given)
    if labels.shape != (images,) or labels.dtype.kind not in "iu":
        raise UserError(
            f"{part} labels: {labels.dtype} of shape {labels.shape}, where an integer for each of "
            f"{images:,} images is needed"
        )
    return labels.astype(np.int64)


def _class_names(train: Labels, test: Labels, classes: Sequence[str] | None) -> tuple[str, ...]:
    """Their names by label, once every label is known to have one, and training images."""
    least, most = (int(limit(np.concatenate([train, test]))) for limit in (np.min, np.max))
    count = len(classes) if classes is not None else most + 1
    if least < 0 or most >= count:
        raise UserError(
            f"labels: {least} to {most}, where 0 to {count - 1} are the classes; correct them"
        )
    missing = np.flatnonzero(np.bincount(train, minlength=count) == 0)
    if len(missing):
        raise UserError(
            f"labels: class {missing[0]} has no training images; number the classes that have some from 0 on"
        )
    if count < 2:
        raise UserError(
            "labels: all images are of one class where two or more are needed; add another"
        )
    return tuple(str(name) for name in (range(count) if classes is None else classes))


def _read(dataset: Dataset[Any], image_size: int | None) -> tuple[Pixels, NDArray[np.int64]]:
    if not hasattr(dataset, "__len__"):
        raise UserError(
            f"{type(dataset).__name__}: has no length; give a Dataset that can be indexed"
        )
    images: list[Pixels] = []
    labels = np.empty(len(dataset), np.int64)
    for number in tqdm(range(len(dataset)), "read", unit="image", disable=None, leave=False):
        sample = dataset[number]
        if not isinstance(sample, (tuple, list)) or len(sample) != 2:
            raise UserError(
                f"{type(dataset).__name__}: gives a {type(sample).__name__} where a pair (image, label) is "
                "needed; wrap it in a Dataset that gives pairs"
            )
        pixels = _pixels(sample[0], number, image_size)
        if images and pixels.shape != images[0].shape:
            raise UserError(
                f"image {number}: is of shape {pixels.shape} where the first is of {images[0].shape}; "
                "convert them, or give image_size to resize them"
            )
        images.append(pixels)
        labels[number] = _label(sample[1], number)
    if not images:
        raise UserError(f"{type(dataset).__name__}: is empty; give a Dataset with images")
    return np.stack(images), labels


def _label(label: Any, number: int) -> int:
    try:
        return operator.index(label)
    except (TypeError, ValueError, RuntimeError):
        raise UserError(
            f"label of image {number}: {label!r} is not an integer; give class numbers"
        ) from None


def _pixels(image: Any, number: int, image_size: int | None) -> Pixels:
    """(h, w, c) uint8 of any kind of image."""
    if not isinstance(image, Image.Image):
        array = np.asarray(image)
        if array.ndim == 3 and not isinstance(image, np.ndarray):  # a tensor
            array = array.transpose(1, 2, 0)
        if array.dtype.kind == "f":
            if not (array.min(initial=0) >= 0 and array.max(initial=1) <= 1):
                raise UserError(
                    f"image {number}: its floats reach beyond 0..1; leave out Normalize, which the recipe does"
                )
            array = np.rint(array * 255).astype(np.uint8)
        if (
            array.dtype != np.uint8
            or array.ndim not in (2, 3)
            or array.shape[2:] not in ((), (1,), (3,))
        ):
            raise UserError(
                f"image {number}: {array.dtype} of shape {np.shape(image)} is no image; give a PIL image, a "
                "uint8 array (h, w, c), or a tensor (c, h, w) of 1 or 3 channels"
            )
        image = Image.fromarray(array.squeeze(2) if array.shape[2:] == (1,) else array)
    return to_pixels(image, grey=is_grey(image), size=image_size)
