"""A trial: one candidate, trained and measured. `run_trial` is the only unit of work sent to a worker."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from facenas.arch import PlainArchitecture
from facenas.arch.base import fingerprint
from facenas.config import DataConfig, Recipe


@dataclass(frozen=True)
class TrialSpec:
    """All that decides a trial's result; its sha256 is the trial key, which also seeds its random draws."""

    architecture: PlainArchitecture
    epochs: int
    data: DataConfig
    data_fingerprint: str
    recipe: Recipe
    seed: int

    @cached_property
    def key(self) -> str:
        """sha256 (hex) of everything that matters; where the images were found does not."""
        data = self.data.model_dump(include={"select_on", "validation_fraction", "data_fraction"})
        recipe = self.recipe.model_dump(exclude={"final_epochs"})
        return fingerprint(
            {
                "architecture": self.architecture.to_json(),
                "epochs": self.epochs,
                "data": {**data, "fingerprint": self.data_fingerprint},
                "recipe": recipe,
                "seed": self.seed,
            }
        )

    @property
    def torch_seed(self) -> int:
        """63 bits of the key."""
        return int(self.key[:16], 16) >> 1


@dataclass(frozen=True)
class TrialResult:
    """What came of a trial. Accuracies in percent, the best over the epochs; 0 when it failed.

    `right_bits`: hex of numpy.packbits over the validation images in order, 1 where the best epoch was right.
    """

    key: str
    status: Literal["ok", "failed"] = "ok"
    reason: str | None = None
    accuracy: float = 0.0
    train_accuracy: float = 0.0
    correct: int = 0
    validated: int = 0
    images: int = 0
    seconds: float = 0.0
    threads: int = 1
    history: list[dict[str, Any]] = field(default_factory=list)
    right_bits: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `TrialResult(**tree)` is the inverse."""
        return asdict(self)


def run_trial(
    spec: TrialSpec,
    data_folder: Path,
    on_epoch: Callable[[dict[str, Any]], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
    worker: int = 0,
) -> TrialResult:
    """Trains and validates `spec` on the prepared image set in `data_folder`.

    A fault of the candidate (divergence, out of memory) is a result with status "failed".
    Raises StoppedError once `stop()` says so: a cancelled trial has no result.
    """
    import torch

    from facenas.training.loop import StoppedError

    started = time.perf_counter()
    try:
        result = _train(spec, data_folder, on_epoch, stop, worker)
    except StoppedError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        result = {"status": "failed", "reason": reason}
    seconds = round(time.perf_counter() - started, 3)
    return TrialResult(key=spec.key, seconds=seconds, threads=torch.get_num_threads(), **result)


def _train(
    spec: TrialSpec,
    data_folder: Path,
    on_epoch: Callable[[dict[str, Any]], None],
    stop: Callable[[], bool],
    worker: int,
) -> dict[str, Any]:
    import numpy as np
    import torch

    from facenas.data import open_image_set, split_indices
    from facenas.training.device import pick_device
    from facenas.training.loop import Training, classified_right

    device, image_set = pick_device(worker), open_image_set(data_folder)
    on_test = spec.data.select_on == "test"
    train, held_out = split_indices(
        image_set.train_labels,
        0.0 if on_test else spec.data.validation_fraction,
        spec.data.data_fraction,
        spec.seed,
    )
    if on_test:
        images, labels = (
            torch.from_numpy(image_set.test_images),
            torch.from_numpy(image_set.test_labels),
        )
    else:
        images = torch.from_numpy(image_set.train_images[held_out])
        labels = torch.from_numpy(image_set.train_labels[held_out])
    indices = torch.from_numpy(train)
    training = Training(
        spec.architecture, image_set, indices, spec.recipe, spec.epochs, spec.torch_seed, device
    )
    history: list[dict[str, Any]] = []
    best = None
    for epoch in range(spec.epochs):
        metrics = training.run_epoch(epoch, stop)
        right = classified_right(training.model, images, labels, image_set, device)
        correct = int(right.sum())
        metrics |= {"accuracy": 100 * correct / len(right), "correct": correct}
        history.append(metrics)
        on_epoch(metrics)
        if best is None or correct > int(best.sum()):
            best = right
    assert best is not None
    correct = int(best.sum())
    return {
        "accuracy": 100 * correct / len(best),
        "train_accuracy": max(epoch["train_accuracy"] for epoch in history),
        "correct": correct,
        "validated": len(best),
        "images": spec.epochs * len(indices),
        "history": history,
        "right_bits": np.packbits(best.numpy()).tobytes().hex(),
    }
