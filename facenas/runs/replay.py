"""Replay: feed a recorded search to the engine and compare every decision.

A log is either one JSON document (`settings`, `trials`, `final`) as in the authors' recorded searches,
or the `trials.jsonl` of one of our own runs, whose settings lie in `run.yaml` beside it.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from facenas.config import Config, read_yaml, validate
from facenas.errors import UserError
from facenas.files import read_json
from facenas.runs.config import RunConfig
from facenas.runs.journal import read_journal
from facenas.spaces import ImageFacts, IRArchitecture, Plain, PlainArchitecture, from_json
from facenas.strategies import Candidate, Outcome, Strategy, build_strategy
from facenas.strategies.settings import MultiObjectiveConfig, SearchConfig

_COMPARED = ("phase", "depth", "width", "ops", "kernels", "epochs")
_OPTIONAL = ("macro_width", "macro_epochs")
_FINAL = ("depth", "width", "ops", "kernels", *_OPTIONAL)


@dataclass(frozen=True)
class RecordedSearch:
    """A search as it was recorded: its settings, its trials in order, and what it found (None: unfinished)."""

    space: Config
    search: SearchConfig | MultiObjectiveConfig
    images: ImageFacts
    trials: list[dict[str, Any]]
    final: dict[str, Any] | None
    seed: int = 0


@dataclass(frozen=True)
class Comparison:
    """How far a log agrees with the engine; `first_difference` is a sentence, or None when all matches."""

    log: str
    trials: int
    matched: int
    final_matches: bool
    first_difference: str | None

    @property
    def same(self) -> bool:
        """Whether every trial and the final architecture match."""
        return self.final_matches and self.matched == self.trials and self.first_difference is None

    def to_json(self) -> dict[str, Any]:
        """The comparison as plain JSON values."""
        return asdict(self)


def replay(path: Path) -> Comparison:
    """Replays the log at `path`; raises UserError when it is missing or not a log."""
    recorded = read_recorded(path)
    space = recorded.space.owner(recorded.space).bind(recorded.images)
    strategy = build_strategy(space, recorded.search, recorded.seed, recorded.images.image_size)
    for number, trial in enumerate(recorded.trials):
        difference = _compare_trial(number, strategy.ask(), trial)
        if difference:
            return Comparison(str(path), len(recorded.trials), number, False, difference)
        strategy.tell(_outcome(path, number, trial))
    difference = _compare_final(strategy, recorded)
    count = len(recorded.trials)
    return Comparison(str(path), count, count, difference is None, difference)


def read_recorded(path: Path) -> RecordedSearch:
    """A recorded search from a log, a run's journal or a run folder; raises UserError as `replay` does."""
    return _read_run(path) if path.suffix == ".jsonl" or path.is_dir() else _read_log(path)


def _compare_trial(number: int, wanted: list[Candidate], trial: dict[str, Any]) -> str | None:
    if not wanted:
        return (
            f"trial {number}: the engine has ended its search, the log goes on with {_told(trial)}"
        )
    candidate = wanted[0]
    arch = candidate.architecture
    ours = {**arch.to_json(), "phase": candidate.phase, "epochs": candidate.epochs}
    for field in _COMPARED if isinstance(arch, PlainArchitecture | IRArchitecture) else ours:
        if ours[field] != trial.get(field):
            return f"trial {number}: {field}: the engine asks for {ours[field]}, the log has {trial.get(field)}"
    return _compare_parameters(f"trial {number}", arch.count_parameters(), trial)


def _compare_final(strategy: Strategy, recorded: RecordedSearch) -> str | None:
    if wanted := strategy.ask():
        return (
            f"the log ends, the engine goes on with {wanted[0].reason} in phase {wanted[0].phase}"
        )
    if recorded.final is None:
        return "the log tells no final architecture"
    result = strategy.result()
    ours = {**result, **result["architecture"]}
    for field in ("front",) if "front" in result else _FINAL:
        logged = recorded.final.get(field, ours[field] if field in _OPTIONAL else None)
        if ours[field] != logged:
            return f"final: {field}: the engine has {ours[field]}, the log has {logged}"
    parameters = from_json(result["architecture"]).count_parameters()
    return _compare_parameters("final", parameters, recorded.final)


def _compare_parameters(where: str, parameters: int, tree: dict[str, Any]) -> str | None:
    logged = tree.get("params_millions")
    if not isinstance(logged, int | float) or not abs(parameters / 1e6 - logged) < 1e-6:
        return f"{where}: params_millions: the engine counts {parameters / 1e6:.6f}, the log has {logged}"
    return None


def _told(trial: dict[str, Any]) -> str:
    return ", ".join(
        f"{field} {trial.get(field)}" for field in ("phase", "depth", "width", "epochs")
    )


def _outcome(path: Path, number: int, trial: dict[str, Any]) -> Outcome:
    accuracy, train_accuracy = (
        _number(trial.get(field)) for field in ("accuracy", "train_accuracy")
    )
    if accuracy is None or train_accuracy is None:
        raise UserError(
            f"{path}: trial {number} lacks accuracy or train_accuracy as numbers; "
            "this log cannot be replayed"
        )
    return Outcome(accuracy, train_accuracy, _number(trial.get("latency")) or 0.0)


def _number(value: Any) -> float | None:
    """A finite number, else None; True and False are none."""
    return float(value) if type(value) in (int, float) and math.isfinite(value) else None


def _read_log(path: Path) -> RecordedSearch:
    tree = read_json(path)
    fields = {"settings": dict, "trials": list, "num_classes": int, "input_channels": int}
    for field, kind in fields.items():
        if not isinstance(tree.get(field), kind) or tree[field] == 0:
            raise UserError(f"{path}: is not a recorded search: it lacks {field!r}")
    if not all(isinstance(trial, dict) for trial in tree["trials"]):
        raise UserError(f"{path}: is not a recorded search: a trial is not a JSON object")
    space = _settings(Plain.Settings, tree["settings"], path)
    search = _settings(SearchConfig, tree["settings"], path)
    final = tree.get("final")
    if not isinstance(final, dict | None):
        raise UserError(f"{path}: is not a recorded search: its final is not a JSON object")
    images = ImageFacts(tree["input_channels"], tree["num_classes"], 32)
    return RecordedSearch(space, search, images, tree["trials"], final)


def _settings(model: type[Any], settings: dict[str, Any], path: Path) -> Any:
    """The settings that `model` knows: a log tells more, such as batch size and seed."""
    known = {key: value for key, value in settings.items() if key in model.model_fields}
    return validate(model, known, f"{path}: settings")


def _read_run(path: Path) -> RecordedSearch:
    folder, journal = (path, path / "trials.jsonl") if path.is_dir() else (path.parent, path)
    if not (folder / "run.yaml").is_file():
        raise UserError(
            f"{journal}: its run.yaml is not beside it; give a journal in its run folder"
        )
    about = read_yaml(folder / "run.yaml")
    config = validate(RunConfig, about.get("config"), str(folder / "run.yaml"))
    trials = read_journal(journal)
    best = folder / "best.json"
    final = read_json(best) if best.is_file() else None
    if final is not None:
        if not isinstance(final.get("architecture"), dict):
            raise UserError(f"{best}: has no architecture; remove it and resume the run")
        final = {**final, **final["architecture"]}
    facts = about.get("data", {})
    size = facts.get("image_size", 32)
    images = ImageFacts(facts.get("in_channels", 1), facts.get("classes", 0), size)
    return RecordedSearch(config.space, config.search, images, trials, final, config.seed)
