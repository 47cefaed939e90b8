"""The picture of tools/lfw_identification.py: two panels, as SVG that needs no other program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 880, 380
TOP, BOTTOM, PANEL = 62, 318, 350  # pixels
COLOURS = ("#1f6fb4", "#d1661c")
INK, FAINT = "#333", "#ddd"


class Trial(Protocol):
    """What is drawn: see tools/lfw_identification.py."""

    title: str
    known: NDArray[np.float32]
    unknown: NDArray[np.float32]

    def identified(self, threshold: float) -> float: ...

    def alarms(self, threshold: float) -> float: ...


@dataclass(frozen=True)
class Panel:
    """A plot with its left edge at `left` pixels. place: of an x value, 0..1 of the width."""

    left: int
    low: float  # per cent, at the bottom
    place: Callable[[float], float]

    def point(self, x: float, percent: float) -> str:
        share = (percent - self.low) / (100 - self.low)
        y = BOTTOM - (BOTTOM - TOP) * max(share, 0)
        return f"{self.left + PANEL * self.place(x):.1f},{y:.1f}"

    def line(self, xs: Sequence[float], percents: Sequence[float], colour: str, dashed: bool) -> str:
        points = " ".join(self.point(x, y) for x, y in zip(xs, percents, strict=True))
        dash = ' stroke-dasharray="6 4"' if dashed else ""
        return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>'

    def axes(self, title: str, label: str, ticks: dict[float, str], step: int) -> list[str]:
        middle = self.left + PANEL / 2
        parts = [
            text(middle, TOP - 40, title, "middle", bold=True),
            text(middle, HEIGHT - 22, label),
        ]
        for percent in range(round(self.low), 101, step):
            (x1, y), (x2, _) = (self.point(x, percent).split(",") for x in (min(ticks), max(ticks)))
            parts.append(f'<path d="M{x1} {y}H{x2}" stroke="{FAINT}"/>')
            parts.append(text(self.left - 8, float(y) + 4, f"{percent} %", "end"))
        for x, told in ticks.items():
            at = float(self.point(x, self.low).split(",")[0])
            parts.append(f'<path d="M{at} {TOP}V{BOTTOM}" stroke="{FAINT}"/>')
            parts.append(text(at, BOTTOM + 18, told))
        return parts


def text(x: float, y: float, words: str, anchor: str = "middle", bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}"{weight}>{words}</text>'


def key(left: int, y: float, colour: str, dashed: bool, words: str) -> list[str]:
    dash = ' stroke-dasharray="6 4"' if dashed else ""
    line = f'<path d="M{left} {y - 4}h26" stroke="{colour}" stroke-width="2"{dash}/>'
    return [line, text(left + 32, y, words, "start")]


def chart(trials: Sequence[Trial]) -> str:
    """Left: known people identified against false alarms; right: both against the threshold."""
    parts = [*_by_alarms(trials), *_by_threshold(trials[0])]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-size="12" '
        f'font-family="Helvetica, Arial, sans-serif" fill="{INK}">'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>'
    )
    return "\n".join([head, *parts, "</svg>\n"])


def _by_alarms(trials: Sequence[Trial]) -> list[str]:
    low = 1e-3
    panel = Panel(56, 50, lambda x: np.log10(max(x, low) / low) / -np.log10(low))
    ticks = {0.001: "0.1 %", 0.01: "1 %", 0.1: "10 %", 1.0: "100 %"}
    label = "unknown people who are given a name (FPIR)"
    parts = panel.axes("Known people identified at rank 1 (TPIR)", label, ticks, 10)
    for one, colour in zip(trials, COLOURS, strict=True):
        limits = np.quantile(one.unknown, 1 - np.geomspace(low, 1, 160))
        alarms = [one.alarms(float(limit)) for limit in limits]
        shares = [100 * one.identified(float(limit)) for limit in limits]
        kept = [i for i, alarm in enumerate(alarms) if alarm >= low]
        parts.append(panel.line([alarms[i] for i in kept], [shares[i] for i in kept], colour, False))
    for row, (one, colour) in enumerate(zip(trials, COLOURS, strict=True)):
        parts += key(240, BOTTOM - 40 + 18 * row, colour, False, f"enrolled: {one.title}")
    return parts


def _by_threshold(one: Trial) -> list[str]:
    panel = Panel(496, 0, lambda x: x / 0.8)
    ticks = {x: f"{x:.1f}" for x in (0.0, 0.2, 0.4, 0.6, 0.8)}
    parts = panel.axes(f"By threshold (enrolled: {one.title})", "threshold (cosine)", ticks, 20)
    limits = np.linspace(0, 0.8, 161).tolist()
    known = [100 * one.identified(limit) for limit in limits]
    unknown = [100 * (1 - one.alarms(limit)) for limit in limits]
    parts.append(panel.line(limits, known, COLOURS[0], False))
    parts.append(panel.line(limits, unknown, "#777", True))
    parts += key(508, TOP - 12, COLOURS[0], False, "known, right name")
    return parts + key(680, TOP - 12, "#777", True, "unknown, turned away")
