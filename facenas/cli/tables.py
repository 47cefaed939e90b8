"""Tables for a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def print_runs(rows: list[dict[str, Any]], runs_dir: Path) -> None:
    """One row a run."""
    from rich.console import Console
    from rich.table import Table

    if not rows:
        print(f"no runs in {runs_dir}; `facenas search --preset demo-digits` makes one")
        return
    headings = (
        "run",
        "created",
        "data",
        "state",
        "trials",
        "best_accuracy",
        "parameters",
        "test_accuracy",
    )
    table = Table(*(heading.replace("_", " ") for heading in headings))
    for row in rows:
        shown = row | {"test_accuracy": _final_accuracy(row)}
        table.add_row(*(_cell(shown.get(heading)) for heading in headings))
    Console().print(table)


def _final_accuracy(row: dict[str, Any]) -> Any:
    """Of faces without identities to test on, the accuracy on those that the best epoch was chosen on."""
    tested, verified = row.get("test_accuracy"), row.get("verification_accuracy")
    return f"{verified:.2f} (validation)" if tested is None and verified is not None else tested


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value or "")
