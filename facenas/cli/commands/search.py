"""Searches: started and resumed."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from facenas.cli.commands.common import anchored, find_data, new_run, report
from facenas.errors import SearchStoppedError
from facenas.runs import Run, open_run
from facenas.runs.config import RunConfig
from facenas.runs.driver import run_search
from facenas.strategies.rank_check import rank_warning

log = logging.getLogger(__name__)


def start_search(
    config: RunConfig, label: str, name: str | None, runs_dir: Path, command: str
) -> dict[str, Any]:
    """Creates a run and searches; returns what was found, the run and its report."""
    config = anchored(config)
    return _search(new_run(config, find_data(config), label, name, runs_dir, command))


def resume_search(runs_dir: Path, name: str) -> dict[str, Any]:
    """Goes on with a run's search; one that has ended is only reported."""
    return _search(open_run(runs_dir, name))


def _search(run: Run) -> dict[str, Any]:
    from facenas.cli.progress import SearchProgress
    from facenas.device import core_count

    execution = run.config.execution
    workers = 1 if execution.executor == "serial" else execution.workers or core_count()
    progress = SearchProgress(run.about["data"]["image_size"], workers)
    with run.lock():
        try:
            found = run_search(run, progress)
        except KeyboardInterrupt:
            raise SearchStoppedError(f"stopped; `facenas resume {run.name}` goes on") from None
        finally:
            progress.close()
    if "tau" in found and (warning := rank_warning(found["tau"])):
        log.warning("%s", warning)
    return {"run": str(run.folder), **found, "report": report(run)}
