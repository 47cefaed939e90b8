"""The charts of a bench: ROC, scores of genuine and impostor pairs, CMC.

All thinning and counting is done here, so that a page holds a few hundred points whatever the number of
pairs; every point kept is exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facenas.evaluation.benches.result import BenchResult
from facenas.evaluation.metrics.roc import roc_points
from facenas.report.figures import LINE, Figure, heading, layout
from facenas.report.phases import PHASES
from facenas.report.wording import percent

CURVE = PHASES["ops"].colour
COLOURS = {"genuine": PHASES["depth"].colour, "impostor": PHASES["width"].colour}
DASHES = {"genuine": "solid", "impostor": "dot"}
BINS = 80  # of scores, at most
POINTS = 400  # of a curve, at most
LINEAR_RANKS = 50  # more of them are shown on a logarithmic axis

Scores = NDArray[np.float64]
Kinds = NDArray[np.bool_]


def bench_figures(outcome: BenchResult) -> Iterator[tuple[str, Figure]]:
    """The charts that the outcome has the values for, by kind: roc, scores, cmc."""
    scores, same = outcome.scores, outcome.same
    if scores is not None and same is not None and len(same):
        if same.any() and not same.all():
            yield "roc", roc_chart(scores, same, outcome.to_json().get("tar_at_far", {}))
        yield "scores", score_chart(scores, same, outcome.to_json().get("threshold_cosine"))
    if outcome.cmc is not None and len(outcome.cmc):
        yield "cmc", cmc_chart(outcome.cmc)


def roc_chart(scores: Scores, same: Kinds, told: Mapping[Any, float]) -> Figure:
    """True over false accept rate, on a logarithmic axis that begins at the rate of one impostor.

    `told`: true accept rates (0..1) by false accept rate, marked where the axis reaches them. In steps: a
    rate between two points' is reached by no threshold but the lower one's.
    """
    one = float(
        f"{1 / np.count_nonzero(~same):.6g}"
    )  # of the impostors, rounded as `roc_points` does
    lowest = min(one, 0.1)
    marks = sorted((float(far), 100 * tar) for far, tar in told.items() if float(far) >= lowest)
    # The curve is thinned; those told lie on it all the same.
    curve = sorted([*_curve(scores, same, lowest), *marks])
    made = _layout("false accept rate (FAR)", "true accept rate (TAR), %")
    made["xaxis"] |= _powers(lowest)
    made["yaxis"]["range"] = _up_to_all(curve[0][1])
    line: Figure = {"line": {"color": CURVE, "width": 2, "shape": "hv"}}
    mark: Figure = {"marker": {"color": CURVE, "size": 9, "symbol": "diamond"}}
    hover = "FAR %{x:.3g}<br>TAR %{y:.2f} %<extra></extra>"
    traces = [
        _trace("ROC", "lines", curve, hover) | line,
        _trace("in the table", "markers", marks, hover) | mark,
    ]
    return {"data": [trace for trace in traces if trace["x"]], "layout": made}


def score_chart(scores: Scores, same: Kinds, threshold: float | None) -> Figure:
    """How scores are spread, each kind of pair in percent of its own number; the threshold between them."""
    edges = _edges(scores)
    made = _layout("score (cosine similarity)", "share of pairs, %")
    made["yaxis"]["rangemode"] = "nonnegative"
    kinds = (("impostor", scores[~same]), ("genuine", scores[same]))
    data = [_spread(kind, mine, edges) for kind, mine in kinds if len(mine)]
    if threshold is not None:
        data.append(_threshold(threshold, max(max(trace["y"]) for trace in data)))
    return {"data": data, "layout": made}


def cmc_chart(cmc: Scores) -> Figure:
    """Share of probes whose person is among the `k` most alike of the gallery, over k = 1, 2, ..."""
    ranks = np.arange(1, len(cmc) + 1)
    logarithmic = len(cmc) > LINEAR_RANKS
    if len(cmc) > POINTS:
        ranks = np.unique(np.geomspace(1, len(cmc), POINTS).round().astype(int))
    points = list(zip(ranks.tolist(), (100 * cmc[ranks - 1]).tolist(), strict=True))
    made = _layout("rank", "found among the first, %", len(cmc))
    made["yaxis"]["range"] = _up_to_all(points[0][1])
    if logarithmic:
        made["xaxis"] |= {"type": "log", "dtick": 1}
    style: Figure = {"line": {"color": CURVE, "width": 2}, "marker": {"color": CURVE, "size": 6}}
    hover = "rank %{x}<br>found %{y:.2f} %<extra></extra>"
    mode = "lines" if logarithmic else "lines+markers"
    return {"data": [_trace("CMC", mode, points, hover) | style], "layout": made}


def _curve(scores: Scores, same: Kinds, lowest: float) -> list[tuple[float, float]]:
    """(false accept rate 0..1, true accept rate in percent), rising; the first at `lowest`."""
    points = list(zip(*roc_points(scores, same, POINTS), strict=True))
    # A logarithmic axis has no 0: what is accepted without a false accept begins at its left end.
    start = max(tar for far, tar in points if far <= lowest)
    rest = [(far, tar) for far, tar in points if far > lowest]
    return [(far, 100 * tar) for far, tar in [(lowest, start), *rest]]


def _layout(x_title: str, y_title: str, marks: int = POINTS) -> Figure:
    """Of one scale; `marks`: how many whole numbers the lower axis has, when it is of whole numbers."""
    made = layout(x_title, marks, {"yaxis": (0, 1)})
    made["margin"]["r"] = 24
    return made | {"annotations": [heading(y_title, 0, 1)]}


def _powers(lowest: float) -> Figure:
    """A logarithmic axis from `lowest` to 1, its ticks at powers of ten."""
    powers = range(math.ceil(math.log10(lowest)), 1)
    return {
        "type": "log",
        "range": [math.log10(lowest), 0],
        "tickvals": [10.0**p for p in powers],
        "ticktext": ["1" if p == 0 else f"10<sup>−{-p}</sup>" for p in powers],
    }


def _up_to_all(lowest: float) -> list[float]:
    """The range of an axis in percent, from a little below `lowest` to a little above 100."""
    room = max(100 - lowest, 1.0)
    return [max(0.0, 100 - 1.1 * room), 100 + 0.03 * room]


def _edges(scores: Scores) -> Scores:
    """Of at most `BINS` bins as wide as 1, 2 or 5 times a power of ten, around all scores."""
    low, high = float(scores.min()), float(scores.max())
    least = max((high - low) / (BINS - 4), 0.001)
    power = 10.0 ** math.floor(math.log10(least))
    width = next(step * power for step in (1, 2, 5, 10) if step * power >= least)
    first, last = math.floor(low / width) - 1, math.floor(high / width) + 2  # 0 at both ends
    return np.asarray(np.arange(first, last + 1) * width)


def _spread(kind: str, scores: Scores, edges: Scores) -> Figure:
    """A histogram as a filled line in steps; told apart by its dashes too, not by colour alone."""
    counts = np.histogram(scores, edges)[0]
    shares = 100 * counts / len(scores)
    words = [
        f"score {low:.3g} to {high:.3g}<br>{count:,} {kind} pairs ({percent(float(share))})"
        for low, high, count, share in zip(edges, edges[1:], counts, shares, strict=False)
    ]
    centres = ((edges[:-1] + edges[1:]) / 2).round(6)
    points = list(zip(centres.tolist(), shares.tolist(), strict=True))
    line = {"color": COLOURS[kind], "width": 2, "shape": "hvh", "dash": DASHES[kind]}
    style: Figure = {"line": line, "fill": "tozeroy", "fillcolor": COLOURS[kind] + "38"}
    trace = _trace(f"{kind} pairs", "lines", points, "%{text}<extra></extra>")
    return trace | style | {"text": words}


def _threshold(threshold: float, top: float) -> Figure:
    """A line up to `top` percent, named in the legend: words beside it would lie on the curves."""
    line: Figure = {"line": {"color": LINE, "width": 2, "dash": "dash"}, "hoverinfo": "skip"}
    name = f"threshold {threshold:.3f}"
    return _trace(name, "lines", [(threshold, 0.0), (threshold, top)], "") | line


def _trace(name: str, mode: str, points: Sequence[tuple[float, float]], hover: str) -> Figure:
    return {
        "type": "scatter",
        "name": name,
        "mode": mode,
        "x": [x for x, _ in points],
        "y": [round(y, 4) for _, y in points],
        "cliponaxis": False,
        "hovertemplate": hover,
    }
