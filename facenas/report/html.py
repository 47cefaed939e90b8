"""What both pages are made with: the templates, their filters, plotly's script."""

from __future__ import annotations

from typing import Any

from facenas.report import format as fmt
from facenas.report import people
from facenas.report.drawing import brief, draw, special
from facenas.report.plots import color

Tile = tuple[str, str, str]  # a key figure at the head of a page: label, value, hint

_FILTERS = {one.__name__: one for one in (brief, color, draw, special)}
_WORDS = "amount capitalized count duration exactly fixed label listed many moment percent rate short value"


def render(template: str, figures: dict[str, dict[str, Any]], **shown: Any) -> str:
    """A page as HTML that opens without a network: 5 MB when it has `figures`, nearly all of it plotly."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=PackageLoader("facenas.report"),
        autoescape=True,  # names, reasons and commands come from outside
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update({name: getattr(fmt, name) for name in _WORDS.split()})
    environment.filters.update(_FILTERS)
    environment.filters.update(
        share=people.share, interval=people.interval, verdict=people.verdict, tuple=tuple
    )
    script = Markup(get_plotlyjs()) if figures else ""
    return environment.get_template(template).render(figures=figures, plotly=script, **shown)
