"""A run folder as typed values: what the page is made of. Reads only; a run under way may be read too.

Settings stay plain JSON, and keys that the page does not show are passed over: a run of a strategy or a space
that is not installed here can be read all the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from facenas.config import Config, read_yaml, validate
from facenas.errors import UserError
from facenas.files import read_json
from facenas.runs.journal import read_journal
from facenas.spaces import from_json

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
    def summary(self) -> str:
        """What it is in a few words."""
        if self.arch is not None:
            return str(self.arch.summary())
        described = (f"{k} {v}" for k, v in self.tree.items() if isinstance(v, str | int | float))
        return ", ".join(described) or self.kind

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


Described = Annotated[Network, BeforeValidator(read_network)]


class Record(Config):
    """A line or file of a run; unlike settings it may have keys that the page does not show."""

    model_config = ConfigDict(frozen=True, extra="ignore", arbitrary_types_allowed=True)


class About(Record):
    """`run.yaml`; only the settings must be there. data: `facenas.data.describe` of the images."""

    config: dict[str, Any]
    name: str | None = None
    created: str | None = None
    command: str | None = None
    data: dict[str, Any] = Field(default_factory=dict)
    versions: dict[str, Any] = Field(default_factory=dict)
    git_commit: str | None = None
    machine: dict[str, Any] = Field(default_factory=dict)

    def group(self, name: str) -> dict[str, Any]:
        """A group of settings; empty when the run has none of that name."""
        found = self.config.get(name)
        return found if isinstance(found, dict) else {}


class Trial(Record):
    """A line of `trials.jsonl`: one candidate, judged. Accuracies in percent; of a failed one 0.

    decision: kept, rejected or baseline (others are compared with it); note: the same in the strategy's words.
    protocol: settings in which its training differed from the recipe, by dotted names.
    values: every number of the line, so that whatever was measured beside the accuracy has its name here.
    parent: key of the trial whose weights it began with.
    """

    trial: int
    phase: str
    epochs: int  # 0: judged by the weights of a supernet
    accuracy: float
    network: Described
    values: dict[str, float]
    key: str = ""
    parent: str = ""
    decision: Literal["kept", "rejected", "baseline", ""] = ""
    note: str = ""
    train_accuracy: float | None = None
    correct: int | None = None
    validated: int | None = None
    status: Literal["ok", "failed"] = "ok"
    reason: str | None = None
    reason_proposed: str = ""
    protocol: dict[str, Any] = Field(default_factory=dict)
    seconds: float = 0
    search_seconds: float = 0  # wall clock of the search when this trial was decided
    speculative: bool = False

    @model_validator(mode="before")
    @classmethod
    def _from_line(cls, line: dict[str, Any]) -> dict[str, Any]:
        described = {"note": line.get("note") or ""}
        if "note" not in line and "decision" in line:
            old = str(line["decision"])
            described = {"decision": _OLD_DECISIONS.get(old, "rejected"), "note": old}
        numbers = {**line, **line.get("values", {})}  # earlier versions had no group of their own
        values = {k: v for k, v in numbers.items() if type(v) in (int, float)}
        # The architecture's own fields stand between the reason of the proposal and `epochs`.
        fields = takewhile(lambda name: name != "epochs", line)
        around = {"trial", "key", "phase", "reason_proposed"}
        tree = {name: line[name] for name in fields if name not in around}
        return {**line, **described, "network": tree, "values": values}

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


class LatencyTable(Record):
    """What latency was told by: a target, and how sums of blocks compare with whole networks there."""

    target: str
    summary: str


class Trend(Record):
    """A curve fitted to few trainings: accuracy in percent over `sizes`, with its 95 % band.

    points: size, accuracy, and then what else is told of each training; chosen: the size taken.
    """

    chosen: float
    points: tuple[tuple[float, ...], ...]
    sizes: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


class Best(Record):
    """`best.json`: the network found, with its parameters (of faces, without the head); of a front, all of it.

    front: members as JSON, each with `id` (of its trial) and its objectives; None for a search without one.
    trends: what sizes were read off, by phase.
    beginning: of a training that did not draw its weights, where they come from. protocol: as a trial has it.
    """

    architecture: Described | None = None
    accuracy: float | None = None
    parameters: int | None = None
    macs: int | None = None
    search_seconds: float | None = None
    workers: int | None = None
    objectives: tuple[str, ...] = ()
    front: tuple[dict[str, Any], ...] | None = None
    beginning: dict[str, Any] | None = None
    protocol: dict[str, Any] = Field(default_factory=dict)
    latency_table: LatencyTable | None = None
    trends: dict[str, Trend] = Field(default_factory=dict)


class Verification(Record):
    """Ten-fold verification of a trained face network, in percent; on `validation` identities its best epoch
    was chosen too. tar_at_far: true accept rate by false accept rate (0..1); roc: `far` and `tar` of its
    points, both rising, 0..1.
    """

    identities: Literal["test", "validation"]
    pairs: int = Field(gt=0)
    accuracy: float
    std: float
    tar_at_far: dict[float, float]
    roc: dict[Literal["far", "tar"], tuple[float, ...]]


class Measured(Record):
    """What fine-tuning changes, in percent: verification of held-out people, an old bench by its `measure`.

    chosen: whether the best epoch is chosen on these people.
    """

    verification: float | None = None
    chosen: bool = False
    bench: float | None = None
    measure: str = ""


class Final(Record):
    """`train.json`: the network trained in full, and its one look at what is kept for testing.

    test_accuracy is None for faces of which no identities were kept; identities: that it was trained to tell
    apart, None by a teacher alone; agreement: with the teacher, of held-out crops. confusion: numbers of test
    images, a row for each true class and a column for each predicted one, both in the order of `classes`
    (names, if known). before, after: of a training that began with trained weights, before its first epoch and
    with the weights that are kept.
    """

    architecture: Described
    test_accuracy: float | None
    epochs: int | None = None
    best_epoch: int | None = None
    train_images: int | None = None
    train_accuracy: float | None = None
    test_correct: int | None = None
    test_images: int | None = None
    identities: int | None = None
    head_parameters: int | None = None
    verification: Verification | None = None
    agreement: float | None = None
    before: Measured | None = None
    after: Measured | None = None
    confusion: tuple[tuple[int, ...], ...] = ()
    classes: tuple[Any, ...] | None = None
    seconds: float | None = None
    threads: int | None = None
    device: str | None = None
    finished: str | None = None

    @model_validator(mode="after")
    def _confusion_is_square(self) -> Final:
        names = self.class_names
        if self.confusion and {len(names)} != {len(self.confusion), *map(len, self.confusion)}:
            raise ValueError("confusion needs as many rows and columns as there are classes")
        return self

    @property
    def class_names(self) -> list[str]:
        """Of the rows of `confusion`: numbers when the names are not known."""
        return [str(name) for name in self.classes or range(len(self.confusion))]


class Epoch(Record):
    """A line of `metrics.jsonl` about a long training; `accuracy` on what is held out, if anything is."""

    epoch: int
    train_loss: float | None = None
    train_accuracy: float | None = None
    accuracy: float | None = None


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
        return self.about.data.get("identities") is not None

    @property
    def by_agreement(self) -> bool:
        """Whether accuracies are agreements with a teacher, on crops of which none is right or wrong."""
        return self.unlabeled or bool(self._distill.get("agreement"))

    @property
    def unlabeled(self) -> bool:
        """Whether a teacher alone teaches: no labels, no head."""
        return self._distill.get("labels") is False

    @property
    def _distill(self) -> dict[str, Any]:
        return self.about.group("recipe").get("distill") or {}

    @property
    def judged_by(self) -> str:
        """What accuracies are, in words."""
        if self.by_agreement:
            return "agreement with the teacher"
        return "verification accuracy" if self.faces else "selection accuracy"

    @property
    def image_size(self) -> int | None:
        """Pixels of an image's side."""
        return self.about.data.get("image_size") or self.about.group("data").get("image_size")

    @property
    def searches(self) -> bool:
        """False for a run that trains a given network: it has that network, but no trials."""
        return bool(self.trials) or self.best is None

    @property
    def objectives(self) -> tuple[str, ...]:
        """What a search for a front makes small, the error first; empty for any other run.

        Until `best.json` has the front, a search is one for a front when its settings name `objectives`.
        """
        if self.best:
            return self.best.objectives if self.searches and self.best.front is not None else ()
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
    """Trials of one phase: how many gave no accuracy, the best accuracy in percent, seconds of training, and
    wall clock of the search from the decision before the first to that of the last.
    """

    name: str
    trials: list[Trial]
    failed: int
    best: float | None
    seconds: float
    wall: float


def phases(trials: Sequence[Trial]) -> list[Phase]:
    """Trials by phase, in order of first appearance."""
    found: dict[str, tuple[float, list[Trial]]] = {}
    clock = 0.0
    for trial in trials:
        found.setdefault(trial.phase, (clock, []))[1].append(trial)
        clock = trial.search_seconds
    return [_phase(name, *one) for name, one in found.items()]


def _phase(name: str, begun: float, trials: list[Trial]) -> Phase:
    ok = [trial.accuracy for trial in trials if not trial.failed]
    seconds = sum(trial.seconds for trial in trials)
    wall = trials[-1].search_seconds - begun
    return Phase(name, trials, len(trials) - len(ok), max(ok, default=None), seconds, wall)


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
    about, epochs, final = read_about(run), _epochs(run / "metrics.jsonl"), read_final(run)
    journal, best = run / "trials.jsonl", run / "best.json"
    lines = read_journal(journal)
    with _remedied():
        return RunFolder(
            path=run,
            about=about,
            trials=tuple(
                validate(Trial, line, f"{journal}: line {number}") for number, line in enumerate(lines, start=1)
            ),
            best=validate(Best, read_json(best), str(best)) if best.exists() else None,
            final=final,
            epochs=epochs["final"],
            supernet_epochs=epochs["supernet"],
        )


def read_about(run: Path) -> About:
    """What `run.yaml` tells. Raises UserError as `read_run` does."""
    if not run.is_dir():
        raise UserError(f"{run}: no such run folder; `facenas runs` lists those there are")
    path = run / "run.yaml"
    if not path.is_file():
        fault = f"{path}: is missing, so {run} is not a run"
        raise UserError(f"{fault}; give a folder made by a search")
    with _remedied():
        return validate(About, read_yaml(path), str(path))


def read_final(run: Path) -> Final | None:
    """What came of the run's final training, if that has ended. Raises UserError as `read_run` does."""
    path = run / "train.json"
    with _remedied():
        return validate(Final, read_json(path), str(path)) if path.exists() else None


@contextmanager
def _remedied() -> Iterator[None]:
    """Adds a remedy to the sentence about a damaged file."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{error}; restore the file, or start a new run") from None


def _epochs(path: Path) -> dict[str, tuple[Epoch, ...]]:
    """Epochs of both long trainings; one that was resumed or repeated goes on from its last start."""
    found: dict[str, tuple[Epoch, ...]] = {"final": (), "supernet": ()}
    for number, line in enumerate(read_journal(path), start=1):
        if (name := line.get("trial")) in found:
            with _remedied():
                epoch = validate(Epoch, line, f"{path}: line {number}")
            found[name] = (*(e for e in found[name] if e.epoch < epoch.epoch), epoch)
    return found
