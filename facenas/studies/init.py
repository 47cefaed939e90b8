"""What macro search should start from: separable or plain layers, of 3x3 or 7x7 pixels, on pairs of classes.

"Efficient Global Neural Architecture Search", table 2: ten binary subsets of CIFAR-10. Each start grows and
prunes on each pair of classes, and what is found is trained alike and tested once.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import Any

from pydantic import Field

from facenas.errors import UserError, counted
from facenas.runs.config import RunConfig
from facenas.studies.base import Conduct, Member, Study, register, varied
from facenas.studies.findings import (
    Cell,
    Chart,
    Findings,
    Interval,
    Series,
    Table,
    mean_accuracy,
    mean_interval,
)
from facenas.studies.networks import Final, Network, Tested, accuracies_of, final, found_by

# By operation and kernel; accuracy in percent and parameters in millions, as published.
STARTS = {
    "Conv-3x3": ("plain", 3),
    "Conv-7x7": ("plain", 7),
    "Sep-3x3": ("separable", 3),
    "Sep-7x7": ("separable", 7),
}
PUBLISHED = {
    "Conv-3x3": (97.85, 0.65),
    "Conv-7x7": (97.35, 0.64),
    "Sep-3x3": (97.96, 0.23),
    "Sep-7x7": (97.73, 0.90),
}
OWN = "Sep-3x3"  # what the paper, and macro search by default, starts from


@dataclass(frozen=True)
class Found(Tested):
    """What the search from one start found on one pair of classes, and its test accuracies in percent."""

    start: str
    classes: str
    network: Network
    accuracies: list[float]

    @property
    def millions(self) -> float:
        """Of parameters."""
        return self.network.parameters / 1e6


@register("init")
class Init(Study):
    """The study: a search from each of four starts on each of `subsets` pairs of classes."""

    class Settings(Final):
        """subsets: how many pairs of classes, drawn by the seed."""

        subsets: int = Field(10, ge=1)

    title = "What a search starts from"

    def conduct(self, config: RunConfig, facts: dict[str, Any]) -> Conduct:
        """Pair by pair, a search from each start, and what they found trained alike.

        Raises UserError for another space than `plain`, and for images of too few classes.
        """
        space, found = config.space.model_dump(mode="json"), []
        if not {"operation", "kernel"} <= set(space):
            raise UserError(f"study init: a space of kind {config.space.owner.name} has no start; take plain")
        for pair in pairs(config, facts, self.settings.subsets):
            label = "-".join(map(str, pair))
            on_pair = varied(config, data={"classes": pair})
            networks = []
            for name, (operation, kernel) in STARTS.items():
                start = {"kind": config.space.owner.name, **space, "operation": operation, "kernel": kernel}
                run = yield Member(f"{label}-{name.lower()}", varied(on_pair, space=start))
                networks.append(found_by(run, name))
            run = yield final(f"{label}-final", on_pair, networks, self.settings)
            classes, accuracies = str(run.about["data"]["name"]), accuracies_of(run, networks)
            together = zip(STARTS, networks, accuracies, strict=True)
            found += [Found(start, classes, network, some) for start, network, some in together]
        return findings(found)


def pairs(config: RunConfig, facts: dict[str, Any], count: int) -> list[tuple[Any, ...]]:
    """So many pairs of classes, sorted; raises UserError where there are fewer."""
    known = config.data.classes or range(facts.get("classes", 0))
    every = list(combinations(known, 2))
    if count > len(every):
        raise UserError(
            f"study.subsets: {count} pairs of classes are asked for, but {config.data.name} has {len(every)}"
        )
    return sorted(random.Random(config.seed).sample(every, count))


def findings(found: Sequence[Found]) -> Findings:
    """Accuracy and size by start, and what each start gains over `OWN`, paired by classes."""
    by_start = {start: [one for one in found if one.start == start] for start in STARTS}
    gains = {start: gain(some, by_start[OWN]) for start, some in by_start.items() if start != OWN}
    return Findings(
        summary=tuple(_sentences(by_start, gains)),
        tables=(_starts(by_start, gains), _subsets(by_start)),
        charts=_charts(by_start),
        values={
            "subsets": [one.classes for one in by_start[OWN]],
            "accuracies": {start: [one.accuracy for one in some] for start, some in by_start.items()},
            "parameters": {start: [one.network.parameters for one in some] for start, some in by_start.items()},
            "gains": {start: one.to_json() for start, one in gains.items()},
        },
    )


ByStart = dict[str, list[Found]]


def gain(some: Sequence[Found], own: Sequence[Found]) -> Interval:
    """Points of accuracy over `own`, by pairs of the same classes."""
    return mean_interval([one.accuracy - other.accuracy for one, other in zip(some, own, strict=True)])


def _sentences(by_start: ByStart, gains: dict[str, Interval]) -> Iterator[str]:
    means = {start: fmean(one.accuracy for one in some) for start, some in by_start.items()}
    sizes = {start: fmean(one.millions for one in some) for start, some in by_start.items()}
    told = ", ".join(f"{start} {means[start]:.2f} % with {sizes[start]:.3f}M" for start in STARTS)
    pairs = counted(len(by_start[OWN]), "pair")
    yield f"On {pairs} of classes, mean test accuracy and parameters found: {told}."
    best, least = max(means, key=lambda start: means[start]), min(sizes, key=lambda start: sizes[start])
    yield f"{best} is the most accurate and {least} the smallest (paper, on CIFAR-10: {OWN} is both)."
    over = ", ".join(f"{start} {one}" for start, one in gains.items())
    yield f"Points over {OWN}, on the same classes: {over}."


def _starts(by_start: ByStart, gains: dict[str, Interval]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for start, some in by_start.items():
        accuracy, size = mean_accuracy([one.accuracy for one in some]), fmean(one.millions for one in some)
        searched = fmean(one.network.accuracy or 0.0 for one in some)
        over = str(gains[start]) if start in gains else None
        published, millions = PUBLISHED[start]
        rows.append((start, str(accuracy), over, searched, f"{size:.3f}", published, f"{millions:.2f}"))
    columns = ("test accuracy, %", f"over {OWN}, points", "in the search, %", "parameters, M")
    return Table(
        "starts",
        "By start, on average over pairs of classes",
        ("start", *columns, "paper: accuracy, %", "paper: parameters, M"),
        tuple(rows),
        "In brackets the 95 % interval by Student's t, of differences over pairs of the same classes. The "
        "paper does not say which of the two accuracies its own is; its authors searched on the test images.",
    )


def _subsets(by_start: ByStart) -> Table:
    rows = tuple(
        (one.classes, one.start, one.network.architecture.summary(), one.network.parameters, one.accuracy)
        for some in zip(*by_start.values(), strict=True)
        for one in some
    )
    columns = ("classes", "start", "network", "parameters", "test accuracy, %")
    return Table("subsets", "Pair by pair", columns, rows)


def _charts(by_start: ByStart) -> tuple[Chart, ...]:
    def column(some: Sequence[Found], name: str) -> tuple[float, ...]:
        return tuple(float(getattr(one, name)) for one in some)

    each = tuple(
        Series(
            start,
            column(some, "millions"),
            column(some, "accuracy"),
            text=tuple(f"{one.classes}: {one.network.architecture.summary()}" for one in some),
        )
        for start, some in by_start.items()
    )
    means = []
    for start, some in by_start.items():
        size, mean = fmean(column(some, "millions")), mean_accuracy(column(some, "accuracy"))
        low, high = (None if end is None else (end,) for end in (mean.low, mean.high))
        means.append(Series(start, (size,), (mean.value,), "marks", low, high))
    published, millions = zip(*PUBLISHED.values(), strict=True)
    paper = Series(
        "paper (CIFAR-10)", millions, published, text=tuple(f"paper: {start}" for start in PUBLISHED)
    )
    axes = ("parameters, M", "test accuracy, %")
    return (
        Chart("means", "On average", *axes, (*means, paper), log_x=True),
        Chart("each", "Each network found", *axes, each, log_x=True),
    )
