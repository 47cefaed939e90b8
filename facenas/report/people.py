"""What was found of one's own people, in words and rows: for the page and for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from facenas.evaluation.benches.people import NORM
from facenas.evaluation.benches.result import Calibrated, GroupTable, PeopleResult, QualityColumn
from facenas.evaluation.metrics.groups import LEAST_PEOPLE, Gap, GroupRate
from facenas.evaluation.metrics.people import Rate
from facenas.report.format import NBSP, count, fixed, listed

_OF_NORM = {
    "follows": "the norm follows quality for this network",
    "contradicts": "the norm goes against quality for this network: do not choose images by it",
    "unclear": "within chance: the norm tells nothing of quality for this network",
}
_OF_COLUMN = {
    "follows": "it tells which pairs go wrong",
    "contradicts": "pairs that have the least of it go wrong less often",
    "unclear": "within chance",
}


@dataclass(frozen=True)
class GroupPart:
    """One kind of error of a column's groups: its name, rates, and what they come to, in a sentence."""

    error: str
    rates: tuple[GroupRate, ...]
    summary: str

    @property
    def heading(self) -> str:
        """Of its column in a table."""
        return f">{self.error}, %"

    @property
    def by_group(self) -> dict[str, GroupRate]:
        """The rates by the names of their groups."""
        return {one.group: one for one in self.rates}


def page(found: PeopleResult) -> dict[str, Any]:
    """What the page says, beside its charts."""
    return {
        "summary": summary(found),
        "points": found.points,
        "calibration": found.calibration and calibration(found.calibration),
        "qualities": list(qualities(found)),
        "groups": [(table.column, list(group_parts(table)), group_rows(table)) for table in found.groups],
    }


def share(value: float) -> str:
    """A fraction in percent, three digits: 0.0012345 -> 0.123."""
    return f"{100 * value:.3g}".replace("e-0", "e-")


def interval(rate: Rate) -> str:
    """A rate in percent with its 95 % interval: 1.2 (0.8 to 1.7)."""
    return f"{share(rate.value)} ({share(rate.low)} to {share(rate.high)})"


def summary(found: PeopleResult) -> str:
    """What the threshold comes to."""
    return (
        f"At the threshold of {fixed(found.threshold_cosine, '.3f')}: FMR {interval(found.fmr)}{NBSP}%, FNMR "
        f"{interval(found.fnmr)}{NBSP}%; of {count(found.impostors)} pairs of two people and "
        f"{count(found.genuine)} of one, {count(found.people)} people in all."
    )


def calibration(found: Calibrated) -> str:
    """How far the probabilities can be trusted."""
    others = [f"{name} {cost:.3f}" for name, cost in found.cllr.items() if name != found.method]
    return (
        f"Probabilities by {found.method} calibration, of people it was not fitted on: Cllr "
        f"{found.cllr[found.method]:.3f} bits ({listed(others)}), calibration error "
        f"{share(found.reliability.error)} points."
    )


def quality(found: QualityColumn, fnmr: float) -> str:
    """Whether a column, or the norm, tells which genuine pairs are rejected; `fnmr`: of those with it known."""
    name, words = ("The embedding's norm", _OF_NORM) if found.name == NORM else (found.name, _OF_COLUMN)
    beside = f"; rank correlation with the norm {fixed(found.with_norm)}" if found.with_norm is not None else ""
    if found.discard.change is None:
        return f"{name}: too few different values to leave out a fifth of the pairs{beside}."
    change, low, high = (100 * one for one in found.discard.change)
    return (
        f"{name}: without the {share(found.discard.share)}{NBSP}% of genuine pairs that have the least of it, "
        f"the FNMR goes from {share(fnmr)} to {share(fnmr + change / 100)}{NBSP}% ({fixed(change, '+.2f')} "
        f"points, {fixed(low, '+.2f')} to {fixed(high, '+.2f')}): {words[found.discard.verdict]}{beside}."
    )


def qualities(found: PeopleResult) -> Iterator[str]:
    """`quality` of every column."""
    for one in found.quality:
        yield quality(one, float(one.discard.rate[0]))


def group_parts(table: GroupTable) -> Iterator[GroupPart]:
    """FNMR and FMR, as far as there are pairs."""
    for error, rates, gap in (("FNMR", table.fnmr, table.fnmr_gap), ("FMR", table.fmr, table.fmr_gap)):
        if rates:
            yield GroupPart(error, rates, _gap_words(rates, gap))


def group_rows(table: GroupTable) -> list[dict[str, Any]]:
    """Every group, with how many people are in pairs within it."""
    people: dict[str, int] = {}
    for one in (*table.fnmr, *table.fmr):
        people[one.group] = max(one.rate.people, people.get(one.group, 0))
    return [{"group": group, "people": number} for group, number in sorted(people.items())]


def verdict(one: GroupRate, rates: Sequence[GroupRate]) -> str:
    """What a group's rate is beside that of the others."""
    if one.rate.people < LEAST_PEOPLE:
        return f"fewer than {LEAST_PEOPLE} people: not ranked"
    if one.p is None:
        return "no other group to compare with"
    if not one.differs:
        return "within chance"
    others = [other.rate for other in rates if other is not one and other.p is not None]
    mean = sum(rate.errors for rate in others) / sum(rate.pairs for rate in others)
    return "higher than the others" if one.rate.value > mean else "lower than the others"


def _gap_words(rates: Sequence[GroupRate], gap: Gap | None) -> str:
    if gap is None:
        return f"Fewer than two groups have {LEAST_PEOPLE} people or more: nothing is compared."
    by_name = {one.group: one.rate.value for one in rates}
    high, low = share(by_name[gap.highest]), share(by_name[gap.lowest])
    ends = f"highest in {gap.highest} ({high}{NBSP}%), lowest in {gap.lowest} ({low}{NBSP}%)"
    ratio = "no ratio, as the lowest has no error"
    if gap.ratio:
        ratio = f"{gap.ratio[0]:.2f} times as high ({gap.ratio[1]:.2f} to {gap.ratio[2]:.2f})"
    apart = [one.group for one in rates if one.differs]
    judged = "all differences are within chance"
    if apart:
        judged = f"{listed(apart)} differ{'s' * (len(apart) == 1)} from the others by more than chance"
    return f"{ends}: {ratio}; {judged}."
