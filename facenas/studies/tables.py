"""The paper's tables 3 to 7 with finished runs beside the published rows, and what is missing for the rest.

"Efficient Global Neural Architecture Search", section 4. Rows are data: `eval_protocols/tables/`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import Field, field_validator

from facenas.config import Config, read_yaml, shipped, validate
from facenas.data.datasets import known_name
from facenas.errors import counted
from facenas.evaluation.benches import HQ
from facenas.files import read_json
from facenas.runs import Run, open_run
from facenas.runs.config import RunConfig
from facenas.runs.journal import read_journal
from facenas.spaces import Architecture, from_json
from facenas.studies.base import Conduct, Study, register
from facenas.studies.findings import Cell, Chart, Findings, Series, Table

# The widest network that each kind of space begins with, by what the paper calls the search.
SIZES = {"plain": {"tiny": 64, "mobile": 100_000}, "ir": {"small": 32, "medium": 100_000}}
DAY = 86_400
NEAREST = 2  # light networks by parameters, and as many by MACs
RANKS = {f"tinyface_{k}": ("tinyface", f"rank_{k}") for k in (1, 5, 20)}


class Published(Config):
    """A table of the paper; columns: heads by measure; rows: method and a cell for each column.

    kind: of the space of `ours`, rows by size of the search; hours: that the paper's searches took.
    """

    name: str
    title: str
    kind: str
    ours: dict[str, str]
    hours: dict[str, float] = Field({})
    columns: dict[str, str]
    rows: tuple[tuple[str | float | None, ...], ...]

    def cells(self, size: str) -> dict[str, Cell]:
        """What the paper prints of its own network."""
        (row,) = [row for row in self.rows if row[0] == self.ours[size]]
        return dict(zip(self.columns, row[1:], strict=True))


class Light(Config):
    """Published light networks of faces; rows follow columns."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | None, ...], ...]


@dataclass(frozen=True)
class Finished:
    """What a run has come to; `trained`: its `train.json`, once it is trained."""

    run: Run
    trained: dict[str, Any] | None
    best: dict[str, Any] | None

    @property
    def kind(self) -> str:
        """Of its space."""
        return str(self.run.config.space.owner.name)

    @property
    def data(self) -> str:
        """The set as it is known by name, else its own name."""
        name = str(self.run.about["data"].get("name", ""))
        return known_name(name) or name

    @property
    def size(self) -> str:
        """What the paper calls a search of these bounds, or, of a given network, of its width."""
        given = self.architecture if not self.cost[1] else None
        width = getattr(given, "width", getattr(self.run.config.space, "max_width", 0))
        return next((size for size, most in SIZES.get(self.kind, {}).items() if width <= most), "")

    @cached_property
    def architecture(self) -> Architecture | None:
        """Trained or found; None while nothing is."""
        found = self.trained or self.best
        return from_json(found["architecture"]) if found else None

    @cached_property
    def benches(self) -> dict[str, dict[str, Any]]:
        """What `facenas eval` left, by bench; the latest counts."""
        found: dict[str, dict[str, Any]] = {}
        paths = (self.run.folder / "evaluations").glob("*/results.json")
        for path in sorted(paths, key=lambda path: path.stat().st_mtime):
            told = read_json(path)
            found |= told["benches"] if "benches" in told else {str(told.get("bench")): told}
        return found

    @cached_property
    def cost(self) -> tuple[float, int]:
        """Seconds that all trainings of the search took, one after another, and images they saw."""
        lines = read_journal(self.run.folder / "trials.jsonl")
        return sum(line["seconds"] for line in lines), sum(line["images"] for line in lines)

    @property
    def hours_to_train(self) -> float | None:
        """About how long a full training takes here, by the search's images per second."""
        seconds, images = self.cost
        if not images:
            return None
        wanted = int(self.run.config.recipe.final_epochs * self.run.about["data"]["train_images"])
        return seconds / images * wanted / 3600

    def cell(self, column: str) -> Cell:
        """What it has to say in a column of the paper; None: nothing yet."""
        measure, _, data = column.partition("@")
        if data and data != self.data:
            return None
        trained, seconds = self.trained or {}, self.cost[0]
        accuracy = trained.get("test_accuracy") if data else None
        simple: dict[str, Cell] = {
            "accuracy": accuracy,
            "error": None if accuracy is None else 100 - accuracy,
            "parameters": self._parameters(),
            "days": seconds / DAY if seconds else None,
            "space": self.kind,
            "algorithm": self.run.config.search.owner.name if seconds else None,
            "model": self.architecture.summary() if self.architecture else None,
        }
        return simple[measure] if measure in simple else self._bench(measure)

    def _parameters(self) -> Cell:
        """Millions; of faces backbone and head, as the paper's largest figures are."""
        if self.architecture is None:
            return None
        own, head = self.architecture.count_parameters() / 1e6, (self.trained or {}).get("head_parameters")
        if self.kind != "ir":
            return own
        return f"{own + head / 1e6:.2f} ({own:.2f} + {head / 1e6:.2f})" if head else f"{own:.2f} + head"

    def _bench(self, measure: str) -> Cell:
        """Percent; with a star where pairs or images were not the official ones."""
        if measure == "average":
            five = [self.benches[name] for name in HQ if name in self.benches]
            found = fmean(one["accuracy"] for one in five) if len(five) == len(HQ) else None
            return _percent(found, five)
        bench, key = RANKS.get(measure, (measure, "accuracy"))
        told = self.benches.get(bench, {})
        found = told.get("tar_at_nearest_far", {}).get("0.0001") if bench in ("ijbb", "ijbc") else told.get(key)
        return _percent(found, [told])


def _percent(share: float | None, told: Sequence[dict[str, Any]]) -> Cell:
    if share is None:
        return None
    unofficial = any(one.get("warnings") for one in told)
    return f"{100 * share:.2f}*" if unofficial else 100 * share


@register("tables")
class Tables(Study):
    """The study: tables of `runs`, which others have made."""

    class Settings(Config):
        """runs: folders of runs that were searched, trained and evaluated, or folders of such folders."""

        runs: tuple[Path, ...] = ()

        @field_validator("runs")
        @classmethod
        def _there(cls, folders: tuple[Path, ...]) -> tuple[Path, ...]:
            found: list[Path] = []
            for folder in folders:
                here = [folder] if (folder / "run.yaml").is_file() else []
                inside = here or sorted(path.parent for path in folder.glob("[!.]*/run.yaml"))
                if not inside:
                    raise ValueError(
                        f"{folder} is no run, and holds none; name folders of runs, such as runs/first"
                    )
                found += [path.absolute() for path in inside]  # it may be resumed from elsewhere
            return tuple(found)

    title = "The paper's tables, with runs of one's own"
    makes_runs = False

    def conduct(self, config: RunConfig, facts: dict[str, Any]) -> Conduct:
        """Reads them all."""
        yield from ()
        runs = [open_run(folder.parent, folder.name) for folder in self.settings.runs]
        return findings([Finished(run, run.trained(), run.best()) for run in runs])


def published_tables() -> list[Published]:
    """The paper's, in order."""
    path = shipped("eval_protocols") / "tables" / "paper.yaml"
    return [validate(Published, tree, str(path)) for tree in read_yaml(path)["tables"]]


def findings(runs: Sequence[Finished]) -> Findings:
    """The tables with our rows above the published ones, what is missing, and light networks beside faces."""
    shown: list[Table] = []
    missing: list[tuple[Cell, ...]] = []
    compared: list[tuple[Any, ...]] = []
    used: set[Path] = set()
    for table in published_tables():
        rows: list[tuple[Cell, ...]] = []
        for size in table.ours:
            for some in together(table, [run for run in runs if belongs(run, table, size)]):
                used |= {one.run.folder for one in some}
                cells = {column: _first(one.cell(column) for one in some) for column in table.columns}
                names = ", ".join(one.run.name for one in some)
                rows.append((f"facenas ({size}){': ' + names if names else ''}", *_told(cells, some)))
                missing += [(table.title.partition(":")[0], size, *one) for one in lacking(table, size, some)]
                compared += _compared(table, size, cells, names)
        heads = ("method", *table.columns.values())
        shown.append(Table(table.name, table.title, heads, (*rows, *table.rows), _NOTES[table.kind]))
    left_out = [run.run.name for run in runs if run.run.folder not in used]
    faces = [run for run in runs if run.kind == "ir" and run.architecture]
    wants = Table("missing", "What is missing", ("table", "size", "missing", "how", "about"), tuple(missing))
    tables = [*shown, *([light(faces)] if faces else []), *([wants] if missing else [])]
    return Findings(
        summary=tuple(_sentences(runs, compared, missing, left_out)),
        tables=tuple(tables),
        charts=tuple(_charts(shown)),
        values={
            "runs": [run.run.name for run in runs],
            "not_used": left_out,
            "missing": len(missing),
            "compared": [dict(zip(_COMPARED, one, strict=True)) for one in compared],
        },
    )


_COMPARED = ("table", "row", "measure", "ours", "paper")
_NOTES = {
    "plain": "Search: days of all trainings of the search, one after another, on the machine that made them.",
    "ir": "Parameters: with the head of the training (backbone + head). The paper says neither; "
    "its 14.6M fits the backbone alone, its 37.1M backbone and head. A star: not the official pairs or images.",
}


def belongs(run: Finished, table: Published, size: str) -> bool:
    """By kind of space, by size, and by the images."""
    sets = {column.partition("@")[2] for column in table.columns} - {""}
    return run.kind == table.kind and run.size == size and (not sets or run.data in sets)


def together(table: Published, runs: Sequence[Finished]) -> list[tuple[Finished, ...]]:
    """Runs that share a row, each on another set; where there are none, one empty row."""
    by_data: dict[str, list[Finished]] = {}
    for run in runs:
        by_data.setdefault(run.data if table.kind == "plain" else "", []).append(run)
    rows = zip_longest(*by_data.values())
    return [tuple(one for one in row if one) for row in rows] or [()]


def _first(cells: Iterator[Cell]) -> Cell:
    return next((cell for cell in cells if cell is not None), None)


def _told(cells: dict[str, Cell], some: Sequence[Finished]) -> Iterator[Cell]:
    """Missing cells say why."""
    for column, cell in cells.items():
        data = column.partition("@")[2]
        here = [one for one in some if not data or one.data == data]
        why = "not measured" if not data else "not trained"
        yield cell if cell is not None else ("no run" if not here else why)


def lacking(table: Published, size: str, some: Sequence[Finished]) -> Iterator[tuple[Cell, ...]]:
    """What is missing in a row of these runs: (what, how, about how long)."""
    for data in dict.fromkeys(column.partition("@")[2] for column in table.columns if column not in _WORDS):
        here = [one for one in some if data in ("", one.data)]
        if not here:
            yield data or "faces", _search(size, data), _paper_hours(table, size, data)
        for one in here:
            name, hours = one.run.name, one.hours_to_train
            if one.trained is None:
                about = f"{hours:.1f} h at the pace of its search" if hours else None
                yield f"{name}: its full training", f"facenas train {name}", about
            wanted = dict.fromkeys(RANKS.get(column, (column,))[0] for column in table.columns)
            unknown = [bench for bench in wanted if bench in _BENCHES and bench not in one.benches]
            if unknown:
                several = "hq" if set(unknown) <= set(HQ) else "EACH"
                bench = several if len(unknown) > 1 else unknown[0]
                how = f"facenas eval --bench {bench} --model {name} --data FILES"
                yield f"{name} on {', '.join(unknown)}", how, None


_BENCHES = (*HQ, "ijbb", "ijbc", "tinyface")
_WORDS = ("space", "algorithm")


def _search(size: str, data: str) -> str:
    images = data.replace("_", "-") if data else "casia.zarr"
    return f"facenas search --preset {size} --data {images}, then facenas train{'' if data else ' and eval'}"


def _paper_hours(table: Published, size: str, data: str) -> Cell:
    days = table.cells(size).get(f"days@{data}")
    hours = 24 * days if isinstance(days, int | float) else table.hours.get(size)
    return f"{hours:.1f} GPU hours (paper's search)" if hours else None


def _compared(table: Published, size: str, cells: dict[str, Cell], names: str) -> Iterator[tuple[Any, ...]]:
    """Ours and the paper's where both are numbers: (table, row, measure, ours, paper)."""
    paper = table.cells(size)
    for column, ours in cells.items():
        theirs = paper[column]
        if column.startswith(("error@", "accuracy@", "average")) and isinstance(ours, float):
            yield table.name, names, column, ours, theirs


def _sentences(
    runs: Sequence[Finished], compared: Sequence[Any], missing: Sequence[Any], left_out: Sequence[str]
) -> Iterator[str]:
    count = counted(len(runs), "run")
    yield f"{count}; the last table says what is missing for whole ones ({len(missing)} more)."
    for table, row, column, ours, paper in compared:
        yield f"Table {table[-1]}, {row}: {column.replace('@', ' on ')} {ours:.2f} % (paper {paper:.2f} %)."
    if left_out:
        yield f"In no table, for their images or their space: {', '.join(left_out)}."


def light(faces: Sequence[Finished]) -> Table:
    """Each of our face networks beside the published ones of nearly its parameters, and of nearly its MACs."""
    path = shipped("eval_protocols") / "tables" / "light.yaml"
    known = validate(Light, read_yaml(path), str(path))
    networks = [dict(zip(known.columns, row, strict=True)) for row in known.rows]
    rows: list[tuple[Cell, ...]] = []
    for run in faces:
        own = ours(run)
        rows.append(("", *(own.get(column) for column in known.columns)))
        near = {name: nearest(networks, key, own[key]) for key, name in _NEAR.items()}
        for network in [one for one in networks if any(one in some for some in near.values())]:
            told = " and ".join(name for name, some in near.items() if network in some)
            rows.append((f"near in {told}", *network.values()))
    heads = (
        "",
        "network",
        "parameters, M",
        "MACs, M",
        "trained on",
        *(name.upper() for name in known.columns[4:-1]),
    )
    return Table(
        "light",
        "Beside published light networks of nearly the same parameters, and of nearly the same MACs",
        (*heads, "source"),
        tuple(rows),
        "Of backbones alone. The set moves a network more than its design does. ijbb, ijbc: TAR at FAR 1e-4.",
    )


def ours(run: Finished) -> dict[str, Any]:
    """A face network as a row of `eval_protocols/tables/light.yaml`."""
    assert run.architecture is not None
    measured = {name: run.cell(name) for name in (*HQ, "ijbb", "ijbc")}
    return {
        "network": f"facenas: {run.run.name}",
        "parameters": run.architecture.count_parameters() / 1e6,
        "macs": run.architecture.count_macs(112) / 1e6,
        "trained on": str(run.run.about["data"].get("source") or run.data),
        **measured,
    }


_NEAR = {"parameters": "parameters", "macs": "MACs"}


def nearest(networks: Sequence[dict[str, Any]], measure: str, value: float) -> list[dict[str, Any]]:
    """Those that differ least by factor; of which that is not known, none."""
    known = [one for one in networks if one[measure]]
    return sorted(known, key=lambda one: abs(math.log(one[measure] / value)))[:NEAREST]


def _charts(shown: Sequence[Table]) -> Iterator[Chart]:
    """Of what is measured on one set over parameters: published rows, the paper's own, and ours."""
    for table in shown:
        if table.name not in ("table3", "table4"):
            continue
        groups: dict[str, list[tuple[float, float, str]]] = {}
        for method, value, size, *_ in table.rows:
            if isinstance(value, int | float) and isinstance(size, int | float):
                own = str(method)
                group = (
                    "facenas" if own.startswith("facenas") else "paper" if own.startswith("Ours") else "others"
                )
                groups.setdefault(group, []).append((float(size), float(value), own))
        series = tuple(Series(name, *map(tuple, zip(*some, strict=True))) for name, some in groups.items())  # type: ignore[arg-type]
        yield Chart(table.name, table.title, table.columns[2], table.columns[1], series, log_x=True)
