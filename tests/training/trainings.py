"""Trainings that are cut after an epoch and gone on with, beside those that were never cut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from facenas.device import pick_device
from facenas.training.faces import FaceTask
from facenas.training.recipes import FaceRecipe
from facenas.training.trainer import Trainer


def weights(training: Trainer) -> Tensor:
    return torch.cat([p.detach().flatten() for p in training.task.network.parameters()])


def whole_and_resumed(build: Callable[[], FaceTask], recipe: FaceRecipe, folder: Path) -> tuple[Tensor, Tensor]:
    """The weights after two epochs, and after two with a state in between that was written and read."""
    whole, first, second = (Trainer(build(), recipe, 2, pick_device()) for _ in range(3))
    for epoch in range(2):
        whole.run_epoch(epoch)
    first.run_epoch(0)
    torch.save(first.state_dict(), folder / "state.pt")
    second.load_state_dict(torch.load(folder / "state.pt", weights_only=True))
    second.run_epoch(1)
    return weights(whole), weights(second)
