"""A run folder as typed values: what the page is made of. Reads only; a run under way may be read too.

Settings stay plain JSON, and keys that the page does not show are passed over: a run of a strategy or a space
that is not installed here can be read all the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from facenas.config import Config, read_yaml
from facenas.errors import UserError
from facenas.files import read_json
from facenas.runs.journal import read_journal
from facenas.spaces import from_json

T = TypeVar("T")
R = TypeVar("R", bound="Record")

# Journals of earlier versions tell the decision in words; what is not here was rejected.
_OLD_DECISIONS = {"best": "kept", "kept": "kept", "on the front": "kept"}
_OLD_DECISIONS |= {"baseline": "baseline", "ranked": "baseline"}


@dataclass(frozen=True)
class Network:
    """An architecture as a file tells it; `arch` is None when it cannot be read here: `fault` says why."""

    tree: dict[str, Any]
    arch: Any = None
    fault: str = ""

    @property
    def kind(self) -> str:
        """The kind of its space."""
        return str(self.tree.get("kind", "plain"))

    @property
    def fingerprint(self) -> str:
        """Equal for equal networks."""
        return json.dumps(self.tree, sort_keys=True)

    @property
    def summary(self) -> str:
        """What it is in a few words."""
        if self.arch is not None:
            return str(self.arch.summary())
        told = (f"{k} {v}" for k, v in self.tree.items() if isinstance(v, str | int | float))
        return ", ".join(told) or self.kind

    def counted(self, name: str, image_size: int | None) -> float | None:
        """What the architecture itself counts as `name` (`count_macs`, ...); None when it does not."""
        counter = getattr(self.arch, f"count_{name}", None)
        if counter is None or (name != "parameters" and image_size is None):
            return None
        return float(counter() if name == "parameters" else counter(image_size))


def read_network(tree: Any) -> Network:
    """The network whose `to_json()` is `tree`, also when nobody here can build it."""
    if not isinstance(tree, dict):
        return Network({"architecture": tree}, fault="an architecture should be a JSON object")
    try:
        arch = from_json(tree)
        return Network(arch.to_json(), arch)
    except Exception as error:  # of a plug-in's own code too: the page shows its JSON instead
        return Network(tree, fault=str(error).splitlines()[0] if str(error) else repr(error))


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _text(value: Any) -> Any:
    return value if value is None else str(value)


Number = Annotated[float | None, BeforeValidator(_finite)]  # a diverged training leaves NaN behind
Text = Annotated[str | None, BeforeValidator(_text)]  # YAML makes dates and numbers of some words
Described = Annotated[Network, BeforeValidator(read_network)]
Found = Annotated[Network | None, BeforeValidator(lambda t: None if t is None else read_network(t))]


class Record(Config):
    """A line or file of a run; unlike settings it may have keys that the page does not show."""

    model_config = ConfigDict(frozen=True, extra="ignore", arbitrary_types_allowed=True)


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

    config: dict[str, Any]
    name: Text = None
    created: Text = None
    command: Text = None
    data: DataFacts = DataFacts()
    versions: dict[str, Any] = Field(default_factory=dict)
    git_commit: Text = None
    machine: dict[str, Any] = Field(default_factory=dict)

    def group(self, name: str) -> dict[str, Any]:
        """A group of settings; empty when the run has none of that name."""
        found = self.config.get(name)
        return found if isinstance(found, dict) else {}


class Trial(Record):
    """A line of `trials.jsonl`: one candidate, judged. Accuracies in percent; of a failed one 0.

    decision: kept, rejected or baseline (others are compared with it); note: the same in the strategy's words.
    values: every number of the line, so that whatever was measured beside the accuracy has its name here.
    """

    trial: int
    phase: str
    epochs: int  # 0: judged by the weights of a supernet
    accuracy: float
    network: Described
    values: dict[str, float]
    decision: Literal["kept", "rejected", "baseline", ""] = ""
    note: str = ""
    train_accuracy: Number = None
    correct: int | None = None
    validated: int | None = None
    status: Literal["ok", "failed"] = "ok"
    reason: str | None = None
    reason_proposed: str = ""
    seconds: Number = None
    search_seconds: Number = None  # wall clock of the search when this trial was decided
    speculative: bool = False

    @model_validator(mode="before")
    @classmethod
    def _from_line(cls, line: Any) -> Any:
        if not isinstance(line, dict):
            return line
        decided = {"decision": line.get("decision", ""), "note": line.get("note") or ""}
        if "note" not in line and decided["decision"]:
            old = str(decided["decision"])
            decided = {"decision": _OLD_DECISIONS.get(old, "rejected"), "note": old}
        values = {
            k: v for k, v in line.items() if isinstance(v, int | float) and not isinstance(v, bool)
        }
        return {**line, **decided, "network": _described(line), "values": values}

    @property
    def failed(self) -> bool:
        """Whether it gave no accuracy."""
        return self.status == "failed"

    def value(self, name: str, image_size: int | None = None) -> float | None:
        """An objective: as the line tells it, else as the architecture counts it; None when neither does."""
        if name == "error":
            return 100 - self.accuracy
        found = self.values.get(name)
        return self.network.counted(name, image_size) if found is None else found


def _described(line: dict[str, Any]) -> dict[str, Any]:
    """The architecture's own fields: they stand between the reason of the proposal and `epochs`."""
    before = takewhile(lambda name: name != "epochs", line)
    around = {"trial", "key", "phase", "reason_proposed"}
    return {name: line[name] for name in before if name not in around}


class Best(Record):
    """`best.json`: the network found, with the accuracy it had in the search; of a front, all of it.

    front: members as JSON, each with `id` (of its trial) and its objectives; None for a search without one.
    """

    architecture: Found = None
    parameters: int | None = None  # of faces, without the head
    macs: int | None = None
    accuracy: Number = None
    search_seconds: Number = None
    workers: int | None = None
    objectives: tuple[str, ...] = ()
    front: tuple[dict[str, Any], ...] | None = None


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

    test_accuracy is None for faces of which no identities were kept. confusion: numbers of test images, a row
    for each true class and a column for each predicted one, both in the order of `classes` (names, if known).
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
    confusion: tuple[tuple[int, ...], ...] | None = None
    classes: tuple[Text, ...] | None = None
    seconds: Number = None
    threads: int | None = None
    device: Text = None
    finished: Text = None

    @model_validator(mode="after")
    def _confusion_is_square(self) -> Final:
        rows = self.confusion or ()
        sides = {len(rows), *map(len, rows)} | ({len(self.classes)} if self.classes else set())
        if rows and len(sides) > 1:
            raise ValueError("confusion needs as many rows and columns as there are classes")
        return self


class Epoch(Record):
    """One epoch of the final or the supernet's training, from `metrics.jsonl`; `accuracy` on what is held out,
    if anything is.
    """

    epoch: int
    train_loss: Number = None
    train_accuracy: Number = None
    accuracy: Number = None


@dataclass(frozen=True)
class RunFolder:
    """All that a run folder tells; `best` and `final` are None until the run has come that far.

    epochs: of the final training; supernet_epochs: of the supernet's, if the search has one.
    """

    path: Path
    about: About
    trials: tuple[Trial, ...]
    best: Best | None
    final: Final | None
    epochs: tuple[Epoch, ...]
    supernet_epochs: tuple[Epoch, ...]

    @property
    def name(self) -> str:
        """The run's name, else its folder's."""
        return self.about.name or self.path.resolve().name

    @property
    def faces(self) -> bool:
        """Whether its images are of identities, and accuracies those of verification."""
        return self.about.data.identities is not None

    @property
    def image_size(self) -> int | None:
        """Pixels of an image's side."""
        size = self.about.data.image_size or self.about.group("data").get("image_size")
        return int(size) if size else None

    @property
    def searches(self) -> bool:
        """False for a run that trains a given network: it has that network, but no trials."""
        return bool(self.trials) or self.best is None

    @property
    def objectives(self) -> tuple[str, ...]:
        """What a search for a front makes small, the error first; empty for any other run.

        Until `best.json` has the front, a search is one for a front when its settings name `objectives`.
        """
        if not self.searches:
            return ()
        if self.best:
            return self.best.objectives if self.best.front is not None else ()
        named = self.about.group("search").get("objectives") or ()
        return ("error", *named) if named else ()

    @property
    def strategy(self) -> str:
        """What searches, by its registered name."""
        return str(self.about.group("search").get("strategy", "search"))

    @property
    def supernet(self) -> bool:
        """Whether candidates are judged by the weights of a supernet."""
        return bool(self.supernet_epochs or self.about.group("search").get("supernet"))

    @property
    def best_epoch(self) -> Epoch | None:
        """The first epoch of the final training that did best on what is held out; None when nothing is."""
        scored = [epoch for epoch in self.epochs if epoch.accuracy is not None]
        return max(scored, key=lambda epoch: epoch.accuracy or 0, default=None)


@dataclass(frozen=True)
class Phase:
    """Trials of one phase; wall: clock of the search from the decision before the first to that of the last."""

    name: str
    trials: list[Trial]
    wall: float | None = None

    @property
    def failed(self) -> int:
        """How many gave no accuracy."""
        return sum(trial.failed for trial in self.trials)

    @property
    def best(self) -> float | None:
        """Accuracy in percent."""
        return max((t.accuracy for t in self.trials if not t.failed), default=None)

    @property
    def seconds(self) -> float:
        """Of training, summed."""
        return sum(trial.seconds or 0 for trial in self.trials)


def phases(trials: Sequence[Trial]) -> list[Phase]:
    """Trials by phase, in order of first appearance."""
    found: dict[str, list[Trial]] = {}
    begun: dict[str, float | None] = {}
    clock: float | None = 0.0
    for trial in trials:
        found.setdefault(trial.phase, []).append(trial)
        begun.setdefault(trial.phase, clock)
        clock = trial.search_seconds
    told = []
    for name, mine in found.items():
        start, end = begun[name], mine[-1].search_seconds
        told.append(Phase(name, mine, None if start is None or end is None else end - start))
    return told


def stages(trials: Sequence[Trial]) -> list[list[Trial]]:
    """Trials whose accuracies can be compared: a baseline after other trials begins a new stage.

    So macro-micro search has two: networks trained long, then brief trainings against a brief baseline.
    """
    found: list[list[Trial]] = []
    for trial in trials:
        new = trial.decision == "baseline" and found and found[-1][-1].decision != "baseline"
        if new or not found:
            found.append([])
        found[-1].append(trial)
    return found


def read_run(run: Path) -> RunFolder:
    """Reads a run at whatever stage. Raises UserError that names the file, its fault and the remedy."""
    about, journal, metrics = read_about(run), run / "trials.jsonl", run / "metrics.jsonl"
    epochs = _epochs(metrics)
    return RunFolder(
        path=run,
        about=about,
        trials=tuple(
            _record(Trial, line, journal, f"line {number}: ")
            for number, line in enumerate(read_journal(journal), start=1)
        ),
        best=_optional(Best, run / "best.json"),
        final=read_final(run),
        epochs=epochs["final"],
        supernet_epochs=epochs["supernet"],
    )


def read_about(run: Path) -> About:
    """What `run.yaml` tells. Raises UserError as `read_run` does."""
    if not run.is_dir():
        raise UserError(f"{run}: no such run folder; `facenas runs` lists those there are")
    path = run / "run.yaml"
    if not path.is_file():
        raise UserError(
            f"{path}: is missing, so {run} is not a run; give a folder made by a search"
        )
    return _record(About, _mended(read_yaml, path, "restore the file, or start a new run"), path)


def read_final(run: Path) -> Final | None:
    """What came of the run's final training, if that has ended. Raises UserError as `read_run` does."""
    return _optional(Final, run / "train.json")


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
        fault = f"{path}: {place}{key}: {first['msg'].removeprefix('Value error, ')}"
        raise UserError(f"{fault}; restore the file, or start a new run") from None


def _epochs(path: Path) -> dict[str, tuple[Epoch, ...]]:
    """Epochs of both long trainings; one that was resumed or repeated goes on from its last start."""
    found: dict[str, tuple[Epoch, ...]] = {"final": (), "supernet": ()}
    for number, line in enumerate(read_journal(path), start=1):
        if line.get("trial") in found:
            epoch = _record(Epoch, line, path, f"line {number}: ")
            before = (e for e in found[line["trial"]] if e.epoch < epoch.epoch)
            found[line["trial"]] = (*before, epoch)
    return found
