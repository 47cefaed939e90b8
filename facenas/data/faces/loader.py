"""Batches of faces from a store: seeded order and draws, the same for any number of readers and ranks."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from facenas.data.faces.augment import FaceAugment, FaceDraws
from facenas.data.faces.store import SIDE, FaceStore
from facenas.data.feed import ahead
from facenas.errors import UserError

DRAWN = 16  # batches at a time: between two batches the processor has forgotten how it is done
DECODED = 1024  # images that a reader hands on at once, on their way to a device
FEWEST = 2  # images of a rank in a batch: BatchNorm and a standard deviation need two


class FaceLoader:
    """Shuffled and augmented batches of one rank.

    indices: (n,) int64 into the store; labels: (n,) int64, of the same images. batch_size counts
    the images of all ranks together. A last batch is smaller; it is left out when it has fewer than
    2 images for some rank. With readers > 1 so many threads decode ahead. Raises UserError when
    there is not one batch.
    """

    def __init__(
        self,
        store: FaceStore,
        indices: NDArray[np.int64],
        labels: NDArray[np.int64],
        batch_size: int,
        augment: FaceAugment,
        seed: int,
        readers: int = 1,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.store, self.indices, self.labels = store, indices, labels
        self.batch_size, self.augment, self.seed = batch_size, augment, seed
        self.readers, self.rank, self.world = readers, rank, world
        if min(batch_size, len(indices)) < FEWEST * world:
            raise UserError(
                f"{store.path}: {len(indices)} images in batches of {batch_size} are too few for "
                f"{world} processes; each needs {FEWEST} or more images a batch"
            )

    def __len__(self) -> int:
        """Batches an epoch."""
        whole, rest = divmod(len(self.indices), self.batch_size)
        return whole + (rest >= FEWEST * self.world)

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Images (m, 112, 112, 3) uint8 RGB and labels (m,) int64 of every batch, in order.

        An image that cannot be read raises UserError when its batch's turn comes.
        """
        return ahead(lambda drawn: self.augmented(*drawn), self.drawn(epoch), self.readers)

    def place(self, batch: int) -> tuple[int, int]:
        """This rank's first row in the joint batch, and the rows of the joint batch."""
        total = min(self.batch_size, len(self.indices) - batch * self.batch_size)
        return total * self.rank // self.world, total

    def drawn(self, epoch: int) -> Iterator[tuple[NDArray[np.int64], FaceDraws]]:
        """Of every batch: which of `indices` this rank reads, and what chance decides for them."""
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.indices))
        for first in range(0, len(self), DRAWN):
            numbers = range(first, min(first + DRAWN, len(self)))
            yield from [self._draw(order, epoch, batch) for batch in numbers]

    def _draw(self, order: NDArray[np.int64], epoch: int, batch: int) -> tuple[NDArray[np.int64], FaceDraws]:
        start, total = self.place(batch)
        own = slice(start, total * (self.rank + 1) // self.world)
        # Drawn for all ranks, of which each takes its own. (The 1 is for numpy: to it [3, 5, 0] is [3, 5].)
        draws = self.augment.draw(total, np.random.default_rng([self.seed, epoch, batch, 1]))
        return order[batch * self.batch_size :][own], draws.rows(own)

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(m, 112, 112, 3) uint8 RGB: the images at `rows` of `indices`."""
        return self.store.read(self.indices[rows])

    def augmented(self, rows: NDArray[np.int64], draws: FaceDraws) -> tuple[Tensor, Tensor]:
        """A batch of `drawn`: images (m, 112, 112, 3) uint8 RGB and labels (m,) int64."""
        images = self.augment.apply(self.read(rows), draws)
        return torch.from_numpy(images), torch.from_numpy(self.labels[rows])


def batches_in_order(
    store: FaceStore, indices: NDArray[np.int64], batch_size: int, readers: int = 1
) -> Iterator[Tensor]:
    """The images at `indices` as they are, in their order: (m, 112, 112, 3) uint8, the last batch smaller."""

    def batch(start: int) -> Tensor:
        return torch.from_numpy(store.read(indices[start : start + batch_size]))

    return ahead(batch, range(0, len(indices), batch_size), readers)


def decode_to(store: FaceStore, indices: NDArray[np.int64], device: torch.device, readers: int) -> Tensor:
    """(n, 112, 112, 3) uint8 RGB on the device: the images at `indices`, each read and decoded once."""
    pixels = torch.empty((len(indices), SIDE, SIDE, 3), dtype=torch.uint8, device=device)
    bar = tqdm(total=len(indices), desc="faces to the device", unit="image", disable=None, delay=2, leave=False)
    start = 0
    with bar:
        for batch in batches_in_order(store, indices, DECODED, readers):
            pixels[start : start + len(batch)].copy_(batch)
            start += len(batch)
            bar.update(len(batch))
    return pixels


def to_input(images: Tensor) -> Tensor:
    """uint8 (n, 112, 112, 3) RGB -> float32 (n, 3, 112, 112) in [-1, 1], channels last in memory.

    (x / 255 - 0.5) / 0.5, as in AdaFace, on the images' device.
    """
    if images.device.type != "cpu":
        return images.float().mul_(2 / 255).sub_(1).permute(0, 3, 1, 2)
    # One pass instead of two over floats that no cache holds. OpenCV spreads the values between two
    # ends; here these are what the formula makes of the least and the greatest.
    pixels = images.numpy().reshape(-1, 3 * SIDE)
    values = np.empty(images.shape, np.float32)
    if len(images):
        least, greatest, _, _ = cv2.minMaxLoc(pixels)
        ends = 2 / 255 * least - 1, 2 / 255 * greatest - 1
        cv2.normalize(pixels, values.reshape(pixels.shape), *ends, cv2.NORM_MINMAX, cv2.CV_32F)
    return torch.from_numpy(values).permute(0, 3, 1, 2)
