"""The page's charts as plotly figures in plain dictionaries; colours of text and grid are set in the page.

All words that come from the run are escaped, because plotly reads its texts as HTML.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from facenas.report.phases import PHASES, STAGES
from facenas.report.reading import Epoch, Trial
from facenas.report.wording import count, many, percent

Figure = dict[str, Any]
LINE = "#868c94"  # legible on light and on dark
FAILED = "#d04545"
STAGE_AXIS = {"macro": "y", "micro": "y2"}


def search_course(trials: Sequence[Trial]) -> Figure:
    """Accuracy and parameters over trials. Macro accuracies are read on the left, micro ones on the right:
    micro candidates train for few epochs, so one scale would flatten both.
    """
    data = [_running_best(trials, stage) for stage in STAGES]
    for key in PHASES:
        data += _phase_points(key, [t for t in trials if t.phase == key])
    data.append(_failures(trials, floor=_span(_accuracies(trials, "macro"))[0]))
    return {"data": [trace for trace in data if trace["x"]], "layout": _course_layout(trials)}


def training_course(epochs: Sequence[Epoch]) -> Figure:
    """Training loss (below) and training accuracy (above) over the epochs of the final training."""
    x = [e.epoch for e in epochs]
    above = {"x": x, "y": [e.train_accuracy for e in epochs], "name": "training accuracy"}
    below = {"x": x, "y": [e.train_loss for e in epochs], "name": "training loss", "yaxis": "y3"}
    above["hovertemplate"] = "epoch %{x}<br>training accuracy %{y:.2f} %<extra></extra>"
    below["hovertemplate"] = "epoch %{x}<br>training loss %{y:.4g}<extra></extra>"
    mode = "lines" if len(epochs) > 1 else "markers"
    for trace, key in ((above, "depth"), (below, "width")):
        colour = {"color": PHASES[key].colour, "width": 2}
        trace.update(type="scatter", mode=mode, line=colour, showlegend=False)
    layout = _layout("epoch", len(x), [0.54, 1], [0, 0.42])
    layout["margin"]["r"] = 16
    layout["annotations"] = [
        _heading("training accuracy, %", 0, 1),
        _heading("training loss", 0, 0.42),
    ]
    return {"data": [above, below], "layout": layout}


def _phase_points(key: str, trials: Sequence[Trial]) -> list[Figure]:
    """Accuracies of those that did not fail, and parameters of all."""
    phase, trained = PHASES[key], [t for t in trials if not t.failed]
    marker = {"color": phase.colour, "symbol": phase.symbol, "size": 8}
    above = _points(trained, [t.accuracy for t in trained])
    above |= {"name": phase.label, "legendgroup": key, "marker": marker}
    above["yaxis"] = STAGE_AXIS[phase.stage]
    below = _points(trials, [t.parameters / 1e6 for t in trials])
    below |= {
        "legendgroup": key,
        "showlegend": False,
        "marker": marker | {"size": 6},
        "yaxis": "y3",
    }
    return [above, below]


def _points(trials: Sequence[Trial], y: list[float]) -> Figure:
    """A mark for every trial at `y`, which tells all about it when pointed at."""
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [t.trial for t in trials],
        "y": y,
        "text": [_hover(t) for t in trials],
        "hovertemplate": "%{text}<extra></extra>",
    }


def _running_best(trials: Sequence[Trial], stage: str) -> Figure:
    x: list[int] = []
    y: list[float] = []
    for trial in trials:
        if PHASES[trial.phase].stage == stage and not trial.failed:
            x.append(trial.trial)
            y.append(max(trial.accuracy, y[-1] if y else trial.accuracy))
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "best so far, per stage",
        "legendgroup": "best",
        "showlegend": stage == STAGES[0],
        "x": x,
        "y": y,
        "yaxis": STAGE_AXIS[stage],
        "line": {"shape": "hv", "width": 1.5, "color": LINE},
        "hoverinfo": "skip",
    }


def _failures(trials: Sequence[Trial], floor: float) -> Figure:
    """Marked on the floor of the left axis: their accuracy of 0 would squeeze all the others."""
    failed = [t for t in trials if t.failed]
    marker = {"symbol": "x", "size": 9, "color": FAILED}
    style = {"name": "failed", "marker": marker, "cliponaxis": False}
    return _points(failed, [floor] * len(failed)) | style


def _hover(trial: Trial) -> str:
    lines = [
        f"<b>trial {trial.trial}</b>, {PHASES[trial.phase].label}",
        trial.reason_proposed,
        f"depth {trial.depth}, width {trial.width}, {many(trial.epochs, 'epoch')}",
        f"failed: {trial.reason or 'no reason'}"
        if trial.failed
        else f"accuracy {percent(trial.accuracy)}",
        f"{count(trial.parameters)} parameters",
    ]
    lines += [trial.decision, "trained ahead (speculative)" if trial.speculative else ""]
    head, *rest = lines
    return "<br>".join([head, *(escape(line) for line in rest if line)])


def _course_layout(trials: Sequence[Trial]) -> Figure:
    layout = _layout("trial", len(trials), [0.46, 1], [0, 0.34])
    layout["yaxis"]["range"] = _span(_accuracies(trials, "macro"))
    layout["annotations"] = [
        _heading("selection accuracy, %", 0, 1),
        _heading("parameters, millions", 0, 0.34),
    ]
    micro = [t.trial for t in trials if PHASES[t.phase].stage == "micro"]
    if micro:
        layout["yaxis2"] = {
            "overlaying": "y",
            "side": "right",
            "range": _span(_accuracies(trials, "micro")),
            "tickmode": "sync",
            "tickformat": ".1f",
        }
        border = {"type": "line", "xref": "x", "yref": "paper", "y0": 0, "y1": 1}
        border |= {"x0": micro[0] - 0.5, "x1": micro[0] - 0.5}
        layout["shapes"] = [border | {"line": {"color": LINE, "width": 1, "dash": "dot"}}]
        layout["annotations"][0]["text"] = "macro accuracy, %"
        layout["annotations"].append(_heading("micro accuracy, %", 1, 1))
    return layout


def _layout(x_title: str, marks: int, above: list[float], below: list[float]) -> Figure:
    """Two scales, one above the other, over one axis of whole numbers."""
    whole = {"dtick": 1} if marks <= 10 else {}  # else plotly would put ticks at halves
    return {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"size": 12, "color": LINE},
        "margin": {"l": 44, "r": 44, "t": 32, "b": 40},
        "hovermode": "closest",
        "xaxis": {"title": {"text": x_title}, "anchor": "y3", "zeroline": False} | whole,
        "yaxis": {"domain": above, "zeroline": False},
        "yaxis3": {"domain": below, "zeroline": False},
        "legend": {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0},
    }


def _heading(text: str, x: int, y: float) -> Figure:
    """The title of a scale, above its numbers: `x` 0 for the left one, 1 for the right one."""
    outwards = (-1, 1)[x] * 34
    place = {"xref": "paper", "x": x, "xanchor": ("left", "right")[x], "xshift": outwards}
    place |= {"yref": "paper", "y": y, "yanchor": "bottom", "yshift": 6}
    return place | {"text": text, "showarrow": False}


def _accuracies(trials: Sequence[Trial], stage: str) -> list[float]:
    return [t.accuracy for t in trials if PHASES[t.phase].stage == stage and not t.failed]


def _span(values: list[float]) -> list[float]:
    """An axis range with room around `values`; 0 to 100 when there are none."""
    if not values:
        return [0.0, 100.0]
    room = 0.08 * (max(values) - min(values)) or 1.0
    return [min(values) - room, max(values) + room]
