"""The charts of both pages: plotly figures as plain dictionaries.

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

from facenas.evaluation.metrics.roc import roc_points
from facenas.report.drawing import brief
from facenas.report.format import amount, count, exactly, many, percent, rate, titled
from facenas.report.front import (
    Beside,
    Front,
    Growth,
    RankCheck,
    Valued,
    candidates,
    objectives_of,
)
from facenas.report.read import Epoch, Trial, Verification, phases, stages

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
BINS = 80  # of scores, at most
POINTS = 400  # of a curve, at most
LINEAR_RANKS = 50  # more of them are shown on a logarithmic axis
MOST_DECADES = 4  # of the false accept rates of a run's ROC, from 1 down
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
    first, later = (
        [t.accuracy for t in trials if axis[t.trial] == y and not t.failed] for y in ("y", "y3")
    )
    traces = [_best_so_far(stage, axis[stage[0].trial]) for stage in staged]
    for index, phase in enumerate(shown):
        marker = {"color": color(index), "symbol": SYMBOLS[index % len(SYMBOLS)]}
        named = len(shown) <= MOST_NAMED
        for y in ("y", "y3"):
            mine = [(t, t.accuracy) for t in phase.trials if axis[t.trial] == y and not t.failed]
            traces.append(
                _trials(phase.name, mine, yaxis=y, marker={**marker, "size": 8}, showlegend=named)
            )
        sized = [(t, t.values[PARAMETERS] / 1e6) for t in phase.trials if PARAMETERS in t.values]
        small = {**marker, "size": 6}
        traces.append(_trials(phase.name, sized, yaxis="y2", marker=small, showlegend=False))
    # On the floor: their accuracy of 0 would squeeze all the others.
    failed = [(t, _span(first)[0]) for t in trials if t.failed]
    cross = {"symbol": "x", "size": 9, "color": FAILED}
    traces.append(_trials("failed", failed, marker=cross, cliponaxis=False))
    scales = [f"{accuracy}, %"] + ["parameters, millions"] * any(
        PARAMETERS in t.values for t in trials
    )
    made = _layout("trial", *scales, whole=len(trials), right=44)
    made["yaxis"]["range"] = _span(first)
    if "yaxis2" in made:  # lower than the other
        made["yaxis"]["domain"], made["yaxis2"]["domain"] = [0.46, 1], [0, 0.34]
        made["annotations"][1]["y"] = 0.34
    if len(staged) > 1:
        right = {"overlaying": "y", "side": "right", "tickmode": "sync", "tickformat": ".1f"}
        made["yaxis3"] = right | {"range": _span(later)}
        made["annotations"].append(_heading("after the baseline, %", 1, 1))
        made["shapes"] = [_line_at(stage[0].trial - 0.5, LINE) for stage in staged[1:]]
    return _figure(traces, made)


def _best_so_far(stage: Sequence[Trial], axis: str) -> Figure:
    ok = [t for t in stage if not t.failed]
    best = np.maximum.accumulate([t.accuracy for t in ok]).tolist() if ok else []
    points = [(t.trial, y) for t, y in zip(ok, best, strict=True)]
    line = {"shape": "hv", "width": 1.5, "color": LINE}
    return _trace("best so far", "lines", points, line=line, yaxis=axis, showlegend=axis == "y")


def _trials(name: str, marks: Sequence[tuple[Trial, float]], **style: Any) -> Figure:
    """A mark for every trial, which tells all about it when pointed at."""
    hover = [
        _told(t, *(exactly(n, t.values[n]) for n in (PARAMETERS,) if n in t.values))
        for t, _ in marks
    ]
    points = [(t.trial, y) for t, y in marks]
    return _trace(escape(name), "markers", points, hover, legendgroup=escape(name), **style)


def _told(trial: Trial, *facts: str) -> str:
    budget = many(trial.epochs, "epoch") if trial.epochs else "not trained alone"
    judged = f"accuracy {percent(trial.accuracy)}, {budget}"
    lines = [
        ": ".join(filter(None, [trial.phase, trial.reason_proposed])),
        brief(trial.network),
        f"failed: {trial.reason or 'no reason'}" if trial.failed else judged,
        *facts,
        ": ".join(filter(None, [trial.decision, trial.note])),
        "trained ahead (speculative)" if trial.speculative else "",
    ]
    return "<br>".join([f"<b>trial {trial.trial}</b>", *(escape(line) for line in lines if line)])


def front_plot(front: Front, cost: str) -> Figure:
    """Error over `cost`: the front, the other candidates that did not fail, a ring around the one picked."""
    best = [(member.trial, member.values) for member in front.members]
    ids = {member.id for member in front.members}
    others = [t for t in candidates(front.run) if t.trial not in ids]
    rest = list(objectives_of(front.run, others, front.objectives))
    above = [one for one in rest if any(one[1][name] > most for name, most in front.limits.items())]
    kept = [one for one in rest if one not in above]
    order = {phase.name: number for number, phase in enumerate(phases(front.run.trials), start=1)}
    # Grey, the more opaque the later the phase.
    shades = [FAINTEST + (1 - FAINTEST) * order[t.phase] / len(order) for t, _ in kept]
    grey = {"color": [f"rgba(134,140,148,{shade:.2f})" for shade in shades], "size": 7}
    ring = {"symbol": "circle-open", "size": 20, "color": ORANGE, "line": {"width": 2.5}}
    # What error can be had at what cost; members that are good at another cost lie above the line.
    pairs = sorted((values[cost], values["error"]) for _, values in best)
    lowest = [pair for i, pair in enumerate(pairs) if all(pair[1] < e for _, e in pairs[:i])]
    line = {"color": ORANGE, "width": 2, "shape": "hv"}
    traces = [
        _valued("other candidates, fainter when earlier", kept, cost, marker=grey),
        _valued(
            "above a limit",
            above,
            cost,
            marker={"color": FAILED, "symbol": "x-thin-open", "size": 8},
        ),
        _trace("lowest error", "lines", lowest, line=line, showlegend=False),
        _valued("the front", best, cost, marker={"color": ORANGE, "symbol": "diamond", "size": 10}),
        _valued("shown below", best[:1], cost, marker=ring, meta="ring", hoverinfo="skip"),
    ]
    made = _layout(titled(cost), titled("error", " by the supernet’s weights" * front.run.supernet))
    made["xaxis"] |= _scale([values[cost] for _, values in [*best, *rest]], cost)
    made["yaxis"] |= _scale([values["error"] for _, values in [*best, *rest]], "error")
    if cost in front.limits:
        made["shapes"] = [_line_at(front.limits[cost], FAILED)]
    return _figure(traces, made)


def _valued(name: str, chosen: Sequence[Valued], cost: str, **style: Any) -> Figure:
    """A mark for each candidate, which knows its trial's number."""
    hover = [
        _told(t, *(exactly(k, v) for k, v in values.items() if k != "error"))
        for t, values in chosen
    ]
    points = [(values[cost], values["error"]) for _, values in chosen]
    numbers = [trial.trial for trial, _ in chosen]
    return _trace(name, "markers", points, hover, customdata=numbers, **style)


def _scale(values: Sequence[float], name: str) -> Figure:
    """Range and ticks; logarithmic when the values lie far apart."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    plain = name in ("error", "latency")
    if not 0 < WIDE * low < high:
        ticks = {} if plain else {"tickformat": "~s", "ticksuffix": "B" * (name == "memory")}
        return {"range": _span(values), **ticks}
    room = 0.06 * math.log10(high / low)
    ends = [math.log10(low) - room, math.log10(high) + room]
    width = ends[1] - ends[0]
    digits = (1, 2, 5) if width < 1.6 else (1, 3) if width < 2.8 else (1,)
    decades = range(math.floor(ends[0]), math.ceil(ends[1]) + 1)
    at = [digit * 10.0**power for power in decades for digit in digits]
    words = [f"{tick:g}" if plain else amount(name, tick) for tick in at]
    return {"type": "log", "range": ends, "tickvals": at, "ticktext": words}


def hypervolume_plot(own: Sequence[Growth], beside: Beside | None, name: str) -> Figure:
    """The share dominated after each phase, over the candidates judged so far."""
    traces = [_growth(name, own, ORANGE, "diamond", "solid")]
    if beside:
        traces.append(_growth(beside.label, beside.growth, BLUE, "circle", "dash"))
    made = _layout("candidates", "hypervolume")
    made["xaxis"]["rangemode"] = "tozero"
    return _figure(traces, made)


def _growth(name: str, found: Sequence[Growth], shade: str, symbol: str, dash: str) -> Figure:
    hover = [
        f"{escape(one.phase)}: {one.hypervolume:.4f}<br>{many(one.judged, 'candidate')}, "
        f"{one.members} on the front"
        for one in found
    ]
    line, marker = (
        {"color": shade, "width": 2, "dash": dash},
        {"color": shade, "symbol": symbol, "size": 8},
    )
    points = [(one.judged, one.hypervolume) for one in found]
    return _trace(escape(name), "lines+markers", points, hover, line=line, marker=marker)


def rank_plot(check: RankCheck) -> Figure:
    """Accuracy by the supernet's weights over that of training alone; a numbered mark for every network."""
    points = [(one.alone.accuracy, one.shared.accuracy) for one in check.ranked]
    hover = [
        f"<b>network {number}</b><br>{escape(brief(one.alone.network))}<br>by the supernet "
        f"{percent(one.shared.accuracy)}, rank {one.rank_shared}<br>trained alone "
        f"{'failed' if one.alone.failed else percent(one.alone.accuracy)}, rank {one.rank_alone}"
        for number, one in enumerate(check.ranked, start=1)
    ]
    marks = _trace("networks", "markers+text", points, textposition="top center", cliponaxis=False)
    marks |= {
        "text": [str(n + 1) for n in range(len(points))],
        "marker": {"color": ORANGE, "size": 10},
    }
    marks |= {
        "hovertext": hover,
        "hovertemplate": "%{hovertext}<extra></extra>",
        "showlegend": False,
    }
    made = _layout("accuracy of training alone, %", "accuracy by the supernet’s weights, %")
    made["xaxis"]["range"], made["yaxis"]["range"] = (_span(v) for v in zip(*points, strict=True))
    return _figure([marks], made)


# Trainings.


def training_plot(epochs: Sequence[Epoch], best: Epoch | None = None) -> Figure:
    """What was measured at every epoch, one scale above the other; the `best` epoch is marked on the first."""
    measured = (
        ("accuracy", "verification accuracy", " %", GREEN),
        ("train_accuracy", "training accuracy", " %", BLUE),
        ("train_loss", "training loss", "", ORANGE),
    )
    told = [one for one in measured if any(getattr(e, one[0]) is not None for e in epochs)]
    made = _layout(
        "epoch", *(name + (", %" * bool(unit)) for _, name, unit, _ in told), whole=len(epochs)
    )
    traces, mode = [], "lines" if len(epochs) > 1 else "markers"
    for number, (key, name, unit, shade) in enumerate(told, start=1):
        points: list[Point] = [(e.epoch, getattr(e, key)) for e in epochs]
        hover = f"epoch %{{x}}<br>{name} %{{y:{'.2f' if unit else '.4g'}}}{unit}"
        line, axis = {"color": shade, "width": 2}, f"y{number if number > 1 else ''}"
        traces.append(_trace(name, mode, points, hover, yaxis=axis, line=line, showlegend=False))
        made[axis.replace("y", "yaxis")]["rangemode"] = (
            "nonnegative"  # else zeros alone begin at -1
        )
    if best:
        low, high = _span([e.accuracy for e in epochs if e.accuracy is not None])
        made["yaxis"]["range"] = [low, high + 0.2 * (high - low)]  # room for the star's words
        side = "right" if 2 * best.epoch <= epochs[-1].epoch else "left"
        star = _trace("best epoch", "markers+text", [(best.epoch, best.accuracy)], showlegend=False)
        star |= {"text": [f"best: {percent(best.accuracy)}"], "textposition": f"top {side}"}
        traces.append(
            star | {"marker": {"color": GREEN, "size": 11, "symbol": "star"}, "cliponaxis": False}
        )
    return _figure(traces, made)


def confusion_plot(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> Figure:
    """True classes down, predicted ones across; shaded by the share of the true class, numbers are images."""
    table, names = np.array(confusion, dtype=np.float64), [escape(name) for name in classes]
    heat: Figure = {
        "type": "heatmap",
        "x": names,
        "y": names,
        "z": (100 * table / np.maximum(table.sum(axis=1, keepdims=True), 1)).round(2).tolist(),
        "customdata": table.astype(int).tolist(),
        "colorscale": [[0, "rgba(59,127,208,0)"], [0.02, "rgba(59,127,208,0.18)"], [1, BLUE]],
        **{"zmin": 0, "zmax": 100, "showscale": False, "xgap": 1, "ygap": 1},
        "text": [[str(n or "") for n in row] for row in confusion],
        "texttemplate": "%{text}" if len(classes) <= MOST_CLASSES else "",
        "hovertemplate": "%{y}, predicted as %{x}<br>%{customdata:,} images, %{z:.2f} %<extra></extra>",
    }
    made = _layout("predicted class", "true class")
    made["xaxis"] |= {"type": "category", "showgrid": False}
    made["yaxis"] |= {"type": "category", "showgrid": False, "autorange": "reversed"}
    return _figure([heat], made)


# Rates and scores.


def verification_roc(verification: Verification) -> Figure:
    """The ROC that a face training kept, with the rates of its table and what chance would give."""
    # Half of the pairs are impostors; the axis begins below the rate of one of them.
    decades = math.floor(math.log10(2 / verification.pairs))
    lowest = float(10 ** max(-MOST_DECADES, min(-3, decades)))
    rates = zip(verification.roc.far, verification.roc.tar, strict=False)
    marks = sorted(verification.tar_at_far.items())
    figure = _roc([(far, 100 * tar) for far, tar in rates], marks, lowest)
    chance = [
        (10 ** (d / 10), 10 ** (d / 10 + 2)) for d in range(round(10 * math.log10(lowest)), 1)
    ]
    dots = {"color": LINE, "width": 1, "dash": "dot"}
    figure["data"].insert(0, _trace("chance", "lines", chance, line=dots))
    figure["layout"]["yaxis"]["range"] = [0, 101]
    return figure


def roc_plot(scores: Scores, same: NDArray[np.bool_], told: Mapping[Any, float]) -> Figure:
    """True over false accept rate of scored pairs, on a logarithmic axis from the rate of one impostor on.

    told: true accept rates (0..1) by false accept rate, marked where the axis reaches them.
    """
    one = float(f"{1 / np.count_nonzero(~same):.6g}")  # rounded as `roc_points` does
    curve = [(far, 100 * tar) for far, tar in zip(*roc_points(scores, same, POINTS), strict=True)]
    return _roc(curve, sorted((float(far), 100 * tar) for far, tar in told.items()), min(one, 0.1))


def _roc(
    curve: Iterable[tuple[float, float]], marks: Iterable[tuple[float, float]], lowest: float
) -> Figure:
    """Points of (false accept rate 0..1, true accept rate in percent). In steps: a rate between two points' is
    reached by no threshold but the lower one's.
    """
    marks = [mark for mark in marks if mark[0] >= lowest]
    points = sorted([*curve, *marks])  # the curve is thinned; the marks lie on it all the same
    # A logarithmic axis has no 0: what is accepted without a false accept begins at its left end.
    start = max((tar for far, tar in points if far <= lowest), default=0.0)
    steps = [(lowest, start)] * (start > 0) + [point for point in points if point[0] > lowest]
    made = _layout("false accept rate (FAR)", "true accept rate (TAR), %", right=24)
    ticks = [10.0**p for p in range(math.ceil(math.log10(lowest) - 1e-9), 1)]
    made["xaxis"] |= {"type": "log", "range": [math.log10(lowest), 0]}
    made["xaxis"] |= {"tickvals": ticks, "ticktext": [rate(tick) for tick in ticks]}
    made["yaxis"]["range"] = _up_to_all(start)
    hover, line = "FAR %{x:.3~%}<br>TAR %{y:.2f} %", {"color": GREEN, "width": 2, "shape": "hv"}
    marker = {"color": GREEN, "size": 9, "symbol": "diamond"}
    traces = [
        _trace("ROC", "lines", steps, hover, line=line, cliponaxis=False),
        _trace("in the table", "markers", marks, hover, marker=marker, cliponaxis=False),
    ]
    return _figure(traces, made)


def score_plot(scores: Scores, same: NDArray[np.bool_], threshold: float | None) -> Figure:
    """How scores are spread, each kind of pair in percent of its own number; the threshold between them."""
    made = _layout("score (cosine similarity)", "share of pairs, %", right=24)
    made["yaxis"]["rangemode"] = "nonnegative"
    edges, kinds = (
        _edges(scores),
        (("impostor", ~same, ORANGE, "dot"), ("genuine", same, BLUE, "solid")),
    )
    traces = [_spread(kind, scores[of], edges, *style) for kind, of, *style in kinds if of.any()]
    if threshold is not None:
        # Named in the legend: words beside it would lie on the curves.
        ends = [(threshold, 0.0), (threshold, max(max(trace["y"]) for trace in traces))]
        line = {"color": LINE, "width": 2, "dash": "dash"}
        traces.append(_trace(f"threshold {threshold:.3f}", "lines", ends, line=line))
    return _figure(traces, made)


def _edges(scores: Scores) -> Scores:
    """Of at most `BINS` bins as wide as 1, 2 or 5 times a power of ten, around all scores."""
    low, high = float(scores.min()), float(scores.max())
    least = max((high - low) / (BINS - 4), 0.001)
    power = 10.0 ** math.floor(math.log10(least))
    width = next(step * power for step in (1, 2, 5, 10) if step * power >= least)
    first, last = math.floor(low / width) - 1, math.floor(high / width) + 2  # 0 at both ends
    return np.asarray(np.arange(first, last + 1) * width)


def _spread(kind: str, scores: Scores, edges: Scores, shade: str, dash: str) -> Figure:
    """A histogram as a filled line in steps; told apart by its dashes too, not by color alone."""
    counts = np.histogram(scores, edges)[0].tolist()
    shares = [100 * number / len(scores) for number in counts]
    hover = [
        f"score {low:.3g} to {high:.3g}<br>{count(number)} {kind} pairs ({percent(share)})"
        for low, high, number, share in zip(edges, edges[1:], counts, shares, strict=False)
    ]
    points = list(zip(((edges[:-1] + edges[1:]) / 2).round(6).tolist(), shares, strict=True))
    line, fill = {"color": shade, "width": 2, "shape": "hvh", "dash": dash}, shade + "38"
    return _trace(
        f"{kind} pairs", "lines", points, hover, line=line, fill="tozeroy", fillcolor=fill
    )


def cmc_plot(cmc: Scores) -> Figure:
    """Share of probes whose person is among the `k` most alike of the gallery, over k = 1, 2, ..."""
    ranks, logarithmic = np.arange(1, len(cmc) + 1), len(cmc) > LINEAR_RANKS
    if len(cmc) > POINTS:
        ranks = np.unique(np.geomspace(1, len(cmc), POINTS).round().astype(int))
    points = list(zip(ranks.tolist(), (100 * cmc[ranks - 1]).tolist(), strict=True))
    made = _layout("rank", "found among the first, %", whole=len(cmc), right=24)
    made["yaxis"]["range"] = _up_to_all(points[0][1])
    made["xaxis"] |= {"type": "log", "dtick": 1} if logarithmic else {}
    style = {
        "line": {"color": GREEN, "width": 2},
        "marker": {"color": GREEN, "size": 6},
        "cliponaxis": False,
    }
    mode, hover = "lines" if logarithmic else "lines+markers", "rank %{x}<br>found %{y:.2f} %"
    return _figure([_trace("CMC", mode, points, hover, showlegend=False, **style)], made)


def _up_to_all(lowest: float) -> list[float]:
    """The range of an axis in percent, from a little below `lowest` to a little above 100."""
    room = max(100 - lowest, 1.0)
    return [max(0.0, 100 - 1.1 * room), 100 + 0.03 * room]


# What all charts have in common.


def _figure(traces: Sequence[Figure], layout: Figure) -> Figure:
    return {"data": [trace for trace in traces if trace["x"]], "layout": layout}


def _trace(
    name: str, mode: str, points: Iterable[Point], hover: str | Sequence[str] = "", **style: Any
) -> Figure:
    """hover: a template, or words for each point; nothing when there are none."""
    x, y = zip(*points, strict=True) if (points := list(points)) else ((), ())
    values = [None if value is None else round(value, 6) for value in y]
    told: Figure = {"hoverinfo": "skip"}
    if hover:
        words = isinstance(hover, str)
        told = {"hovertemplate": f"{hover if words else '%{text}'}<extra></extra>"}
        told |= {} if words else {"text": list(hover)}
    return {
        "type": "scatter",
        "name": name,
        "mode": mode,
        "x": list(x),
        "y": values,
        **told,
        **style,
    }


def _layout(x_title: str, *headings: str, whole: int = 0, right: int = 16) -> Figure:
    """Scales one above the other, each with its heading, over one axis of `whole` whole numbers (0: others)."""
    gap, number = 0.13, len(headings)
    height = (1 - gap * (number - 1)) / max(number, 1)
    tops = [1 - n * (height + gap) for n in range(number)]
    made: Figure = {
        "xaxis": {"title": {"text": x_title}, "anchor": f"y{number if number > 1 else ''}"}
    }
    made["xaxis"] |= (
        {"dtick": 1} if 0 < whole <= 10 else {}
    )  # else plotly would put ticks at halves
    for n, top in enumerate(tops, start=1):
        made[f"yaxis{n if n > 1 else ''}"] = {"domain": [max(0, top - height), top]}
    made["annotations"] = [_heading(text, 0, top) for text, top in zip(headings, tops, strict=True)]
    return made | {"margin": {"l": 44, "r": right, "t": 32, "b": 40}}


def _heading(text: str, x: int, y: float) -> Figure:
    """The title of a scale, above its numbers: `x` 0 for the left one, 1 for the right one."""
    place = {"xref": "paper", "x": x, "xanchor": ("left", "right")[x], "xshift": (-34, 34)[x]}
    place |= {"yref": "paper", "y": y, "yanchor": "bottom", "yshift": 6}
    return place | {"text": text, "showarrow": False}


def _line_at(x: float, shade: str) -> Figure:
    line = {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": x, "x1": x}
    return line | {"line": {"color": shade, "width": 1, "dash": "dot"}}


def _span(values: Sequence[float]) -> list[float]:
    """An axis range with room around `values`; 0 to 100 when there are none."""
    if not values:
        return [0.0, 100.0]
    room = 0.08 * (max(values) - min(values)) or 1.0
    return [min(values) - room, max(values) + room]
