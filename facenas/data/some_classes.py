"""Some classes of a set alone: a set of its own in the cache, so that splits, counts and keys follow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from facenas.data.cache import Decoded, ImageSet, Labels, cached, open_image_set
from facenas.data.found import read_found
from facenas.data.images import Pixels
from facenas.data.splits import Indices
from facenas.errors import UserError

_NAMED = 4  # more classes are counted in a set's name


class _Rows:
    """Some of the images of an array: read when they are written (`facenas.data.cache.Images`)."""

    def __init__(self, images: Pixels, rows: Indices) -> None:
        self.images, self.rows = images, rows
        self.shape = (len(rows), *images.shape[1:])

    def __getitem__(self, run: slice, /) -> Pixels:
        return self.images[self.rows[run]]


def of_classes(folder: Path, classes: Sequence[int | str], cache: Path) -> Path:
    """The entry of `classes`, by name or by number, of the set in `folder`; labels are in the set's order.

    Images are normalized as those of the whole set. Raises UserError for a class that is none, for fewer than
    two, and where there are no images to test on.
    """
    own = open_image_set(folder)
    kept = np.array(sorted({_number(own, wanted) for wanted in classes}))
    if len(kept) < 2:
        raise UserError(f"data.classes: is {own.classes[kept[0]]!r} alone; two classes or more are needed")
    names = tuple(own.classes[number] for number in kept)
    train, test = (np.flatnonzero(np.isin(labels, kept)) for labels in (own.train_labels, own.test_labels))
    if not len(test):
        raise UserError(
            f"data.classes: {own.name} has no test images of {', '.join(names)}; add one more class"
        )
    decoded = Decoded(
        (_Rows(own.train_images, train), _relabelled(own.train_labels[train], kept)),
        (_Rows(own.test_images, test), _relabelled(own.test_labels[test], kept)),
        names,
        own.image_size,
        own.flip,
        own.crop_size,
        own.mean,
        own.std,
        int((train >= len(own.train_labels) - own.validation_images).sum()),
        read_found(folder).get("test_from", ""),
    )
    told = ", ".join(names) if len(names) <= _NAMED else f"{len(names)} of {own.num_classes} classes"
    identity = [own.fingerprint, own.flip, own.crop_size, *own.classes, kept.tolist()]
    return cached(f"{own.name} ({told})", identity, lambda: decoded, cache)


def _number(own: ImageSet, wanted: int | str) -> int:
    if wanted in own.classes:
        return own.classes.index(str(wanted))
    if isinstance(wanted, int) and 0 <= wanted < own.num_classes:
        return wanted
    known = ", ".join(own.classes[:20]) + ", ..." * (own.num_classes > 20)
    raise UserError(
        f"data.classes: {own.name} has no class {wanted!r}; there are {known}, or their numbers from 0 to "
        f"{own.num_classes - 1}"
    )


def _relabelled(labels: Labels, kept: Labels) -> Labels:
    return np.searchsorted(kept, labels).astype(np.int64)
