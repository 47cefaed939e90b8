"""`facenas.study`: what a study asks for is run, one run after another, and its findings are written."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facenas.api.folders import RUNS, label_of, python_call, run_place, stoppable
from facenas.api.settings import Settings, anchored, as_list, data_facts, data_name
from facenas.config import read_yaml, validate
from facenas.errors import UserError
from facenas.execution import check_execution
from facenas.files import reading
from facenas.runs import Run, create_run, open_run
from facenas.runs.config import RunConfig
from facenas.runs.run import as_yaml, check_new, create_folder, locked, origin

if TYPE_CHECKING:
    from facenas.studies import Findings, Member, Study

log = logging.getLogger(__name__)

STUDY = "study.yaml"


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
    facts = data_facts(config) if made.makes_runs else {}
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


def conduct(folder: Path, reuse: str | Path | Sequence[str | Path] = (), make: bool = True) -> StudyResult:
    """Goes on with the study in `folder`, to its findings; runs that have ended are not made again.

    make: False raises UserError for a run that has not ended, in place of going on with it.
    """
    from facenas.report.study_page import write_study
    from facenas.studies.base import STUDIES

    with reading(folder / STUDY):
        about = read_yaml(folder / STUDY)
        config = validate(RunConfig, about.get("config"), f"{folder / STUDY}: config")
        own = dict(about["study"])
        cls = STUDIES.get(own.pop("kind"))
        studied = cls(validate(cls.Settings, own, f"{folder / STUDY}: study"))
    with locked(folder), stoppable(f"stopped; `facenas resume {folder.name}` goes on"):
        found = _findings(folder, studied, config, about, reuse, make)
        report = write_study(folder, studied.title, found, about)
    return StudyResult(folder, found.summary, found.values, report)


def _findings(
    folder: Path, studied: Study, config: RunConfig, about: dict[str, Any], reuse: Any, make: bool
) -> Findings:
    steps, run = studied.conduct(config, about["data"]), None
    try:
        wanted = next(steps)
        while True:
            run = _member(folder, wanted, about, reuse, make)
            wanted = steps.send(run)
    except StopIteration as end:
        found: Findings = end.value
        return found


def _member(folder: Path, wanted: Member, about: dict[str, Any], reuse: Any, make: bool) -> Run:
    """The run, its search ended."""
    from facenas.api.searching import as_paths, search_run
    from facenas.runs.driver import StopRule
    from facenas.runs.extend import other_runs

    config = anchored(wanted.config)
    if (folder / wanted.name / "run.yaml").is_file():
        run = open_run(folder, wanted.name)
        if run.config.model_dump(exclude={"execution"}) != config.model_dump(exclude={"execution"}):
            raise UserError(
                f"{run.folder}: has other settings than its study asks for; move it away, and resume the study"
            )
    elif not make:
        raise UserError(f"{folder}: its study has not ended; `facenas resume {folder.name}` goes on")
    else:
        run = create_run(folder, wanted.name, config, _facts(config, about), about["command"])
    if run.best() is None:
        if not make:
            raise UserError(f"{folder}: its study has not ended; `facenas resume {folder.name}` goes on")
        log.info("study %s: %s", folder.name, wanted.name)
        beside = [path.parent for path in sorted(folder.glob("*/run.yaml")) if path.parent != run.folder]
        others = other_runs(folder.parent, [*beside, *as_paths(reuse)])
        search_run(run, StopRule(), others, [])
    return run


def _facts(config: RunConfig, about: dict[str, Any]) -> dict[str, Any]:
    """Of the member's images: those of the study, unless it names others."""
    own = about["config"]["data"]
    if (config.data.name, list(config.data.classes)) == (own["name"], own.get("classes", [])):
        facts: dict[str, Any] = about["data"]
        return facts
    return data_facts(config)
