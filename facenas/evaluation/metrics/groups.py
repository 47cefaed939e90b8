"""Error rates by group at one threshold: which differ by more than chance, and by how much. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facenas.evaluation.metrics.checks import Bools
from facenas.evaluation.metrics.people import People, Rate, Z, error_rate

LEAST_PEOPLE = 10  # in a group that is ranked: variances of fewer people tell little


@dataclass(frozen=True)
class GroupRate:
    """rate: of the group; p: of so large a difference to the others by chance, Holm's; None: not ranked."""

    group: str
    rate: Rate
    p: float | None

    @property
    def differs(self) -> bool:
        """From the others, by more than chance: p below 5 %, for all groups together."""
        return self.p is not None and self.p < 0.05


@dataclass(frozen=True)
class Gap:
    """The highest and the lowest rate of the ranked groups.

    difference: of the two; ratio: (value, low, high), None where the lowest has no error.
    """

    highest: str
    lowest: str
    difference: float
    ratio: tuple[float, float, float] | None


def compare_groups(wrong: Bools, people: People, groups: Sequence[str]) -> tuple[list[GroupRate], Gap | None]:
    """Rates of the groups, sorted by name, and the gap between them; None with fewer than two that are ranked.

    wrong (n,) pairs, genuine ones or impostors; groups (n,): of both images of each pair. A group of fewer
    than ten people is told and not ranked. Each ranked group is compared with all others together by the score
    test of two shares, with the design effect of all, or its own where that is larger (Rao, Scott, "A simple
    method for the analysis of clustered binary data", 1992), and Student's t; of so many tests, Holm's
    correction keeps the chance of a single false alarm at 5 %. Groups of images, which may share people, are
    treated as if they did not.

    >>> people = np.arange(40)[:, None].repeat(2, 1)
    >>> wrong = np.arange(40) < 12
    >>> rates, gap = compare_groups(wrong, people, ["a"] * 20 + ["b"] * 20)
    >>> [(one.group, one.rate.value, one.differs) for one in rates], gap.highest, gap.difference
    ([('a', 0.6, True), ('b', 0.0, True)], 'a', 0.6)
    """
    wrong, people, names = np.asarray(wrong, bool), np.asarray(people), np.asarray(groups, str)
    found = {str(name): error_rate(wrong[names == name], people[names == name]) for name in np.unique(names)}
    ranked = [name for name, rate in found.items() if rate.people >= LEAST_PEOPLE]
    design, raw = _design_effect([found[name] for name in ranked]), []
    for name in ranked if len(ranked) > 1 else ():
        raw.append(_chance(found[name], [found[other] for other in ranked if other != name], design))
    several = holm(raw) if len(raw) > 2 else raw  # of two groups there is one comparison
    told: Mapping[str, float] = dict(zip(ranked, several, strict=False))
    rates = [GroupRate(name, rate, told.get(name)) for name, rate in found.items()]
    return rates, _gap({name: found[name] for name in ranked})


def holm(p_values: Sequence[float]) -> list[float]:
    """Each p-value corrected for their number. Source: Holm, "A simple sequentially rejective test" (1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    count, found, highest = len(p_values), [0.0] * len(p_values), 0.0
    for rank, number in enumerate(np.argsort(p_values, kind="stable").tolist()):
        highest = max(highest, min(1.0, (count - rank) * p_values[number]))
        found[number] = highest
    return found


def _design_effect(rates: Sequence[Rate]) -> float:
    """How many times as much the rates vary as those of independent pairs; 1 at least."""
    spread = [rate.value * (1 - rate.value) * rate.pairs for rate in rates]
    grown = [one * rate.pairs / rate.effective for one, rate in zip(spread, rates, strict=True)]
    return max(1.0, sum(grown) / sum(spread)) if sum(spread) else 1.0


def _chance(one: Rate, others: Sequence[Rate], design: float) -> float:
    """The p-value of the difference of a rate to that of all others together."""
    from scipy.special import stdtr  # Student's t; scipy.stats takes a second to import

    errors, pairs = sum(other.errors for other in others), sum(other.pairs for other in others)
    both = (one.errors + errors) / (one.pairs + pairs)
    if both in (0, 1):
        return 1.0
    room = 1 / _effective(one, design)
    room += sum((other.pairs / pairs) ** 2 / _effective(other, design) for other in others)
    free = one.people + sum(other.people for other in others) - 2
    return float(2 * stdtr(free, -abs(one.value - errors / pairs) / np.sqrt(both * (1 - both) * room)))


def _effective(rate: Rate, design: float) -> float:
    """Independent pairs that tell as much: by the design effect of all, or its own where that is larger."""
    most = rate.pairs / design
    return min(rate.effective, most) if 0 < rate.value < 1 else most


def _gap(rates: Mapping[str, Rate]) -> Gap | None:
    if len(rates) < 2:
        return None
    highest = max(rates, key=lambda name: rates[name].value)
    lowest = min(rates, key=lambda name: rates[name].value)
    high, low = rates[highest], rates[lowest]
    return Gap(highest, lowest, high.value - low.value, _ratio(high, low) if low.value else None)


def _ratio(high: Rate, low: Rate) -> tuple[float, float, float]:
    """With its interval by the logarithm (Katz and others, 1978), of effective counts."""
    value = high.value / low.value
    spread = Z * np.sqrt(sum((1 - one.value) / (one.effective * one.value) for one in (high, low)))
    ends: NDArray[np.float64] = value * np.exp([-spread, spread])
    return value, float(ends[0]), float(ends[1])
