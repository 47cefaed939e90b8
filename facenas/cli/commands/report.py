"""Reports of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from facenas.runs import open_run


def report_run(name: str, budget: str | None, beside: str | None, runs_dir: Path) -> dict[str, Any]:
    """Writes the report of a run; of a Pareto front also which member is best within `budget`.

    beside: a random search whose hypervolume is drawn in the same chart.
    """
    from facenas.report import write_report
    from facenas.report.front import parse_budget, recommendation

    folder = open_run(runs_dir, name).folder
    other = open_run(runs_dir, beside).folder if beside else None
    limits = parse_budget(budget) if budget else None
    page = write_report(folder, other, limits)
    if limits is None:
        return {"report": str(page)}
    found = recommendation(folder, limits)
    return {"report": str(page), "recommendation": found.sentence, **found.to_json()}
