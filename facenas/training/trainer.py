"""The training loop: SGD, a schedule by epochs, cross-entropy. Read it top to bottom.

Sections and settings: "Efficient Global Neural Architecture Search", section 4.1, and
`siddikui/Efficient-Macro-Micro-NAS:search.py`. There, the scheduler steps before the epoch, so the last
epoch runs at a learning rate of 0; here the first epoch runs at `lr` and a cosine would reach 0 after the last.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from facenas.device import Device
from facenas.errors import CandidateError, StoppedError
from facenas.training import distributed
from facenas.training.recipes import Optimization
from facenas.training.tasks import Task

CHECK_EVERY = 200  # steps


class NonFiniteLossError(CandidateError):
    """The loss became infinite or not a number: training has diverged."""


class Trainer:
    """A task on its way. The same arguments and thread count give the same weights, bit for bit."""

    def __init__(self, task: Task, recipe: Optimization, epochs: int, device: Device) -> None:
        self.task, self.recipe, self.epochs, self.device = task, recipe, epochs, device
        self.network = distributed.wrap(task.network)
        self.optimizer = torch.optim.SGD(
            _parameter_groups(task.network, recipe),
            recipe.lr,
            momentum=recipe.momentum,
            fused=True,  # 3 to 4 times faster than the default on a CPU
        )

    def run_epoch(self, epoch: int, stop: Callable[[], bool] = lambda: False) -> dict[str, Any]:
        """Trains epoch number `epoch` (from 0) and returns its metrics; accuracy in percent.

        Raises NonFiniteLossError when it diverges, StoppedError once `stop()` says so.
        """
        lr = learning_rate(self.recipe, epoch, self.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.network.train()
        # Sums of loss and right answers, float64: exact over any number of processes.
        sums = torch.zeros(2, dtype=torch.float64, device=self.device.torch_device)
        watch, count = _Watch(epoch), 0
        for inputs, labels in self.task.batches(epoch):
            if stop():
                raise StoppedError
            loss, hits = self._step(inputs, labels)
            sums += torch.stack([loss.double() * len(labels), hits.double()])
            count += len(labels)
            watch.step(sums[0])
        counted = torch.cat([sums, sums.new_tensor([count])])
        loss_sum, right, seen = distributed.total(counted).tolist()
        mean_loss = loss_sum / max(seen, 1)
        watch.check(mean_loss)
        accuracy = 100 * right / max(seen, 1)
        return {"epoch": epoch + 1, "lr": lr, "train_loss": mean_loss, "train_accuracy": accuracy}

    def _step(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        with self.device.autocast():
            logits = self.network(inputs, labels)
        loss = F.cross_entropy(logits.float(), labels)
        self.optimizer.zero_grad(set_to_none=True)
        weighted = loss * distributed.weight(len(labels), loss.device)
        weighted.backward()  # type: ignore[no-untyped-call]
        if self.recipe.grad_clip is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.grad_clip)
        self.optimizer.step()
        return loss.detach(), (logits.argmax(1) == labels).sum()

    def state_dict(self) -> dict[str, Any]:
        """All that a later process needs to go on exactly here."""
        return {
            "network": self.task.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "task": self.task.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from what `state_dict` told."""
        self.task.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.task.load_state_dict(state["task"])


class _Watch:
    """Looks every `CHECK_EVERY` steps whether the loss is finite: an epoch of WebFace takes an hour.

    A GPU is not waited for: what is looked at was copied to the host `CHECK_EVERY` steps ago.
    """

    def __init__(self, epoch: int) -> None:
        self._epoch, self._steps = epoch, 0
        self._copied: tuple[Tensor, torch.cuda.Event] | None = None

    def step(self, loss_sum: Tensor) -> None:
        """Another step is done, with this sum of losses so far. Raises NonFiniteLossError."""
        self._steps += 1
        if self._steps % CHECK_EVERY:
            return
        joint = distributed.total(loss_sum.clone())  # so that all processes stop at the same step
        if not joint.is_cuda:
            self.check(float(joint))
            return
        if self._copied is not None:
            copy, arrived = self._copied
            arrived.synchronize()
            self.check(float(copy))
        copy = joint.to("cpu", non_blocking=True)
        self._copied = copy, torch.cuda.current_stream(joint.device).record_event()

    def check(self, loss: float) -> None:
        """Raises NonFiniteLossError unless this is a number."""
        if not math.isfinite(loss):
            raise NonFiniteLossError(f"the loss became {loss} in epoch {self._epoch + 1}")


def learning_rate(recipe: Optimization, epoch: int, epochs: int) -> float:
    """The rate of epoch number `epoch` (from 0) of `epochs`.

    Milestones are epochs of a training of `final_epochs`; a shorter one reaches them proportionally sooner.
    """
    if recipe.schedule == "cosine":
        return recipe.lr * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
    passed = sum(epoch * recipe.final_epochs >= m * epochs for m in recipe.milestones)
    return float(recipe.lr * recipe.gamma**passed)


def _parameter_groups(network: nn.Module, recipe: Optimization) -> list[dict[str, Any]]:
    """All parameters decay, or all but those of BatchNorm."""
    if recipe.decay_norms:
        return [{"params": list(network.parameters()), "weight_decay": recipe.weight_decay}]
    norms = {id(p) for m in network.modules() if isinstance(m, _BatchNorm) for p in m.parameters()}
    kept = [p for p in network.parameters() if id(p) in norms]
    decayed = [p for p in network.parameters() if id(p) not in norms]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}]
    return groups + ([{"params": kept, "weight_decay": 0.0}] if kept else [])
