"""What was measured on a bench, named as people name it, beside what others published."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from facenas.evaluation.benches import HQ
from facenas.evaluation.benches.result import BenchResult


@dataclass(frozen=True)
class Measure:
    """One figure of a bench in percent; `key` as published rows call it; std over the folds, if any."""

    key: str
    label: str
    value: float
    std: float | None = None


@dataclass(frozen=True)
class Published:
    """What a publication prints for a measure, in percent; `difference`: ours less theirs, in points."""

    model: str
    source: str
    value: float
    difference: float


@dataclass(frozen=True)
class Rate:
    """True accept rates in percent at a false accept rate (0..1): the one kept, and as the peers read it."""

    far: float
    strict: float | None
    nearest: float | None

    @property
    def name(self) -> str:
        """The false accept rate as files name it: 0.0001 -> 1e-4."""
        return f"{self.far:.0e}".replace("e-0", "e-")


@dataclass(frozen=True)
class Found:
    """A figure of 1:N identification in percent: mean over the galleries, and as the peers merge them."""

    label: str
    value: float | None
    merged: float | None


@dataclass(frozen=True)
class Row:
    """A measure and what was published of it, the best first."""

    measure: Measure
    published: tuple[Published, ...]

    @property
    def published_and_ours(self) -> list[Published]:
        """All of them with ours in its place, which has no model's name."""
        ours = Published("", "", self.measure.value, 0.0)
        better = [one for one in self.published if one.difference < 0]
        return [*better, ours, *self.published[len(better) :]]

    @property
    def telling(self) -> dict[str, Published]:
        """Of the published ones the best and the one nearest to ours, by what they are."""
        if not self.published:
            return {}
        nearest = min(self.published, key=lambda one: abs(one.difference))
        best = {"best published": self.published[0]}
        return best if nearest is self.published[0] else best | {"nearest published": nearest}


def measures(result: dict[str, Any]) -> Iterator[Measure]:
    """All of a result that publications print too: accuracy, TAR as the peers read it, ranks."""
    if "accuracy" in result:
        std = 100 * result["std"] if "std" in result else None
        yield Measure("accuracy", "accuracy", 100 * result["accuracy"], std)
    for told in rates(result):
        if told.nearest is not None:
            key = f"tar_at_nearest_far@{told.name}"
            yield Measure(key, f"TAR at FAR {told.name}", told.nearest)
    for key in (key for key in result if key.startswith("rank_")):
        yield Measure(key, key.replace("_", " "), 100 * result[key])
    if "map" in result:
        yield Measure("map", "mean average precision", 100 * result["map"])


def rates(result: dict[str, Any]) -> Iterator[Rate]:
    """The true accept rates of a result, the smallest false accept rate first."""
    strict, nearest = (
        {float(far): 100 * tar for far, tar in result.get(key, {}).items()}
        for key in ("tar_at_far", "tar_at_nearest_far")
    )
    for far in sorted({*strict, *nearest}):
        yield Rate(far, strict.get(far), nearest.get(far))


def identification(result: dict[str, Any]) -> Iterator[Found]:
    """1:N identification of templates, if it was measured: ranks, and rates at false positive rates."""
    merged = result.get("merged", {})
    for key in (key for key in result if key.startswith("rank_") and merged):
        yield Found(key.replace("_", " "), 100 * result[key], _percent(merged.get(key)))
    for rate, share in result.get("tpir_at_fpir", {}).items():
        theirs = merged.get("recall_by_share", {}).get(rate)
        yield Found(f"TPIR at FPIR {float(rate):g}", 100 * share, _percent(theirs))


def rows(outcome: BenchResult) -> Iterator[Row]:
    """The measures that are published of this bench; the first of all when none is."""
    beside = {one: tuple(_published(outcome, one)) for one in measures(outcome.to_json())}
    told = [one for one, published in beside.items() if published] or list(beside)[:1]
    for measure in told:
        yield Row(measure, beside[measure])


def average(outcomes: Sequence[BenchResult]) -> float | None:
    """Mean accuracy in percent over the five benches of high quality; None when one of them is missing."""
    results = {outcome.to_json()["bench"]: outcome.to_json() for outcome in outcomes}
    found = [results[name]["accuracy"] for name in HQ if "accuracy" in results.get(name, {})]
    return 100 * sum(found) / len(HQ) if len(found) == len(HQ) else None


def _published(outcome: BenchResult, measure: Measure) -> Iterator[Published]:
    found = []
    for row in outcome.bench.published:
        theirs = {str(key): 100 * value for key, value in row.values.items()}
        if measure.key in theirs:
            value = theirs[measure.key]
            found.append(Published(row.model, row.source, value, measure.value - value))
    yield from sorted(found, key=lambda one: -one.value)


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share
