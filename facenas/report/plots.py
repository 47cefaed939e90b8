"""The charts of all pages: plotly figures as plain dictionaries.

What all charts share (background, margins, legend, colors of text and grid) is set in `page.js`. Words that
come from a run are escaped, because plotly reads its texts as HTML. Curves are thinned here, so that a page
holds a few hundred points whatever the number of pairs; every point kept is exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facenas.evaluation.benches.result import Calibrated, QualityColumn
from facenas.evaluation.metrics.calibration import Reliability
from facenas.evaluation.metrics.groups import GroupRate
from facenas.evaluation.metrics.roc import roc_points
from facenas.report import front as fronts
from facenas.report.drawing import brief
from facenas.report.format import count, exactly, many, percent, rate, titled
from facenas.report.front import Beside, Front, Growth, RankCheck, Valued
from facenas.report.read import Epoch, Trial, Verification, phases, stages
from facenas.studies.findings import Chart, finite

Figure = dict[str, Any]
Point = tuple[float, float | None]
Scores = NDArray[np.float64]

LINE, FAILED = "#868c94", "#d04545"  # legible on light and on dark
# 3:1 or more on the light and on the dark page; symbols too, so that nothing hangs on color alone.
COLORS = ("#3b7fd0", "#cf7a1c", "#159a83", "#c2559f", "#8368d8", "#748a1d", "#b8654f", "#4a8fa5")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "hexagon")
BLUE, ORANGE, GREEN = COLORS[:3]
PARAMETERS = "parameters"
MOST_NAMED = 10  # phases in a legend
WIDE = 20  # an axis whose largest value is this often the smallest is logarithmic
FAINTEST = 0.3  # opacity of a search's first candidates
BINS = 80  # of scores
POINTS = 400  # of a curve, at most
LINEAR_RANKS = 50  # more of them are shown on a logarithmic axis
MOST_CLASSES = 20  # in a confusion matrix with numbers in its cells


def color(index: int) -> str:
    """The color of the phase that appeared as number `index`, from 0."""
    return COLORS[index % len(COLORS)]


# Searches.


def course_plot(trials: Sequence[Trial], accuracy: str) -> Figure:
    """Accuracy and parameters over trials, colored by phase.

    What follows a baseline is compared with it alone (macro-micro search: brief trainings), so a second stage
    is read on an axis of its own, at the right: one scale would flatten both.
    """
    staged, shown = stages(trials), phases(trials)
    axis = {t.trial: "y3" if number else "y" for number, s in enumerate(staged) for t in s}
    judged = {y: [t for t in trials if axis[t.trial] == y and not t.failed] for y in ("y", "y3")}
    spans = {y: _span([t.accuracy for t in some]) for y, some in judged.items()}
    traces = [_best_so_far(stage, axis[stage[0].trial]) for stage in staged]
    for index, phase in enumerate(shown):
        marker = {"color": color(index), "symbol": SYMBOLS[index % len(SYMBOLS)]}
        for y, some in judged.items():
            mine = [(t, t.accuracy) for t in some if t.phase == phase.name]
            style = {"marker": {**marker, "size": 8}, "showlegend": len(shown) <= MOST_NAMED}
            traces.append(_trials(phase.name, mine, yaxis=y, **style))
        sized = [(t, t.values[PARAMETERS] / 1e6) for t in phase.trials if PARAMETERS in t.values]
        style = {"marker": {**marker, "size": 6}, "showlegend": False}
        traces.append(_trials(phase.name, sized, yaxis="y2", **style))
    # On the floor: their accuracy of 0 would squeeze all the others.
    failed = [(t, spans["y"][0]) for t in trials if t.failed]
    cross = {"symbol": "x", "size": 9, "color": FAILED}
    traces.append(_trials("failed", failed, marker=cross, cliponaxis=False))
    sizes = ["parameters, millions"] * any(PARAMETERS in t.values for t in trials)
    made = _layout("trial", f"{accuracy}, %", *sizes, whole=len(trials))
    made["yaxis"]["range"] = spans["y"]
    if sizes:  # lower than the other
        made["yaxis"]["domain"], made["yaxis2"]["domain"] = [0.42, 1], [0, 0.34]
    if len(staged) > 1:
        right = {"overlaying": "y", "side": "right", "tickmode": "sync", "tickformat": ".1f"}
        made["yaxis3"] = {"title": {"text": "after the baseline, %"}, "range": spans["y3"], **right}
        made["shapes"] = [_line_at(stage[0].trial - 0.5, LINE) for stage in staged[1:]]
    return _figure(traces, made)


def _best_so_far(stage: Sequence[Trial], axis: str) -> Figure:
    ok = [t for t in stage if not t.failed]
    best = np.maximum.accumulate([t.accuracy for t in ok] or [0.0]).tolist()
    points = [(t.trial, y) for t, y in zip(ok, best, strict=False)]
    line = {"shape": "hv", "width": 1.5, "color": LINE}
    return _trace("best so far", "lines", points, line=line, yaxis=axis, showlegend=axis == "y")


def _trials(name: str, marks: Sequence[tuple[Trial, float]], **style: Any) -> Figure:
    """A mark for every trial, which tells all about it when pointed at."""
    hover = [_told(t, {k: v for k, v in t.values.items() if k == PARAMETERS}) for t, _ in marks]
    points = [(t.trial, y) for t, y in marks]
    return _trace(escape(name), "markers", points, hover, legendgroup=escape(name), **style)


def _told(trial: Trial, costs: Mapping[str, float]) -> str:
    budget = many(trial.epochs, "epoch") if trial.epochs else "not trained alone"
    judged = f"accuracy {percent(trial.accuracy)}, {budget}"
    lines = [
        ": ".join(filter(None, [trial.phase, trial.reason_proposed])),
        brief(trial.network),
        f"failed: {trial.reason or 'no reason'}" if trial.failed else judged,
        *(exactly(name, value) for name, value in costs.items() if name != "error"),
        ": ".join(filter(None, [trial.decision, trial.note])),
        "trained ahead (speculative)" if trial.speculative else "",
    ]
    return "<br>".join([f"<b>trial {trial.trial}</b>", *(escape(line) for line in lines if line)])


def front_plot(front: Front, cost: str) -> Figure:
    """Error over `cost`: the front, the other candidates that did not fail, a ring around the one picked."""
    run, best = front.run, [(member.trial, member.values) for member in front.members]
    ids = {member.id for member in front.members}
    others = [t for t in fronts.candidates(run) if t.trial not in ids]
    rest = list(fronts.objectives_of(run, others, front.objectives))
    above = [one for one in rest if any(one[1][name] > most for name, most in front.limits.items())]
    kept = [one for one in rest if one not in above]
    order = {phase.name: number for number, phase in enumerate(phases(run.trials), start=1)}
    # Grey, the more opaque the later the phase.
    shades = [FAINTEST + (1 - FAINTEST) * order[t.phase] / len(order) for t, _ in kept]
    grey = {"color": [f"rgba(134,140,148,{shade:.2f})" for shade in shades], "size": 7}
    cross = {"color": FAILED, "symbol": "x-thin-open", "size": 8}
    diamond = {"color": ORANGE, "symbol": "diamond", "size": 10}
    ring = {"symbol": "circle-open", "size": 20, "color": ORANGE, "line": {"width": 2.5}}
    # What error can be had at what cost; members that are good at another cost lie above the line.
    pairs = sorted((values[cost], values["error"]) for _, values in best)
    lowest = [pair for i, pair in enumerate(pairs) if all(pair[1] < e for _, e in pairs[:i])]
    line = {"color": ORANGE, "width": 2, "shape": "hv"}
    traces = [
        _valued("other candidates, fainter when earlier", kept, cost, marker=grey),
        _valued("above a limit", above, cost, marker=cross),
        _trace("lowest error", "lines", lowest, line=line, showlegend=False),
        _valued("the front", best, cost, marker=diamond),
        _valued("shown below", best[:1], cost, marker=ring, meta="ring", hoverinfo="skip"),
    ]
    made = _layout(titled(cost), titled("error", " by the supernet’s weights" * run.supernet))
    for axis, name in (("xaxis", cost), ("yaxis", "error")):
        made[axis] |= _scale([values[name] for _, values in [*best, *rest]], name)
    if cost in front.limits:
        made["shapes"] = [_line_at(front.limits[cost], FAILED)]
    return _figure(traces, made)


def _valued(name: str, chosen: Sequence[Valued], cost: str, **style: Any) -> Figure:
    """A mark for each candidate, which knows its trial's number."""
    points = [(values[cost], values["error"]) for _, values in chosen]
    numbers = [trial.trial for trial, _ in chosen]
    hover = [_told(*one) for one in chosen]
    return _trace(name, "markers", points, hover, customdata=numbers, **style)


def _scale(values: Sequence[float], name: str) -> Figure:
    """Range and ticks; logarithmic when the values lie far apart."""
    ticks = {"tickformat": "~g" if name in ("error", "latency") else "~s"}
    ticks |= {"ticksuffix": "B"} if name == "memory" else {}
    if values and 0 < WIDE * min(values) < max(values):
        low, high = _span([math.log10(one) for one in values])
        every = "D2" if high - low < 2.5 else 1  # 1, 2 and 5 of each decade, or 1 alone
        return {"type": "log", "range": [low, high], "dtick": every, **ticks}
    return {"range": _span(values), **ticks}


def hypervolume_plot(own: Sequence[Growth], beside: Beside | None, name: str) -> Figure:
    """The share dominated after each phase, over the candidates judged so far."""
    traces = [_growth(name, own, ORANGE, "diamond", "solid")]
    if beside:
        traces.append(_growth(beside.label, beside.growth, BLUE, "circle", "dash"))
    return _figure(traces, _layout("candidates", "hypervolume", rangemode="tozero"))


def _growth(name: str, found: Sequence[Growth], shade: str, symbol: str, dash: str) -> Figure:
    points = [(one.judged, one.hypervolume) for one in found]
    hover = [
        f"{escape(one.phase)}: {one.hypervolume:.4f}<br>{many(one.judged, 'candidate')}, "
        f"{one.members} on the front"
        for one in found
    ]
    style = {"line": {"color": shade, "width": 2, "dash": dash}}
    style |= {"marker": {"color": shade, "symbol": symbol, "size": 8}}
    return _trace(escape(name), "lines+markers", points, hover, **style)


def rank_plot(check: RankCheck) -> Figure:
    """Accuracy by the supernet's weights over that of training alone; a numbered mark for every network."""
    points = [(one.alone.accuracy, one.shared.accuracy) for one in check.ranked]
    hover = [
        f"<b>network {number}</b><br>{escape(brief(one.alone.network))}<br>by the supernet "
        f"{percent(one.shared.accuracy)}, rank {one.rank_shared}<br>trained alone "
        f"{'failed' if one.alone.failed else percent(one.alone.accuracy)}, rank {one.rank_alone}"
        for number, one in enumerate(check.ranked, start=1)
    ]
    style = {"marker": {"color": ORANGE, "size": 10}, "textposition": "top center"}
    marks = _trace("networks", "markers+text", points, hover, showlegend=False, **style)
    marks |= {"hovertext": hover, "hovertemplate": "%{hovertext}<extra></extra>"}
    marks["text"] = [str(n + 1) for n in range(len(points))]
    made = _layout("accuracy of training alone, %", "accuracy by the supernet’s weights, %")
    return _figure([marks], made)


# Studies.


def chart_plot(chart: Chart) -> Figure:
    """Any chart of a study: lines with bands, marks with error bars."""
    traces: list[Figure] = []
    for index, one in enumerate(chart.series):
        shade, name = color(index), escape(one.name)
        points = list(zip(one.x, one.y, strict=True))
        hover: str | list[str] = f"{name}: %{{x}}, %{{y:.4g}}"
        if one.text:
            hover = [f"{escape(t)}<br>{x:.6g}, {y:.4g}" for t, (x, y) in zip(one.text, points, strict=True)]
        style: Figure = {"marker": {"color": shade, "symbol": SYMBOLS[index % len(SYMBOLS)], "size": 8}}
        mode = "markers"
        if one.kind == "line":
            mode, style = "lines" if len(points) > 1 else "markers", {"line": {"color": shade, "width": 2}}
        if one.low and one.high and one.kind == "line":
            band = [ends for ends in zip(one.x, one.low, one.high, strict=True) if np.isfinite(ends).all()]
            around = [*((x, high) for x, _, high in band), *((x, low) for x, low, _ in reversed(band))]
            red, green, blue = (int(shade[i : i + 2], 16) for i in (1, 3, 5))
            fill: Figure = {"fill": "toself", "fillcolor": f"rgba({red},{green},{blue},0.15)"}
            fill["line"] = {"width": 0}
            traces.append(_trace(name, "lines", around, showlegend=False, **fill))
        elif one.low and one.high:
            bars = zip(one.y, one.low, one.high, strict=True)
            up, down = zip(*((finite(high - y), finite(y - low)) for y, low, high in bars), strict=True)
            style["error_y"] = {"type": "data", "symmetric": False, "array": up, "arrayminus": down}
        traces.append(_trace(name, mode, points, hover, **style))
    places = [x for one in chart.series for x in one.x]
    whole = 0 if chart.log_x or any(x % 1 for x in places) else int(max(places, default=0))
    made = _layout(chart.x, chart.y, whole=whole)
    made["xaxis"] |= {"type": "log"} if chart.log_x else {}
    return _figure(traces, made)


# Trainings.


def training_plot(
    epochs: Sequence[Epoch],
    best: Epoch | None = None,
    judged_by: str = "verification accuracy",
    learned: str = "training accuracy",
) -> Figure:
    """What was measured at every epoch, one scale above the other; the `best` epoch is marked on the first.

    judged_by, learned: what accuracies on held-out and on training images are, in words.
    """
    measured = (
        ("accuracy", judged_by, " %", GREEN),
        ("train_accuracy", learned, " %", BLUE),
        ("train_loss", "training loss", "", ORANGE),
    )
    drawn = [one for one in measured if any(getattr(e, one[0]) is not None for e in epochs)]
    # In two lines: a third of the chart's height is less than "verification accuracy, %" is long.
    names = (name.replace(" ", "<br>") + ", %" * bool(unit) for _, name, unit, _ in drawn)
    made = _layout("epoch", *names, whole=len(epochs))
    traces, mode = [], "lines" if len(epochs) > 1 else "markers"
    for axis, (key, name, unit, shade) in zip(_axes(drawn), drawn, strict=True):
        points: list[Point] = [(e.epoch, getattr(e, key)) for e in epochs]
        hover = f"epoch %{{x}}<br>{name} %{{y:{'.2f' if unit else '.4g'}}}{unit}"
        line = {"color": shade, "width": 2}
        traces.append(_trace(name, mode, points, hover, yaxis=axis, line=line, showlegend=False))
        made[axis.replace("y", "yaxis")]["rangemode"] = "nonnegative"  # zeros alone begin at -1
    if best:
        star = {"color": GREEN, "size": 11, "symbol": "star"}
        name = f"best: {percent(best.accuracy)} after epoch {best.epoch}"
        traces.append(_trace(name, "markers", [(best.epoch, best.accuracy)], marker=star))
    return _figure(traces, made)


def confusion_plot(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> Figure:
    """True classes down, predicted ones across; shaded by the share of the true class, numbers are images."""
    table, names = np.array(confusion), [escape(name) for name in classes]
    shares = 100 * table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    heat: Figure = {"type": "heatmap", "x": names, "y": names, "z": shares.round(2).tolist()}
    clear, faint = "rgba(59,127,208,0)", "rgba(59,127,208,0.18)"
    heat |= {"colorscale": [[0, clear], [0.02, faint], [1, BLUE]], "zmin": 0, "zmax": 100}
    heat |= {"showscale": False, "xgap": 1, "ygap": 1, "customdata": table.tolist()}
    words = "%{y}, predicted as %{x}<br>%{customdata:,} images, %{z:.2f} %"
    heat |= {"hovertemplate": f"{words}<extra></extra>"}
    if len(classes) <= MOST_CLASSES:
        numbers = [[str(n or "") for n in row] for row in confusion]
        heat |= {"text": numbers, "texttemplate": "%{text}"}
    made = _layout("predicted class", "true class", type="category", showgrid=False)
    made["yaxis"] |= {"type": "category", "showgrid": False, "autorange": "reversed"}
    return _figure([heat], made)


# Rates and scores.


def verification_roc(verification: Verification) -> Figure:
    """The ROC that a face training kept, with the rates of its table; half of the pairs are impostors."""
    return _roc(
        verification.roc["far"],
        verification.roc["tar"],
        verification.tar_at_far,
        verification.pairs / 2,
    )


def roc_plot(scores: Scores, same: NDArray[np.bool_], drawn: Mapping[Any, float]) -> Figure:
    """True over false accept rate of scored pairs, on a logarithmic axis from the rate of one impostor on.

    drawn: true accept rates (0..1) by false accept rate, marked where the axis reaches them.
    """
    rates = {float(far): 100 * tar for far, tar in drawn.items()}
    return _roc(*roc_points(scores, same, POINTS), rates, int(np.count_nonzero(~same)))


def _roc(far: Iterable[float], tar: Iterable[float], drawn: Mapping[float, float], impostors: float) -> Figure:
    """Of rates 0..1 and `told` in percent. In steps: a rate between two points' is reached by no threshold but
    the lower one's.
    """
    lowest = min(float(f"{1 / impostors:.6g}"), 0.1)  # rounded as `roc_points` does
    marks = sorted((far, tar) for far, tar in drawn.items() if far >= lowest)
    # The curve is thinned; the marks lie on it all the same.
    points = sorted([*((f, 100 * t) for f, t in zip(far, tar, strict=True)), *marks])
    # A logarithmic axis has no 0: what is accepted without a false accept begins at its left end.
    start = max((tar for far, tar in points if far <= lowest), default=0.0)
    steps = [(lowest, start)] * (start > 0) + [point for point in points if point[0] > lowest]
    made = _layout("false accept rate (FAR)", "true accept rate (TAR), %", type="log")
    ticks = [10.0**p for p in range(math.ceil(math.log10(lowest) - 1e-9), 1)]
    made["xaxis"] |= {"tickvals": ticks, "ticktext": [rate(tick) for tick in ticks]}
    made["xaxis"]["range"], made["yaxis"]["range"] = [math.log10(lowest), 0], _up_to_all(start)
    hover, line = "FAR %{x:.3~%}<br>TAR %{y:.2f} %", {"color": GREEN, "width": 2, "shape": "hv"}
    marker = {"color": GREEN, "size": 9, "symbol": "diamond"}
    traces = [
        _trace("ROC", "lines", steps, hover, line=line, cliponaxis=False),
        _trace("in the table", "markers", marks, hover, marker=marker, cliponaxis=False),
    ]
    if start < 50:  # else it lies below the axis
        chance = [(one, 100 * one) for one in np.geomspace(lowest, 1, 41).tolist()]
        dots = {"color": LINE, "width": 1, "dash": "dot"}
        traces.insert(0, _trace("chance", "lines", chance, line=dots))
    return _figure(traces, made)


def score_plot(scores: Scores, same: NDArray[np.bool_], threshold: float | None) -> Figure:
    """How scores are spread, each kind of pair in percent of its own number; the threshold between them."""
    # One bin more at both ends, which no score falls into: the outlines begin and end at 0.
    width = max(float(np.ptp(scores)), 0.001) / (BINS - 3)
    edges = scores.min() + width * (np.arange(BINS + 1) - 1.5)
    kinds = (("impostor", ~same, ORANGE, "dot"), ("genuine", same, BLUE, "solid"))
    traces = [_spread(kind, scores[of], edges, *style) for kind, of, *style in kinds if of.any()]
    if threshold is not None:
        # Named in the legend: words beside it would lie on the curves.
        ends = [(threshold, 0.0), (threshold, max(max(trace["y"]) for trace in traces))]
        line = {"color": LINE, "width": 2, "dash": "dash"}
        traces.append(_trace(f"threshold {threshold:.3f}", "lines", ends, line=line))
    made = _layout("score (cosine similarity)", "share of pairs, %")
    made["yaxis"]["rangemode"] = "nonnegative"
    return _figure(traces, made)


def _spread(kind: str, scores: Scores, edges: Scores, shade: str, dash: str) -> Figure:
    """A histogram as a filled line in steps; told apart by its dashes too, not by color alone."""
    counts = np.histogram(scores, edges)[0].tolist()
    shares = [100 * number / len(scores) for number in counts]
    hover = [
        f"score {low:.3g} to {high:.3g}<br>{count(number)} {kind} pairs ({percent(share)})"
        for low, high, number, share in zip(edges, edges[1:], counts, shares, strict=False)
    ]
    points = zip(((edges[:-1] + edges[1:]) / 2).round(6).tolist(), shares, strict=True)
    style: Figure = {"line": {"color": shade, "width": 2, "shape": "hvh", "dash": dash}}
    style |= {"fill": "tozeroy", "fillcolor": shade + "38"}
    return _trace(f"{kind} pairs", "lines", points, hover, **style)


def cmc_plot(cmc: Scores) -> Figure:
    """Share of probes whose person is among the `k` most alike of the gallery, over k = 1, 2, ..."""
    ranks, logarithmic = np.arange(1, len(cmc) + 1), len(cmc) > LINEAR_RANKS
    if len(cmc) > POINTS:
        ranks = np.unique(np.geomspace(1, len(cmc), POINTS).round().astype(int))
    points = list(zip(ranks.tolist(), (100 * cmc[ranks - 1]).tolist(), strict=True))
    axis = {"type": "log", "dtick": 1} if logarithmic else {}
    made = _layout("rank", "found among the first, %", whole=len(cmc), **axis)
    made["yaxis"]["range"] = _up_to_all(points[0][1])
    style = {"line": {"color": GREEN, "width": 2}, "marker": {"color": GREEN, "size": 6}}
    mode, hover = "lines" if logarithmic else "lines+markers", "rank %{x}<br>found %{y:.2f} %"
    traces = [_trace("CMC", mode, points, hover, showlegend=False, cliponaxis=False, **style)]
    return _figure(traces, made)


# One's own people.


def reliability_plot(found: Reliability) -> Figure:
    """How often pairs of a probability are genuine; larger marks hold more pairs. On the diagonal: as told."""
    points = list(zip((100 * found.probability).tolist(), (100 * found.genuine).tolist(), strict=True))
    sizes = (8 + 22 * np.sqrt(found.weight)).round(1).tolist()
    hover = [
        f"told {percent(told)}<br>genuine {percent(is_so)}<br>{percent(100 * weight)} of the pairs"
        for (told, is_so), weight in zip(points, found.weight.tolist(), strict=True)
    ]
    dots: Figure = {"color": LINE, "width": 1, "dash": "dot"}
    marks = _trace("pairs", "markers", points, hover, marker={"color": BLUE, "size": sizes}, cliponaxis=False)
    traces = [_trace("as told", "lines", [(0, 0), (100, 100)], line=dots), marks]
    made = _layout("probability told, %", "share that is genuine, %", range=[0, 100])
    made["yaxis"]["range"] = [0, 100]
    return _figure(traces, made)


def probability_plot(found: Calibrated) -> Figure:
    """The probability that two images show one person, over their score."""
    points = list(zip(found.scores.tolist(), (100 * found.probabilities).tolist(), strict=True))
    hover = "score %{x:.3f}<br>probability %{y:.2f} %"
    line = {"color": GREEN, "width": 2}
    made = _layout("score (cosine similarity)", "probability of one person, %")
    made["yaxis"]["range"] = [0, 100]
    return _figure([_trace("P", "lines", points, hover, line=line, showlegend=False)], made)


def discard_plot(columns: Sequence[QualityColumn]) -> Figure:
    """FNMR over the share of genuine pairs left out, those of least quality first."""
    traces = []
    for index, one in enumerate(columns):
        name = escape(one.name)
        points = [
            (100 * out, 100 * rate)
            for out, rate in zip(one.discard.discarded.tolist(), one.discard.rate.tolist(), strict=True)
        ]
        hover = f"{name}: without %{{x:.0f}} %<br>FNMR %{{y:.3g}} %"
        dash = ("solid", "dash", "dot", "dashdot")[index % 4]
        traces.append(
            _trace(name, "lines", points, hover, line={"color": color(index), "width": 2, "dash": dash})
        )
    made = _layout("genuine pairs of least quality left out, %", "FNMR, %", range=[0, 100])
    made["yaxis"]["rangemode"] = "tozero"
    return _figure(traces, made)


def groups_plot(rates: Sequence[GroupRate], error: str) -> Figure:
    """A group's rate with its interval on each line; orange diamonds differ by more than chance."""
    kinds = (
        ("differs from the others", ORANGE, "diamond", [one for one in rates if one.differs]),
        ("within chance", BLUE, "circle", [one for one in rates if one.p is not None and not one.differs]),
        ("not compared", LINE, "circle-open", [one for one in rates if one.p is None]),
    )
    traces = []
    for name, shade, symbol, some in kinds:
        ends = [(100 * (one.rate.high - one.rate.value), 100 * (one.rate.value - one.rate.low)) for one in some]
        up, down = zip(*ends, strict=True) if ends else ((), ())
        bars = {"type": "data", "symmetric": False, "array": up, "arrayminus": down}
        points = [(100 * one.rate.value, None) for one in some]
        words = [f"{escape(one.group)}: {percent(100 * one.rate.value)}" for one in some]
        style = {"marker": {"color": shade, "symbol": symbol, "size": 10}, "error_x": bars, "cliponaxis": False}
        traces.append(
            _trace(name, "markers", points, words, **style) | {"y": [escape(one.group) for one in some]}
        )
    made = _layout(f"{error}, %", "", rangemode="tozero")
    every = [escape(one.group) for one in rates]
    made["yaxis"] = {"type": "category", "categoryarray": every[::-1], "automargin": True}
    return _figure(traces, made)


# What all charts have in common.


def _up_to_all(lowest: float) -> list[float]:
    """The range of an axis in percent, from a little below `lowest` to a little above 100."""
    room = max(100 - lowest, 1.0)
    return [max(0.0, 100 - 1.1 * room), 100 + 0.03 * room]


def _figure(traces: Sequence[Figure], layout: Figure) -> Figure:
    return {"data": [trace for trace in traces if trace["x"]], "layout": layout}


def _trace(
    name: str, mode: str, points: Iterable[Point], hover: str | Sequence[str] = "", **style: Any
) -> Figure:
    """hover: a template, or words for each point; nothing when there are none."""
    x, y = zip(*points, strict=True) if (points := list(points)) else ((), ())
    values = [None if finite(value) is None else round(value, 6) for value in y]
    trace = {"type": "scatter", "name": name, "mode": mode, "x": [finite(value) for value in x], "y": values}
    if not hover:
        return {**trace, "hoverinfo": "skip", **style}
    template = hover if isinstance(hover, str) else "%{text}"
    words = {} if isinstance(hover, str) else {"text": list(hover)}
    return {**trace, "hovertemplate": f"{template}<extra></extra>", **words, **style}


def _layout(x_title: str, *titles: str, whole: int = 0, **x_axis: Any) -> Figure:
    """Scales one above the other over one axis, of `whole` whole numbers (0: of others)."""
    few = {"dtick": 1} if 0 < whole <= 10 else {}  # else plotly would put ticks at halves
    made: Figure = {"xaxis": {"title": {"text": x_title}, **few, **x_axis}}
    axes = _axes(titles)
    for axis, title in zip(axes, titles, strict=True):
        made[axis.replace("y", "yaxis")] = {"title": {"text": title}}
    made["grid"] = {"rows": len(axes), "columns": 1, "subplots": [[f"x{axis}"] for axis in axes]}
    return made


def _axes(scales: Sequence[Any]) -> list[str]:
    """Plotly's names of the axes of so many scales: y, y2, y3."""
    return ["y", *(f"y{n}" for n in range(2, len(scales) + 1))][: len(scales)]


def _line_at(x: float, shade: str) -> Figure:
    line = {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": x, "x1": x}
    return line | {"line": {"color": shade, "width": 1, "dash": "dot"}}


def _span(values: Sequence[float]) -> list[float]:
    """An axis range with room around `values`; 0 to 100 when there are none."""
    if not values:
        return [0.0, 100.0]
    room = 0.08 * (max(values) - min(values)) or 1.0
    return [min(values) - room, max(values) + room]
