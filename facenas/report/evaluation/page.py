"""`evaluation.html`: from outcomes to words, charts and pictures, and those into the template."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from facenas.evaluation.benches.result import BenchResult
from facenas.files import write_text
from facenas.report.evaluation import results
from facenas.report.evaluation.charts import bench_figures
from facenas.report.evaluation.model import model_facts, model_tiles
from facenas.report.evaluation.pictures import Shown, show
from facenas.report.figures import Figure
from facenas.report.page import environment, plotly_script


@dataclass(frozen=True)
class Bench:
    """What the page shows of one bench; genuine, impostors: how many pairs were scored, None without scores."""

    name: str
    title: str
    kind: str
    formula: str
    result: dict[str, Any]
    measures: list[results.Measure]
    rows: list[results.Row]
    rates: list[results.Rate]
    identification: list[results.Found]
    genuine: int | None
    impostors: int | None
    figures: dict[str, Figure]
    mistakes: list[Shown]


def write_evaluation(folder: Path, model: dict[str, Any], outcomes: list[BenchResult]) -> Path:
    """Writes `evaluation.html` into `folder`, which is there, and returns its path.

    model: `name`, and as far as known `parameters`, `macs`, `size` (of the embedding), `color`, `mean` and
    `std` of the input on the 0..255 scale; whatever else it holds is listed. One page of 5 to 6 MB, nearly
    all of it plotly, that opens without a network. Raises SearchStoppedError when the disk is full.
    """
    path = folder / "evaluation.html"
    write_text(path, render(model, outcomes))
    return path


def render(model: dict[str, Any], outcomes: list[BenchResult]) -> str:
    """The page as HTML."""
    benches = [_bench(outcome) for outcome in outcomes]
    drawn = any(bench.figures for bench in benches)
    template = environment().get_template("evaluation.html.j2")
    return template.render(
        model=model,
        tiles=list(model_tiles(model)),
        facts=list(model_facts(model)),
        benches=benches,
        average=results.average(outcomes),
        plotly=plotly_script() if drawn else "",
    )


def _bench(outcome: BenchResult) -> Bench:
    facts, same = outcome.bench, outcome.same
    genuine = int(np.count_nonzero(same)) if same is not None else None
    return Bench(
        name=outcome.to_json()["bench"],
        title=facts.title,
        kind=facts.kind,
        formula=facts.formula,
        result=outcome.to_json(),
        measures=list(results.measures(outcome.to_json())),
        rows=list(results.rows(outcome)),
        rates=list(results.rates(outcome.to_json())),
        identification=list(results.identification(outcome.to_json())),
        genuine=genuine,
        impostors=len(same) - genuine if same is not None and genuine is not None else None,
        figures=dict(bench_figures(outcome)),
        mistakes=[show(mistake, facts.kind == "ranking") for mistake in outcome.mistakes],
    )
