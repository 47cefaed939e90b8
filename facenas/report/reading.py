"""A run folder as typed values: what the page is made of. Reads only; a run under way may be read too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from facenas.config import read_yaml
from facenas.errors import UserError
from facenas.files import read_json
from facenas.report.phases import PHASES
from facenas.report.records import About, Best, Epoch, Final, Record, Trial
from facenas.report.terms import TERMS, Terms
from facenas.runs.journal import read_journal
from facenas.strategies.pareto import ParetoSettings as MultiObjectiveConfig

T = TypeVar("T")
R = TypeVar("R", bound=Record)


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
    def searches(self) -> bool:
        """False for a run that trains a given network: it has that network, but no trials."""
        return bool(self.trials) or self.best is None

    @property
    def front_settings(self) -> MultiObjectiveConfig | None:
        """How it searches for a Pareto front; None when it does not."""
        settings = self.about.config.search
        return settings if isinstance(settings, MultiObjectiveConfig) and self.searches else None

    @property
    def terms(self) -> Terms:
        """What the page calls the run's things."""
        return TERMS[self.about.config.recipe.kind]

    @property
    def best_epoch(self) -> Epoch | None:
        """The first epoch of the final training that did best on what is held out; None when nothing is."""
        scored = [epoch for epoch in self.epochs if epoch.accuracy is not None]
        return max(scored, key=lambda epoch: epoch.accuracy or 0, default=None)


def read_run(run: Path) -> RunFolder:
    """Reads a run at whatever stage. Raises UserError that names the file, its fault and the remedy."""
    about = read_about(run)
    return RunFolder(
        path=run,
        about=about,
        trials=_trials(run / "trials.jsonl", about.config.search.owner.name == "macro_micro"),
        best=_optional(Best, run / "best.json"),
        final=read_final(run),
        epochs=_epochs(run / "metrics.jsonl", "final"),
        supernet_epochs=_epochs(run / "metrics.jsonl", "supernet"),
    )


def read_about(run: Path) -> About:
    """What `run.yaml` tells. Raises UserError as `read_run` does."""
    if not run.is_dir():
        raise UserError(f"{run}: no such run folder; `facenas runs` lists those there are")
    about_file = run / "run.yaml"
    if not about_file.is_file():
        raise UserError(
            f"{about_file}: is missing, so {run} is not a run; give a folder made by a search"
        )
    tree = _mended(read_yaml, about_file, "restore the file, or start a new run")
    return _record(About, tree, about_file)


def read_final(run: Path) -> Final | None:
    """What came of the run's final training, if that has ended. Raises UserError as `read_run` does."""
    return _optional(Final, run / "train.json")


def _trials(path: Path, macro_micro: bool) -> tuple[Trial, ...]:
    trials = []
    for number, tree in enumerate(read_journal(path), start=1):
        trial = _record(Trial, tree, path, f"line {number}: ")
        if macro_micro and trial.phase not in PHASES:
            fault = f"{path}: line {number}: phase: {trial.phase!r} is none of macro-micro search"
            raise UserError(f"{fault}; restore the file, or start a new run")
        trials.append(trial)
    return tuple(trials)


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


def _epochs(path: Path, training: str) -> tuple[Epoch, ...]:
    """Epochs of one training; one that was resumed or repeated goes on from its last start."""
    epochs: list[Epoch] = []
    for number, tree in enumerate(read_journal(path), start=1):
        if tree.get("trial") != training:
            continue
        epoch = _record(Epoch, tree, path, f"line {number}: ")
        epochs = [e for e in epochs if e.epoch < epoch.epoch] + [epoch]
    return tuple(epochs)
