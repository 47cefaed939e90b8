"""Teachers for tests: small networks with drawn weights, as files of every kind."""

from __future__ import annotations

from pathlib import Path

import torch

from facenas.spaces import IRArchitecture
from facenas.training.recipes import Distill
from facenas.training.teachers import Teacher, find_teacher

ARCH = IRArchitecture.uniform(2, (1, 1, 1, 1), embedding=16)


def write_teacher(folder: Path, embedding: int = 24, seed: int = 1) -> Path:
    """A run's folder, as far as a teacher needs it."""
    arch = IRArchitecture.uniform(2, (1, 1, 1, 1), embedding=embedding)
    network = arch.build(seed)
    for _ in range(2):  # else its embeddings are all but alike
        network(torch.randn(16, 3, 112, 112, generator=torch.Generator().manual_seed(seed)))
    state = {"architecture": arch.to_json(), "mean": [0.5] * 3, "std": [0.5] * 3, "image_size": 112}
    (folder / "checkpoints").mkdir(parents=True)
    torch.save(state | {"model": network.state_dict()}, folder / "checkpoints" / "model.pt")
    return folder


def teacher_of(folder: Path, store, **settings: object) -> Teacher:
    """With its embeddings made."""
    return find_teacher(Distill(teacher=folder, **settings)).keep(store)
