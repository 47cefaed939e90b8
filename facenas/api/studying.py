"""`facenas.study`: what a study asks for is run, one run after another, and its findings are written."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facenas.api.folders import RUNS, label_of, python_call, run_place, stoppable
from facenas.api.settings import Settings, anchored, as_list, configure, data_facts, data_name
from facenas.config import read_yaml, validate
from facenas.errors import UserError
from facenas.execution import check_execution
from facenas.files import reading, write_text
from facenas.runs import Run, create_run, open_run
from facenas.runs.config import RunConfig
from facenas.runs.run import STUDY, as_yaml, check_new, create_folder, locked, origin

if TYPE_CHECKING:
    from facenas.studies import Findings, Member, Study
    from facenas.studies.base import Conduct

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StudyResult:
    """What a study found. study: its folder; summary: sentences; values: plain JSON; report: its page."""

    study: Path
    summary: tuple[str, ...]
    values: dict[str, Any]
    report: Path

    def to_json(self) -> dict[str, Any]:
        """What `facenas study --json` prints."""
        told = {"study": str(self.study), "report": str(self.report)}
        return {**told, "summary": list(self.summary), "values": self.values}


def study(
    study: str | Path,
    *,
    data: Any = None,
    networks: int | None = None,
    epochs: int | None = None,
    seeds: int | None = None,
    runs: Sequence[str | Path] = (),
    seed: int | None = None,
    workers: int | None = None,
    executor: str | None = None,
    settings: Settings = (),
    run: str | Path | None = None,
    runs_dir: str | Path | None = None,
    reuse: str | Path | Sequence[str | Path] = (),
    command: str | None = None,
) -> StudyResult:
    """Answers a question of the paper by runs of one's own: tables and a page in a folder of its own.

    study: a shipped one by name (`ranking`, or `ranking-demo`, which takes minutes), or a YAML file. networks,
    epochs, seeds: of those studies that have them; runs: those that `tables` reads, or folders of runs.
    settings: any other by its dotted key, those of the study as `study.key`. run: the folder, as of `search`;
    its runs lie within. reuse: runs, or folders of runs, whose results are taken for trials of the same key.
    What was stopped goes on by `facenas.resume`.

    Raises UserError for wrong arguments or data, SearchStoppedError when a run cannot go on.
    """
    from facenas.studies import load_study

    own = {"networks": networks, "epochs": epochs, "seeds": seeds, "runs": list(map(str, runs)) or None}
    named = [f"study.{key}={json.dumps(value)}" for key, value in own.items() if value is not None]
    overrides = {
        "data.name": data_name(data),
        "seed": seed,
        "execution.workers": workers,
        "execution.executor": executor,
    }
    made, config = load_study(study, [*named, *as_list(settings)], overrides)
    config = anchored(config)
    check_execution(config.execution, config.import_main)
    facts = data_facts(config, tell=not config.evaluate) if made.makes_runs else {}
    command = command or python_call("study")
    next(made.conduct(config, facts), None)  # what it cannot begin with is said before its folder is made
    parent, name = run_place(run or label_of(str(study), config), runs_dir)
    check_new(parent, name)
    group = {"kind": made.name, **made.settings.model_dump(mode="json")}
    about = {"study": group, **origin(name, config, facts, command)}
    create_folder(parent / name, {STUDY: as_yaml(about).encode()})
    return conduct(parent / name, reuse)


def is_study(run: str | Path, runs_dir: str | Path | None = None) -> Path | None:
    """The folder of the study of that name, or at that path; None when there is none."""
    for folder in (Path(runs_dir or RUNS) / run, Path(run)):
        if (folder / STUDY).is_file():
            return folder
    return None


def resume_study(
    folder: Path,
    settings: Sequence[str],
    others: Collection[str],
    retry_failed: bool,
    reuse: str | Path | Sequence[str | Path],
    command: str,
) -> StudyResult:
    """What `facenas.resume` does with a study. others: names of what was given and is for searches alone."""
    if wrong := [*others, *(one for one in settings if not one.startswith("execution."))]:
        raise UserError(
            f"{folder}: is a study, which goes on to its end as it began; it takes workers, executor, address, "
            f"retry_failed and reuse, not {', '.join(wrong)}"
        )
    return conduct(folder, reuse, settings=settings, retry_failed=retry_failed, command=command)


def conduct(
    folder: Path,
    reuse: str | Path | Sequence[str | Path] = (),
    make: bool = True,
    settings: Sequence[str] = (),
    retry_failed: bool = False,
    command: str = "",
) -> StudyResult:
    """Goes on with the study in `folder`, to its findings; runs that have ended are not made again.

    make: False raises UserError for a run that has not ended, in place of going on with it. settings: others of
    the group `execution`, which the study keeps; retry_failed: failed trials are made again; command: that
    asked for these changes.
    """
    from facenas.report.study_page import write_study

    about, config, studied = _read(folder)
    with (
        locked(folder, "its study is under way"),
        stoppable(f"stopped; `facenas resume {folder}` goes on"),
    ):
        if settings:
            config = anchored(configure(config, settings, {}, ()))
            check_execution(config.execution, config.import_main)
            about["config"] = config.model_dump(mode="json")
            write_text(folder / STUDY, as_yaml(about))
        member = partial(_ended, folder)
        if make:
            take_up = partial(_taken_up, retry_failed=retry_failed, command=command or about["command"])
            member = partial(_made, folder, about, reuse, take_up)
        found = _findings(studied.conduct(config, about["data"]), member)
        report = write_study(folder, studied.title, found, about)
    return StudyResult(folder, found.summary, found.values, report)


def _read(folder: Path) -> tuple[dict[str, Any], RunConfig, Study]:
    """All of `study.yaml`, its settings, and the study; raises UserError for what is missing or wrong."""
    from facenas.studies.base import build_study

    path = folder / STUDY
    with reading(path, "restore the file, or begin the study anew"):
        about = read_yaml(path)
        config = validate(RunConfig, about.get("config"), f"{path}: config")
        studied = build_study(about.get("study"), path)
    for key, kind in (("name", str), ("command", str), ("data", dict)):
        if not isinstance(about.get(key), kind):
            raise UserError(f"{path}: tells no {key}; restore the file, or begin the study anew")
    return about, config, studied


def _findings(steps: Conduct, member: Callable[[Member], Run]) -> Findings:
    try:
        wanted = next(steps)
        while True:
            wanted = steps.send(member(wanted))
    except StopIteration as end:
        found: Findings = end.value
        return found


def _ended(folder: Path, wanted: Member) -> Run:
    """The run, which has ended; raises UserError when it has not."""
    run = _opened(folder, wanted)
    if run is None or run.best() is None:
        raise UserError(f"{folder}: its study has not ended; `facenas resume {folder}` goes on")
    return run


def _made(
    folder: Path, about: dict[str, Any], reuse: Any, take_up: Callable[[Run, RunConfig], Run], wanted: Member
) -> Run:
    """The run, its search ended. take_up: what is done first to one that was there."""
    from facenas.api.searching import as_paths, search_run
    from facenas.runs.driver import StopRule
    from facenas.runs.extend import other_runs

    if run := _opened(folder, wanted):
        run = take_up(run, wanted.config)
    else:
        config = anchored(wanted.config)
        run = create_run(folder, wanted.name, config, _facts(config, about), about["command"])
    if run.best() is None:
        log.info("study %s: %s", folder.name, wanted.name)
        beside = [path.parent for path in sorted(folder.glob("*/run.yaml")) if path.parent != run.folder]
        others = other_runs(folder.parent, [*beside, *as_paths(reuse)])
        search_run(run, StopRule(), others, [])
    return run


def _opened(folder: Path, wanted: Member) -> Run | None:
    """The run, if it is there; raises UserError when it is another."""
    if not (folder / wanted.name / "run.yaml").is_file():
        return None
    run, config = open_run(folder, wanted.name), anchored(wanted.config)
    kept = {"execution", "latency"}  # of a run, which has a copy of its table
    if run.config.model_dump(exclude=kept) != config.model_dump(exclude=kept):
        raise UserError(
            f"{run.folder}: has other settings than its study asks for; move it away, and resume the study"
        )
    return run


def _taken_up(run: Run, config: RunConfig, retry_failed: bool, command: str) -> Run:
    """The run, ready to go on: executed as `config` says, its failed trials made again if `retry_failed`."""
    from facenas.runs import extend

    with run.lock():
        if retry_failed:
            run = extend.retry_failed(run, command)
        if run.best() is None:
            config = run.config.model_copy(update={"execution": config.execution})
            run = extend.extend(run, config, command)
    return run


def _facts(config: RunConfig, about: dict[str, Any]) -> dict[str, Any]:
    """Of the member's images: those of the study, unless it names others."""
    own = about["config"]["data"]
    if (config.data.name, list(config.data.classes)) == (own["name"], own.get("classes", [])):
        facts: dict[str, Any] = about["data"]
        return facts
    return data_facts(config)
