"""A trial: one candidate, trained and measured. `run_trial` is the only unit of work sent to a worker."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from facenas.data.config import DataConfig
from facenas.spaces import Architecture, Graph
from facenas.spaces.base import fingerprint
from facenas.training.recipes import FaceRecipe, Recipe

if TYPE_CHECKING:  # torch takes a second to import
    from torch import nn

    from facenas.data import TrainingData


@dataclass(frozen=True)
class SupernetUse:
    """The supernet that judges a candidate instead of a training of its own.

    fingerprint: of all that decided its weights; the path, where they lie, decides nothing.
    """

    path: Path
    fingerprint: str
    space: Graph
    recalibration: int


@dataclass(frozen=True)
class TrialSpec:
    """All that decides a trial's result; its sha256 is the trial key, which also seeds its random draws."""

    architecture: Architecture
    epochs: int
    data: DataConfig
    data_fingerprint: str
    recipe: Recipe | FaceRecipe
    seed: int
    supernet: SupernetUse | None = None
    latency: bool = False  # whether it is measured too

    @cached_property
    def key(self) -> str:
        """sha256 (hex) of everything that matters; where the images were found does not."""
        data = self.data.model_dump(exclude={"name", "root", "image_size", "download"})
        recipe = self.recipe.model_dump(mode="json")
        told = {
            "architecture": self.architecture.to_json(),
            "epochs": self.epochs,
            "data": {**data, "fingerprint": self.data_fingerprint},
            "recipe": recipe,
            "seed": self.seed,
        }
        if self.supernet:
            told["supernet"] = [self.supernet.fingerprint, self.supernet.recalibration]
        if self.latency:
            told["latency"] = True
        return fingerprint(told)

    @property
    def torch_seed(self) -> int:
        """63 bits of the key."""
        return int(self.key[:16], 16) >> 1


@dataclass(frozen=True)
class TrialResult:
    """What came of a trial. Accuracies in percent, the best over the epochs; 0 when it failed.

    `right_bits`: hex of numpy.packbits over the validation images (of faces: pairs) in order, 1 where the
    best epoch was right; `validated` says how many there are.
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
    latency: float = 0.0  # milliseconds for one image, when it was to be measured

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

    from facenas.training.trainer import StoppedError

    started = time.perf_counter()
    try:
        result = (_judge if spec.supernet else _train)(spec, data_folder, on_epoch, stop, worker)
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

    from facenas.data import open_data
    from facenas.device import pick_device
    from facenas.training.tasks import Score, TaskContext, build_task
    from facenas.training.trainer import Trainer

    device, data = pick_device(worker), open_data(data_folder)
    task = build_task(
        TaskContext(
            spec.architecture, data, spec.data, spec.recipe, spec.seed, spec.torch_seed, device
        )
    )
    training = Trainer(task, spec.recipe, spec.epochs, device)
    history: list[dict[str, Any]] = []
    best: Score | None = None
    for epoch in range(spec.epochs):
        metrics = training.run_epoch(epoch, stop)
        score = task.score()
        assert score is not None, "a candidate is always judged"
        correct = int(score.right.sum())
        history.append(metrics | {"accuracy": score.accuracy, "correct": correct})
        on_epoch(history[-1])
        if best is None or score.accuracy > best.accuracy:
            best = score
    assert best is not None
    return {
        "accuracy": best.accuracy,
        "train_accuracy": max(epoch["train_accuracy"] for epoch in history),
        "correct": int(best.right.sum()),
        "validated": len(best.right),
        "images": spec.epochs * task.images,
        "history": history,
        "right_bits": np.packbits(best.right).tobytes().hex(),
        "latency": _latency(spec, task.model, data),
    }


def _judge(
    spec: TrialSpec,
    data_folder: Path,
    on_epoch: Callable[[dict[str, Any]], None],
    stop: Callable[[], bool],
    worker: int,
) -> dict[str, Any]:
    """Validates the candidate's path through its supernet, without training; the fields of a TrialResult."""
    import numpy as np

    from facenas.data import open_data
    from facenas.device import pick_device
    from facenas.spaces import GraphArchitecture
    from facenas.training.supernet import judge, read_supernet
    from facenas.training.tasks import TaskContext, build_task

    arch, supernet = spec.architecture, spec.supernet
    assert isinstance(arch, GraphArchitecture)
    assert supernet is not None
    device, data = pick_device(worker), open_data(data_folder)
    network = read_supernet(supernet.path, supernet.space).extract(arch)
    task = build_task(
        TaskContext(
            arch, data, spec.data, spec.recipe, spec.seed, spec.torch_seed, device, model=network
        )
    )
    score = judge(task, supernet.recalibration, device)
    return {
        "accuracy": score.accuracy,
        "correct": int(score.right.sum()),
        "validated": len(score.right),
        "right_bits": np.packbits(score.right).tobytes().hex(),
        "latency": _latency(spec, network, data),
    }


def _latency(spec: TrialSpec, network: nn.Module, data: TrainingData) -> float:
    """Milliseconds for one image, or 0 when nobody asked."""
    if not spec.latency:
        return 0.0
    from facenas.data import describe
    from facenas.models.latency import measure_latency

    facts = describe(data)
    size = facts["image_size"]
    return measure_latency(network.cpu(), (facts["in_channels"], size, size))
