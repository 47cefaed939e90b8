"""What both pages are made with: the templates, plotly's script, tiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from facenas.report import format as words
from facenas.report.drawing import brief, describe, draw, special
from facenas.report.plots import color

if TYPE_CHECKING:
    from jinja2 import Environment

_WORDS = "amount capitalized count duration exactly fixed label listed many moment percent rate short value"


@dataclass(frozen=True)
class Tile:
    """A key figure at the head of a page."""

    label: str
    value: str
    hint: str


def render(template: str, figures: dict[str, dict[str, Any]], **shown: Any) -> str:
    """A page as HTML that opens without a network: 5 MB when it has `figures`, nearly all of it plotly."""
    script = _plotly() if figures else ""
    return _environment().get_template(template).render(figures=figures, plotly=script, **shown)


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("facenas.report"),
        autoescape=True,  # names, reasons and commands come from outside
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update({name: getattr(words, name) for name in _WORDS.split()})
    environment.filters |= {
        "brief": brief,
        "color": color,
        "describe": describe,
        "draw": draw,
        "special": special,
    }
    return environment


def _plotly() -> str:
    """The plotly script, to be written into the page as it is."""
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    return Markup(get_plotlyjs())
