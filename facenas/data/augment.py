"""Augmentation of whole batches with draws of their own for every image.

Pad and random crop, horizontal flip, normalize, cutout: the authors' chain of per-image transforms
(`siddikui/Efficient-Macro-Micro-NAS:utils.py`), ten times faster for a batch at a time. All random
draws come from the generator that is handed in.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from facenas.data.cache import ImageSet, crop_side


class Augmentation(Protocol):
    """What is read of a recipe, all in pixels; `crop` and `flip` at None take the data set's own value."""

    @property
    def pad(self) -> int: ...
    @property
    def crop(self) -> int | None: ...
    @property
    def flip(self) -> bool | None: ...
    @property
    def cutout(self) -> int: ...


@dataclass(frozen=True)
class Draws:
    """What chance decides for a batch of n images, each (n,): crop corner, flip, center of the cutout."""

    top: Tensor
    left: Tensor
    flip: Tensor
    cut_row: Tensor
    cut_column: Tensor

    def stacked(self) -> Tensor:
        """(5, n) int64; `Draws.of` reads it."""
        return torch.stack([getattr(self, field.name).long() for field in fields(self)])

    @classmethod
    def of(cls, stacked: Tensor) -> Draws:
        """The draws that `stacked` gave."""
        top, left, flip, cut_row, cut_column = stacked.unbind()
        return cls(top, left, flip == 1, cut_row, cut_column)


class Augment:
    """uint8 batches (n, h, w, c) -> float32 (n, c, crop, crop), channels last in memory."""

    def __init__(self, recipe: Augmentation, image_set: ImageSet, device: torch.device) -> None:
        """Raises UserError when the crop is larger than the padded image."""
        self.pad, self.crop = recipe.pad, crop_side(image_set, recipe.pad, recipe.crop)
        self.flip = image_set.flip if recipe.flip is None else recipe.flip
        self.cutout = recipe.cutout
        self.corners = image_set.image_size + 2 * self.pad - self.crop + 1
        self.normalize = Normalize(image_set, device)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """One augmented batch; the same generator state gives the same batch."""
        return self.apply(images, self.draw(len(images), generator))

    def draw(self, count: int, generator: torch.Generator) -> Draws:
        """Draws for `count` images, always all of them: a switched-off step does not shift the others."""

        def below(limit: int) -> Tensor:
            return torch.randint(limit, (count,), generator=generator)

        return Draws(
            below(self.corners),
            below(self.corners),
            below(2) == 1,
            below(self.crop),
            below(self.crop),
        )

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        """The augmented batch for given draws, on the device of both."""
        device, side = images.device, torch.arange(self.crop, device=images.device)
        columns = side.expand(len(images), -1)
        if self.flip:
            columns = torch.where(draws.flip[:, None], side.flip(0), columns)
        # Crop and flip are one gather: row and column numbers of every image, in the padded image.
        rows = draws.top[:, None] + side
        columns = draws.left[:, None] + columns
        padded = F.pad(images, (0, 0, self.pad, self.pad, self.pad, self.pad))
        number = torch.arange(len(images), device=device)[:, None, None]
        batch = self.normalize(padded[number, rows[:, :, None], columns[:, None, :]])
        if self.cutout:
            hidden = self._near(draws.cut_row)[:, :, None] & self._near(draws.cut_column)[:, None, :]
            batch.masked_fill_(hidden[:, None], 0.0)
        return batch

    def _near(self, center: Tensor) -> Tensor:
        """(n, crop): which rows (or columns) the cutout covers; it is cut off at the border."""
        side = torch.arange(self.crop, device=center.device)
        start = center[:, None] - self.cutout // 2
        return (side >= start) & (side < start + self.cutout // 2 * 2)


class Normalize:
    """uint8 (n, h, w, c) -> float32 (n, c, h, w), channels last: (x / 255 - mean) / std."""

    def __init__(self, image_set: ImageSet, device: torch.device) -> None:
        mean = torch.tensor(image_set.mean, device=device)
        std = torch.tensor(image_set.std, device=device)
        self.scale, self.shift = 1 / (255 * std), -mean / std

    def __call__(self, images: Tensor) -> Tensor:
        """The normalized batch; a view with permuted axes, so that no copy is made."""
        return images.float().mul_(self.scale).add_(self.shift).permute(0, 3, 1, 2)
