"""How well trainings on a part of the images rank networks, and at what cost.

The same random networks are trained for the same epochs on parts of the images, one part within the next, and
on all of them; all are judged on the same images. The paper names subsets of the images as future work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from facenas.config import Config
from facenas.errors import UserError, counted
from facenas.runs import Run
from facenas.runs.config import RunConfig
from facenas.runs.journal import read_journal
from facenas.runs.search_log import read_results
from facenas.spaces import from_json
from facenas.studies.base import Conduct, Member, Study, register, strategy, varied
from facenas.studies.findings import (
    Chart,
    Findings,
    Floats,
    Interval,
    Series,
    Table,
    bootstrap,
    kendall,
    spearman,
)

Fraction = Annotated[float, Field(gt=0, lt=1)]


@dataclass(frozen=True)
class Part:
    """Networks trained on one part of the images.

    again: whether it is a second training, with other draws; accuracies: (n,) percent after the last epoch, nan
    where a training failed; images: seen by all trainings, epoch by epoch; seconds: of all trainings, one after
    another; shapes: of the networks, in words.
    """

    fraction: float
    again: bool
    accuracies: Floats
    images: int
    seconds: float
    shapes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Such as `25 %`."""
        return f"{100 * self.fraction:g} %{', again' * self.again}"


@dataclass(frozen=True)
class Agreement:
    """What a part's ranking has in common with that of all images; regret in points of accuracy."""

    part: Part
    kendall: Interval
    spearman: Interval
    regret: Interval


@register("subset")
class Subset(Study):
    """The study: `networks` random networks on every part."""

    class Settings(Config):
        """networks: how many; epochs: of each; fractions: parts of the images beside all of them.

        again: whether all images are trained on twice: no part can be expected to rank better than the second
        training; draws: samples of the networks, for the intervals.
        """

        networks: int = Field(40, ge=4)
        epochs: int = Field(12, ge=1)
        fractions: tuple[Fraction, ...] = Field((0.05, 0.1, 0.25, 0.5), min_length=1)
        again: bool = True
        draws: int = Field(500, ge=10)

    title = "How trainings on a part of the images rank networks"

    def conduct(self, config: RunConfig, facts: dict[str, Any]) -> Conduct:
        """A random search in one generation for each part; then the same networks again."""
        settings, parts = self.settings, []
        drawn = strategy("random", population=settings.networks, generations=1, epochs=settings.epochs)
        for fraction in (*sorted(set(settings.fractions)), 1.0):
            data = {"data_fraction": fraction * config.data.data_fraction}
            run = yield Member(f"images-{100 * fraction:g}", varied(config, search=drawn, data=data))
            parts.append(read_part(run, fraction))
        if settings.again:
            lines = read_journal(run.folder / "trials.jsonl")
            networks = [{"architecture": from_json(line).to_json()} for line in lines]
            twice = {"networks": networks, "epochs": settings.epochs, "repeats": 2, "judge_last": False}
            listed = strategy("listed", **twice)  # the first of each is known, by its key
            run = yield Member("again", varied(config, search=listed))
            parts.append(read_part(run, 1.0, len(networks)))
        return findings(parts, settings.epochs, settings.draws, config.seed)


def read_part(run: Run, fraction: float, skip: int = 0) -> Part:
    """From a run's journal; skip: how many trials at its start are the first training of all images."""
    results, lines = read_results(run.folder)[skip:], read_journal(run.folder / "trials.jsonl")[skip:]
    return Part(
        fraction,
        skip > 0,
        np.array([result.history[-1]["accuracy"] if result.history else np.nan for result in results]),
        sum(result.images for result in results),
        sum(result.seconds for result in results),
        tuple(from_json(line).summary() for line in lines),
    )


def findings(parts: Sequence[Part], epochs: int, draws: int, seed: int) -> Findings:
    """Agreement of every part with all images, as tables, charts and sentences.

    Raises UserError where fewer than four networks were trained on every part.
    """
    kept = np.flatnonzero(np.isfinite([part.accuracies for part in parts]).all(axis=0))
    if len(kept) < 4:
        raise UserError(
            f"only {counted(len(kept), 'network')} trained on every part, too few to rank; see failures"
        )
    whole = next(part for part in parts if part.fraction == 1)
    final = whole.accuracies[kept]
    found = [agreement(part, part.accuracies[kept], final, draws, seed) for part in parts if part is not whole]
    return Findings(
        summary=_summary(found, final, epochs),
        tables=(_table(found, whole), _networks(parts)),
        charts=(_curves(found), _scatter(found, kept, final)),
        values={
            "networks": len(kept),
            "epochs": epochs,
            "accuracies": [float(final.min()), float(final.max())],
            "all": {"images": whole.images, "seconds": whole.seconds},
            "parts": [_json(one) for one in found],
        },
    )


def agreement(part: Part, scores: Floats, final: Floats, draws: int, seed: int) -> Agreement:
    """Of (n,) scores with (n,) accuracies on all images; intervals over samples of the networks."""

    def of(measure: Callable[[Floats, Floats], float]) -> Interval:
        return bootstrap(lambda some: measure(scores[some], final[some]), len(final), seed, draws)

    return Agreement(part, of(kendall), of(spearman), of(regret))


def regret(scores: Floats, final: Floats) -> float:
    """By how much the best of `final` exceeds that of the network with the best score; of equals, the mean."""
    return float(final.max() - final[scores == scores.max()].mean())


def _summary(found: Sequence[Agreement], final: Floats, epochs: int) -> tuple[str, ...]:
    taus = ", ".join(f"{one.kendall} on {one.part.name}" for one in found if not one.part.again)
    again = [f"; of a second training on all images {one.kendall}" for one in found if one.part.again]
    lost = ", ".join(f"{one.regret} on {one.part.name}" for one in found)
    return (
        f"{len(final)} networks, trained for {counted(epochs, 'epoch')}, reach {final.min():.2f} to "
        f"{final.max():.2f} % with all images.",
        f"Kendall's tau with the ranking by all images: {taus}{''.join(again)}.",
        f"Points of accuracy lost by taking the best network of a part: {lost}.",
    )


def _table(found: Sequence[Agreement], whole: Part) -> Table:
    rows: list[tuple[Part, *tuple[str | None, ...]]]
    rows = [(one.part, str(one.kendall), str(one.spearman), str(one.regret)) for one in found]
    rows.insert(sum(not one.part.again for one in found), (whole, None, None, None))
    return Table(
        "parts",
        "Rankings on parts of the images, against that on all",
        ("part", "Kendall", "Spearman", "regret, points", "images trained on", "of all, %", "seconds"),
        tuple(
            (part.name, *cells, part.images, 100 * part.images / whole.images, part.seconds)
            for part, *cells in rows
        ),
        "In brackets the 95 % interval over samples of the networks. Regret: accuracy on all images that is "
        "lost by taking the network that is best on the part. All are judged on the same images.",
    )


def _networks(parts: Sequence[Part]) -> Table:
    columns = ("network", "shape", *(part.name for part in parts))
    scores = np.stack([part.accuracies for part in parts], axis=1)
    shapes = parts[0].shapes or [None] * len(scores)
    rows = (
        (number, shape, *(None if np.isnan(score) else score for score in some))
        for number, (shape, some) in enumerate(zip(shapes, scores.tolist(), strict=True))
    )
    return Table("networks", "Accuracy after the last epoch, %, by part", columns, tuple(rows))


def _curves(found: Sequence[Agreement]) -> Chart:
    parts, again = ([one for one in found if one.part.again is kind] for kind in (False, True))
    series = [
        _series("Kendall", [(one.part, one.kendall) for one in parts], "line"),
        _series("Spearman", [(one.part, one.spearman) for one in parts], "line"),
        *(_series("Kendall, all images again", [(one.part, one.kendall)], "marks") for one in again),
    ]
    axes = ("part of the images, %", "rank correlation")
    return Chart("fractions", "Agreement with all images", *axes, tuple(series))


def _series(name: str, points: Sequence[tuple[Part, Interval]], kind: Any) -> Series:
    values = [(100 * part.fraction, one.value, *one.ends) for part, one in points]
    x, y, low, high = (tuple(column) for column in zip(*values, strict=True))
    return Series(name, x, y, kind, low, high)


def _scatter(found: Sequence[Agreement], kept: NDArray[np.int64], final: Floats) -> Chart:
    named = found[0].part.shapes or [f"network {number}" for number in range(max(kept) + 1)]
    text = tuple(named[number] for number in kept)
    series = tuple(
        Series(one.part.name, tuple(one.part.accuracies[kept].tolist()), tuple(final.tolist()), text=text)
        for one in found
    )
    return Chart("scores", "Accuracies", "accuracy on the part, %", "accuracy on all images, %", series)


def _json(one: Agreement) -> dict[str, Any]:
    measured = {name: getattr(one, name).to_json() for name in ("kendall", "spearman", "regret")}
    part = one.part
    cost = {"images": part.images, "seconds": part.seconds}
    return {"fraction": part.fraction, "again": part.again, **cost, **measured}
