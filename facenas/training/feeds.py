"""Where a classification training takes its images from: memory, or a store on disk that is decoded meanwhile.

Images are known by number: those to train on, then those to test on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from facenas.data import ClassData, ImageSet
from facenas.data.augment import Draws
from facenas.data.classes.crops import DRAWS, random_boxes
from facenas.data.classes.store import ImageStore
from facenas.data.config import DataConfig
from facenas.data.feed import images_at, readers, resident, streamed, uploaded
from facenas.data.splits import Indices
from facenas.device import Device
from facenas.errors import UserError
from facenas.training import distributed
from facenas.training.capture import Batch
from facenas.training.recipes import Recipe

EVALUATION_BATCH = 256  # on a CPU
GPU_PIXELS = 1 << 21  # of a batch: 2,048 images of 32x32; more take memory, and no less time

Images = Callable[[], Iterable[Tensor]]  # the same uint8 batches (n, h, w, c) each time


class Feed(Protocol):
    """Images of one training."""

    @property
    def pixels(self) -> Tensor | None:
        """Of all images to train on, where they are in memory."""
        ...

    def draw(self, count: int, generator: torch.Generator) -> Batch:
        """What chance decides for so many images while they are read, each (count, ...)."""
        ...

    def batches(self, plans: Iterator[Batch]) -> Iterator[Batch]:
        """Plans (k, n) int64 on the device, the images' numbers in the first row, and what `images` needs."""
        ...

    def images(self, plan: Tensor, *read: Tensor) -> Tensor:
        """(n, h, w, c) uint8 on the device, of one of these batches; draws nothing."""
        ...

    def of(self, numbers: Indices) -> Images:
        """The images of these numbers as they are judged; those to train on and to test on do not mix."""
        ...

    def facts(self) -> dict[str, Any]:
        """Where the images are while a network trains, and their bytes."""
        ...


def open_feed(data: ClassData, recipe: Recipe, config: DataConfig, device: Device) -> Feed:
    """The feed of the data's kind; raises UserError when recipe and data do not belong together."""
    if isinstance(data, ImageSet):
        return MemoryFeed(data, config, device)
    return StoreFeed(data, recipe, config, device)


class MemoryFeed:
    """Images of one size in memory, that of the device when they fit there."""

    def __init__(self, image_set: ImageSet, config: DataConfig, device: Device) -> None:
        self.image_set, self.device = image_set, device
        on = device.torch_device
        images = torch.from_numpy(image_set.train_images)
        key = (image_set.fingerprint, "training images") if image_set.fingerprint else None
        # On a CPU nothing is copied: the pages stay mapped from the file, shared by all workers.
        found = resident(key, images.nbytes, on, config.residency, lambda: images.to(on))
        self.pixels, self._resident = images if found is None else found, found is not None

    def draw(self, count: int, generator: torch.Generator) -> Batch:
        """Nothing."""
        return ()

    def batches(self, plans: Iterator[Batch]) -> Iterator[Batch]:
        """Images that are not resident come second, (n, h, w, c) uint8."""
        on = self.device.torch_device
        if not self.device.is_gpu:
            yield from plans
        elif self.pixels.device == on:
            yield from uploaded(plans, on)
        else:
            yield from streamed(self._read, plans, on, readers(on, distributed.world()))

    def _read(self, batch: Batch) -> Batch:
        (plan,) = batch
        return plan, self.pixels[plan[0]]

    def images(self, plan: Tensor, *read: Tensor) -> Tensor:
        """See `Feed`."""
        return read[0] if read else self.pixels[plan[0]]

    def of(self, numbers: Indices) -> Images:
        """Those to choose on are copied once, to the device if the others are there."""
        data, first = self.image_set, len(self.image_set.train_labels)
        if len(numbers) and numbers[0] >= first:
            images = torch.from_numpy(np.asarray(data.test_images))
        else:
            images = torch.from_numpy(np.asarray(data.train_images[numbers]))
        if self._resident:
            images = images.to(self.device.torch_device)
        size = max(64, GPU_PIXELS // data.image_size**2) if self.device.is_gpu else EVALUATION_BATCH
        return lambda: torch.split(images, size)

    def facts(self) -> dict[str, Any]:
        """See `Feed`."""
        return images_at(self.pixels.device, self.pixels.nbytes)


class StoreFeed:
    """Images of any size on disk: a random crop of each, or its middle, is decoded when its turn comes.

    On a CPU the thread that trains decodes; beside a GPU others do, two batches ahead. What chance decides is
    drawn before, so that a training does not depend on their number.
    """

    pixels: Tensor | None = None

    def __init__(self, store: ImageStore, recipe: Recipe, config: DataConfig, device: Device) -> None:
        if config.residency == "device":
            raise UserError(
                f"data.residency device: {store.path} is decoded as it is read; choose auto or host"
            )
        self.store, self.device = store, device
        self.resized_crop, self.fraction = recipe.augment == "random_resized_crop", recipe.crop_fraction
        self.flip = store.flip if recipe.flip is None else recipe.flip
        self.alternating = recipe.alternating_flip
        self.readers = readers(device.torch_device, distributed.world())

    def draw(self, count: int, generator: torch.Generator) -> Batch:
        """Of random resized crops, (count, `DRAWS` + 1) float64: of their boxes, and of their mirrors."""
        if not self.resized_crop:
            return ()
        return (torch.rand((count, DRAWS + 1), generator=generator, dtype=torch.float64),)

    def batches(self, plans: Iterator[Batch]) -> Iterator[Batch]:
        """Images (n, h, w, c) uint8 come second."""
        return streamed(self._read, plans, self.device.torch_device, self.readers)

    def _read(self, batch: Batch) -> Batch:
        plan, *drawn = batch
        numbers = plan[0].numpy()
        if not drawn:
            return plan, torch.from_numpy(self.store.read_centers(numbers, self.fraction))
        draws = drawn[0].numpy()
        boxes = random_boxes(self.store.sizes[numbers], draws[:, :-1])
        mirrored = Draws.of(plan[1:]).flip.numpy() if self.alternating else draws[:, -1] < 0.5
        return plan, torch.from_numpy(self.store.read(numbers, boxes, mirrored if self.flip else None))

    def images(self, plan: Tensor, *read: Tensor) -> Tensor:
        """See `Feed`."""
        return read[0]

    def of(self, numbers: Indices) -> Images:
        """Read anew each time."""
        most = max(16, GPU_PIXELS // self.store.image_size**2)
        size = most if self.device.is_gpu else min(most, EVALUATION_BATCH)
        parts = np.split(numbers, range(size, len(numbers), size))
        on = self.device.torch_device
        return lambda: (batch for (batch,) in streamed(self._middles, parts, on, self.readers))

    def _middles(self, numbers: Indices) -> Batch:
        return (torch.from_numpy(self.store.read_centers(numbers, self.fraction)),)

    def facts(self) -> dict[str, Any]:
        """See `Feed`."""
        return {"images_on": "disk", "image_bytes": len(self.store.arrays["jpeg"])}
