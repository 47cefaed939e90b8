"""What the page's charts have in common: plotly figures in plain dictionaries, scales one above the other.

Colours of text and grid are set in the page. All words that come from the run are escaped, because plotly
reads its texts as HTML.
"""

from __future__ import annotations

from typing import Any

Figure = dict[str, Any]
LINE = "#868c94"  # legible on light and on dark


def layout(x_title: str, marks: int, scales: dict[str, tuple[float, float]]) -> Figure:
    """Scales by name ("yaxis", ...), at these parts of the height, the lowest last, over one axis of `marks`
    whole numbers.
    """
    whole = {"dtick": 1} if marks <= 10 else {}  # else plotly would put ticks at halves
    lowest = list(scales)[-1].replace("axis", "")
    return {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"size": 12, "color": LINE},
        "margin": {"l": 44, "r": 44, "t": 32, "b": 40},
        "hovermode": "closest",
        "xaxis": {"title": {"text": x_title}, "anchor": lowest, "zeroline": False} | whole,
        **{name: {"domain": list(part), "zeroline": False} for name, part in scales.items()},
        "legend": {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0},
    }


def heading(text: str, x: int, y: float) -> Figure:
    """The title of a scale, above its numbers: `x` 0 for the left one, 1 for the right one."""
    outwards = (-1, 1)[x] * 34
    place = {"xref": "paper", "x": x, "xanchor": ("left", "right")[x], "xshift": outwards}
    place |= {"yref": "paper", "y": y, "yanchor": "bottom", "yshift": 6}
    return place | {"text": text, "showarrow": False}


def span(values: list[float]) -> list[float]:
    """An axis range with room around `values`; 0 to 100 when there are none."""
    if not values:
        return [0.0, 100.0]
    room = 0.08 * (max(values) - min(values)) or 1.0
    return [min(values) - room, max(values) + room]
