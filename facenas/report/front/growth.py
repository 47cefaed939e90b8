"""The charts of a search over its generations: hypervolume, and time."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from facenas.report.figures import LINE, Figure, heading, layout
from facenas.report.front.beside import Beside
from facenas.report.front.charts import FRONT
from facenas.report.front.generations import Generation
from facenas.report.phases import PHASES
from facenas.report.wording import duration, many

BESIDE = PHASES["depth"].colour


def hypervolume_chart(own: Sequence[Generation], beside: Beside | None, name: str) -> Figure:
    """The share dominated after each generation, over the candidates trained or judged so far."""
    data = [_growth(name, own, FRONT, "diamond", "solid")]
    if beside:
        data.append(_growth(beside.label, beside.generations, BESIDE, "circle", "dash"))
    made = layout("candidates", 0, {"yaxis": (0, 1)})
    del made["xaxis"]["dtick"]
    made["xaxis"]["rangemode"] = "tozero"
    made["annotations"] = [heading("hypervolume", 0, 1)]
    made["margin"]["r"] = 16
    return {"data": data, "layout": made}


def clock_chart(own: Sequence[Generation]) -> Figure:
    """Wall clock of every generation, as bars."""
    timed = [(one, one.wall) for one in own if one.wall is not None]
    bars: Figure = {
        "type": "bar",
        "x": [one.number for one, _ in timed],
        "y": [wall for _, wall in timed],
        "text": [
            f"generation {one.number}: {duration(wall)}<br>"
            f"{many(one.trials, 'candidate')}, {duration(one.seconds)} of training"
            for one, wall in timed
        ],
        "textposition": "none",
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {"color": LINE},
    }
    made = layout("generation", len(own), {"yaxis": (0, 1)})
    made["yaxis"]["rangemode"] = "tozero"
    made["annotations"] = [heading("wall clock, seconds", 0, 1)]
    made["margin"]["r"] = 16
    return {"data": [bars], "layout": made}


def _growth(name: str, found: Sequence[Generation], colour: str, symbol: str, dash: str) -> Figure:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": escape(name),
        "x": [one.trained for one in found],
        "y": [one.hypervolume for one in found],
        "text": [
            f"generation {one.number}: {one.hypervolume:.4f}<br>"
            f"{many(one.trained, 'candidate')}, {one.front} on the front"
            for one in found
        ],
        "hovertemplate": "%{text}<extra></extra>",
        "line": {"color": colour, "width": 2, "dash": dash},
        "marker": {"color": colour, "symbol": symbol, "size": 8},
    }
