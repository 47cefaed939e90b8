"""`report.html`: read the run, make the charts and the drawing, fill the template, put the file in place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facenas.errors import UserError
from facenas.files import write_text
from facenas.report import summary, wording
from facenas.report.charts import search_course
from facenas.report.describing import describe, special_units
from facenas.report.figures import Figure
from facenas.report.front import costs
from facenas.report.front.budget import Budget
from facenas.report.front.context import Front, front_tiles, read_front
from facenas.report.front.context import figures as front_figures
from facenas.report.front.context import network as front_network
from facenas.report.front.drawings import drawing_of
from facenas.report.phases import PHASES
from facenas.report.reading import RunFolder, read_run
from facenas.report.tiles import tiles
from facenas.report.training_charts import roc_chart, training_course
from facenas.runs.config import RunConfig

if TYPE_CHECKING:
    from jinja2 import Environment

Rows = list[tuple[str, str]]


def write_report(run: Path, beside: Path | None = None, budget: Budget | None = None) -> Path:
    """Writes `report.html` into the run folder, at whatever stage the run is, and returns its path.

    One page of about 5 MB, nearly all of it plotly, that opens without a network. Of a search for a Pareto
    front, `front.csv` too; `beside` is a run whose hypervolume is set beside its own (None: a random search
    in the same folder, if there is one), `budget` what to recommend a network for. Raises UserError when
    the folder is no run, one of its files is damaged or the two do not fit, SearchStoppedError when the disk
    is full.
    """
    read = read_run(run)
    front = None
    if read.front_settings:
        front = read_front(read, beside, budget)
    elif beside or budget:
        raise UserError(f"{run}: is no search for a Pareto front; leave out --beside and --budget")
    text = render(read, front)
    if front:
        write_text(run / "front.csv", front.csv)
    write_text(run / "report.html", text)
    return run / "report.html"


def render(run: RunFolder, front: Front | None = None) -> str:
    """The page as HTML; `front` is that of a search for one."""
    figures = dict(_figures(run, front))
    template = environment().get_template("report.html.j2")
    return template.render(
        run=run,
        front=front,
        config=run.about.config,
        terms=run.terms,
        summary=summary,
        tiles=list(front_tiles(front) if front else tiles(run)),
        phases=list(summary.phase_rows(run)),
        phase_of=PHASES,
        figures=figures,
        plotly=plotly_script() if figures else "",
        settings=list(_settings(run.about.config)),
        facts=list(_facts(run)),
        network=front_network(front) if front else summary.network(run),
        image_size=run.about.data.image_size or run.about.config.data.image_size,
    )


def _figures(run: RunFolder, front: Front | None) -> Iterator[tuple[str, Figure]]:
    if front:
        yield from front_figures(front)
    elif run.trials:
        yield "course", search_course(run.trials, run.terms)
    if run.epochs:
        yield "training", training_course(run.epochs, run.best_epoch)
    if run.final and run.final.verification:
        yield "roc", roc_chart(run.final.verification)


def _settings(config: RunConfig) -> Iterator[tuple[str, Rows]]:
    """The settings by group; the seed, which stands alone, is told with the run's origin."""
    for group, values in config.model_dump(mode="json").items():
        if isinstance(values, dict):
            yield group, list(_rows(values))


def _rows(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """A group's settings; those of a group within it by dotted key."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _rows(value, f"{prefix}{key}.")
        else:
            yield prefix + key, _value(value)


def _facts(run: RunFolder) -> Iterator[tuple[str, Rows]]:
    """Where the run comes from: data, machine, versions."""
    about = run.about
    images = {run.terms.facts.get(k, k): v for k, v in about.data.model_dump().items()}
    origin = [("seed", str(about.config.seed)), ("created", wording.moment(about.created))]
    yield "run", [*origin, ("git commit", about.git_commit or wording.MISSING)]
    yield (
        "images",
        [
            (k.replace("_", " "), _value(v, grouped=True))
            for k, v in images.items()
            if v is not None
        ],
    )
    yield "machine", [(k.replace("_", " "), _value(v)) for k, v in about.machine.items()]
    yield "versions", [(k, _value(v)) for k, v in about.versions.items()]


def _value(value: Any, grouped: bool = False) -> str:
    if value is None:
        return wording.MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if grouped and isinstance(value, int) else str(value)


def environment() -> Environment:
    """The templates of all pages, with our words as filters."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("facenas.report"),
        autoescape=True,  # names, reasons and commands come from outside
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    words = (
        wording.count,
        wording.many,
        wording.short,
        wording.percent,
        wording.duration,
        wording.moment,
        wording.rate,
        describe,
        special_units,
        drawing_of,
        costs.label,
        costs.capitalise,
        costs.told,
        costs.exactly,
        costs.listed,
    )
    environment.filters.update({word.__name__: word for word in words})
    return environment


def plotly_script() -> str:
    """The plotly script, to be written into the page as it is."""
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    return Markup(get_plotlyjs())
