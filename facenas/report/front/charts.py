"""The chart of a front: the error of all candidates against one cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from facenas.report.figures import LINE, Figure, heading, layout, span
from facenas.report.front.costs import ERROR, exactly, titled, told
from facenas.report.front.members import Member, generation_of, points
from facenas.report.phases import PHASES
from facenas.report.records import Trial
from facenas.report.wording import percent
from facenas.strategies.pareto import Objective

FRONT, ABOVE = PHASES["width"].colour, "#d04545"
FAINTEST = 0.3  # opacity of the marks of the first generation
JUDGED = " by the supernet’s weights"
_TICKS: dict[str, Figure] = {
    ERROR: {},
    "latency": {},
    "memory": {"tickformat": "~s", "ticksuffix": "B"},
}
WIDE = 20  # an axis whose largest value is this often the smallest is logarithmic

Chosen = list[tuple[Trial, dict[str, float]]]  # candidates with their values


def front_chart(
    trials: Sequence[Trial], front: Sequence[Member], objectives: Sequence[Objective], cost: str
) -> Figure:
    """Error over `cost`: the front, the other candidates that did not fail, a ring around the one picked."""
    names = [objective.name for objective in objectives]
    best = [(member.trial, member.values) for member in front]
    numbers = {member.id for member in front}
    others = [t for t in trials if generation_of(t) and not t.failed and t.trial not in numbers]
    rows = points(others, objectives).tolist()
    rest = [(t, dict(zip(names, row, strict=True))) for t, row in zip(others, rows, strict=True)]
    limits = {objective.name: objective.limit for objective in objectives}
    above = [one for one in rest if any(one[1][name] > limits[name] for name in names)]
    kept = [one for one in rest if one not in above]
    data = [
        _marks("other candidates, fainter when earlier", kept, cost, _shades(kept)),
        _marks("above a limit", above, cost, {"color": ABOVE, "symbol": "x-thin-open", "size": 8}),
        _steps(best, cost),
        _marks("the front", best, cost, {"color": FRONT, "symbol": "diamond", "size": 10}),
        _ring(best, cost),
    ]
    return {
        "data": [trace for trace in data if trace["x"]],
        "layout": _front_layout([*best, *rest], cost, limits[cost]),
    }


def _marks(name: str, chosen: Chosen, cost: str, marker: Figure) -> Figure:
    """A mark for each, which tells all about it when pointed at and knows its trial's number."""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [values[cost] for _, values in chosen],
        "y": [values[ERROR] for _, values in chosen],
        "customdata": [trial.trial for trial, _ in chosen],
        "text": [_hover(trial, values) for trial, values in chosen],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": marker,
    }


def _shades(chosen: Chosen) -> Figure:
    """Grey, the more opaque the later the generation."""
    numbers = [generation_of(trial) or 1 for trial, _ in chosen]
    most = max(numbers, default=1)
    rgb = ",".join(str(int(LINE[i : i + 2], 16)) for i in (1, 3, 5))
    opacities = [1 - (1 - FAINTEST) * (most - number) / max(most - 1, 1) for number in numbers]
    return {"color": [f"rgba({rgb},{opacity:.2f})" for opacity in opacities], "size": 7}


def _steps(chosen: Chosen, cost: str) -> Figure:
    """What error can be had at what cost; members that are good at another cost lie above the line."""
    pairs = sorted((values[cost], values[ERROR]) for _, values in chosen)
    lowest = [pair for i, pair in enumerate(pairs) if all(pair[1] < e for _, e in pairs[:i])]
    return {
        "type": "scatter",
        "mode": "lines",
        "showlegend": False,
        "x": [x for x, _ in lowest],
        "y": [y for _, y in lowest],
        "line": {"color": FRONT, "width": 2, "shape": "hv"},
        "hoverinfo": "skip",
    }


def _ring(chosen: Chosen, cost: str) -> Figure:
    """Around the member picked, at first the most accurate; the page moves it."""
    first = [values for _, values in chosen[:1]]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "shown below",
        "meta": "ring",
        "x": [values[cost] for values in first],
        "y": [values[ERROR] for values in first],
        "hoverinfo": "skip",
        "marker": {"symbol": "circle-open", "size": 20, "color": FRONT, "line": {"width": 2.5}},
    }


def _hover(trial: Trial, values: dict[str, float]) -> str:
    costs = [exactly(name, value) for name, value in values.items() if name != ERROR]
    error = f"error {percent(values[ERROR])}" + (JUDGED if trial.shared else "")
    lines = [trial.phase, error, *costs, trial.architecture.summary()]
    return "<br>".join([f"<b>trial {trial.trial}</b>", *map(escape, lines)])


def _front_layout(shown: Chosen, cost: str, limit: float) -> Figure:
    made = layout(titled(cost), 0, {"yaxis": (0, 1)})
    del made["xaxis"]["dtick"]
    made["xaxis"] |= _scale([values[cost] for _, values in shown], cost)
    made["yaxis"] |= _scale([values[ERROR] for _, values in shown], ERROR)
    judged = any(trial.shared for trial, _ in shown)
    made["annotations"] = [heading(titled(ERROR, JUDGED if judged else ""), 0, 1)]
    made["margin"]["r"] = 20
    if limit < float("inf"):
        line: Figure = {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": limit, "x1": limit}
        made["shapes"] = [line | {"line": {"color": ABOVE, "width": 1, "dash": "dot"}}]
    return made


def _scale(values: list[float], name: str) -> Figure:
    """Range and ticks; logarithmic when the values lie far apart."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    if not 0 < WIDE * low < high:
        return {"range": span(values), **_TICKS.get(name, {"tickformat": "~s"})}
    room = 0.06 * math.log10(high / low)
    ends = [math.log10(low) - room, math.log10(high) + room]
    decades = range(math.floor(ends[0]), math.ceil(ends[1]) + 1)
    width = ends[1] - ends[0]
    digits = (1, 2, 5) if width < 1.6 else (1, 3) if width < 2.8 else (1,)
    ticks = [digit * 10.0**power for power in decades for digit in digits]
    words = [f"{tick:g}" if name in (ERROR, "latency") else told(name, tick) for tick in ticks]
    return {"type": "log", "range": ends, "tickvals": ticks, "ticktext": words}
