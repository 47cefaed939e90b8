"""Members of the front: those that `best.json` names, or, while the search goes on, those so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from facenas.errors import UserError
from facenas.report.reading import RunFolder
from facenas.report.records import FrontMember, Trial
from facenas.spaces import Architecture, ImageFacts
from facenas.strategies import TrialResult
from facenas.strategies.pareto import Objective, Points, build_objectives, non_dominated


@dataclass(frozen=True)
class Member:
    """A network of the front; `id` is its trial's number, `accuracy` in percent.

    values: of the objectives in their order, the error (percent) first. costs: all that is known of it and a
    budget may limit, parameters and MACs always.
    """

    id: int
    accuracy: float
    values: dict[str, float]
    costs: dict[str, float]
    architecture: Architecture
    trial: Trial


def weighed(run: RunFolder) -> list[Objective]:
    """The objectives of a search for a front. Raises UserError when `run.yaml` lacks the images' facts."""
    settings, data = run.front_settings, run.about.data
    assert settings is not None
    if not data.image_size or not data.in_channels:
        missing = "in_channels" if data.image_size else "image_size"
        fault = f"{run.path / 'run.yaml'}: data.{missing} is missing"
        raise UserError(f"{fault}; restore the file, or start a new run")
    config, classes = run.about.config, data.classes or 0
    images = ImageFacts(data.in_channels, classes, data.image_size)
    space = config.space.owner(config.space).bind(images)
    found: list[Objective] = build_objectives(space, settings)
    return found


def generation_of(trial: Trial) -> int | None:
    """Its number from 1; None for a trial that is no candidate of the search."""
    word, _, number = trial.phase.partition(" ")
    return int(number) if word == "generation" and number.isdecimal() else None


def values_of(trial: Trial, objectives: Sequence[Objective]) -> list[float]:
    """As the journal tells them, else as the architecture does."""
    outcome = TrialResult(accuracy=trial.accuracy)
    return [
        trial.costs[o.name] if o.name in trial.costs else o.of(trial.architecture, outcome)
        for o in objectives
    ]


def points(trials: Sequence[Trial], objectives: Sequence[Objective]) -> Points:
    """(trials, objectives) float64."""
    rows = [values_of(trial, objectives) for trial in trials]
    return np.array(rows, np.float64).reshape(len(trials), len(objectives))


def within(found: Points, objectives: Sequence[Objective]) -> list[int]:
    """Rows that keep all limits and that no other such row beats, the lowest error first."""
    limits = np.array([objective.limit for objective in objectives])
    allowed = np.flatnonzero((found <= limits).all(axis=1))
    return [int(allowed[row]) for row in non_dominated(found[allowed])]


def front_of(run: RunFolder, objectives: Sequence[Objective]) -> tuple[Member, ...]:
    """The front, the lowest error first. Raises UserError when `best.json` tells none that fits the journal."""
    if run.best:
        return tuple(_named(run, objectives))
    candidates = [trial for trial in run.trials if generation_of(trial)]
    found = points(candidates, objectives)
    return tuple(
        _member(candidates[row], found[row].tolist(), objectives)
        for row in within(found, objectives)
    )


def _named(run: RunFolder, objectives: Sequence[Objective]) -> list[Member]:
    assert run.best is not None
    path = run.path / "best.json"
    trials = {trial.trial: trial for trial in run.trials if generation_of(trial)}
    if not run.best.front:
        raise UserError(f"{path}: has no front; restore the file, or remove it and resume the run")
    found = []
    for one in run.best.front:
        if fault := _fault(one, trials, objectives):
            raise UserError(
                f"{path}: front: {fault}; restore the file, or remove it and resume the run"
            )
        values = [one.values[objective.name] for objective in objectives]
        found.append(_member(trials[one.id], values, objectives))
    return found


def _fault(
    one: FrontMember, trials: dict[int, Trial], objectives: Sequence[Objective]
) -> str | None:
    trial = trials.get(one.id)
    if trial is None:
        return f"trials.jsonl has no candidate {one.id}"
    if trial.architecture != one.architecture:
        return f"trial {one.id} has another architecture in trials.jsonl"
    lacking = [o.name for o in objectives if o.name not in one.values]
    return f"trial {one.id} has no {lacking[0]}" if lacking else None


def _member(trial: Trial, values: list[float], objectives: Sequence[Objective]) -> Member:
    named = {objective.name: value for objective, value in zip(objectives, values, strict=True)}
    costs = {**trial.costs, **{name: v for name, v in named.items() if name != "error"}}
    return Member(trial.trial, trial.accuracy, named, costs, trial.architecture, trial)
