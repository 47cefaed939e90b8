"""Full training of the network that a search found, or of a given one; then one look at the test images.

A checkpoint after every epoch holds all that decides the rest, so a training that was killed goes on
to the same weights as one that was not. Under `torchrun`, the first process alone writes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from facenas.data import ImageSet, TrainingData
from facenas.device import core_count, pick_device, use_threads
from facenas.errors import SearchStoppedError, UserError
from facenas.files import write_json, write_text
from facenas.runs import Run
from facenas.runs.journal import read_journal
from facenas.spaces import Architecture, from_json
from facenas.spaces.base import fingerprint
from facenas.training import checkpoint as checkpoints
from facenas.training import distributed
from facenas.training.tasks import TaskContext, build_task
from facenas.training.trainer import NonFiniteLossError, Trainer

# Called after every epoch with (its metrics, number of epochs).
OnEpoch = Callable[[dict[str, Any], int], None]


@dataclass
class Course:
    """A training under way: what its checkpoint holds beside the training itself."""

    training: Trainer
    key: str
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def best_epoch(self) -> int | None:
        """The epoch (from 1) that did best on what is held out; None when nothing is."""
        scored = [metrics for metrics in self.history if "accuracy" in metrics]
        return max(scored, key=lambda m: m["accuracy"])["epoch"] if scored else None


def train_found(run: Run, epochs: int | None, on_epoch: OnEpoch) -> dict[str, Any]:
    """Trains the network in `best.json` for `epochs` (left out: the recipe's) and tests it once.

    Returns what `train.json` holds. A run that is trained already is not trained or tested again.
    The caller holds the run's lock. Raises UserError when the search has not ended or a checkpoint
    belongs to another training, SearchStoppedError when training diverges or the disk is full.
    """
    if trained := run.trained():
        return trained
    best = run.best()
    if best is None:
        raise UserError(
            f"{run.folder}: its search has not ended; `facenas resume {run.name}` goes on"
        )
    arch, data = from_json(best["architecture"]), run.open_data()
    epochs = epochs or run.config.recipe.final_epochs
    course = _set_up(run, arch, data, epochs)
    _fit(run, arch, data, course, on_epoch)
    return _conclude(run, arch, data, course)


def _conclude(run: Run, arch: Architecture, data: TrainingData, course: Course) -> dict[str, Any]:
    """Tests the weights that are kept, once, and writes `train.json`."""
    training, last = course.training, course.history[-1]
    if course.best_epoch is None:
        _save_model(run, arch, data, training)
    else:  # the weights of the best epoch, not of the last
        saved = torch.load(_model_path(run), map_location="cpu", weights_only=True)
        training.task.model.load_state_dict(saved["model"])
    result = {
        "architecture": arch.to_json(),
        "parameters": arch.count_parameters(),
        "epochs": training.epochs,
        "train_images": training.task.images,
        "train_accuracy": last["train_accuracy"],
        "best_epoch": course.best_epoch,
        **training.task.test(),
        "seconds": round(course.seconds, 3),
        "threads": torch.get_num_threads(),
        "processes": distributed.world(),
        "device": str(training.device.torch_device),
    }
    if distributed.rank() == 0:
        write_json(run.folder / "train.json", result)
    return result


def _key(run: Run, arch: Architecture, epochs: int) -> str:
    """Of all that decides the training: its checkpoint carries the key, and it seeds the random draws."""
    data = run.config.data.model_dump(include={"validation_fraction", "test_fraction", "pairs"})
    settings = {
        "architecture": arch.to_json(),
        "epochs": epochs,
        "recipe": run.config.recipe.model_dump(mode="json"),
        "data": {**data, "fingerprint": run.about["data"]["fingerprint"]},
        "seed": run.config.seed,
    }
    return fingerprint(settings)


def _set_up(run: Run, arch: Architecture, data: TrainingData, epochs: int) -> Course:
    """A training at its start, or where its last checkpoint left it."""
    key, config = _key(run, arch, epochs), run.config
    checkpoint = checkpoints.read(_checkpoint_path(run), key)
    # Another number of threads rounds otherwise: a resumed training keeps the one it began with.
    threads = max(1, core_count() // distributed.world())
    use_threads(checkpoint["threads"] if checkpoint else threads)
    device, seed = pick_device(distributed.local_rank()), int(key[:16], 16) >> 1
    task = build_task(
        TaskContext(arch, data, config.data, config.recipe, config.seed, seed, device, final=True)
    )
    course = Course(Trainer(task, config.recipe, epochs, device), key)
    if checkpoint:
        course.training.load_state_dict(checkpoint["training"])
        course.history, course.seconds = checkpoint["history"], checkpoint["seconds"]
    return course


def _fit(
    run: Run, arch: Architecture, data: TrainingData, course: Course, on_epoch: OnEpoch
) -> None:
    """Trains what is left: after every epoch the score, the best weights and a checkpoint."""
    training, started = course.training, time.perf_counter() - course.seconds
    _write_metrics(run, course.history)
    for epoch in range(len(course.history), training.epochs):
        try:
            metrics = training.run_epoch(epoch)
        except NonFiniteLossError as error:
            raise SearchStoppedError(f"{run.folder}: {error}; try a lower recipe.lr") from None
        if score := training.task.score():
            metrics["accuracy"] = score.accuracy
        course.history.append(metrics)
        course.seconds = time.perf_counter() - started
        if course.best_epoch == epoch + 1:
            _save_model(run, arch, data, training)
        _write_checkpoint(run, course)
        _write_metrics(run, course.history)
        on_epoch(metrics, training.epochs)


def _checkpoint_path(run: Run) -> Path:
    return run.folder / "checkpoints" / "training.pt"


def _model_path(run: Run) -> Path:
    return run.folder / "checkpoints" / "model.pt"


def _write_checkpoint(run: Run, course: Course) -> None:
    checkpoints.save(
        _checkpoint_path(run),
        {
            "key": course.key,
            "training": course.training.state_dict(),
            "history": course.history,
            "seconds": course.seconds,
            "threads": torch.get_num_threads(),
        },
    )


def _save_model(run: Run, arch: Architecture, data: TrainingData, training: Trainer) -> None:
    """Weights and all that is needed to use them; loads with `torch.load(weights_only=True)`."""
    about: dict[str, Any] = {"mean": [0.5] * 3, "std": [0.5] * 3}
    if isinstance(data, ImageSet):
        about = {"classes": data.classes, "mean": data.mean, "std": data.std}
        about = {key: list(values) for key, values in about.items()}
    state = {
        "architecture": arch.to_json(),
        **about,
        "colour": "RGB" if arch.in_channels == 3 else "grey",
        "image_size": run.about["data"]["image_size"],
        "model": training.task.model.state_dict(),
    }
    checkpoints.save(_model_path(run), state)


def _write_metrics(run: Run, history: list[dict[str, Any]]) -> None:
    """Puts the epochs so far behind the search's lines in `metrics.jsonl`."""
    if distributed.rank():
        return
    path = run.folder / "metrics.jsonl"
    lines = [line for line in read_journal(path) if line["trial"] != "final"]
    lines += [{"trial": "final", **metrics} for metrics in history]
    write_text(path, "".join(json.dumps(line) + "\n" for line in lines))
