"""A trial: one candidate, trained and measured. `run_trial` is the only unit of work sent to a worker."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from facenas.arch import PlainArchitecture
from facenas.arch.base import fingerprint
from facenas.config import DataConfig, Recipe

if TYPE_CHECKING:  # torch is imported by workers only: the driver starts at once without it
    from torch import Tensor

    from facenas.data import ImageSet


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
    """Trains all epochs, validates after each, and tells the fields of a TrialResult."""
    import numpy as np

    from facenas.data import open_image_set
    from facenas.training.device import pick_device
    from facenas.training.loop import Training, classified_right

    device, image_set = pick_device(worker), open_image_set(data_folder)
    indices, images, labels = _split(spec, image_set)
    training = Training(
        spec.architecture, image_set, indices, spec.recipe, spec.epochs, spec.torch_seed, device
    )
    history: list[dict[str, Any]] = []
    best = np.zeros(len(labels), dtype=np.bool_)
    for epoch in range(spec.epochs):
        metrics = training.run_epoch(epoch, stop)
        right = classified_right(training.model, images, labels, image_set, device).numpy()
        correct = int(right.sum())
        history.append(metrics | {"accuracy": 100 * correct / len(right), "correct": correct})
        on_epoch(history[-1])
        if correct > best.sum():
            best = right
    return {
        "accuracy": max(epoch["accuracy"] for epoch in history),
        "train_accuracy": max(epoch["train_accuracy"] for epoch in history),
        "correct": int(best.sum()),
        "validated": len(best),
        "images": spec.epochs * len(indices),
        "history": history,
        "right_bits": np.packbits(best).tobytes().hex(),
    }


def _split(spec: TrialSpec, image_set: ImageSet) -> tuple[Tensor, Tensor, Tensor]:
    """Indices of the images to train on, and the images and labels to select on."""
    import torch

    from facenas.data import split_indices

    on_test = spec.data.select_on == "test"
    train, held_out = split_indices(
        image_set.train_labels,
        0.0 if on_test else spec.data.validation_fraction,
        spec.data.data_fraction,
        spec.seed,
    )
    if on_test:
        judged = image_set.test_images, image_set.test_labels
    else:
        judged = image_set.train_images[held_out], image_set.train_labels[held_out]
    images, labels = (torch.from_numpy(array) for array in judged)
    return torch.from_numpy(train), images, labels
