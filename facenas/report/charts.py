"""The chart of a search: accuracy and parameters over its trials."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from facenas.report.describing import Chain
from facenas.report.figures import LINE, Figure, heading, layout, span
from facenas.report.phases import PHASES, STAGES
from facenas.report.records import Trial
from facenas.report.terms import Terms
from facenas.report.wording import count, many, percent

FAILED = "#d04545"
STAGE_AXIS = {"macro": "y", "micro": "y2"}


def search_course(trials: Sequence[Trial], terms: Terms) -> Figure:
    """Accuracy and parameters over trials. Macro accuracies are read on the left, micro ones on the right:
    micro candidates train for few epochs, so one scale would flatten both.
    """
    data = [_running_best(trials, stage) for stage in STAGES]
    for key in PHASES:
        data += _phase_points(key, [t for t in trials if t.phase == key])
    data.append(_failures(trials, floor=span(_accuracies(trials, "macro"))[0]))
    return {
        "data": [trace for trace in data if trace["x"]],
        "layout": _course_layout(trials, terms),
    }


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
    arch = trial.architecture
    assert isinstance(arch, Chain)
    lines = [
        f"<b>trial {trial.trial}</b>, {PHASES[trial.phase].label}",
        trial.reason_proposed,
        f"depth {arch.depth}, width {arch.width}, {many(trial.epochs, 'epoch')}",
        f"failed: {trial.reason or 'no reason'}"
        if trial.failed
        else f"accuracy {percent(trial.accuracy)}",
        f"{count(trial.parameters)} parameters",
    ]
    lines += [trial.decision, "trained ahead (speculative)" if trial.speculative else ""]
    head, *rest = lines
    return "<br>".join([head, *(escape(line) for line in rest if line)])


def _course_layout(trials: Sequence[Trial], terms: Terms) -> Figure:
    made = layout("trial", len(trials), {"yaxis": (0.46, 1), "yaxis3": (0, 0.34)})
    made["yaxis"]["range"] = span(_accuracies(trials, "macro"))
    made["annotations"] = [
        heading(f"{terms.accuracy}, %", 0, 1),
        heading(f"{terms.parameters}, millions", 0, 0.34),
    ]
    micro = [t.trial for t in trials if PHASES[t.phase].stage == "micro"]
    if micro:
        made["yaxis2"] = {
            "overlaying": "y",
            "side": "right",
            "range": span(_accuracies(trials, "micro")),
            "tickmode": "sync",
            "tickformat": ".1f",
        }
        border = {"type": "line", "xref": "x", "yref": "paper", "y0": 0, "y1": 1}
        border |= {"x0": micro[0] - 0.5, "x1": micro[0] - 0.5}
        made["shapes"] = [border | {"line": {"color": LINE, "width": 1, "dash": "dot"}}]
        made["annotations"][0]["text"] = "macro accuracy, %"
        made["annotations"].append(heading("micro accuracy, %", 1, 1))
    return made


def _accuracies(trials: Sequence[Trial], stage: str) -> list[float]:
    return [t.accuracy for t in trials if PHASES[t.phase].stage == stage and not t.failed]
