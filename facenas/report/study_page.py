"""`study.json`, tables and `report.html` of a study: from its findings to files."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

from facenas.files import as_cells, write_json, write_text
from facenas.report import format as fmt
from facenas.report.html import render
from facenas.report.plots import chart_plot
from facenas.studies.findings import Cell, Findings, Table


def write_study(folder: Path, title: str, found: Findings, about: dict[str, Any]) -> Path:
    """Writes all that came of the study in `folder` and returns its page.

    `study.json` (summary, values, tables), `tables/NAME.csv` and `.md`, `report.html`. about: its `study.yaml`.
    Raises SearchStoppedError when the disk is full.
    """
    write_json(folder / "study.json", found.to_json())
    tables = folder / "tables"
    tables.mkdir(exist_ok=True)
    for table in found.tables:
        write_text(tables / f"{table.name}.csv", as_csv(table))
        write_text(tables / f"{table.name}.md", as_markdown(table))
    page = render(
        "study.html.j2",
        {chart.name: chart_plot(chart) for chart in found.charts},
        title=title,
        name=about["name"],
        found=found,
        rows={table.name: [[shown(cell) for cell in row] for row in table.rows] for table in found.tables},
        words={table.name: [_is_of_words(column) for column in _columns(table)] for table in found.tables},
        members=sorted((path.parent.name for path in folder.glob("*/run.yaml")), key=_by_number),
        about=list(_facts(about)),
        tiles=[],
    )
    write_text(folder / "report.html", page)
    return folder / "report.html"


def as_csv(table: Table) -> str:
    """Heads and rows; missing values are empty."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(as_cells(table.columns))
    writer.writerows(as_cells("" if _is_missing(cell) else cell for cell in row) for row in table.rows)
    return text.getvalue()


def as_markdown(table: Table) -> str:
    """With title and note."""
    rows = [table.columns, ["---"] * len(table.columns), *([shown(cell) for cell in row] for row in table.rows)]
    lines = ["| " + " | ".join(word.replace("|", "/") for word in row) + " |" for row in rows]
    return "\n".join([f"### {table.title}", "", *lines, *(["", table.note] if table.note else []), ""])


def shown(cell: Cell) -> str:
    """As people read it: large numbers with separators, others with two digits behind the point."""
    if isinstance(cell, str):
        return cell
    if cell is None or not math.isfinite(cell):
        return "-"
    return f"{cell:,}" if isinstance(cell, int) else f"{cell:,.{0 if abs(cell) >= 1000 else 2}f}"


def _is_missing(cell: Cell) -> bool:
    return shown(cell) == "-"


def _by_number(name: str) -> list[tuple[str, int]]:
    """Orders search-2 before search-10."""
    return [(word, int(digits or 0)) for word, digits in re.findall(r"(\D*)(\d*)", name)]


def _columns(table: Table) -> list[tuple[Cell, ...]]:
    return list(zip(*table.rows, strict=True)) or [()] * len(table.columns)


def _is_of_words(column: tuple[Cell, ...]) -> bool:
    """Whether it is set from the left, as words are; an interval is no word."""
    return any(isinstance(cell, str) and cell[:1].isalpha() for cell in column)


def _facts(about: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Where the study comes from."""
    yield "command", str(about.get("command", ""))
    yield "created", fmt.moment(about.get("created"))
    yield from ((f"study.{key}", fmt.value(value)) for key, value in about["study"].items())
    data = about.get("data", {})
    if name := data.get("name") or about["config"]["data"]["name"]:
        yield "data", str(name)
    yield "git commit", str(about.get("git_commit"))
    yield from ((key, fmt.value(value)) for key, value in about.get("machine", {}).items())
