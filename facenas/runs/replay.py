"""Replay: feed a recorded search to the engine and compare every decision.

A log is either one JSON document (`settings`, `trials`, `final`) as in the authors' recorded searches,
or the `trials.jsonl` of one of our own runs, whose settings lie in `run.yaml` beside it.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from facenas.config import read_yaml, validate
from facenas.errors import UserError
from facenas.files import read_json, reading
from facenas.runs.config import RunConfig
from facenas.runs.journal import read_journal
from facenas.runs.run import kept_config
from facenas.runs.search_log import is_other_decision, told_of
from facenas.spaces import ImageFacts, from_json
from facenas.spaces.plain import Plain
from facenas.strategies import Candidate, Decision, MacroMicro, Strategy, TrialResult

# What the authors' logs tell of a trial, and of what was found; the last two are not in all of them.
_COMPARED = ("phase", "depth", "width", "ops", "kernels", "epochs")
_OPTIONAL = ("macro_width", "macro_epochs")
_FINAL = ("depth", "width", "ops", "kernels", *_OPTIONAL)


@dataclass(frozen=True)
class RecordedSearch:
    """A search as it was recorded: its strategy at its start, its trials, what it found (None: unfinished).

    ours: a run of this engine, whose lines tell all of an architecture and every decision; data_fraction: the
    part of the images that the run itself trains on.
    """

    strategy: Strategy
    trials: list[dict[str, Any]]
    final: dict[str, Any] | None
    ours: bool
    data_fraction: float = 1.0


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
    with reading(path):
        return _replay(path, read_recorded(path))


def _replay(path: Path, recorded: RecordedSearch) -> Comparison:
    strategy, count = recorded.strategy, len(recorded.trials)
    for number, trial in enumerate(recorded.trials):
        difference = _compare_trial(number, strategy.ask(), trial, recorded)
        if difference is None:
            decision = strategy.tell(_result(path, number, trial))
            difference = _compare_decision(number, decision, trial)
        if difference:
            return Comparison(str(path), count, number, False, difference)
    difference = _compare_final(recorded)
    return Comparison(str(path), count, count, difference is None, difference)


def read_recorded(path: Path) -> RecordedSearch:
    """A recorded search from a log, a run's journal or a run folder; raises UserError as `replay` does."""
    return _read_run(path) if path.suffix == ".jsonl" or path.is_dir() else _read_log(path)


def _compare_trial(
    number: int, wanted: list[Candidate], trial: dict[str, Any], recorded: RecordedSearch
) -> str | None:
    if not wanted:
        return f"trial {number}: the engine has ended its search, the log goes on with {_summary(trial)}"
    candidate = wanted[0]
    arch = candidate.architecture
    asked = {**arch.to_json(), "phase": candidate.phase, "epochs": candidate.budget.epochs}
    if recorded.ours:
        asked |= {"data_fraction": recorded.data_fraction * candidate.budget.data_fraction}
        asked |= dict.fromkeys(("repeat", "judge_last", "parent", "protocol")) | told_of(candidate)
    for field in asked if recorded.ours else _COMPARED:
        if asked[field] != trial.get(field):
            logged = trial.get(field)
            return f"trial {number}: {field}: the engine asks for {asked[field]}, the log has {logged}"
    return _compare_parameters(f"trial {number}", arch.count_parameters(), trial)


def _compare_decision(number: int, decision: Decision, trial: dict[str, Any]) -> str | None:
    """Logs of the authors, and of earlier versions, tell decisions in words, or not at all."""
    if is_other_decision(trial, decision):
        return f"trial {number}: decision: the engine says {decision}, the log has {trial['decision']}"
    return None


def _compare_final(recorded: RecordedSearch) -> str | None:
    if wanted := recorded.strategy.ask():
        return f"the log ends, the engine goes on with {wanted[0].reason} in phase {wanted[0].phase}"
    if recorded.final is None:
        return "the log tells no final architecture"
    result = recorded.strategy.result()
    found = {**(result["architecture"] or {}), **result}
    found.pop("architecture")
    for field in found if recorded.ours else _FINAL:
        logged = recorded.final.get(field, found[field] if field in _OPTIONAL else None)
        if found[field] != logged:
            return f"final: {field}: the engine has {found[field]}, the log has {logged}"
    parameters = from_json(result["architecture"]).count_parameters()
    return _compare_parameters("final", parameters, recorded.final)


def _compare_parameters(where: str, parameters: int, tree: dict[str, Any]) -> str | None:
    logged = tree.get("params_millions")
    if not isinstance(logged, int | float) or not abs(parameters / 1e6 - logged) < 1e-6:
        return f"{where}: params_millions: the engine counts {parameters / 1e6:.6f}, the log has {logged}"
    return None


def _summary(trial: dict[str, Any]) -> str:
    return ", ".join(f"{field} {trial.get(field)}" for field in ("phase", "depth", "width", "epochs"))


def _result(path: Path, number: int, trial: dict[str, Any]) -> TrialResult:
    accuracy, train_accuracy = (_number(trial.get(field)) for field in ("accuracy", "train_accuracy"))
    if accuracy is None or train_accuracy is None:
        raise UserError(
            f"{path}: trial {number} lacks accuracy or train_accuracy as numbers; this log cannot be replayed"
        )
    values = trial.get("values", {"latency": trial.get("latency")})
    numbers = {name: _number(value) for name, value in values.items()}
    measured = {name: value for name, value in numbers.items() if value is not None}
    status: Literal["ok", "failed"] = "failed" if trial.get("status") == "failed" else "ok"
    told = {name: trial[name] for name in ("key", "correct", "validated", "right_bits") if name in trial}
    return TrialResult(status=status, accuracy=accuracy, train_accuracy=train_accuracy, values=measured, **told)


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
    search = _settings(MacroMicro.Settings, tree["settings"], path)
    final = tree.get("final")
    if not isinstance(final, dict | None):
        raise UserError(f"{path}: is not a recorded search: its final is not a JSON object")
    images = ImageFacts(tree["input_channels"], tree["num_classes"], 32)
    strategy = MacroMicro(search).bind(Plain(space).bind(images), seed=0)
    return RecordedSearch(strategy, tree["trials"], final, ours=False)


def _settings(model: type[Any], settings: dict[str, Any], path: Path) -> Any:
    """The settings that `model` knows: a log tells more, such as batch size and seed."""
    known = {key: value for key, value in settings.items() if key in model.model_fields}
    return validate(model, known, f"{path}: settings")


def _read_run(path: Path) -> RecordedSearch:
    folder, journal = (path, path / "trials.jsonl") if path.is_dir() else (path.parent, path)
    if not (folder / "run.yaml").is_file():
        raise UserError(f"{journal}: its run.yaml is not beside it; give a journal in its run folder")
    about = read_yaml(folder / "run.yaml")
    config = validate(RunConfig, kept_config(folder, about.get("config")), str(folder / "run.yaml"))
    bits = {line["trial"]: line["bits"] for line in read_journal(folder / "right.jsonl")}
    trials = [{**line, "right_bits": bits.get(line.get("trial"), "")} for line in read_journal(journal)]
    best = folder / "best.json"
    final = read_json(best) if best.is_file() else None
    if final is not None:
        if not isinstance(final.get("architecture"), dict):
            raise UserError(f"{best}: has no architecture; remove it and resume the run")
        final = {**final, **final["architecture"]}
    facts = {"in_channels": 1, "image_size": 32, **about.get("data", {})}
    strategy = config.build_strategy(config.build_space(facts))
    fraction = 1.0 if config.evaluate else config.data.data_fraction
    return RecordedSearch(strategy, trials, final, ours=True, data_fraction=fraction)
