"""AdaFace's augmentations on a whole batch at once, on any device; for the draws of `augment.py`.

Every shape follows from the size of the batch and the probabilities, nothing is drawn, and nothing waits
for the device: `BatchAugment.apply` can be captured in a CUDA graph.
"""

from __future__ import annotations

from functools import cache
from threading import Lock

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facenas.data.faces.augment import INTERPOLATIONS, ORDERS, FaceAugment, FaceDraws
from facenas.data.faces.store import SIDE

LEAST, MOST = 22, SIDE - 1  # side of a low-resolution image
_UNCHANGED = len(INTERPOLATIONS) * (MOST - LEAST + 1)  # number of the unit matrix in either table
_WHOLE = np.array([[[0], [0]], [[SIDE], [SIDE]]])  # the box of an image that is not cropped
_GREY = (306 / 1024, 601 / 1024, 117 / 1024)  # luma of a pixel in OpenCV's fixed-point numbers
_FLOOR = 5e-5  # as in `augment.py`: rounds downwards, but 99.99999 is 100 that float32 has missed
_tables_lock = Lock()


class BatchAugment:
    """What `augment` does, planned on the host and applied on `device`.

    For the same draws as `FaceAugment.apply`: crop and flip exactly; low resolution to within 2 grey
    levels; brightness, contrast and saturation to within 1 each, in 99.99 % of values to the last
    digit. What a step rounds the other way is enlarged by those after it.
    """

    def __init__(self, augment: FaceAugment, device: torch.device) -> None:
        self.augment = augment
        with _tables_lock:  # 45 MB, which all threads of a process share
            self.down, self.up = _tables(device)
        self.places = torch.arange(SIDE, dtype=torch.uint8, device=device)
        self.floor = torch.tensor(_FLOOR, device=device)
        self.half = torch.tensor(0.5, device=device)
        self.luma = torch.tensor([0.299, 0.587, 0.114], device=device)
        self.black = torch.tensor(-1.0, device=device)

    def plan(self, draws: FaceDraws) -> tuple[Tensor, ...]:
        """What `apply` needs to know of draws of `augment`, as 5 tensors on the CPU.

        boxes: (2, 2, n) uint8, first place and the one after the last, of rows and columns that are kept.
        low_res: (3, c) int64, rows of the batch and the numbers of their two matrices.
        rows, weights: (d,) int64, rows of the batch, and (3, 3, d) float32, in each of three rounds the
        weights of the image itself, of its mean luma and of each pixel's luma.
        flip: (n,) bool.
        c and d depend on n and the probabilities alone, but for less than one batch in 30,000.
        """
        start = np.stack([draws.top, draws.left])
        ends = start + np.stack([draws.height, draws.width])
        boxes = np.where(draws.crop, np.stack([start, ends]), _WHOLE).astype(np.uint8)
        rows, weights = self._photometric(draws)
        low_res = self._low_res(draws)
        return tuple(torch.from_numpy(part) for part in (boxes, low_res, rows, weights, draws.flip))

    def _low_res(self, draws: FaceDraws) -> NDArray[np.int64]:
        rows = _rows(draws.low_res, self.augment.low_res)
        number = np.stack([draws.down, draws.up]) * (MOST - LEAST + 1) + draws.side - LEAST
        return np.stack([rows, *np.where(draws.low_res, number, _UNCHANGED)[:, rows]])

    def _photometric(self, draws: FaceDraws) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        rows = _rows(draws.photometric, self.augment.photometric)
        step = np.array(ORDERS).T[:, draws.order[rows]]  # (3, d): of every round
        factor = np.stack([draws.brightness, draws.contrast, draws.saturation])[step, rows]
        factor = np.where(draws.photometric[rows], factor, 1.0)
        weights = np.stack([factor, (1 - factor) * (step == 1), (1 - factor) * (step == 2)], axis=1)
        return rows, weights.astype(np.float32)

    def apply(
        self, images: Tensor, boxes: Tensor, low_res: Tensor, rows: Tensor, weights: Tensor, flip: Tensor
    ) -> Tensor:
        """(n, 112, 112, 3) uint8 RGB -> (n, 3, 112, 112) float32 in [-1, 1], channels last in memory.

        The rest is `plan`'s, moved to the device of the images, which stay as they are.
        """
        images = self._cropped(images, boxes) if self.augment.crop else images.clone()
        with torch.autocast(images.device.type, enabled=False):
            if low_res.shape[1]:
                self._resample(images, *low_res)
            if len(rows):
                self._blend(images, rows, weights)
        if self.augment.flip:
            images = torch.where(flip[:, None, None, None], images.flip(2), images)
        return torch.add(self.black, images, alpha=2 / 255).permute(0, 3, 1, 2)

    def _cropped(self, images: Tensor, boxes: Tensor) -> Tensor:
        first, end = boxes[..., None]
        rows, columns = (self.places >= first) & (self.places < end)
        kept = rows[:, :, None] & columns[:, None, :]
        return torch.mul(images, kept[..., None])

    def _resample(self, images: Tensor, rows: Tensor, down: Tensor, up: Tensor) -> None:
        """Makes these images small and large again, by the matrices of these numbers."""
        # Rows of an image, then channels, then columns: as both products want it.
        chosen = images.index_select(0, rows).permute(0, 1, 3, 2)
        values = chosen.to(torch.float32, memory_format=torch.contiguous_format)
        # One matrix for both ways would miss the rounding between them, by up to 74 grey levels.
        for matrices in (self.down.index_select(0, down), self.up.index_select(0, up)):
            values = torch.bmm(matrices, values.view(-1, SIDE, 3 * SIDE))
            values = torch.bmm(values.view(-1, SIDE * 3, SIDE), matrices.mT)
            values = values.round_().clamp_(0, 255)
        changed = values.view(-1, SIDE, 3, SIDE).permute(0, 1, 3, 2)
        images.index_copy_(0, rows, changed.to(torch.uint8, memory_format=torch.contiguous_format))

    def _blend(self, images: Tensor, rows: Tensor, weights: Tensor) -> None:
        """Brightness, contrast and saturation of these images, each in the order of its own."""
        changed = images.index_select(0, rows)
        for own, mean, luma in weights[..., None, None, None].unbind():
            red, green, blue = changed[..., :1], changed[..., 1:2], changed[..., 2:]
            grey = torch.add(self.half, red, alpha=_GREY[0]).add_(green, alpha=_GREY[1])
            grey = grey.add_(blue, alpha=_GREY[2]).floor_()
            mean_grey = torch.mv(changed.mean((1, 2), dtype=torch.float32), self.luma).round_()
            shift = torch.addcmul(self.floor, mean, mean_grey[:, None, None, None])
            blended = torch.addcmul(torch.addcmul(shift, luma, grey), own, changed)
            changed = blended.clamp_(0, 255).to(torch.uint8)  # which cuts off the fraction
        images.index_copy_(0, rows, changed)


def _rows(chosen: NDArray[np.bool_], probability: float) -> NDArray[np.int64]:
    """Rows a step works on: first the chosen ones, then others, which it shall not change, to the usual length.

    That is the mean and 4 standard deviations of the binomial distribution, rounded up to a multiple of
    8 and at most n: less than one batch in 30,000 has more chosen, and is longer.
    """
    count = len(chosen)
    usual = count * probability + 4 * np.sqrt(count * probability * (1 - probability))
    length = 8 * int(np.ceil(max(usual, chosen.sum()) / 8))
    return np.argsort(~chosen, kind="stable")[:length]


@cache
def _tables(device: torch.device) -> tuple[Tensor, Tensor]:
    """OpenCV's weights for the way down and for the way up by `plan`'s numbers, each (451, 112, 112) float32.

    What a small image does not reach is zero.
    """
    down = np.zeros((_UNCHANGED + 1, SIDE, SIDE), np.float32)
    up = np.zeros_like(down)
    down[_UNCHANGED] = up[_UNCHANGED] = unit = np.eye(SIDE, dtype=np.float32)
    sides = range(LEAST, MOST + 1)
    for number, (kind, side) in enumerate((kind, side) for kind in INTERPOLATIONS for side in sides):
        small = np.ascontiguousarray(unit[:side, :side])
        down[number, :side] = cv2.resize(unit, (SIDE, side), interpolation=kind)
        up[number, :, :side] = cv2.resize(small, (side, SIDE), interpolation=kind)
    return torch.from_numpy(down).to(device), torch.from_numpy(up).to(device)
