"""Training of the supernet that a search judges its candidates by; it goes on where it was killed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from facenas import checkpoints
from facenas.arch.base import fingerprint
from facenas.arch.graph_space import GraphSpace
from facenas.config import SupernetConfig
from facenas.cores import core_count
from facenas.data import open_data
from facenas.device import pick_device, use_threads
from facenas.errors import SearchStoppedError
from facenas.models.supernet import Supernet
from facenas.runs import Run
from facenas.runs.files import write_text
from facenas.runs.journal import read_journal
from facenas.training.loop import NonFiniteLossError, Training
from facenas.training.supernet import Paths, SupernetTask
from facenas.training.tasks import build_task
from facenas.trial import SupernetUse

# Called after every epoch with (its metrics, number of epochs).
OnEpoch = Callable[[dict[str, Any], int], None]


def train_supernet(
    run: Run, space: GraphSpace, settings: SupernetConfig, data_folder: Path, on_epoch: OnEpoch
) -> SupernetUse:
    """The supernet of `run`, trained to its last epoch if it is not yet.

    Raises UserError when its checkpoint is damaged or belongs to other settings, SearchStoppedError when
    training diverges or the disk is full.
    """
    path, key = run.folder / "checkpoints" / "supernet.pt", _key(run, settings)
    checkpoint = checkpoints.read(path, key)
    history = checkpoint["history"] if checkpoint else []
    if len(history) < settings.epochs:
        # Another number of threads rounds otherwise: a resumed training keeps the one it began with.
        use_threads(checkpoint["threads"] if checkpoint else core_count())
        training = _set_up(run, space, settings, data_folder, key)
        if checkpoint:
            training.load_state_dict(checkpoint["training"])
        _fit(run, training, history, path, key, on_epoch)
    return SupernetUse(path, key, space, settings.recalibration)


def _set_up(
    run: Run, space: GraphSpace, settings: SupernetConfig, data_folder: Path, key: str
) -> Training:
    config, seed, device = run.config, int(key[:16], 16) >> 1, pick_device()
    first = space.largest()
    paths = Paths(Supernet(space, seed), first)
    data = open_data(data_folder)
    task = build_task(
        first, data, config.data, config.recipe, config.seed, seed, device, model=paths
    )
    whole = SupernetTask(task, paths, space, settings, seed)
    training = Training(whole, config.recipe, settings.epochs, device)
    # torch's fused SGD cannot begin with some gradients missing, as those off the path are; a momentum of 0
    # gives the same first step.
    for parameter in whole.network.parameters():
        training.optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return training


def _fit(
    run: Run,
    training: Training,
    history: list[dict[str, Any]],
    path: Path,
    key: str,
    on_epoch: OnEpoch,
) -> None:
    for epoch in range(len(history), training.epochs):
        try:
            metrics = training.run_epoch(epoch)
        except NonFiniteLossError as error:
            raise SearchStoppedError(
                f"{run.folder}: supernet: {error}; try a lower recipe.lr"
            ) from None
        history.append(metrics)
        paths = training.task.model
        assert isinstance(paths, Paths)
        checkpoints.save(
            path,
            {
                "key": key,
                "supernet": paths.supernet.state_dict(),
                "training": training.state_dict(),
                "history": history,
                "threads": torch.get_num_threads(),
            },
        )
        _write_metrics(run, history)
        on_epoch(metrics, training.epochs)


def _key(run: Run, settings: SupernetConfig) -> str:
    """Of all that decides the weights."""
    data = run.config.data.model_dump(exclude={"name", "root", "image_size", "download"})
    return fingerprint(
        {
            "space": run.config.space.model_dump(mode="json"),
            "recipe": run.config.recipe.model_dump(mode="json"),
            "supernet": settings.model_dump(include={"epochs", "sandwich"}),
            "data": {**data, "fingerprint": run.about["data"]["fingerprint"]},
            "seed": run.config.seed,
        }
    )


def _write_metrics(run: Run, history: list[dict[str, Any]]) -> None:
    """The epochs so far, before all trials' lines in `metrics.jsonl`."""
    path = run.folder / "metrics.jsonl"
    lines = [{"trial": "supernet", **metrics} for metrics in history]
    lines += [line for line in read_journal(path) if line["trial"] != "supernet"]
    write_text(path, "".join(json.dumps(line) + "\n" for line in lines))
