"""The charts of a final training: its epochs, and the ROC of a face network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from facenas.report.figures import LINE, Figure, heading, layout, span
from facenas.report.phases import PHASES
from facenas.report.records import Epoch, Verification
from facenas.report.wording import percent, rate

LOSS, ACCURACY, VERIFIED = (PHASES[key].colour for key in ("width", "depth", "ops"))
MOST_DECADES = 4  # of false accept rates, from 1 down


@dataclass(frozen=True)
class Series:
    """One value of every epoch; `unit` is a percent sign or nothing."""

    name: str
    unit: str
    colour: str
    values: list[float | None]


def training_course(epochs: Sequence[Epoch], best: Epoch | None) -> Figure:
    """Scales over the epochs, one above the other: verification accuracy (of faces alone), training accuracy
    and training loss. The `best` epoch is marked on the first.
    """
    series = [
        Series("training accuracy", " %", ACCURACY, [e.train_accuracy for e in epochs]),
        Series("training loss", "", LOSS, [e.train_loss for e in epochs]),
    ]
    if best:
        verified = [e.accuracy for e in epochs]
        series.insert(0, Series("verification accuracy", " %", VERIFIED, verified))
    scales = _scales(len(series))
    made = layout("epoch", len(epochs), scales)
    made["margin"]["r"] = 16
    data, made["annotations"] = [], []
    for one, (scale, (_, top)) in zip(series, scales.items(), strict=True):
        data.append(_line(one, [e.epoch for e in epochs], scale.replace("axis", "")))
        made[scale]["rangemode"] = "nonnegative"  # else a scale of zeros alone begins at -1
        made["annotations"].append(heading(one.name + (", %" if one.unit else ""), 0, top))
    if best:
        data.append(_best_mark(best, early=2 * best.epoch <= epochs[-1].epoch))
        low, high = span([e.accuracy for e in epochs if e.accuracy is not None])
        made["yaxis"]["range"] = [low, high + 0.2 * (high - low)]  # room for its words
    return {"data": data, "layout": made}


def roc_chart(verification: Verification) -> Figure:
    """True over false accept rate, the latter on a logarithmic axis; marks where the table tells the rate.

    In steps: a false accept rate between two points' is reached by no threshold but the lower one's.
    """
    lowest, told = _lowest(verification.pairs), sorted(verification.tar_at_far.items())
    shape: Figure = {"line": {"color": VERIFIED, "width": 2, "shape": "hv"}}
    mark: Figure = {"marker": {"color": VERIFIED, "size": 9, "symbol": "diamond"}}
    dots: Figure = {"line": {"color": LINE, "width": 1, "dash": "dot"}, "hoverinfo": "skip"}
    chance = [10 ** (d / 10) for d in range(round(10 * math.log10(lowest)), 1)]
    traces = [
        _rates("chance", "lines", [(far, 100 * far) for far in chance], dots),
        _rates("ROC", "lines", _curve(verification, lowest), shape),
        _rates("in the table", "markers", told, mark),
    ]
    return {"data": traces, "layout": _roc_layout(lowest)}


def _curve(verification: Verification, lowest: float) -> list[tuple[float, float]]:
    """(false accept rate 0..1, true accept rate in percent), rising, none below `lowest`."""
    roc = verification.roc
    points = [(far, 100 * tar) for far, tar in zip(roc.far, roc.tar, strict=False)]
    # The run thins its points; those of the table belong to the same curve.
    points = sorted([*points, *verification.tar_at_far.items()])
    # A logarithmic axis has no 0: what is accepted there holds from the axis' left end on.
    at_lowest = max((tar for far, tar in points if far <= lowest), default=0.0)
    start = [(lowest, at_lowest)] if at_lowest else []  # 0: thinned away, not told
    return start + [point for point in points if point[0] > lowest]


def _scales(count: int) -> dict[str, tuple[float, float]]:
    """Two or three scales, with room for a heading above each."""
    if count == 2:
        return {"yaxis": (0.54, 1), "yaxis3": (0, 0.42)}
    return {"yaxis": (0.66, 1), "yaxis2": (0.34, 0.57), "yaxis3": (0, 0.25)}


def _line(series: Series, x: list[int], axis: str) -> Figure:
    number = "%{y:.2f}" if series.unit else "%{y:.4g}"
    return {
        "type": "scatter",
        "mode": "lines" if len(x) > 1 else "markers",
        "name": series.name,
        "showlegend": False,
        "x": x,
        "y": series.values,
        "yaxis": axis,
        "line": {"color": series.colour, "width": 2},
        "hovertemplate": f"epoch %{{x}}<br>{series.name} {number}{series.unit}<extra></extra>",
    }


def _best_mark(best: Epoch, early: bool) -> Figure:
    """A star with its accuracy, written towards the middle of the chart."""
    return {
        "type": "scatter",
        "mode": "markers+text",
        "name": "best epoch",
        "showlegend": False,
        "x": [best.epoch],
        "y": [best.accuracy],
        "text": [f"best: {percent(best.accuracy)}"],
        "textposition": "top right" if early else "top left",
        "cliponaxis": False,
        "marker": {"color": VERIFIED, "size": 11, "symbol": "star"},
        "hoverinfo": "skip",
    }


def _rates(name: str, mode: str, points: list[tuple[float, float]], style: Figure) -> Figure:
    """A trace of (false accept rate 0..1, true accept rate in percent)."""
    return {
        "type": "scatter",
        "name": name,
        "mode": mode,
        "x": [far for far, _ in points],
        "y": [tar for _, tar in points],
        "cliponaxis": False,
        "hovertemplate": "FAR %{x:.2~%}<br>TAR %{y:.2f} %<extra></extra>",
    } | style


def _lowest(pairs: int) -> float:
    """Where the axis begins: the power of ten below the rate of one impostor, three or four down.

    Half of the pairs are impostors.
    """
    return float(10 ** max(-MOST_DECADES, min(-3, math.floor(math.log10(2 / pairs)))))


def _roc_layout(lowest: float) -> Figure:
    powers = range(round(math.log10(lowest)), 1)
    ticks = {"tickvals": [10.0**p for p in powers], "ticktext": [rate(10.0**p) for p in powers]}
    made = layout("false accept rate (FAR)", 0, {"yaxis": (0, 1)})
    made["xaxis"] |= {"type": "log", "range": [powers[0], 0], **ticks}
    del made["xaxis"]["dtick"]
    made["yaxis"]["range"] = [0, 101]
    made["margin"]["r"] = 24
    made["annotations"] = [heading("true accept rate (TAR), %", 0, 1)]
    return made
