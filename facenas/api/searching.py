"""`facenas.search` and `facenas.resume`."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facenas.api.folders import RUNS, new_run, open_named, python_call, stoppable, write_report
from facenas.api.settings import (
    Settings,
    anchored,
    as_group,
    as_list,
    configure,
    data_facts,
    data_name,
    evaluate_name,
    is_own,
)
from facenas.config import Config
from facenas.errors import UserError
from facenas.execution import EXECUTORS, Executor, check_execution
from facenas.files import reading
from facenas.models.latency_table import read_table
from facenas.runs import Run
from facenas.runs.callbacks import Callback, Callbacks, Given, build_callbacks
from facenas.spaces import SPACES, Architecture, SearchSpace, from_json
from facenas.strategies import STRATEGIES, Strategy

if TYPE_CHECKING:
    from facenas.api.studying import StudyResult
    from facenas.api.training import TrainResult
    from facenas.runs.driver import StopRule
    from facenas.runs.extend import OtherRun

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    accuracy: in percent, of the most accurate architecture on what was held out; front: of a search for several
    objectives its members, each with `id` (the number of its trial), `accuracy`, the objectives and
    `architecture`; finished: False for what was found until the search was to stop, of which architecture,
    parameters and macs are None while no candidate has kept the limits; report: the page, None when it could
    not be written; details: all of `best.json`.
    """

    run: Path
    architecture: Architecture | None
    accuracy: float | None
    parameters: int | None
    macs: int | None
    trials: int
    front: tuple[dict[str, Any], ...]
    finished: bool
    report: Path | None
    details: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """What `facenas search --json` prints."""
        report = None if self.report is None else str(self.report)
        return {"run": str(self.run), **self.details, "finished": self.finished, "report": report}


def search(
    preset: str | Path | None = None,
    *,
    space: SearchSpace[Any] | type[SearchSpace[Any]] | None = None,
    strategy: Strategy | type[Strategy] | None = None,
    data: Any = None,
    recipe: Any = None,
    teacher: str | Path | SearchResult | TrainResult | None = None,
    evaluate: Callable[..., Any] | str | None = None,
    latency: str | Path | None = None,
    seed: int | None = None,
    workers: int | None = None,
    executor: str | type[Executor] | None = None,
    settings: Settings = (),
    callbacks: Given = (),
    run: str | Path | None = None,
    runs_dir: str | Path | None = None,
    max_trials: int | None = None,
    max_hours: float | None = None,
    until: str | datetime | None = None,
    reuse: str | Path | Sequence[str | Path] = (),
    command: str | None = None,
) -> SearchResult:
    """Searches a network, and leaves a run that `resume`, `train` and `load` take up.

    preset: a shipped one by name, or a YAML file; without one, what is not given has its defaults. space,
    strategy: ours (`facenas.spaces.Plain(max_depth=10)`) or one's own. data: a set's name, a folder or zip of
    images, a store of faces, a torch Dataset, or (images n x h x w x c uint8, labels). recipe: a shipped one by
    name, a YAML file, or a `Recipe`. teacher: a trained network of faces, a run or a file as `evaluate` takes
    them, whose embeddings candidates are to give (`recipe.distill`). evaluate: one's own measure of a candidate
    instead of a training; it gets what it names of candidate, seed, on_epoch and stop, and returns an accuracy
    in percent, or a mapping with `accuracy` and other values. latency: the file that a target measured
    (`facenas latency export`), for the objective of that name. workers: trials at once, by default 4 a GPU,
    else one a core; what lives in a notebook or a script is searched in this process unless workers are asked
    for. settings: any other by its dotted key (`{"data.data_fraction": 0.5}`). callbacks: what is told how it
    goes, objects of `Callback` or names (`tensorboard`, `module:Class`); the run keeps names for whoever
    resumes it, not objects. run: the run's name in `runs_dir` (`runs`), or its folder. max_trials, max_hours,
    until (`"07:30"`, the next such time of day, or a datetime): when this call is to stop, after the trial that
    is under way; `resume` goes on. reuse: runs, or folders of runs, whose results are taken for trials of the
    same key.

    Raises UserError for wrong arguments or data, SearchStoppedError when the search cannot go on; a run that
    exists is not touched: see `resume`.
    """
    from facenas.api.training import teacher_path

    own = [thing for thing in (space, strategy, evaluate) if is_own(thing)]
    if executor is None and workers is None and own:
        executor = "serial"
    overrides = {
        **as_group("space", "kind", space, SPACES),
        **as_group("search", "strategy", strategy, STRATEGIES),
        "data.name": data_name(data),
        "recipe": recipe.model_dump(mode="json") if isinstance(recipe, Config) else recipe,
        "recipe.distill.teacher": teacher_path(teacher, runs_dir),
        "evaluate": evaluate_name(evaluate),
        "latency": None if latency is None else str(latency),
        "seed": seed,
        "execution.executor": EXECUTORS.name_of(executor) if isinstance(executor, type) else executor,
        "execution.workers": workers,
    }
    config = anchored(configure(preset, settings, overrides, callbacks))
    told = build_callbacks(config.callbacks, callbacks)
    if not config.evaluate:
        config.data.check_candidates_are_judged()
    check_execution(config.execution, config.import_main)
    stop, others = _stop_rule(max_trials, max_hours, until), _other_runs(reuse, runs_dir)
    facts = data_facts(config, tell=not config.evaluate)
    if config.latency:
        read_table(config.latency).check(config.build_space(facts))
    label = str(preset) if preset else "search"
    made = new_run(config, facts, label, run, runs_dir, command or python_call("search"))
    return search_run(made, stop, others, told)


def resume(
    run: str | Path,
    *,
    settings: Settings = (),
    callbacks: Given = (),
    retry_failed: bool = False,
    runs_dir: str | Path | None = None,
    max_trials: int | None = None,
    max_hours: float | None = None,
    until: str | datetime | None = None,
    reuse: str | Path | Sequence[str | Path] = (),
    command: str | None = None,
) -> SearchResult | StudyResult:
    """Goes on with a search that was stopped or killed; no finished trial is judged again.

    A search that has ended is only reported, unless it is extended. settings: others than it began with, which
    may not change what was decided (more generations, deeper bounds, `micro`, looser limits); retry_failed:
    failed trials are made again. Classes and functions that a notebook defined are found if it has defined them
    again. callbacks: for this call alone, beside those that the run names. The others, and what it raises, as
    `search`. A study goes on with its runs to its end; it takes settings of the group `execution`, retry_failed
    and reuse, and gives what `study` does.
    """
    from facenas.api.studying import is_study, resume_study

    command = command or python_call("resume")
    if folder := is_study(run, runs_dir):
        limits = {"max_trials": max_trials, "max_hours": max_hours, "until": until}
        wrong = [name for name, value in limits.items() if value is not None]
        wrong += ["callbacks"] if callbacks else []
        return resume_study(folder, as_list(settings), wrong, retry_failed, reuse, command)
    opened = open_named(run, runs_dir)
    stop, others = _stop_rule(max_trials, max_hours, until), _other_runs(reuse, runs_dir)
    config = anchored(configure(opened.config, settings, {}, ())) if settings else opened.config
    told = build_callbacks(config.callbacks, callbacks)
    if settings or retry_failed:
        from facenas.runs import extend

        check_execution(config.execution, config.import_main)
        with opened.lock():
            opened = extend.extend(open_named(run, runs_dir), config, command)
            if retry_failed:
                opened = extend.retry_failed(opened, command)
    return search_run(opened, stop, others, told)


def _other_runs(reuse: str | Path | Sequence[str | Path], runs_dir: str | Path | None) -> list[OtherRun]:
    from facenas.runs.extend import other_runs

    return other_runs(Path(runs_dir or RUNS), as_paths(reuse))


def as_paths(reuse: str | Path | Sequence[str | Path]) -> Sequence[str | Path]:
    """One of them, or several."""
    return [reuse] if isinstance(reuse, str | Path) else reuse


def _stop_rule(max_trials: int | None, max_hours: float | None, until: str | datetime | None) -> StopRule:
    from facenas.runs.driver import StopRule

    if max_trials is not None and max_trials < 1:
        raise UserError(f"max_trials {max_trials}: should be 1 or more")
    if max_hours is not None and not 0 < max_hours < math.inf:
        raise UserError(f"max_hours {max_hours}: should be above 0")
    ends = [] if max_hours is None else [time.time() + 3600 * max_hours]
    if until is not None:
        ends.append((until if isinstance(until, datetime) else _next(until)).timestamp())
    return StopRule(max_trials, min(ends, default=None))


def _next(time_of_day: str) -> datetime:
    """The next moment, in local time, that a clock shows HH:MM."""
    try:
        at = datetime.strptime(time_of_day, "%H:%M").time()
    except ValueError:
        raise UserError(f"until {time_of_day}: should be a time of day such as 07:30") from None
    today = datetime.now().date()
    days = (today, today + timedelta(days=1))
    # In the night when summer time ends an hour comes twice: the second time has fold 1.
    moments = [datetime.combine(day, at.replace(fold=fold)) for day in days for fold in (0, 1)]
    return min((m for m in moments if m.timestamp() > time.time()), key=datetime.timestamp)


def search_run(run: Run, stop: StopRule, reuse: list[OtherRun], given: Sequence[Callback]) -> SearchResult:
    """Runs or resumes the search of `run`, with its page and its progress; raises what `search` does."""
    from facenas.runs.driver import run_search
    from facenas.runs.progress import SearchProgress
    from facenas.strategies.rank_check import rank_warning

    callbacks, result = Callbacks([SearchProgress(), *given]), None
    try:
        with run.lock(), stoppable(f"stopped; `facenas resume {run.study or run.name}` goes on"):
            found = run_search(run, callbacks, stop, reuse)
        result = _search_result(run, found)
    finally:
        callbacks.on_end(result)
    if not result.finished:
        log.warning(
            "stopped before its end, as asked; `facenas resume %s` goes on, `facenas train %s --so-far` trains "
            "the best so far",
            run.study or run.name,
            run.called,
        )
    elif "trials" not in found:
        log.warning("%s: trains a given network; `facenas train %s` goes on", run.name, run.called)
    elif "tau" in found and (warning := rank_warning(found["tau"])):
        log.warning("%s", warning)
    return result


def _search_result(run: Run, found: dict[str, Any]) -> SearchResult:
    with reading(run.folder / "best.json", "remove it and resume the run"):
        return SearchResult(
            run=run.folder,
            architecture=None if found["architecture"] is None else from_json(found["architecture"]),
            accuracy=found.get("accuracy"),
            parameters=found.get("parameters"),
            macs=found.get("macs"),
            trials=found.get("trials", 0),
            front=tuple(found.get("front", ())),
            finished=run.best() is not None,
            report=write_report(run),
            details=found,
        )
