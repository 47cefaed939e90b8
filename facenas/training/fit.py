"""Long trainings, of a network or a supernet: epochs, their metrics, and a checkpoint after each.

A checkpoint holds all that decides the rest, so a training that was killed goes on to the same weights as one
that was not. Under `torchrun`, the first process alone judges and writes.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from facenas.device import core_count, threads
from facenas.errors import SearchStoppedError, UserError
from facenas.files import write_atomically, write_text
from facenas.training import distributed
from facenas.training.trainer import NonFiniteLossError, Trainer

# Called after every epoch with (its metrics, number of epochs).
OnEpoch = Callable[[dict[str, Any], int], None]


@dataclass
class TrainState:
    """A long training under way, and its checkpoint at `path`.

    `key`: the fingerprint of all that decides the weights. `also`: modules whose states the checkpoint
    holds by name, for whoever reads it without the training.
    """

    trainer: Trainer
    path: Path
    key: str
    also: Mapping[str, nn.Module] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def best_epoch(self) -> int | None:
        """The epoch (from 1) that did best on what is held out; None when nothing is."""
        scored = [metrics for metrics in self.history if "accuracy" in metrics]
        return max(scored, key=lambda m: m["accuracy"])["epoch"] if scored else None

    def restore(self, checkpoint: dict[str, Any] | None) -> None:
        """Goes on where the checkpoint was written; without one, at the start."""
        if checkpoint is not None:
            self.trainer.load_state_dict(checkpoint["training"])
            self.history, self.seconds = checkpoint["history"], checkpoint.get("seconds", 0.0)

    def save(self) -> None:
        """Writes the checkpoint; raises SearchStoppedError when the disk is full."""
        states = {name: module.state_dict() for name, module in self.also.items()}
        save(
            self.path,
            {
                "key": self.key,
                "training": self.trainer.state_dict(),
                "history": self.history,
                "seconds": self.seconds,
                "threads": torch.get_num_threads(),
                **states,
            },
        )


def fit(
    state: TrainState,
    folder: Path,
    name: str,
    on_epoch: OnEpoch,
    keep: Callable[[], None] = lambda: None,
) -> None:
    """Trains what is left; the epochs so far are lines of `name` in the folder's `metrics.jsonl`.

    `keep` stores the weights as they are, whenever an epoch was the best so far. Raises SearchStoppedError
    when training diverges or the disk is full.
    """
    trainer, started = state.trainer, time.perf_counter() - state.seconds
    write_metrics(folder, name, state.history)
    # The checkpoint is written before the best weights. Killed in between, it holds those very weights, and
    # they are stored now: an epoch trained anew on a GPU has others, and need not be the best any more.
    if state.history and state.best_epoch == len(state.history):
        keep()
    for epoch in range(len(state.history), trainer.epochs):
        try:
            metrics = trainer.run_epoch(epoch)
        except NonFiniteLossError as error:
            raise SearchStoppedError(f"{folder}: {name} training: {error}; try a lower recipe.lr") from None
        state.history.append(metrics | _judged(trainer))
        state.seconds = time.perf_counter() - started
        state.save()
        if state.best_epoch == epoch + 1:
            keep()
        write_metrics(folder, name, state.history)
        on_epoch(state.history[-1], trainer.epochs)


def _judged(trainer: Trainer) -> dict[str, float]:
    """Accuracy on what is held out, in percent, and what else is told of it; nothing when nothing is.

    The first process alone finds it: others might round a pair to the other side, and then some processes
    would store the best weights, which all have to wait for, and some would not.
    """
    score = trainer.task.score() if distributed.rank() == 0 else None
    found = distributed.from_first(score.accuracy if score else math.nan, trainer.device)
    return {} if math.isnan(found) else {"accuracy": found, **(score.values if score else {})}


def kept_threads(checkpoint: dict[str, Any] | None) -> AbstractContextManager[None]:
    """As many threads as the checkpoint was written with, since others round otherwise.

    Else OMP_NUM_THREADS, unless this is one of several processes, for which `torchrun` sets it to 1; else all
    cores.
    """
    usual = max(1, core_count() // distributed.local_world())
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and distributed.world() == 1:
        usual = min(usual, max(1, int(asked)))
    return threads(checkpoint["threads"] if checkpoint else usual)


def save(path: Path, state: dict[str, Any]) -> None:
    """Writes `state` whole or not at all, by the first of the processes that train together; all wait for it.

    Raises SearchStoppedError when the disk is full; the file is then as it was.
    """
    if distributed.rank() == 0:
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, lambda temporary: torch.save(state, temporary))
    distributed.barrier()


def read_checkpoint(path: Path, key: str) -> dict[str, Any] | None:
    """What a training with the same `key` wrote; None when there is no file.

    Raises UserError when it is damaged or belongs to another training.
    """
    if not path.exists():
        return None
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged file makes torch.load raise
        raise UserError(f"{path}: is damaged ({type(error).__name__}); remove it to train anew") from None
    if checkpoint.get("key") != key:
        raise UserError(f"{path}: belongs to a training with other settings; remove it to train anew")
    return checkpoint


def write_metrics(folder: Path, name: str, history: list[dict[str, Any]]) -> None:
    """Puts the epochs so far behind the other lines of `metrics.jsonl`, in place of those of `name`.

    The file is replaced: nobody may hold it open to append. A torn last line is dropped.
    """
    if distributed.rank():
        return
    path = folder / "metrics.jsonl"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    own = json.dumps({"trial": name})[:-1]
    lines = [line for line in text.splitlines(keepends=True) if not line.startswith(own)]
    whole = [line for line in lines if line.endswith("\n")]
    added = [json.dumps({"trial": name, **metrics}) + "\n" for metrics in history]
    write_text(path, "".join(whole + added))
