"""What a store holds, and whether it is all there."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from facenas.data.faces.jpeg import SIDE
from facenas.data.faces.layout import COLOUR, FIELDS, fingerprint
from facenas.data.faces.sharded import ShardedArray
from facenas.data.faces.store import FaceStore, open_store
from facenas.errors import UserError

_BATCH = 64
_RELEASE = 256 * _BATCH  # images, about 100 MB of JPEG


def describe(path: Path) -> dict[str, Any]:
    """Counts, layout, source and size of a store; raises UserError when it is none."""
    store = open_store(path)
    each = np.bincount(store.labels, minlength=store.identities)
    return {
        "store": str(path),
        "layout": store.layout,
        "colour": COLOUR,
        "source": store.source,
        "images": len(store),
        "identities": store.identities,
        "images_per_identity_min": int(each.min()),
        "images_per_identity_median": float(np.median(each)),
        "images_per_identity_max": int(each.max()),
        "bytes": sum(file.stat().st_size for file in path.rglob("*") if file.is_file()),
        "fingerprint": store.fingerprint,
    }


def check(path: Path) -> dict[str, Any]:
    """Decodes every image and computes the fingerprint anew.

    Raises UserError, in one sentence, at the first thing that is not as it should be.
    """
    started = time.perf_counter()
    store = open_store(path)
    if store.layout == "jpeg":
        _check_offsets(store, "offsets", "jpeg")
    _check_offsets(store, "name_offsets", "names")
    for _ in store.names:  # each decodes
        pass
    _read_all(store)
    digests = {field.name: _digest(store.arrays[field.name]) for field in FIELDS[store.layout]}
    if fingerprint(store.layout, digests) != store.fingerprint:
        raise UserError(f"{path}: its contents do not match its fingerprint; import it anew")
    return {
        "store": str(path),
        "images": len(store),
        "identities": store.identities,
        "fingerprint": store.fingerprint,
        "seconds": round(time.perf_counter() - started, 3),
    }


def _check_offsets(store: FaceStore, offsets: str, values: str) -> None:
    """They begin at 0, never fall, and end at the number of values."""
    last = 0
    for number, block in enumerate(store.arrays[offsets].blocks()):
        if (number == 0 and block[0] != 0) or block[0] < last or (np.diff(block) < 0).any():
            raise UserError(f"{store.path}: its {offsets} are damaged; import it anew")
        last = int(block[-1])
    if last != len(store.arrays[values]):
        raise UserError(f"{store.path}: its {offsets} are damaged; import it anew")


def _read_all(store: FaceStore) -> None:
    batch = np.empty((_BATCH, SIDE, SIDE, 3), np.uint8)
    with tqdm(total=len(store), desc="check", unit="image", disable=None) as bar:
        for start in range(0, len(store), _BATCH):
            indices = np.arange(start, min(start + _BATCH, len(store)))
            store.read(indices, batch[: len(indices)])
            bar.update(len(indices))
            if start % _RELEASE == 0:
                for array in store.arrays.values():
                    array.release()


def _digest(array: ShardedArray) -> str:
    digest = hashlib.sha256()
    for block in array.blocks():
        digest.update(block.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
