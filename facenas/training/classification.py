"""Training of a classification network: images in memory, augmented by whole batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from facenas.data import ImageSet, split_indices
from facenas.data.augment import Augment, Draws, Normalize
from facenas.data.config import DataConfig
from facenas.data.feed import images_at, readers, resident, streamed, uploaded
from facenas.device import Device
from facenas.errors import UserError
from facenas.training import distributed
from facenas.training.capture import Batch
from facenas.training.recipes import Recipe
from facenas.training.tasks import LossNetwork, Score, TaskContext

EVALUATION_BATCH = 256  # on a CPU
GPU_PIXELS = 1 << 21  # of a batch: 2,048 images of 32x32; more take memory, and no less time
FEWEST = 2  # images of a process in a batch, for BatchNorm


class ClassificationTask:
    """The task (`facenas.training.tasks.Task`) of telling `image_set`'s classes apart.

    A candidate trains on a part of the training images and is judged on others, or on the test images
    when `select_on` says so. The final network (`final`) trains on all of them.
    """

    capturable = True

    def __init__(self, context: TaskContext) -> None:
        image_set, recipe, config = context.data, context.recipe, context.data_config
        assert isinstance(image_set, ImageSet)
        assert isinstance(recipe, Recipe)
        self.image_set, self.device, self.batch_size = image_set, context.device, recipe.batch_size
        on = self.device.torch_device
        images = torch.from_numpy(image_set.train_images)
        key = (image_set.fingerprint, "training images") if image_set.fingerprint else None
        # On a CPU nothing is copied: the pages stay mapped from the file, shared by all workers.
        found = resident(key, images.nbytes, on, config.residency, lambda: images.to(on))
        self.pixels = images if found is None else found
        self.labels = torch.from_numpy(image_set.train_labels).to(on)
        self.indices, judged = _split(image_set, config, context.split_seed, context.final)
        self._judged = judged and (judged[0] if found is None else judged[0].to(on), judged[1].to(on))
        world = distributed.world()
        if world > 1 and min(self.batch_size, len(self.indices)) < FEWEST * world:
            raise UserError(
                f"{config.name}: {len(self.indices)} images in batches of {self.batch_size} are "
                f"too few for {world} processes; each needs {FEWEST} or more images a batch"
            )
        self.augment = Augment(recipe, image_set, on)
        self.restart(context.model or context.arch.build(context.seed), context.seed)

    def restart(self, model: nn.Module, seed: int) -> None:
        """Puts another network on the same images; draws begin anew from `seed`."""
        self.generator = torch.Generator().manual_seed(seed)
        self.model = self.device.place(model)
        self.network = LossNetwork(self.model)

    @property
    def images(self) -> int:
        """How many images an epoch trains on."""
        return len(self.indices)

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Of this process's slices of shuffled joint batches; the last batch may be smaller.

        Each is (6, n) int64: numbers of the images, and `Draws`. Images that are not resident come second,
        (n, h, w, c) uint8. Under `torchrun` a batch is left out that has fewer than 2 images for some process.
        """
        order = self.indices[torch.randperm(len(self.indices), generator=self.generator)]
        plans = self._plans(torch.split(order, self.batch_size))
        on = self.device.torch_device
        if not self.device.is_gpu:
            yield from plans
        elif self.pixels.device == on:
            yield from uploaded(plans, on)
        else:
            yield from streamed(self._read, plans, on, readers(on, distributed.world()))

    def _plans(self, joint: Iterable[Tensor]) -> Iterator[Batch]:
        rank, world = distributed.rank(), distributed.world()
        for chosen in joint:
            # All processes draw for the whole batch, and so the same; each takes its own columns.
            plan = torch.cat([chosen[None], self.augment.draw(len(chosen), self.generator).stacked()])
            if len(chosen) >= FEWEST * world or world == 1:
                yield (plan[:, len(chosen) * rank // world : len(chosen) * (rank + 1) // world],)

    def _read(self, batch: Batch) -> Batch:
        """The plan, and the images themselves, of those in the host's memory."""
        (plan,) = batch
        return plan, self.pixels[plan[0]]

    def prepare(self, *batch: Tensor) -> tuple[Tensor, Tensor]:
        """Augmented images (n, c, crop, crop) float32, and their labels."""
        plan, *images = batch
        pixels = images[0] if images else self.pixels[plan[0]]
        return self.augment.apply(pixels, Draws.of(plan[1:])), self.labels[plan[0]]

    def score(self) -> Score | None:
        """Accuracy on the images held out from this training."""
        if self._judged is None:
            return None
        images, labels = self._judged
        right = (self._classes_of(images) == labels).cpu().numpy()
        return Score(100 * int(right.sum()) / len(right), right)

    def facts(self) -> dict[str, Any]:
        """Where the training images are, and their bytes."""
        return images_at(self.pixels.device, self.pixels.nbytes)

    def test(self) -> dict[str, Any]:
        """The only look at the test set.

        `confusion`: how many test images of each class (rows) were put in each (columns), in the order of
        `classes`; `balanced_accuracy`: mean over the classes of the part that is right, in percent.
        """
        truth, names = self.image_set.test_labels, self.image_set.classes
        found = self._classes_of(torch.from_numpy(self.image_set.test_images)).cpu().numpy()
        confusion = np.zeros((len(names), len(names)), np.int64)
        np.add.at(confusion, (truth, found), 1)
        correct, images = confusion.diagonal(), confusion.sum(1)
        recalls = correct[images > 0] / images[images > 0]
        return {
            "test_accuracy": 100 * int(correct.sum()) / len(truth),
            "test_correct": int(correct.sum()),
            "test_images": len(truth),
            "balanced_accuracy": 100 * float(recalls.mean()),
            "classes": list(names),
            "confusion": confusion.tolist(),
        }

    def state_dict(self) -> dict[str, Any]:
        """The generator of all draws."""
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on with the same draws."""
        self.generator.set_state(state["generator"])

    def _classes_of(self, images: Tensor) -> Tensor:
        return classify(self.model, images, self.image_set, self.device)


def _split(
    image_set: ImageSet, config: DataConfig, seed: int, final: bool
) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
    """Indices of the images to train on, and the images and labels to choose on."""
    if final:
        return torch.arange(len(image_set.train_labels)), None
    on_test = config.select_on == "test"
    held_out_fraction = 0.0 if on_test else config.validation_fraction
    own = image_set.validation_images
    train, held_out = split_indices(image_set.train_labels, held_out_fraction, config.data_fraction, seed, own)
    if on_test:
        judged = image_set.test_images, image_set.test_labels
    else:
        judged = image_set.train_images[held_out], image_set.train_labels[held_out]
    images, labels = (torch.from_numpy(np.asarray(array)) for array in judged)
    return torch.from_numpy(train), (images, labels)


@torch.inference_mode()
def classify(model: nn.Module, images: Tensor, image_set: ImageSet, device: Device) -> Tensor:
    """(n,) int64 on the device: the class that the model puts each of the uint8 `images` (n, h, w, c) in."""
    normalize = Normalize(image_set, device.torch_device)
    model.eval()
    size = max(64, GPU_PIXELS // images[0, ..., 0].numel()) if device.is_gpu else EVALUATION_BATCH
    found = []
    for batch in torch.split(images, size):
        with device.autocast():
            logits = model(normalize(batch.to(device.torch_device)))
        found.append(logits.argmax(1))
    return torch.cat(found)
