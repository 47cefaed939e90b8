"""Full training of the network that a search found: all training images, then the test set, once.

A checkpoint after every epoch holds all that decides the rest, so a training that was killed goes on
to the same weights as one that was not.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from facenas.arch import PlainArchitecture, from_json
from facenas.arch.base import fingerprint
from facenas.data import ImageSet
from facenas.errors import SearchStoppedError, UserError
from facenas.execution import core_count
from facenas.runs import Run
from facenas.runs.files import write_atomically, write_json, write_text
from facenas.runs.journal import read_journal
from facenas.training.device import pick_device, use_threads
from facenas.training.loop import NonFiniteLossError, Training, classified_right

# Called after every epoch with (its metrics, number of epochs).
OnEpoch = Callable[[dict[str, Any], int], None]


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
    arch = from_json(best["architecture"])
    _, image_set = run.open_images()
    epochs = epochs or run.config.recipe.final_epochs
    key = _key(run, arch, image_set, epochs)
    training, history, seconds = _set_up(run, key, arch, image_set, epochs)
    seconds += _fit(run, key, training, history, seconds, on_epoch)
    result = {
        "architecture": arch.to_json(),
        "epochs": epochs,
        "train_images": len(image_set.train_labels),
        "train_accuracy": history[-1]["train_accuracy"],
        **_test(training, image_set),
        "seconds": round(seconds, 3),
        "threads": torch.get_num_threads(),
        "device": str(training.device.torch_device),
    }
    _save_model(run, arch, image_set, training)
    write_json(run.folder / "train.json", result)
    return result


def _key(run: Run, arch: PlainArchitecture, image_set: ImageSet, epochs: int) -> str:
    """Of all that decides the training: its checkpoint carries the key, and it seeds the random draws."""
    settings = {
        "architecture": arch.to_json(),
        "epochs": epochs,
        "recipe": run.config.recipe.model_dump(),
        "data": image_set.fingerprint,
        "seed": run.config.seed,
    }
    return fingerprint(settings)


def _set_up(
    run: Run, key: str, arch: PlainArchitecture, image_set: ImageSet, epochs: int
) -> tuple[Training, list[dict[str, Any]], float]:
    """A training at its start, or where its last checkpoint left it: (training, history, seconds so far)."""
    checkpoint = _read_checkpoint(run, key)
    # Another number of threads rounds otherwise: a resumed training keeps the one it began with.
    use_threads(checkpoint["threads"] if checkpoint else core_count())
    everything = torch.arange(len(image_set.train_labels))
    seed = int(key[:16], 16) >> 1
    training = Training(arch, image_set, everything, run.config.recipe, epochs, seed, pick_device())
    if not checkpoint:
        return training, [], 0.0
    training.load_state_dict(checkpoint["training"])
    return training, checkpoint["history"], checkpoint["seconds"]


def _fit(
    run: Run,
    key: str,
    training: Training,
    history: list[dict[str, Any]],
    seconds_before: float,
    on_epoch: OnEpoch,
) -> float:
    """Trains what is left, with a checkpoint after every epoch; returns the seconds it took."""
    started = time.perf_counter()
    _write_metrics(run, history)
    for epoch in range(len(history), training.epochs):
        try:
            metrics = training.run_epoch(epoch)
        except NonFiniteLossError as error:
            raise SearchStoppedError(f"{run.folder}: {error}; try a lower recipe.lr") from None
        history.append(metrics)
        _write_checkpoint(
            run, key, training, history, seconds_before + time.perf_counter() - started
        )
        _write_metrics(run, history)
        on_epoch(metrics, training.epochs)
    return time.perf_counter() - started


def _test(training: Training, image_set: ImageSet) -> dict[str, Any]:
    """The only look at the test set."""
    images, labels = (
        torch.from_numpy(image_set.test_images),
        torch.from_numpy(image_set.test_labels),
    )
    right = classified_right(training.model, images, labels, image_set, training.device)
    correct = int(right.sum())
    return {
        "test_accuracy": 100 * correct / len(right),
        "test_correct": correct,
        "test_images": len(right),
    }


def _checkpoint_path(run: Run) -> Path:
    return run.folder / "checkpoints" / "training.pt"


def _write_checkpoint(
    run: Run, key: str, training: Training, history: list[dict[str, Any]], seconds: float
) -> None:
    state = {
        "key": key,
        "training": training.state_dict(),
        "history": history,
        "seconds": seconds,
        "threads": torch.get_num_threads(),
    }
    path = _checkpoint_path(run)
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, lambda temporary: torch.save(state, temporary))


def _read_checkpoint(run: Run, key: str) -> dict[str, Any] | None:
    path = _checkpoint_path(run)
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


def _save_model(run: Run, arch: PlainArchitecture, image_set: ImageSet, training: Training) -> None:
    """Weights and all that is needed to use them; loads with `torch.load(weights_only=True)`."""
    state = {
        "architecture": arch.to_json(),
        "classes": list(image_set.classes),
        "mean": list(image_set.mean),
        "std": list(image_set.std),
        "model": training.model.state_dict(),
    }
    write_atomically(
        run.folder / "checkpoints" / "model.pt", lambda temporary: torch.save(state, temporary)
    )


def _write_metrics(run: Run, history: list[dict[str, Any]]) -> None:
    """Puts the epochs so far behind the search's lines in `metrics.jsonl`."""
    path = run.folder / "metrics.jsonl"
    lines = [line for line in read_journal(path) if line["trial"] != "final"]
    lines += [{"trial": "final", **metrics} for metrics in history]
    write_text(path, "".join(json.dumps(line) + "\n" for line in lines))
