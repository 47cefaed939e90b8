"""Numbers, units and times as the pages write them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from facenas.errors import counted

MISSING = "–"
NBSP = "\u00a0"  # keeps a number and its unit on one line

_LABELS = {"macs": "MACs"}
_UNITS = {"error": "%", "worst_group": "%", "group_gap": "%", "latency": "ms", "memory": "B"}


def count(value: int | None) -> str:
    """1234567 -> 1,234,567."""
    return MISSING if value is None else f"{value:,}"


def many(number: int | None, noun: str) -> str:
    """1 epoch, 2 epochs."""
    return f"{MISSING} {noun}s" if number is None else counted(number, noun)


def short(value: float | None) -> str:
    """Three digits and a unit: 409714 -> 410 k, 55342102 -> 55.3 M."""
    if value is None:
        return MISSING
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if value >= 0.9995 * size:
            return f"{value / size:.3g}{NBSP}{unit}"
    return f"{value:.3g}"


def fixed(value: float | None, form: str = ".2f") -> str:
    """A number with a typographic minus: two decimals, as papers print accuracies."""
    return MISSING if value is None else format(value, form).replace("-", "−")


def percent(value: float | None) -> str:
    """The same with its sign: 93.59 %."""
    return MISSING if value is None else f"{value:.2f}{NBSP}%"


def rate(share: float) -> str:
    """A false accept rate, 0..1, in percent of up to three digits: 0.001 -> 0.1 %, 1/150 -> 0.667 %."""
    return f"{100 * share:.3g}{NBSP}%"


def duration(seconds: float | None) -> str:
    """The two largest units: 20935 -> 5 h 49 min."""
    if seconds is None:
        return MISSING
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    if (whole := round(seconds)) < 3600:
        return f"{whole // 60} min {whole % 60} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def moment(text: str | None) -> str:
    """An ISO time to the minute."""
    return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M %Z}".strip() if text else MISSING


def ranges(numbers: Sequence[int]) -> str:
    """Rising numbers, runs of three and more joined: 1, 3, 4, 5 -> 1, 3–5."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{r[0]}–{r[-1]}" if len(r) > 2 else ", ".join(map(str, r)) for r in runs)


def listed(words: Iterable[str]) -> str:
    """error, parameters and MACs."""
    *rest, last = words
    return f"{', '.join(rest)} and {last}" if rest else last


def capitalized(words: str) -> str:
    """With a capital first letter, the others as they are."""
    return words[:1].upper() + words[1:]


def value(setting: Any) -> str:
    """A setting or fact of any type."""
    if setting is None:
        return MISSING
    if isinstance(setting, bool):
        return "yes" if setting else "no"
    if isinstance(setting, list | tuple):
        return ", ".join(map(value, setting)) or MISSING
    return str(setting)


def fact(known: Any) -> str:
    """The same of what was found, not set: counts by thousands."""
    return count(known) if type(known) is int else value(known)


def label(name: str) -> str:
    """What a sentence calls an objective: macs -> MACs."""
    return _LABELS.get(name, name.replace("_", " "))


def titled(name: str, how: str = "") -> str:
    """The title of an axis: latency, ms."""
    unit = _UNITS.get(name)  # that of memory stands beside every number
    return label(name) + how + (f", {unit}" if unit in ("%", "ms") else "")


def amount(name: str, value: float | None) -> str:
    """A value of an objective, three digits with its unit: 4.21 MB."""
    if value is None:
        return MISSING
    if _UNITS.get(name) == "%":
        return percent(value)
    if name == "latency":
        return f"{value:.3g}{NBSP}ms"
    words, unit = short(value), "B" * (name == "memory")
    return words + (unit if NBSP in words or not unit else NBSP + unit)


def exactly(name: str, value: float) -> str:
    """The same with its name and all digits of a count: 1,234,567 parameters."""
    if name in ("parameters", "macs"):
        return f"{round(value):,} {label(name)}"
    return f"{amount(name, value)} {label(name)}"
