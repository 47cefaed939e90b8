"""What comes out of a study: sentences, tables and charts as plain values; and the statistics they rest on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean, stdev
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

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

    def shown(self, digits: int = 2, unit: str = "") -> str:
        """Such as `0.65 (0.49 to 0.78)`."""
        ends = "" if self.low is None else f" ({self.low:.{digits}f} to {self.high:.{digits}f})"
        return f"{self.value:.{digits}f}{unit}{ends}"

    def to_json(self) -> list[float | None]:
        """Value and ends; null where there is none."""
        return [None if v is None or math.isnan(v) else v for v in (self.value, self.low, self.high)]


@dataclass(frozen=True)
class Table:
    """name: of its files; columns: heads; a cell None is a missing value; note: what a reader must know."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""


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
    """name: of the figure on the page; log_x: whether x is shown on a logarithmic scale."""

    name: str
    title: str
    x: str
    y: str
    series: tuple[Series, ...]
    log_x: bool = False


@dataclass(frozen=True)
class Findings:
    """summary: sentences for people; values: the same as plain JSON, for programs."""

    summary: tuple[str, ...]
    tables: tuple[Table, ...] = ()
    charts: tuple[Chart, ...] = ()
    values: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        tree = asdict(self)
        return {name: tree[name] for name in ("summary", "values", "tables")}


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
    value = statistic(np.arange(count))
    found = np.array([statistic(rng.integers(count, size=count)) for _ in range(draws)])
    found = found[np.isfinite(found)]
    if not len(found):
        return Interval(value)
    low, high = np.quantile(found, [0.025, 0.975]).tolist()
    return Interval(value, low, high)


def spearman(first: ArrayLike, second: ArrayLike) -> float:
    """Spearman's rank correlation, ties sharing their mean rank; nan where one side is constant."""
    from scipy.stats import rankdata

    ranks = rankdata(first), rankdata(second)
    if any(np.ptp(rank) == 0 for rank in ranks):
        return math.nan
    return float(np.corrcoef(*ranks)[0, 1])


def kendall(first: ArrayLike, second: ArrayLike) -> float:
    """Kendall's tau-b; nan where one side is constant."""
    from scipy.stats import kendalltau

    return float(kendalltau(first, second).statistic)
