"""600 pairs of faces, and a small network that tells most of them right."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from bench_files import face
from numpy.typing import NDArray
from torch import nn

from facenas.spaces import IRArchitecture

ARCH = IRArchitecture.uniform(8, (1, 1, 1, 1), 32, False)
PEOPLE, SHOTS, PAIRS = 60, 4, 600


@cache
def shots() -> NDArray[np.uint8]:
    """(240, 112, 112, 3): four of each person in turn, apart by noise."""
    rng = np.random.default_rng(0)
    pictures = np.repeat(np.stack([face(person) for person in range(PEOPLE)]), SHOTS, axis=0)
    noise = rng.normal(0, 12, pictures.shape).astype(np.float32)
    return np.clip(pictures + noise, 0, 255).astype(np.uint8)


def pairs() -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(600, 2) numbers of images, and whether they are of one person: every other pair is."""
    rng = np.random.default_rng(1)
    first = rng.integers(0, PEOPLE * SHOTS, PAIRS)
    other = (first + SHOTS * rng.integers(1, PEOPLE, PAIRS)) % (PEOPLE * SHOTS)
    sibling = first // SHOTS * SHOTS + (first + rng.integers(1, SHOTS, PAIRS)) % SHOTS
    same = np.arange(PAIRS) % 2 == 0
    return np.stack([first, np.where(same, sibling, other)], axis=1), same


def network(images: NDArray[np.uint8]) -> nn.Module:
    """Untrained, but its running statistics are those of the images, so that embeddings point everywhere."""
    made = ARCH.build(0)
    for part in made.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.momentum = 1.0
    with torch.no_grad():
        made.train()(torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1)
    return made.eval()
