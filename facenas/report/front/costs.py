"""The values that a search weighs, as the page writes them. Memory is in bytes, latency in milliseconds."""

from __future__ import annotations

from collections.abc import Iterable

from facenas.report.wording import MISSING, NBSP, percent, short

ERROR = "error"
LABELS = {
    ERROR: "error",
    "parameters": "parameters",
    "macs": "MACs",
    "memory": "memory",
    "latency": "latency",
}
_UNITS = {ERROR: "%", "latency": "ms"}  # memory's stands beside every number


def label(name: str) -> str:
    """What a sentence calls it."""
    return LABELS[name]


def capitalise(words: str) -> str:
    """With a capital first letter, the others as they are."""
    return words[:1].upper() + words[1:]


def titled(name: str, how: str = "") -> str:
    """The name, `how` it was found, and the unit: latency, ms."""
    return LABELS[name] + how + (f", {_UNITS[name]}" if name in _UNITS else "")


def told(name: str, value: float | None) -> str:
    """A value of three digits with its unit: 4.21 MB."""
    if value is None:
        return MISSING
    if name == ERROR:
        return percent(value)
    if name == "latency":
        return f"{value:.3g}{NBSP}ms"
    words = short(round(value))
    if name != "memory":
        return words
    return words + ("B" if NBSP in words else f"{NBSP}B")


def exactly(name: str, value: float) -> str:
    """The same with all digits of a count: 1,234,567 parameters."""
    if name in ("parameters", "macs"):
        return f"{round(value):,} {LABELS[name]}"
    return f"{told(name, value)} {LABELS[name]}"


def listed(words: Iterable[str]) -> str:
    """error, parameters and MACs."""
    *rest, last = words
    return f"{', '.join(rest)} and {last}" if rest else last
