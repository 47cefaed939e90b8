"""`report.html`: read the run, make the charts and the drawing, fill the template, put the file in place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facenas.config import RunConfig
from facenas.report import drawing, summary, wording
from facenas.report.charts import search_course, training_course
from facenas.report.phases import PHASES
from facenas.report.reading import RunFolder, read_run
from facenas.runs.files import write_text

if TYPE_CHECKING:
    from jinja2 import Environment

Rows = list[tuple[str, str]]


def write_report(run: Path) -> Path:
    """Writes `report.html` into the run folder, at whatever stage the run is, and returns its path.

    One page of about 5 MB, nearly all of it plotly, that opens without a network. Raises UserError when
    the folder is no run or one of its files is damaged, SearchStoppedError when the disk is full.
    """
    text = render(read_run(run))
    write_text(run / "report.html", text)
    return run / "report.html"


def render(run: RunFolder) -> str:
    """The page as HTML. Raises UserError when an architecture in the run is damaged."""
    figures = {}
    if run.trials:
        figures["course"] = search_course(run.trials)
    if run.epochs:
        figures["training"] = training_course(run.epochs)
    config = run.about.config
    template = _environment().get_template("report.html.j2")
    return template.render(
        run=run,
        config=config,
        state=summary.state(run),
        subject=summary.subject(run),
        tiles=list(summary.tiles(run)),
        phases=list(summary.phase_rows(run)),
        phase_of=PHASES,
        figures=figures,
        plotly=_plotly() if figures else "",
        settings=list(_settings(config)),
        facts=list(_facts(run)),
        **_networks(run),
    )


def _networks(run: RunFolder) -> dict[str, Any]:
    """The network drawn and its drawing; the one that was trained, in words."""
    found = summary.network(run)
    size = run.about.data.image_size or run.about.config.data.image_size
    trained = None
    if run.final:
        tree = run.final.architecture
        trained = summary.architecture(tree, str(run.path / "train.json"))
    return {
        "network": found,
        "drawing": drawing.draw(found.architecture, size) if found else None,
        "described": drawing.describe(found.architecture) if found else "",
        "trained": drawing.describe(trained) if trained else "",
    }


def _settings(config: RunConfig) -> Iterator[tuple[str, Rows]]:
    """The settings by group; the seed, which stands alone, is told with the run's origin."""
    for group, values in config.model_dump(mode="json").items():
        if isinstance(values, dict):
            yield group, [(key, _value(value)) for key, value in values.items()]


def _facts(run: RunFolder) -> Iterator[tuple[str, Rows]]:
    """Where the run comes from: data, machine, versions."""
    about = run.about
    images = about.data.model_dump().items()
    origin = [("seed", str(about.config.seed)), ("created", wording.moment(about.created))]
    yield "run", [*origin, ("git commit", about.git_commit or wording.MISSING)]
    yield "images", [(k.replace("_", " "), _value(v, grouped=True)) for k, v in images]
    yield "machine", [(k.replace("_", " "), _value(v)) for k, v in about.machine.items()]
    yield "versions", [(k, _value(v)) for k, v in about.versions.items()]


def _value(value: Any, grouped: bool = False) -> str:
    if value is None:
        return wording.MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if grouped and isinstance(value, int) else str(value)


def _environment() -> Environment:
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
    )
    environment.filters.update({word.__name__: word for word in words})
    environment.filters["special_layers"] = summary.special_layers
    return environment


def _plotly() -> str:
    """The plotly script, to be written into the page as it is."""
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    return Markup(get_plotlyjs())
