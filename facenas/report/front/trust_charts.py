"""The charts of a supernet: its ranking against that of training alone, and its own training."""

from __future__ import annotations

from html import escape

from facenas.report.figures import Figure, heading, layout, span
from facenas.report.front.charts import FRONT
from facenas.report.front.trust import Ranked, Trust
from facenas.report.training_charts import LOSS
from facenas.report.wording import percent


def rank_chart(trust: Trust) -> Figure:
    """Accuracy by the supernet's weights over that of training alone; a numbered mark for every network."""
    alone = [one.alone.accuracy for one in trust.ranked]
    shared = [one.shared.accuracy for one in trust.ranked]
    marks: Figure = {
        "type": "scatter",
        "mode": "markers+text",
        "x": alone,
        "y": shared,
        "text": [str(one.number) for one in trust.ranked],
        "textposition": "top center",
        "cliponaxis": False,
        "hovertext": [_hover(one) for one in trust.ranked],
        "hovertemplate": "%{hovertext}<extra></extra>",
        "marker": {"color": FRONT, "symbol": "diamond", "size": 10},
    }
    made = layout("accuracy of training alone, %", 0, {"yaxis": (0, 1)})
    del made["xaxis"]["dtick"]
    made["xaxis"]["range"], made["yaxis"]["range"] = span(alone), span(shared)
    made["annotations"] = [heading("accuracy by the supernet’s weights, %", 0, 1)]
    made["margin"]["r"] = 16
    return {"data": [marks], "layout": made}


def supernet_course(trust: Trust) -> Figure:
    """The loss of the supernet's training over its epochs."""
    x = [epoch.epoch for epoch in trust.epochs]
    line: Figure = {
        "type": "scatter",
        "mode": "lines" if len(x) > 1 else "markers",
        "x": x,
        "y": [epoch.train_loss for epoch in trust.epochs],
        "line": {"color": LOSS, "width": 2},
        "hovertemplate": "epoch %{x}<br>training loss %{y:.4g}<extra></extra>",
    }
    made = layout("epoch", len(x), {"yaxis": (0, 1)})
    made["yaxis"]["rangemode"] = "tozero"
    made["annotations"] = [heading("training loss of the supernet", 0, 1)]
    made["margin"]["r"] = 16
    return {"data": [line], "layout": made}


def _hover(one: Ranked) -> str:
    words = escape(one.alone.architecture.summary())
    alone = "failed" if one.alone.failed else percent(one.alone.accuracy)
    return (
        f"<b>network {one.number}</b><br>{words}<br>by the supernet {percent(one.shared.accuracy)}, "
        f"rank {one.rank_shared}<br>trained alone {alone}, rank {one.rank_alone}"
    )
