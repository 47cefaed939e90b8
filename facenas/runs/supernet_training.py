"""Training of the supernet that a search judges its candidates by; it goes on where it was killed.

One that another run in the same folder has trained already, by the same settings, code and machine, is taken
from there: searches that differ in strategy or limits alone share it, and find what they would have found.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from facenas.data import open_data
from facenas.device import core_count, pick_device, use_threads
from facenas.errors import SearchStoppedError, UserError
from facenas.execution import SupernetRef as SupernetUse
from facenas.files import write_text
from facenas.models.supernet import Supernet
from facenas.runs import Run, open_run
from facenas.runs.journal import read_journal
from facenas.spaces import Graph
from facenas.spaces.base import fingerprint
from facenas.strategies.pareto import SupernetSettings as SupernetConfig
from facenas.training import checkpoint as checkpoints
from facenas.training.supernet import Paths, SupernetTask
from facenas.training.tasks import TaskContext, build_task
from facenas.training.trainer import NonFiniteLossError, Trainer

# Called after every epoch with (its metrics, number of epochs).
OnEpoch = Callable[[dict[str, Any], int], None]

log = logging.getLogger(__name__)


def train_supernet(
    run: Run, space: Graph, settings: SupernetConfig, data_folder: Path, on_epoch: OnEpoch
) -> SupernetUse:
    """The supernet of `run`, trained to its last epoch if it is not yet.

    Raises UserError when its checkpoint is damaged or belongs to other settings, SearchStoppedError when
    training diverges or the disk is full.
    """
    path, key = run.folder / "checkpoints" / "supernet.pt", _key(run, settings)
    checkpoint = checkpoints.read(path, key) or _take_over(run, settings, path, key)
    history = checkpoint["history"] if checkpoint else []
    if len(history) < settings.epochs:
        # Another number of threads rounds otherwise: a resumed training keeps the one it began with.
        use_threads(checkpoint["threads"] if checkpoint else core_count())
        training = _set_up(run, space, settings, data_folder, key)
        if checkpoint:
            training.load_state_dict(checkpoint["training"])
        _fit(run, training, history, path, key, on_epoch)
    return SupernetUse(path, key, space, settings.recalibration)


def _take_over(run: Run, settings: SupernetConfig, path: Path, key: str) -> dict[str, Any] | None:
    """Copies the supernet that a run beside has trained to its end, if training anew would repeat it."""
    for other in sorted(run.folder.parent.glob("[!.]*/checkpoints/supernet.pt")):
        with suppress(UserError):  # of other settings, or damaged: no fault of this run
            beside = open_run(run.folder.parent, other.parents[1].name)
            checkpoint = checkpoints.read(other, key) if _alike(run, beside) else None
            # Another number of threads rounds otherwise.
            if checkpoint is None or checkpoint["threads"] != core_count():
                continue
            if len(checkpoint["history"]) == settings.epochs:
                log.info("supernet: trained already, in run %s", beside.name)
                checkpoints.save(path, checkpoint)
                _write_metrics(run, checkpoint["history"])
                return checkpoint
    return None


def _alike(run: Run, other: Run) -> bool:
    """Whether code, libraries and machine are the same: else the same settings give other weights."""
    return all(
        run.about.get(name) == other.about.get(name)
        for name in ("versions", "git_commit", "machine")
    )


def _set_up(
    run: Run, space: Graph, settings: SupernetConfig, data_folder: Path, key: str
) -> Trainer:
    config, seed, device = run.config, int(key[:16], 16) >> 1, pick_device()
    first = space.largest()
    paths = Paths(Supernet(space, seed), first)
    data = open_data(data_folder)
    task = build_task(
        TaskContext(first, data, config.data, config.recipe, config.seed, seed, device, model=paths)
    )
    whole = SupernetTask(task, paths, space, settings, seed)
    training = Trainer(whole, config.recipe, settings.epochs, device)
    # torch's fused SGD cannot begin with some gradients missing, as those off the path are; a momentum of 0
    # gives the same first step.
    for parameter in whole.network.parameters():
        training.optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return training


def _fit(
    run: Run,
    training: Trainer,
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
    space = run.config.space
    data = run.config.data.model_dump(exclude={"name", "root", "image_size", "download"})
    return fingerprint(
        {
            "space": {"kind": space.owner.name, **space.model_dump(mode="json")},
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
