"""Files of a run folder as typed records. Keys that the page does not show are passed over."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, InstanceOf, model_validator
from pydantic_core import PydanticCustomError

from facenas.config import Config
from facenas.errors import UserError
from facenas.runs.config import RunConfig
from facenas.spaces import Architecture, from_json

Cost = str

COSTS = ("parameters", "macs", "memory", "latency")  # what a search may weigh beside the error


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _text(value: Any) -> Any:
    return value if value is None else str(value)


def _architecture(tree: Any) -> Architecture:
    try:
        return from_json(tree)
    except UserError as error:
        raise PydanticCustomError("architecture", "{fault}", {"fault": str(error)}) from None


Number = Annotated[float | None, BeforeValidator(_finite)]  # a diverged training leaves NaN behind
Text = Annotated[str | None, BeforeValidator(_text)]  # YAML makes dates and numbers of some words
Described = Annotated[
    Architecture, InstanceOf(), BeforeValidator(_architecture)
]  # its JSON, of any kind


class Record(Config):
    """A line or file of a run; unlike settings it may have keys that the page does not show."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class DataFacts(Record):
    """`data` in `run.yaml`: the images as they were found; of faces, with those held out."""

    name: Text = None
    source: Text = None
    fingerprint: Text = None
    train_images: int | None = None
    test_images: int | None = None
    classes: int | None = None
    identities: int | None = None
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
    """A line of `trials.jsonl`: one candidate, trained. Accuracies in percent; of a failed one 0.

    phase: a phase of macro-micro search, "generation 3" or another word. costs: those that the line tells.
    """

    trial: int
    phase: str
    epochs: int
    parameters: int  # of faces, without the head
    accuracy: float
    architecture: Described
    macs: int | None = None
    costs: dict[str, float] = Field(default_factory=dict)
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

    @model_validator(mode="before")
    @classmethod
    def _with_architecture(cls, line: Any) -> Any:
        """The fields of the architecture stand among the others, each kind's own."""
        if not isinstance(line, dict):
            return line
        costs = {name: line[name] for name in COSTS if line.get(name) is not None}
        return {**line, "architecture": line, "costs": costs}

    @property
    def failed(self) -> bool:
        """Whether its training gave no accuracy."""
        return self.status == "failed"

    @property
    def shared(self) -> bool:
        """Whether it was judged by a supernet's weights, and not trained."""
        return self.epochs == 0


class FrontMember(Record):
    """One of `front` in `best.json`; `id` is its trial's number, `values` are those of the objectives."""

    id: int
    accuracy: float
    architecture: Described
    values: dict[str, float]

    @model_validator(mode="before")
    @classmethod
    def _with_values(cls, tree: Any) -> Any:
        """The values of the objectives stand among the other fields, under their names."""
        if not isinstance(tree, dict):
            return tree
        return {**tree, "values": {k: tree[k] for k in ("error", *COSTS) if k in tree}}


class Best(Record):
    """`best.json`: the network found, with the accuracy it had in the search; of a front, all of it."""

    architecture: Described
    parameters: int  # of faces, without the head
    macs: int | None = None
    accuracy: Number = None
    macro_width: int | None = None
    macro_epochs: int | None = None
    search_seconds: Number = None
    workers: int | None = None
    objectives: tuple[str, ...] = ()
    front: tuple[FrontMember, ...] = ()


class Roc(Record):
    """Points of the ROC, both rates rising, 0..1."""

    far: tuple[float, ...]
    tar: tuple[float, ...]


class Verification(Record):
    """Ten-fold verification of a trained face network, in percent; on `validation` identities its best epoch
    was chosen too. `tar_at_far`: true accept rate by false accept rate (0..1, as text).
    """

    identities: Literal["test", "validation"]
    pairs: int = Field(gt=0)
    accuracy: float
    std: float
    tar_at_far: dict[float, float]
    roc: Roc


class Final(Record):
    """`train.json`: the network trained in full, and its one look at what is kept for testing.

    `test_accuracy` is None for faces of which no identities were kept.
    """

    architecture: Described
    test_accuracy: float | None
    epochs: int | None = None
    best_epoch: int | None = None
    train_images: int | None = None
    train_accuracy: Number = None
    test_correct: int | None = None
    test_images: int | None = None
    identities: int | None = None  # that the network was trained to tell apart
    head_parameters: int | None = None
    verification: Verification | None = None
    seconds: Number = None
    threads: int | None = None
    device: Text = None
    finished: Text = None


class Epoch(Record):
    """One epoch of the final or the supernet's training, from `metrics.jsonl`; `accuracy` on what is held out,
    if anything is.
    """

    epoch: int
    lr: Number = None
    train_loss: Number = None
    train_accuracy: Number = None
    accuracy: Number = None
