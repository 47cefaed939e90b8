"""Augmentation of whole batches with draws of their own for every image.

Pad and random crop, horizontal flip, normalize, cutout: the authors' chain of per-image transforms
(`siddikui/Efficient-Macro-Micro-NAS:utils.py`), ten times faster for a batch at a time. All random
draws come from the generator that is handed in.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from facenas.data.cache import crop_side

if TYPE_CHECKING:
    from facenas.data.datasets import ClassData

_LUMA = (0.299, 0.587, 0.114)  # of red, green and blue
_STEPS = 1 << 20  # values that a factor of color jitter can have


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
    @property
    def augment(self) -> str: ...
    @property
    def color_jitter(self) -> float: ...


@dataclass(frozen=True)
class Draws:
    """What chance decides for a batch of n images, each (n,): crop corner, flip, center of the cutout.

    jitter: (4, n), the factors of brightness, contrast and saturation below `_STEPS`, and their order.
    """

    top: Tensor
    left: Tensor
    flip: Tensor
    cut_row: Tensor
    cut_column: Tensor
    jitter: Tensor | None = None

    def stacked(self) -> Tensor:
        """(5 or 9, n) int64; `Draws.of` reads it."""
        some = torch.stack([self.top, self.left, self.flip.long(), self.cut_row, self.cut_column])
        return some if self.jitter is None else torch.cat([some, self.jitter])

    @classmethod
    def of(cls, stacked: Tensor) -> Draws:
        """The draws that `stacked` gave."""
        top, left, flip, cut_row, cut_column = stacked[:5].unbind()
        return cls(top, left, flip == 1, cut_row, cut_column, stacked[5:] if len(stacked) > 5 else None)


class Augment:
    """uint8 batches (n, h, w, c) -> float32 (n, c, crop, crop), channels last in memory."""

    def __init__(self, recipe: Augmentation, image_set: ClassData, device: torch.device) -> None:
        """Raises UserError when the crop is larger than the padded image."""
        self.moved = recipe.augment == "pad_crop"  # else images come as they are cropped and mirrored
        self.pad = recipe.pad if self.moved else 0
        self.crop = crop_side(image_set, self.pad, recipe.crop if self.moved else image_set.image_size)
        self.flip = image_set.flip if recipe.flip is None else recipe.flip
        self.cutout = recipe.cutout
        self.corners = image_set.image_size + 2 * self.pad - self.crop + 1
        self.color_jitter = recipe.color_jitter
        self.orders = torch.tensor(list(permutations(range(3))), device=device)
        self.luma = torch.tensor(_LUMA if len(image_set.mean) == 3 else (1.0,), device=device)
        self.normalize = Normalize(image_set, device)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """One augmented batch; the same generator state gives the same batch."""
        return self.apply(images, self.draw(len(images), generator))

    def draw(self, count: int, generator: torch.Generator) -> Draws:
        """Draws for `count` images, all but those of jitter: a switched-off step does not shift the others."""

        def below(limit: int) -> Tensor:
            return torch.randint(limit, (count,), generator=generator)

        return Draws(
            below(self.corners),
            below(self.corners),
            below(2) == 1,
            below(self.crop),
            below(self.crop),
            torch.stack([*(below(_STEPS) for _ in range(3)), below(6)]) if self.color_jitter else None,
        )

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        """The augmented batch for given draws, on the device of both."""
        if draws.jitter is not None:
            images = self._jittered(images, draws.jitter)
        batch = self.normalize(self._moved(images, draws) if self.moved else images)
        if self.cutout:
            hidden = self._near(draws.cut_row)[:, :, None] & self._near(draws.cut_column)[:, None, :]
            batch.masked_fill_(hidden[:, None], 0.0)
        return batch

    def _moved(self, images: Tensor, draws: Draws) -> Tensor:
        """Padded, cropped and mirrored."""
        device, side = images.device, torch.arange(self.crop, device=images.device)
        columns = side.expand(len(images), -1)
        if self.flip:
            columns = torch.where(draws.flip[:, None], side.flip(0), columns)
        # Crop and flip are one gather: row and column numbers of every image, in the padded image.
        rows = draws.top[:, None] + side
        columns = draws.left[:, None] + columns
        padded = F.pad(images, (0, 0, self.pad, self.pad, self.pad, self.pad))
        number = torch.arange(len(images), device=device)[:, None, None]
        return padded[number, rows[:, :, None], columns[:, None, :]]

    def _jittered(self, images: Tensor, draws: Tensor) -> Tensor:
        """Images with brightness, contrast and saturation of their own, by torchvision's ColorJitter.

        A step blends the image with black, with its mean luma, or with the luma of each pixel.
        """
        order = self.orders[draws[3]].T  # (3, n): which step comes first, second, third
        factors = 1 + self.color_jitter * (draws[:3] * (2 / _STEPS) - 1)
        pixels = images.float()
        for step, factor in zip(order, factors.gather(0, order), strict=True):
            is_step, own = step[:, None, None, None], factor[:, None, None, None]
            luma = (pixels * self.luma).sum(3, keepdim=True)
            other = torch.where(is_step == 1, luma.mean((1, 2), keepdim=True), luma * (is_step == 2))
            pixels = (own * pixels + (1 - own) * other).clamp_(0, 255)
        return pixels.round_().to(torch.uint8)

    def _near(self, center: Tensor) -> Tensor:
        """(n, crop): which rows (or columns) the cutout covers; it is cut off at the border."""
        side = torch.arange(self.crop, device=center.device)
        start = center[:, None] - self.cutout // 2
        return (side >= start) & (side < start + self.cutout // 2 * 2)


class Normalize:
    """uint8 (n, h, w, c) -> float32 (n, c, h, w), channels last: (x / 255 - mean) / std."""

    def __init__(self, image_set: ClassData, device: torch.device) -> None:
        mean = torch.tensor(image_set.mean, device=device)
        std = torch.tensor(image_set.std, device=device)
        self.scale, self.shift = 1 / (255 * std), -mean / std

    def __call__(self, images: Tensor) -> Tensor:
        """The normalized batch; a view with permuted axes, so that no copy is made."""
        if images.device.type != "cpu":
            return images.float().mul_(self.scale).add_(self.shift).permute(0, 3, 1, 2)
        # A row at once, where torch would take the 3 values of each pixel: the same bits, in 2/3 of the time
        # at 224 pixels and 1/5 at 32.
        width = images.shape[2]
        rows = images.flatten(2).float().mul_(self.scale.repeat(width)).add_(self.shift.repeat(width))
        return rows.view(images.shape).permute(0, 3, 1, 2)
