"""Run folders as arguments name them, and what is done around the work of every run."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from facenas.errors import SearchStoppedError
from facenas.runs import Run, create_run, open_run
from facenas.runs.config import RunConfig

log = logging.getLogger(__name__)

RUNS = Path("runs")


def run_place(run: str | Path, runs_dir: str | Path | None) -> tuple[Path, str]:
    """Folder and name of a run: without `runs_dir` a bare name lies in `runs`, a path where it says."""
    path = Path(run)
    if runs_dir is not None:
        return Path(runs_dir), str(run)
    return (RUNS, str(run)) if path.parent == Path() else (path.parent, path.name)


def open_named(run: str | Path, runs_dir: str | Path | None) -> Run:
    """The run of that name or folder; raises UserError when there is none."""
    return open_run(Path(runs_dir or RUNS), str(run))


def new_run(
    config: RunConfig,
    facts: dict[str, Any],
    label: str,
    run: str | Path | None,
    runs_dir: str | Path | None,
    command: str,
) -> Run:
    """A run folder, called as `run` says, or after label, data and time."""
    return create_run(*run_place(run or label_of(label, config), runs_dir), config, facts, command)


def label_of(label: str, config: RunConfig) -> str:
    """What a run is called that nobody named."""
    time = datetime.now().strftime("%Y%m%d-%H%M%S")
    return "-".join(filter(None, [Path(label).stem, Path(config.data.name).stem, time]))


def python_call(name: str) -> str:
    """Where a run came from, when no shell command made it."""
    return f"facenas.{name}(...), called from {Path(sys.argv[0]).name or 'Python'}"


def write_report(run: Run) -> Path | None:
    """Writes the run's page. Whatever goes wrong in it: what it describes is done, and must not fail for it."""
    try:
        from facenas.report import write_search_page

        return write_search_page(run.folder)
    except Exception as error:
        log.debug("the report failed", exc_info=True)
        log.warning(
            "the report could not be written (%s: %s); `facenas report %s` tries again",
            type(error).__name__,
            str(error).splitlines()[0] if str(error) else "no reason given",
            run.called,
        )
        return None


@contextmanager
def stoppable(sentence: str) -> Iterator[None]:
    """Ctrl-C within ends as a SearchStoppedError that says how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        raise SearchStoppedError(sentence) from None
