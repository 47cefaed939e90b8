"""Whether an exported file, loaded back, gives what the trained network gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from facenas.errors import SearchStoppedError
from facenas.models.load import TrainedNetwork

Floats = NDArray[np.float32]
# (n, c, h, w) normalised images -> (n, outputs).
Reloaded = Callable[[Floats], Floats]

MIN_COSINE = 0.99999
# 64 images. A batch of one and batches of two other sizes: the number of images must be free.
_BATCHES = (1, 31, 32)
_SEED = 64


@dataclass(frozen=True)
class Agreement:
    """How well two networks agree: the worst image's cosine, the largest difference of any output."""

    images: int
    min_cosine: float
    max_abs_difference: float


def require_agreement(trained: TrainedNetwork, reloaded: Reloaded) -> Agreement:
    """Compares outputs on 64 random images, the same ones every time.

    Raises SearchStoppedError when the cosine of any image is not above MIN_COSINE.
    """
    batches = list(_random_images(trained))
    with torch.inference_mode():
        expected = np.concatenate([trained.network(torch.from_numpy(b)).numpy() for b in batches])
    found = np.concatenate([reloaded(batch) for batch in batches])
    agreement = _compare(expected.astype(np.float64), found.astype(np.float64))
    if not agreement.min_cosine > MIN_COSINE:  # so written, not-a-number fails too
        raise SearchStoppedError(
            f"the exported network does not give what the trained one gives: cosine "
            f"{agreement.min_cosine:.6f} on the worst of {agreement.images} images, where more than "
            f"{MIN_COSINE} is required; no file was written"
        )
    return agreement


def _random_images(trained: TrainedNetwork) -> Iterator[Floats]:
    """Batches of uniformly random pixels, normalised as the network expects."""
    rng = np.random.default_rng(_SEED)
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (trained.mean, trained.std))
    for count in _BATCHES:
        pixels = rng.integers(0, 256, (count, *trained.input_shape)).astype(np.float32)
        yield ((pixels / 255 - mean) / std).astype(np.float32)


def _compare(first: NDArray[np.float64], second: NDArray[np.float64]) -> Agreement:
    """Of two (n, outputs) arrays, row by row."""
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    with np.errstate(invalid="ignore"):  # an output of zeros has no direction: not-a-number
        cosines = (first * second).sum(axis=1) / norms
    return Agreement(len(first), float(cosines.min()), float(np.abs(first - second).max()))
