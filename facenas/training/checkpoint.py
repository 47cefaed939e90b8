"""Checkpoints of long trainings: written whole or not at all, and only read by the training they belong to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from facenas.errors import UserError
from facenas.files import write_atomically
from facenas.training import distributed


def save(path: Path, state: dict[str, Any]) -> None:
    """Writes `state`, by the first of the processes that train together; all wait for it.

    Raises SearchStoppedError when the disk is full; the file is then as it was.
    """
    if distributed.rank() == 0:
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, lambda temporary: torch.save(state, temporary))
    distributed.barrier()


def read(path: Path, key: str) -> dict[str, Any] | None:
    """What `save` wrote, with the same `key` in it; None when there is no file.

    Raises UserError when it is damaged or belongs to another training.
    """
    if not path.exists():
        return None
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged file makes torch.load raise
        raise UserError(
            f"{path}: is damaged ({type(error).__name__}); remove it to train anew"
        ) from None
    if checkpoint.get("key") != key:
        raise UserError(
            f"{path}: belongs to a training with other settings; remove it to train anew"
        )
    return checkpoint
