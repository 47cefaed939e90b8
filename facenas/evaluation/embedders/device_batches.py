"""Batches on their way to a torch network and its rows on their way back, while the device computes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from facenas.data.faces.loader import to_input
from facenas.device import Device
from facenas.errors import UserError
from facenas.evaluation.embedders.embedder import Later, Mirrored, Pixels, Rows
from facenas.evaluation.embedders.preprocessing import Preprocessing

log = logging.getLogger(__name__)


class DeviceBatches:
    """`Embedder.run` of a network in torch: bytes to its device, normalised there, rows back.

    On a GPU nothing waits: a batch is uploaded from pinned memory on a stream of its own while the one before
    is computed, and its rows are copied back when they are ready. When memory is too small for a batch, it goes
    on with half as many images at a time, and says so once.

    name: of the network, for messages; forward: (k, 3, 112, 112) float32 on the device -> (k, E); chosen: what
    it takes; fixed: it takes no other number of images than it is given, so image and mirror image apart.
    """

    def __init__(
        self,
        name: str,
        forward: Callable[[Tensor], Tensor],
        chosen: Preprocessing,
        device: Device,
        fixed: bool = False,
    ) -> None:
        self._name, self._forward, self._chosen, self._device = name, forward, chosen, device
        self._place, self._fixed = device.torch_device, fixed
        self._most: int | None = None  # images at a time, once memory was too small for more
        cuda = self._place.type == "cuda"
        self._uploads = torch.cuda.Stream(self._place) if cuda else None  # type: ignore[no-untyped-call]

    def __call__(self, images: Pixels, mirrored: Mirrored) -> Later:
        """See `Embedder.run`. Raises UserError when there is no memory for one image."""
        pixels = torch.from_numpy(np.require(images, requirements=("C", "W")))  # torch shares no other memory
        parts, start = [], 0
        with _on(self._place):
            if self._uploads is not None:
                pixels = pixels.pin_memory()
            while start < len(pixels):
                part = pixels[start : start + self._most] if self._most else pixels[start:]
                rows = self._tried(part, mirrored)
                if rows is not None:
                    parts.append(rows)
                    start += len(part)
        return lambda: [np.concatenate(side) for side in zip(*(part() for part in parts), strict=True)]

    def _tried(self, part: Tensor, mirrored: Mirrored) -> Later | None:
        """None when memory was too small: fewer images are taken at a time from then on."""
        try:
            return fetched(self._rows(part, mirrored), len(mirrored))
        except torch.OutOfMemoryError:
            if len(part) == 1 or self._fixed:
                raise UserError(
                    f"{self._name}: the memory of {self._place} is too small for it; free some, or take the "
                    "device cpu"
                ) from None
        # Tried again by the caller, not in the `except` above, which keeps what the failed call has allocated.
        if self._most is None:
            message = "%s: the memory of %s is too small for %d images at a time; half as many are taken"
            log.warning(message, self._name, self._place, len(part))
        self._most = len(part) // 2
        return None

    @torch.inference_mode()
    def _rows(self, part: Tensor, mirrored: Mirrored) -> Tensor:
        """(sides * k, E) float32 on the device, of all images, then of all mirror images."""
        images = self._uploaded(part)
        sides = [images.flip(2) if turned else images for turned in mirrored]
        if self._uploads is not None and not self._fixed:  # a GPU is faster at one large call
            sides = [torch.cat(sides)]
        with self._device.autocast(), without_tf32(self._place):
            return torch.cat([self._forward(network_input(side, self._chosen)).float() for side in sides])

    @torch.no_grad()
    def on_device(self, images: Tensor) -> Tensor:
        """(k, 112, 112, 3) uint8 -> (k, E) float32, both on the device: nothing waits for the host."""
        with self._device.autocast():
            return self._forward(network_input(images, self._chosen)).float()

    def _uploaded(self, part: Tensor) -> Tensor:
        if self._uploads is None:
            return part.to(self._place)
        with torch.cuda.stream(self._uploads):
            images = part.to(self._place, non_blocking=True)
        computing = torch.cuda.current_stream(self._place)
        computing.wait_stream(self._uploads)
        images.record_stream(computing)  # else its memory might be given to the next upload too early
        return images


def fetched(rows: Tensor, sides: int) -> Later:
    """Starts to copy rows (sides * k, E) to the host; what it gives waits for them, and gives (k, E) a side."""
    host, done = rows.to("cpu", non_blocking=rows.is_cuda), None
    if rows.is_cuda:  # blocking: who waits takes no core from the threads that decode
        done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        done.record(torch.cuda.current_stream(rows.device))

    def wait() -> list[Rows]:
        if done is not None:
            done.synchronize()
        return list(host.numpy().reshape(sides, -1, host.shape[1]))

    return wait


def network_input(images: Tensor, chosen: Preprocessing) -> Tensor:
    """(m, 112, 112, 3) uint8 RGB -> (m, 3, 112, 112) float32 on the same device, as `chosen` says."""
    if chosen.unit_range:
        values = to_input(images)
        return values if chosen.color == "rgb" else values.flip(1)
    if images.device.type == "cpu":
        return torch.from_numpy(chosen.apply(images.numpy()))
    return scaled(images, chosen)


def scaled(images: Tensor, chosen: Preprocessing) -> Tensor:
    """`Preprocessing.apply` on the images' device, for any mean and std; on a CPU the slower of the two."""
    ordered = images if chosen.color == "rgb" else images.flip(3)
    values = ordered.float().permute(0, 3, 1, 2)
    means, stds = (given * 3 if len(given) == 1 else given for given in (chosen.mean, chosen.std))
    for channel, (mean, std) in enumerate(zip(means, stds, strict=True)):
        values[:, channel].sub_(mean).div_(std)  # numbers, not tensors: an upload of those would wait
    return values


def _on(place: torch.device) -> AbstractContextManager[Any]:
    """Within it, a GPU is the current one: pinned memory is allocated through it."""
    return torch.cuda.device(place) if place.type == "cuda" else nullcontext()


@contextmanager
def without_tf32(place: torch.device) -> Iterator[None]:
    """Within it, float32 is float32. By default cuDNN rounds to TF32, 10 bits, which a CPU does not know."""
    cudnn, cublas, before = torch.backends.cudnn, torch.backends.cuda.matmul, None
    if place.type == "cuda":
        with suppress(RuntimeError):  # somebody set torch's newer names of them: asked for, and left so
            before = cudnn.allow_tf32, cublas.allow_tf32
            cudnn.allow_tf32 = cublas.allow_tf32 = False
    try:
        yield
    finally:
        if before is not None:
            cudnn.allow_tf32, cublas.allow_tf32 = before
