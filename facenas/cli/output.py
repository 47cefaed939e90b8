"""What commands share: where runs live, and what is printed: one JSON object, or a line for each value."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

RUNS = Path("runs")
RunsDir = Annotated[Path, typer.Option(help="Where run folders live.", envvar="FACENAS_RUNS_DIR")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


def show(result: dict[str, Any], as_json: bool) -> None:
    """The result of a command, on stdout; people are spared what is nested."""
    if as_json:
        print(json.dumps(result))
        return
    for key, value in result.items():
        if not isinstance(value, dict) and not _nested(value):
            told = round(value, 4) if isinstance(value, float) else value
            print(f"{key.replace('_', ' ')}: {told}")


def _nested(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(item, dict) for item in value)
