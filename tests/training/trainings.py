"""Trainings that are cut after an epoch and gone on with, beside those that were never cut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from facenas.training.trainer import Trainer


def weights(training: Trainer) -> Tensor:
    return torch.cat([p.detach().flatten() for p in training.task.network.parameters()])


def whole_and_resumed(make: Callable[[], Trainer], epochs: int, folder: Path) -> tuple[Trainer, Trainer]:
    """One that ran all epochs, and one that went on after the first from a state that was written and read."""
    whole, first, second = (make() for _ in range(3))
    for epoch in range(epochs):
        whole.run_epoch(epoch)
    first.run_epoch(0)
    torch.save(first.state_dict(), folder / "state.pt")
    second.load_state_dict(torch.load(folder / "state.pt", weights_only=True))
    for epoch in range(1, epochs):
        second.run_epoch(epoch)
    return whole, second
