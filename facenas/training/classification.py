"""Training of a classification network: images in memory or on disk, augmented by whole batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from facenas.data import ClassData, split_indices
from facenas.data.augment import Augment, Draws, Normalize
from facenas.data.config import DataConfig
from facenas.data.faces.store import FaceStore
from facenas.data.splits import Indices
from facenas.device import Device
from facenas.errors import UserError
from facenas.training import distributed
from facenas.training.capture import Batch
from facenas.training.feeds import Images, open_feed
from facenas.training.recipes import Recipe
from facenas.training.tasks import LossNetwork, Score, TaskContext

FEWEST = 2  # images of a process in a batch, for BatchNorm


class ClassificationTask:
    """The task (`facenas.training.tasks.Task`) of telling `image_set`'s classes apart.

    A candidate trains on a part of the training images and is judged on others, or on the test images
    when `select_on` says so. The final network (`final`) trains on all of them.
    """

    capturable = True

    def __init__(self, context: TaskContext) -> None:
        data, recipe, config = context.data, context.recipe, context.data_config
        assert not isinstance(data, FaceStore)
        assert isinstance(recipe, Recipe)
        self.image_set, self.device, self.batch_size = data, context.device, recipe.batch_size
        self.label_smoothing = recipe.label_smoothing
        on = self.device.torch_device
        self.feed = open_feed(data, recipe, config, self.device)
        self.labels = torch.from_numpy(data.train_labels).to(on)
        train, judged = _split(data, config, context.split_seed, context.final)
        self.indices = torch.from_numpy(train)
        self._judged = None if judged is None else (self.feed.of(judged), self._labels_of(judged))
        world = distributed.world()
        if world > 1 and min(self.batch_size, len(self.indices)) < FEWEST * world:
            raise UserError(
                f"{config.name}: {len(self.indices)} images in batches of {self.batch_size} are "
                f"too few for {world} processes; each needs {FEWEST} or more images a batch"
            )
        self.augment = Augment(recipe, data, on)
        self._alternating = recipe.alternating_flip
        self.restart(context.model or context.arch.build(context.seed), context.seed)

    def restart(self, model: nn.Module, seed: int) -> None:
        """Puts another network on the same images; draws begin anew from `seed`."""
        self.generator = torch.Generator().manual_seed(seed)
        self._mirrored = None  # (images,) bool: which are mirrored in even epochs; the others are in odd ones
        if self._alternating:
            self._mirrored = torch.randint(2, (len(self.labels),), generator=self.generator) == 1
        self.model = self.device.place(model)
        self.network = LossNetwork(self.model, self.label_smoothing)

    @property
    def images(self) -> int:
        """How many images an epoch trains on."""
        return len(self.indices)

    @property
    def pixels(self) -> Tensor | None:
        """Of all training images, when they are in memory."""
        return self.feed.pixels

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Of this process's slices of shuffled joint batches; the last batch may be smaller.

        Each begins with (k, n) int64: numbers of the images, and `Draws`; what the feed needs follows. Under
        `torchrun` a batch is left out that has fewer than 2 images for some process.
        """
        order = self.indices[torch.randperm(len(self.indices), generator=self.generator)]
        yield from self.feed.batches(self._plans(torch.split(order, self.batch_size), epoch))

    def _plans(self, joint: Iterable[Tensor], epoch: int) -> Iterator[Batch]:
        rank, world = distributed.rank(), distributed.world()
        for chosen in joint:
            # All processes draw for the whole batch, and so the same; each takes its own columns.
            count = len(chosen)
            draws = self.augment.draw(count, self.generator)
            if self._mirrored is not None:
                draws = replace(draws, flip=self._mirrored[chosen] == (epoch % 2 == 0))
            plan = torch.cat([chosen[None], draws.stacked()])
            more = self.feed.draw(count, self.generator)
            own = slice(count * rank // world, count * (rank + 1) // world)
            if count >= FEWEST * world or world == 1:
                yield plan[:, own], *(part[own] for part in more)

    def prepare(self, *batch: Tensor) -> tuple[Tensor, Tensor]:
        """Augmented images (n, c, crop, crop) float32, and their labels."""
        plan = batch[0]
        return self.augment.apply(self.feed.images(*batch), Draws.of(plan[1:])), self.labels[plan[0]]

    def score(self) -> Score | None:
        """Accuracy on the images held out from this training."""
        if self._judged is None:
            return None
        images, labels = self._judged
        right = (self._classes_of(images) == labels).cpu().numpy()
        return Score(100 * int(right.sum()) / len(right), right)

    def facts(self) -> dict[str, Any]:
        """Where the training images are, and their bytes."""
        return self.feed.facts()

    def test(self) -> dict[str, Any]:
        """The only look at the test set.

        `confusion`: how many test images of each class (rows) were put in each (columns), in the order of
        `classes`; `balanced_accuracy`: mean over the classes of the part that is right, in percent.
        """
        truth, names = self.image_set.test_labels, self.image_set.classes
        found = self._classes_of(self.feed.of(_test_numbers(self.image_set))).cpu().numpy()
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

    def _classes_of(self, images: Images) -> Tensor:
        return classify(self.model, images(), self.image_set, self.device)

    def _labels_of(self, numbers: Indices) -> Tensor:
        labels = np.concatenate([self.image_set.train_labels, self.image_set.test_labels])
        return torch.from_numpy(labels[numbers]).to(self.device.torch_device)


def _split(data: ClassData, config: DataConfig, seed: int, final: bool) -> tuple[Indices, Indices | None]:
    """Numbers of the images to train on, and of those to choose on."""
    if final:
        return np.arange(len(data.train_labels)), None
    on_test = config.select_on == "test"
    held_out_fraction = 0.0 if on_test else config.validation_fraction
    own = data.validation_images
    train, held_out = split_indices(data.train_labels, held_out_fraction, config.data_fraction, seed, own)
    return train, _test_numbers(data) if on_test else held_out


def _test_numbers(data: ClassData) -> Indices:
    return len(data.train_labels) + np.arange(len(data.test_labels))


@torch.inference_mode()
def classify(model: nn.Module, images: Iterable[Tensor], data: ClassData, device: Device) -> Tensor:
    """(n,) int64 on the device: the class that the model puts each of the uint8 `images` (k, h, w, c) in."""
    normalize = Normalize(data, device.torch_device)
    model.eval()
    found = []
    for batch in images:
        with device.autocast():
            logits = model(normalize(batch.to(device.torch_device)))
        found.append(logits.argmax(1))
    return torch.cat(found)
