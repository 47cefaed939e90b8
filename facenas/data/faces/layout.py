"""What lies in a store: a zarr v3 group with these arrays and attributes.

labels: (n,) int32; names: UTF-8 bytes of all identity names and name_offsets (identities + 1,) int64;
layout "jpeg": jpeg, the images' bytes, and offsets (n + 1,) int64; layout "raw": pixels
(n, 112, 112, 3) uint8 RGB.
"""

from __future__ import annotations

import hashlib
from typing import Literal, NamedTuple

from facenas.data.faces.jpeg import SIDE

FORMAT = "facenas faces"
VERSION = 1
COLOUR = "RGB"
SKIPPED = "skipped.csv"  # images that were not imported, and why; there is none when all were

Layout = Literal["jpeg", "raw"]


class Field(NamedTuple):
    """One array: its dtype, the shape of a row, and the bytes of a chunk."""

    name: str
    dtype: str
    row: tuple[int, ...]
    chunk_bytes: int


LABELS = Field("labels", "i4", (), 1 << 20)
NAMES = Field("names", "u1", (), 1 << 20)
NAME_OFFSETS = Field("name_offsets", "i8", (), 1 << 20)
OFFSETS = Field("offsets", "i8", (), 1 << 20)
JPEG = Field("jpeg", "u1", (), 4 << 20)
PIXELS = Field("pixels", "u1", (SIDE, SIDE, 3), 4 << 20)

_SHARED = (LABELS, NAMES, NAME_OFFSETS)
FIELDS: dict[Layout, tuple[Field, ...]] = {
    "jpeg": (*_SHARED, OFFSETS, JPEG),
    "raw": (*_SHARED, PIXELS),
}


def fingerprint(layout: Layout, digests: dict[str, str]) -> str:
    """sha256 over the layout and the sha256 of every array's little-endian values, in a fixed order."""
    parts = [layout, *(digests[field.name] for field in FIELDS[layout])]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
