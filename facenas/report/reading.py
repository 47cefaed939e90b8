"""A run folder as typed values: what the page is made of. Reads only; a run under way may be read too."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError

from facenas.arch.plain import PlainArchitecture
from facenas.config import Config, RunConfig, read_yaml
from facenas.errors import UserError
from facenas.runs.files import read_json
from facenas.runs.journal import read_journal

T = TypeVar("T")
R = TypeVar("R", bound="Record")


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _text(value: Any) -> Any:
    return value if value is None else str(value)


Number = Annotated[float | None, BeforeValidator(_finite)]  # a diverged training leaves NaN behind
Text = Annotated[str | None, BeforeValidator(_text)]  # YAML makes dates and numbers of some words


class Record(Config):
    """A line or file of a run; unlike settings it may have keys that the page does not show."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class DataFacts(Record):
    """`data` in `run.yaml`: the images as they were found."""

    name: Text = None
    fingerprint: Text = None
    train_images: int | None = None
    test_images: int | None = None
    classes: int | None = None
    image_size: int | None = None
    in_channels: int | None = None


class About(Record):
    """`run.yaml`; only the settings must be there."""

    config: RunConfig
    name: Text = None
    created: Text = None
    command: Text = None
    data: DataFacts = DataFacts()
    versions: dict[str, Any] = Field(default_factory=dict)
    git_commit: Text = None
    machine: dict[str, Any] = Field(default_factory=dict)


class Trial(Record):
    """A line of `trials.jsonl`: one candidate, trained. Accuracies in percent; of a failed one 0."""

    trial: int
    phase: Literal["depth", "width", "ops", "kernels"]
    depth: int
    width: int
    ops: tuple[int, ...]
    kernels: tuple[int, ...]
    in_channels: int
    num_classes: int
    epochs: int
    parameters: int
    accuracy: float
    macs: int | None = None
    train_accuracy: Number = None
    correct: int | None = None
    validated: int | None = None
    decision: str = ""
    status: Literal["ok", "failed"] = "ok"
    reason: str | None = None
    reason_proposed: str = ""
    seconds: Number = None
    search_seconds: Number = None  # wall clock of the search when this trial was decided
    speculative: bool = False

    @property
    def failed(self) -> bool:
        """Whether its training gave no accuracy."""
        return self.status == "failed"

    @property
    def architecture(self) -> PlainArchitecture:
        """The network; raises UserError when the fields do not fit together."""
        return PlainArchitecture(
            self.width, self.ops, self.kernels, self.in_channels, self.num_classes
        )


class Best(Record):
    """`best.json`: the network found, with the accuracy it had in the search."""

    architecture: dict[str, Any]
    parameters: int
    macs: int | None = None
    accuracy: Number = None
    macro_width: int | None = None
    macro_epochs: int | None = None
    search_seconds: Number = None
    workers: int | None = None


class Final(Record):
    """`train.json`: the network trained in full, and its one look at the test set."""

    architecture: dict[str, Any]
    test_accuracy: float
    epochs: int | None = None
    train_images: int | None = None
    train_accuracy: Number = None
    test_correct: int | None = None
    test_images: int | None = None
    seconds: Number = None
    threads: int | None = None
    device: Text = None
    finished: Text = None


class Epoch(Record):
    """One epoch of the final training, from `metrics.jsonl`."""

    epoch: int
    lr: Number = None
    train_loss: Number = None
    train_accuracy: Number = None


@dataclass(frozen=True)
class RunFolder:
    """All that a run folder tells; `best` and `final` are None until the run has come that far."""

    path: Path
    about: About
    trials: tuple[Trial, ...]
    best: Best | None
    final: Final | None
    epochs: tuple[Epoch, ...]

    @property
    def name(self) -> str:
        """The run's name, else its folder's."""
        return self.about.name or self.path.resolve().name

    @property
    def searches(self) -> bool:
        """False for a run that trains a given network: it has that network, but no trials."""
        return bool(self.trials) or self.best is None


def read_run(run: Path) -> RunFolder:
    """Reads a run at whatever stage. Raises UserError that names the file, its fault and the remedy."""
    if not run.is_dir():
        raise UserError(f"{run}: no such run folder; `facenas runs` lists those there are")
    about_file = run / "run.yaml"
    if not about_file.is_file():
        raise UserError(
            f"{about_file}: is missing, so {run} is not a run; give a folder made by a search"
        )
    about = _mended(read_yaml, about_file, "restore the file, or start a new run")
    trials = (
        _record(Trial, tree, run / "trials.jsonl", f"line {number}: ")
        for number, tree in enumerate(read_journal(run / "trials.jsonl"), start=1)
    )
    return RunFolder(
        path=run,
        about=_record(About, about, about_file),
        trials=tuple(trials),
        best=_optional(Best, run / "best.json"),
        final=_optional(Final, run / "train.json"),
        epochs=_final_epochs(run / "metrics.jsonl"),
    )


def _mended(read: Callable[[Path], T], path: Path, remedy: str) -> T:
    """What `read` makes of the file; its sentence about a fault gets a remedy."""
    try:
        return read(path)
    except UserError as error:
        raise UserError(f"{error}; {remedy}") from None


def _optional(model: type[R], path: Path) -> R | None:
    if not path.exists():
        return None
    return _record(model, _mended(read_json, path, "restore the file, or resume the run"), path)


def _record(model: type[R], tree: Any, path: Path, place: str = "") -> R:
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the whole"
        fault = f"{path}: {place}{key}: {first['msg']}"
        raise UserError(f"{fault}; restore the file, or start a new run") from None


def _final_epochs(path: Path) -> tuple[Epoch, ...]:
    """Epochs of the final training; one that was resumed or repeated goes on from its last start."""
    epochs: list[Epoch] = []
    for number, tree in enumerate(read_journal(path), start=1):
        if tree.get("trial") != "final":
            continue
        epoch = _record(Epoch, tree, path, f"line {number}: ")
        epochs = [e for e in epochs if e.epoch < epoch.epoch] + [epoch]
    return tuple(epochs)
