"""The training loop: SGD, cosine schedule, clipped gradients, cross-entropy. Read it top to bottom.

Section numbers and settings: "Efficient Global Neural Architecture Search", section 4.1, and
`siddikui/Efficient-Macro-Micro-NAS:search.py`. There, the scheduler steps before the epoch, so the last
epoch runs at a learning rate of 0; here the first epoch runs at `lr` and the rate would reach 0 after the last.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facenas.arch import PlainArchitecture
from facenas.config import Recipe
from facenas.data.augment import Augment, Normalise
from facenas.data.image_sets import ImageSet
from facenas.models import build_module
from facenas.training.device import Device

EVALUATION_BATCH = 256


class NonFiniteLossError(RuntimeError):
    """The loss became infinite or not a number: training has diverged."""


class StoppedError(RuntimeError):
    """The caller asked to stop before the end."""


class Training:
    """A network on its way: weights, optimiser and the generator of every random draw.

    `images` (n, h, w, c) uint8 and `labels` (n,) int64 stay in memory. The same arguments and thread
    count give the same weights, bit for bit, on the same machine.
    """

    def __init__(
        self,
        arch: PlainArchitecture,
        image_set: ImageSet,
        indices: Tensor,
        recipe: Recipe,
        epochs: int,
        seed: int,
        device: Device,
    ) -> None:
        self.device, self.recipe, self.epochs = device, recipe, epochs
        on = device.torch_device
        # On a CPU nothing is copied here: the pages stay mapped from the file, shared by all workers.
        self.images = torch.from_numpy(image_set.train_images).to(on)
        self.labels = torch.from_numpy(image_set.train_labels).to(on)
        self.indices = indices
        self.augment = Augment(recipe, image_set, on)
        self.generator = torch.Generator().manual_seed(seed)
        self.model = device.place(build_module(arch, seed))
        self.optimizer = torch.optim.SGD(
            self.model.parameters(),
            recipe.lr,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            fused=True,  # 3 to 4 times faster than the default on a CPU
        )

    def run_epoch(self, epoch: int, stop: Callable[[], bool] = lambda: False) -> dict[str, Any]:
        """Trains epoch number `epoch` (from 0) and returns its metrics; accuracy in percent.

        Raises NonFiniteLossError when it diverges, StoppedError once `stop()` says so.
        """
        lr = self.recipe.lr * 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.model.train()
        on, seen = self.device.torch_device, 0
        loss_sum, right = torch.zeros((), device=on), torch.zeros((), dtype=torch.int64, device=on)
        for images, labels in self._batches():
            if stop():
                raise StoppedError
            loss, hits = self._step(images, labels)
            loss_sum += loss * len(labels)
            right += hits
            seen += len(labels)
        mean_loss = loss_sum.item() / seen
        if not math.isfinite(mean_loss):
            raise NonFiniteLossError(f"the loss became {mean_loss} in epoch {epoch + 1}")
        accuracy = 100 * int(right) / seen
        return {"epoch": epoch + 1, "lr": lr, "train_loss": mean_loss, "train_accuracy": accuracy}

    def _step(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        with self.device.autocast():
            logits = self.model(images)
        loss = F.cross_entropy(logits.float(), labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.grad_clip)
        self.optimizer.step()
        return loss.detach(), (logits.argmax(1) == labels).sum()

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Shuffled and augmented batches; the last one may be smaller."""
        order = self.indices[torch.randperm(len(self.indices), generator=self.generator)]
        for chosen in torch.split(order, self.recipe.batch_size):
            chosen = chosen.to(self.images.device)
            yield self.augment(self.images[chosen], self.generator), self.labels[chosen]

    def state_dict(self) -> dict[str, Any]:
        """All that a later process needs to go on exactly here."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from what `state_dict` told."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])


@torch.inference_mode()
def classified_right(
    model: nn.Module, images: Tensor, labels: Tensor, image_set: ImageSet, device: Device
) -> Tensor:
    """(n,) bool on the CPU: which of the uint8 `images` (n, h, w, c) the model puts in their class."""
    normalise = Normalise(image_set, device.torch_device)
    model.eval()
    right = []
    for batch, truth in zip(
        torch.split(images, EVALUATION_BATCH), torch.split(labels, EVALUATION_BATCH), strict=True
    ):
        with device.autocast():
            logits = model(normalise(batch.to(device.torch_device)))
        right.append((logits.argmax(1).cpu() == truth).bool())
    return torch.cat(right)
