"""What comes out of a study: sentences, tables and charts as plain values; and the statistics they rest on."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean, stdev
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facenas.errors import UserError

Cell = str | float | int | None
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval; without one where there is a single observation."""

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        return self.shown()

    @property
    def ends(self) -> tuple[float, float]:
        """Low and high; without an interval the value twice."""
        return (self.value, self.value) if self.low is None or self.high is None else (self.low, self.high)

    def shown(self, digits: int = 2, unit: str = "") -> str:
        """Such as `0.65 (0.49 to 0.78)`; `-` where the value is not defined (nan)."""
        if math.isnan(self.value):
            return "-"
        ends = "" if self.low is None else f" ({self.low:.{digits}f} to {self.high:.{digits}f})"
        return f"{self.value:.{digits}f}{unit}{ends}"

    def to_json(self) -> list[float | None]:
        """Value and ends; null where there is none."""
        return [finite(v) for v in (self.value, self.low, self.high)]


def finite(value: float | None) -> float | None:
    """The number, None in place of nan and infinity, which JSON has no words for."""
    return None if value is None or not math.isfinite(value) else value


@dataclass(frozen=True)
class Table:
    """name: of its files; columns: heads; a cell None or nan is a missing value; note: what a reader must know.

    Raises UserError for a name that is not of small letters, digits, `-` and `_`.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""

    def __post_init__(self) -> None:
        _check_name("table", self.name)


@dataclass(frozen=True)
class Series:
    """Points of a chart, all of equal length; low, high: a band or error bars; text: what each point is."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    kind: Literal["line", "marks"] = "marks"
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None
    text: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chart:
    """name: of the figure on the page, as of a table; log_x: whether x is shown on a logarithmic scale."""

    name: str
    title: str
    x: str
    y: str
    series: tuple[Series, ...]
    log_x: bool = False

    def __post_init__(self) -> None:
        _check_name("chart", self.name)


def _check_name(kind: str, name: str) -> None:
    if not re.fullmatch("[a-z0-9_-]+", name):
        raise UserError(f"{kind} {name!r}: the name should be of small letters, digits, - and _; rename it")


@dataclass(frozen=True)
class Findings:
    """summary: sentences for people; values: the same as plain JSON, for programs."""

    summary: tuple[str, ...]
    tables: tuple[Table, ...] = ()
    charts: tuple[Chart, ...] = ()
    values: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; null where a number is not finite."""
        tree = asdict(self)
        return {name: _plain(tree[name]) for name in ("summary", "values", "tables")}


def _plain(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _plain(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_plain(value) for value in tree]
    return finite(tree) if isinstance(tree, float) else tree


def mean_accuracy(values: Sequence[float]) -> Interval:
    """The mean of percentages; its interval ends at 0 and 100, beyond which that of few values may lie."""
    found = mean_interval(values)
    ends = (None if end is None else min(100.0, max(0.0, end)) for end in (found.low, found.high))
    return Interval(found.value, *ends)


def mean_interval(values: Sequence[float]) -> Interval:
    """The mean with its 95 % interval by Student's t; raises ValueError for no values."""
    if not values:
        raise ValueError("no values")
    mean = fmean(values)
    if len(values) < 2:
        return Interval(mean)
    from scipy.stats import t

    half = float(t.ppf(0.975, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def bootstrap(
    statistic: Callable[[NDArray[np.int64]], float], count: int, seed: int, draws: int = 500
) -> Interval:
    """`statistic` of all `count` observations, with the 2.5 % and 97.5 % quantiles over samples of them.

    statistic: takes numbers of observations (count,); a sample may hold one several times, and one of which
    the statistic is not defined (nan) is left out.
    """
    rng = np.random.default_rng(seed)
    value = float(statistic(np.arange(count)))
    found = np.array([statistic(rng.integers(count, size=count)) for _ in range(draws)])
    found = found[np.isfinite(found)]
    if not len(found):
        return Interval(value)
    low, high = np.quantile(found, [0.025, 0.975]).tolist()
    return Interval(value, low, high)


def spearman(first: ArrayLike, second: ArrayLike) -> Any:
    """Spearman's rank correlation along the last axis, ties by mean rank; nan where one side is constant."""
    return _cosine(*(_signs(values).sum(-1) for values in (first, second)))


def kendall(first: ArrayLike, second: ArrayLike) -> Any:
    """Kendall's tau-b along the last axis; nan where one side is constant."""
    signs = [_signs(values) for values in (first, second)]
    return _cosine(*(one.reshape(*one.shape[:-2], -1) for one in signs))


def _signs(values: ArrayLike) -> Floats:
    """(..., n, n) of (..., n): 1 where the first exceeds the second; a row's sum is 2 (rank - mean rank)."""
    values = np.asarray(values, float)
    signs: Floats = np.sign(values[..., :, None] - values[..., None, :])
    return signs


def _cosine(first: Floats, second: Floats) -> Any:
    with np.errstate(invalid="ignore"):
        return (first * second).sum(-1) / np.sqrt((first**2).sum(-1) * (second**2).sum(-1))
