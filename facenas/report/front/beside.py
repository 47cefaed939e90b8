"""A second search, whose hypervolume is set beside that of the first: random search as a rule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facenas.errors import UserError
from facenas.report.front.generations import Generation, generations
from facenas.report.reading import RunFolder, read_run
from facenas.report.summary import STRATEGIES
from facenas.report.wording import many
from facenas.strategies.pareto import Objective
from facenas.strategies.pareto import ParetoSettings as MultiObjectiveConfig


@dataclass(frozen=True)
class Beside:
    """The other search, measured by the first one's objectives; `label` names it."""

    label: str
    generations: list[Generation]


def set_beside(
    run: RunFolder, given: Path | None, objectives: Sequence[Objective]
) -> Beside | None:
    """The run `given`, else the newest random search in the same folder that can be compared.

    Raises UserError when the one given cannot be.
    """
    other = _checked(run, read_run(given)) if given else _found(run)
    if other is None:
        return None
    settings = other.front_settings
    assert settings is not None
    label = f"{STRATEGIES[settings.owner.name]} “{other.name}”"
    if run.front_settings and _judging(settings) != _judging(run.front_settings):
        alone = f"{many(settings.epochs, 'epoch')} each"
        label += ", by a supernet" if settings.supernet else f", {alone}"
    return Beside(label, generations(other.trials, objectives))


def _checked(run: RunFolder, other: RunFolder) -> RunFolder:
    mine, theirs = run.front_settings, other.front_settings
    if theirs is None or not other.trials:
        raise UserError(f"{other.path}: has no front to set beside; give a search that has one")
    if not _same_data(run, other):
        raise UserError(
            f"{other.path}: searched on other data than {run.path}; give a run on the same data"
        )
    if mine is None or set(mine.objectives) != set(theirs.objectives):
        raise UserError(
            f"{other.path}: weighs {', '.join(theirs.objectives)}, but {run.path} others; "
            "give a run with the same search.objectives"
        )
    return other


def _found(run: RunFolder) -> RunFolder | None:
    """Random searches of the same space with the same training; a damaged run is passed over."""
    if run.front_settings is None or run.front_settings.owner.name == "random":
        return None
    newest = sorted(_random_searches(run), key=lambda other: other.about.created or "")
    return newest[-1] if newest else None


def _random_searches(run: RunFolder) -> Iterator[RunFolder]:
    for path in run.path.resolve().parent.glob("*/run.yaml"):
        try:
            if "strategy: random" not in path.read_text(encoding="utf-8"):
                continue
            other = read_run(path.parent)
        except (UserError, OSError, UnicodeDecodeError):
            continue
        if _comparable(run, other):
            yield other


def _comparable(run: RunFolder, other: RunFolder) -> bool:
    mine, theirs = run.front_settings, other.front_settings
    if not mine or not theirs or theirs.owner.name != "random" or not _same_data(run, other):
        return False
    ours, its = run.about.config, other.about.config
    same = (ours.space, ours.recipe) == (its.space, its.recipe)
    same = same and _judging(mine) == _judging(theirs)
    return same and set(mine.objectives) == set(theirs.objectives) and bool(other.trials)


def _judging(settings: MultiObjectiveConfig) -> dict[str, Any] | int:
    """How a candidate comes to its accuracy; whether that ranks well is looked into apart from it."""
    if settings.supernet is None:
        return settings.epochs
    return settings.supernet.model_dump(exclude={"rank_networks", "rank_epochs"})


def _same_data(run: RunFolder, other: RunFolder) -> bool:
    mine, theirs = run.about, other.about
    if mine.data.fingerprint is None or mine.data.fingerprint != theirs.data.fingerprint:
        return False
    return mine.config.data.select_on == theirs.config.data.select_on
