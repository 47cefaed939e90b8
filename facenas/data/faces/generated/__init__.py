"""Generated faces: drawn from random factors, for demonstrations and tests. They show nobody.

All images of an identity share its factors; pose, light, expression, covers and camera are drawn anew for
each image (`factors.py`). They are learnable but not trivial. Pairs of 60 identities that are new to a
network are told apart, at the best threshold, at 55 % by mean color, at 62 % by pixels or by an untrained IR
network, and at 97 % after that network (four blocks, width 8) was trained on 96 identities with 24 images
each, for 3 minutes on one core. Chance is 50 %.
"""

from __future__ import annotations

import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from facenas.data.faces.generated.factors import Identity, Nuisance, draw_identity, draw_nuisance
from facenas.data.faces.generated.picture import picture
from facenas.data.faces.writer import StoreWriter

# Raise it when images of a seed look different: older stores of them are then made anew.
VERSION = 1


def write_generated(
    path: Path, identities: int, images_each: int, seed: int, overwrite: bool = False
) -> dict[str, Any]:
    """A store of `identities` (1 or more) with `images_each` (1 or more) JPEG images of each.

    Identities are named `generated-0000` and on. Image j of identity i depends on seed (0 or more),
    i and j alone. Returns the store, its images and identities, 0 skipped, and the seconds it took.
    Raises UserError when `path` is there or cannot be written; then nothing is left of it.
    """
    started = time.perf_counter()
    total = identities * images_each
    with StoreWriter(path, f"generated faces, seed {seed}", overwrite=overwrite) as writer:
        numbers = tqdm(range(total), "generated faces", unit="image", disable=None, leave=False)
        for identity, image in (divmod(number, images_each) for number in numbers):
            writer.add(f"generated-{identity:04d}", generated_image(seed, identity, image))
    return {
        "store": str(path),
        "images": total,
        "identities": identities,
        "skipped": 0,
        "seconds": round(time.perf_counter() - started, 3),
    }


def generated_image(seed: int, identity: int, image: int) -> bytes:
    """JPEG bytes (112x112, RGB) of one image of one identity."""
    return picture(identity_of(seed, identity), nuisance_of(seed, identity, image))


# The first number keeps the two kinds of draws apart: seeds are padded with zeros.
@lru_cache(maxsize=1)  # images of an identity are drawn one after the other
def identity_of(seed: int, identity: int) -> Identity:
    """The factors of an identity."""
    return draw_identity(np.random.default_rng((1, seed, identity)))


def nuisance_of(seed: int, identity: int, image: int) -> Nuisance:
    """The circumstances of one image."""
    return draw_nuisance(np.random.default_rng((2, seed, identity, image)))
