"""Training of a classification network: images in memory, augmented by whole batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from facenas.data import ImageSet, split_indices
from facenas.data.augment import Augment, Normalize
from facenas.data.config import DataConfig
from facenas.device import Device
from facenas.training.recipes import Recipe
from facenas.training.tasks import Score, TaskContext

EVALUATION_BATCH = 256


class ClassificationTask:
    """The task (`facenas.training.tasks.Task`) of telling `image_set`'s classes apart.

    A candidate trains on a part of the training images and is judged on others, or on the test images
    when `select_on` says so. The final network (`final`) trains on all of them.
    """

    def __init__(self, context: TaskContext) -> None:
        image_set, recipe = context.data, context.recipe
        assert isinstance(image_set, ImageSet)
        assert isinstance(recipe, Recipe)
        self.image_set, self.device, self.batch_size = image_set, context.device, recipe.batch_size
        on = self.device.torch_device
        # On a CPU nothing is copied here: the pages stay mapped from the file, shared by all workers.
        self.pixels = torch.from_numpy(image_set.train_images).to(on)
        self.labels = torch.from_numpy(image_set.train_labels).to(on)
        self.indices, self._judged = _split(
            image_set, context.data_config, context.split_seed, context.final
        )
        self.augment = Augment(recipe, image_set, on)
        self.generator = torch.Generator().manual_seed(context.seed)
        model = context.model or context.arch.build(context.seed)
        self.model = self.device.place(model)
        self.network = Classifier(self.model)

    @property
    def images(self) -> int:
        """How many images an epoch trains on."""
        return len(self.indices)

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Shuffled and augmented batches; the last one may be smaller."""
        order = self.indices[torch.randperm(len(self.indices), generator=self.generator)]
        for chosen in torch.split(order, self.batch_size):
            chosen = chosen.to(self.pixels.device)
            yield self.augment(self.pixels[chosen], self.generator), self.labels[chosen]

    def score(self) -> Score | None:
        """Accuracy on the images held out from this training."""
        if self._judged is None:
            return None
        right = self._right(*self._judged)
        return Score(100 * int(right.sum()) / len(right), right.numpy())

    def test(self) -> dict[str, Any]:
        """The only look at the test set."""
        images = torch.from_numpy(self.image_set.test_images)
        right = self._right(images, torch.from_numpy(self.image_set.test_labels))
        correct = int(right.sum())
        return {
            "test_accuracy": 100 * correct / len(right),
            "test_correct": correct,
            "test_images": len(right),
        }

    def state_dict(self) -> dict[str, Any]:
        """The generator of all draws."""
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on with the same draws."""
        self.generator.set_state(state["generator"])

    def _right(self, images: Tensor, labels: Tensor) -> Tensor:
        return classified_right(self.model, images, labels, self.image_set, self.device)


class Classifier(nn.Module):
    """The network as the training loop calls it: the labels do not matter to its logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Images (n, c, h, w) -> logits (n, classes)."""
        logits: Tensor = self.model(images)
        return logits


def _split(
    image_set: ImageSet, config: DataConfig, seed: int, final: bool
) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
    """Indices of the images to train on, and the images and labels to choose on."""
    if final:
        return torch.arange(len(image_set.train_labels)), None
    on_test = config.select_on == "test"
    held_out_fraction = 0.0 if on_test else config.validation_fraction
    train, held_out = split_indices(
        image_set.train_labels, held_out_fraction, config.data_fraction, seed
    )
    if on_test:
        judged = image_set.test_images, image_set.test_labels
    else:
        judged = image_set.train_images[held_out], image_set.train_labels[held_out]
    images, labels = (torch.from_numpy(np.asarray(array)) for array in judged)
    return torch.from_numpy(train), (images, labels)


@torch.inference_mode()
def classified_right(
    model: nn.Module, images: Tensor, labels: Tensor, image_set: ImageSet, device: Device
) -> Tensor:
    """(n,) bool on the CPU: which of the uint8 `images` (n, h, w, c) the model puts in their class."""
    normalize = Normalize(image_set, device.torch_device)
    model.eval()
    right = []
    for batch, truth in zip(
        torch.split(images, EVALUATION_BATCH), torch.split(labels, EVALUATION_BATCH), strict=True
    ):
        with device.autocast():
            logits = model(normalize(batch.to(device.torch_device)))
        right.append((logits.argmax(1).cpu() == truth).bool())
    return torch.cat(right)
