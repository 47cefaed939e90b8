"""What was measured on a bench, named as people name it, beside what others published."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from facenas.evaluation.benches import HQ
from facenas.evaluation.benches.result import BenchResult, PeopleResult, RankResult, TemplateResult


@dataclass(frozen=True)
class Measure:
    """One figure of a bench in percent; `key` as published rows call it; std over the folds, if any."""

    key: str
    label: str
    value: float
    std: float | None = None


@dataclass(frozen=True)
class Published:
    """What a publication prints for a measure, in percent; `difference`: ours less theirs, in points.

    comparable: whether ours is of the official pairs or images, so that the difference may be told.
    """

    model: str
    source: str
    value: float
    difference: float
    comparable: bool = True

    @property
    def told(self) -> float | None:
        """The difference, where it means something."""
        return self.difference if self.comparable else None


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


def measures(result: BenchResult) -> Iterator[Measure]:
    """All of a result that publications print too: accuracy, TAR as the peers read it, ranks."""
    if result.accuracy is not None:
        std = None if result.std is None else 100 * result.std
        yield Measure("accuracy", "accuracy", 100 * result.accuracy, std)
    if isinstance(result, PeopleResult):
        yield Measure("fnmr", f"FNMR at an FMR of {100 * result.fmr.value:.3g} %", 100 * result.fnmr.value)
    for listed in rates(result):
        if listed.nearest is not None:
            key = f"tar_at_nearest_far@{listed.name}"
            yield Measure(key, f"TAR at FAR {listed.name}", listed.nearest)
    for k, share in result.rank.items():
        yield Measure(f"rank_{k}", f"rank {k}", 100 * share)
    if isinstance(result, RankResult):
        yield Measure("map", "mean average precision", 100 * result.map)


def rates(result: BenchResult) -> Iterator[Rate]:
    """The true accept rates of a result, the smallest false accept rate first."""
    for far in sorted({*result.tar_at_far, *result.tar_at_nearest_far}):
        both = (result.tar_at_far.get(far), result.tar_at_nearest_far.get(far))
        yield Rate(far, *(None if tar is None else 100 * tar for tar in both))


def identification(result: BenchResult) -> Iterator[tuple[str, float, float | None]]:
    """1:N identification of templates in percent: (what, mean over the galleries, as the peers merge them)."""
    if isinstance(result, TemplateResult):
        found = [(f"rank {k}", one, result.merged.get(f"rank_{k}")) for k, one in result.rank.items()]
        recall = result.merged.get("recall_by_share", {})
        tpir = result.tpir_at_fpir.items()
        found += [(f"TPIR at FPIR {far:g}", one, recall.get(far)) for far, one in tpir]
        for label, share, merged in found:
            yield label, 100 * share, None if merged is None else 100 * merged


def rows(result: BenchResult) -> Iterator[Row]:
    """The measures that are published of this bench; the first of all when none is."""
    found = [Row(one, _published(result, one)) for one in measures(result)]
    yield from [row for row in found if row.published] or found[:1]


def average(results: Sequence[BenchResult]) -> float | None:
    """Mean accuracy in percent over the five benches of high quality; None when one of them is missing."""
    found = {one.bench.name: one.accuracy for one in results if one.accuracy is not None}
    return 100 * sum(found[name] for name in HQ) / len(HQ) if found.keys() >= set(HQ) else None


def _published(result: BenchResult, measure: Measure) -> tuple[Published, ...]:
    rows = [row for row in result.bench.published if measure.key in row.values]
    found = [(row, 100 * row.values[measure.key]) for row in rows]
    comparable = not result.warnings
    listed = [Published(row.name, row.source, v, measure.value - v, comparable) for row, v in found]
    return tuple(sorted(listed, key=lambda one: -one.value))
