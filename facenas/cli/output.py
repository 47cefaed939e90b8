"""What commands share: where runs live, and what is printed: one JSON object, or a line for each value."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

RUNS = Path("runs")
RunsDir = Annotated[Path, typer.Option(help="Where run folders live.", envvar="FACENAS_RUNS_DIR")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run's name, or its folder.")]
Settings = Annotated[
    list[str],
    typer.Option("--set", help="Any setting by its key, e.g. search.min_epochs=2; repeatable."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


def show(result: dict[str, Any], as_json: bool) -> None:
    """The result of a command, on stdout; people are spared what is nested."""
    if as_json:
        print(json.dumps(result))
        return
    for key, value in result.items():
        if value is not None and not isinstance(value, dict) and value != [] and not _nested(value):
            shown = round(value, 4) if isinstance(value, float) else value
            print(f"{key.replace('_', ' ')}: {shown}")


def _nested(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(item, dict | list) for item in value)


def table(rows: list[dict[str, Any]], columns: Sequence[str], title: str | None = None) -> None:
    """The rows as a table for a terminal; numbers to the right."""
    from rich.console import Console
    from rich.table import Table

    drawn = Table(title=title)
    for column in columns:
        numbers = all(isinstance(row.get(column), int | float | None) for row in rows)
        drawn.add_column(column.replace("_", " "), justify="right" if numbers else "left")
    for row in rows:
        drawn.add_row(*(_cell(row.get(column)) for column in columns))
    Console().print(drawn)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value or "")
