"""InsightFace's way of keeping faces in RecordIO: images 1..N, then identities, record 0 says where.

Source: `deepinsight/insightface:recognition/arcface_mxnet/common/rec_builder.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from facenas.data.faces.items import Item
from facenas.data.faces.record_io import Index, Record, RecordFile
from facenas.errors import UserError

_EXACT = 1 << 24  # from here on, float32 leaves out whole numbers


class RecordSource:
    """The images of a `.rec` file, in the order of their keys.

    Labels are kept as they are. There are as many identities as the file `property` beside it says
    (`identities,height,width`); without that file, as many as have an identity record. Raises
    UserError when a file is missing or damaged, and while reading when a label is out of range.
    """

    def __init__(self, path: Path) -> None:
        self.title = f"RecordIO {path.resolve().parent.name}/{path.name}"
        self._file, self._index = RecordFile(path), Index(path.with_suffix(".idx"))
        self._keys, identities = self._image_keys()
        told = _read_property(path.with_name("property")) or identities
        if told is None:
            raise UserError(
                f"{path.with_name('property')}: is missing; write it as `identities,112,112` in one line"
            )
        self.numbered = told

    def total(self) -> int:
        """Number of images."""
        return self._index.count(self._keys.start, self._keys.stop)

    def items(self) -> Iterator[Item]:
        """Every image with its number as the identity."""
        for key, offset in self._index.offsets(self._keys.start, self._keys.stop):
            record = self._file.record(offset)
            label = record.labels[0]
            if not (label.is_integer() and 0 <= label < self.numbered):
                raise UserError(
                    f"{self._file.path}: record {key} has label {label:g}, but there are "
                    f"{self.numbered} identities; correct `property`, or give a whole copy"
                )
            yield Item(f"record {key}", str(int(label)), partial(bytes, record.image))

    def _image_keys(self) -> tuple[range, int | None]:
        """The keys of images, and the number of identity records if there are any."""
        offset = self._index.offset(0)
        if offset is None:
            raise UserError(f"{self._index.path}: does not list record 0; give a whole copy")
        head = self._file.record(offset)
        if not head.several or head.image:
            return range(self._index.size), None
        keys, identities = key_ranges(head, self._index, self._has_image)
        if self._index.count(keys.start, keys.stop) != len(keys):
            raise UserError(
                f"{self._index.path}: lists {self._index.count(keys.start, keys.stop)} of "
                f"{len(keys)} images; give a whole copy"
            )
        return keys, identities

    def _has_image(self, key: int) -> bool:
        offset = self._index.offset(key)
        return offset is not None and len(self._file.record(offset).image) > 0


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
        identities, height, width = map(int, path.read_text(encoding="utf-8").split(","))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        identities = height = width = 0
    if min(identities, height, width) < 1:
        raise UserError(f"{path}: should hold `identities,height,width` in one line; correct it")
    return identities
