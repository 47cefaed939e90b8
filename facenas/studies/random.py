"""Whether what a search finds is better than random networks of the same bounds, all trained alike.

"Efficient Global Neural Architecture Search", section 4.1, against ten random networks: relative improvement
RI = 100 (Acc_m - Acc_r) / Acc_r, Acc_m the accuracy of what the search found and Acc_r the mean of the random
networks ("NAS evaluation is frustratingly hard", arXiv 1912.12522, section 3; there RI > 0 is asked for).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from facenas.errors import UserError
from facenas.runs import Run, open_run
from facenas.runs.config import RunConfig
from facenas.strategies import Strategy
from facenas.studies.base import Conduct, Member, Study, register, strategy, varied
from facenas.studies.findings import Cell, Chart, Findings, Series, Table, mean_accuracy, mean_interval
from facenas.studies.networks import Final, Network, Tested, accuracies_of, final, found_by, seeds_of, spread

# Table 3, of CIFAR-10: how many networks, accuracy in percent, parameters in millions (after ± the standard
# deviation), RI as it follows from these.
PUBLISHED: tuple[tuple[Cell, ...], ...] = (
    ("paper: random", 10, "93.05 ± 2.18", "0.77 ± 0.70", None),
    ("paper: tiny", 1, "95.91", "0.46", "3.07"),
    ("paper: mobile", 1, "96.83", "2.49", "4.06"),
)


@dataclass(frozen=True)
class Trained(Tested):
    """A network after its final trainings, the accuracy of each. method: whose it is, empty of a random one."""

    method: str
    network: Network
    accuracies: list[float]


@register("random")
class Random(Study):
    """The study: `networks` random networks, and what `seeds` searches found, all trained alike."""

    class Settings(Final):
        """networks: how many are drawn, as strategy `random` does by the first seed; seeds: how many searches.

        against: folders of other searches that have ended, by any strategy, whose networks are trained too.
        """

        networks: int = Field(10, ge=4)
        seeds: int = Field(3, ge=0)
        against: tuple[Path, ...] = ()

        @field_validator("against")
        @classmethod
        def _runs(cls, folders: tuple[Path, ...]) -> tuple[Path, ...]:
            for folder in folders:
                if not (folder / "run.yaml").is_file():
                    raise ValueError(f"{folder} is no run; name folders of searches, such as runs/first")
            return tuple(folder.absolute() for folder in folders)  # it may be resumed from elsewhere

        @model_validator(mode="after")
        def _something(self) -> Self:
            if not self.seeds and not self.against:
                raise ValueError("seeds is 0 and against is empty: name searches, or have some made")
            return self

    title = "Searches and random networks"

    def conduct(self, config: RunConfig, facts: dict[str, Any]) -> Conduct:
        """The random networks; the searches; and what these found, trained as the random ones were."""
        s = self.settings
        others = [open_run(folder.parent, folder.name) for folder in s.against]
        for other in others:
            check_comparable(other, config, facts)
        found = [found_by(run, run.name) for run in others]
        methods = [method_of(run) for run in others]
        drawn = random_networks(config, facts, s.networks)
        run = yield final("random", config, drawn, s)
        random = [Trained("", *one) for one in zip(drawn, accuracies_of(run, drawn), strict=True)]
        for seed in seeds_of(config, s.seeds):
            run = yield Member(f"search-{seed}", varied(config, seed=seed))
            found.append(found_by(run, run.name))
            methods.append(method_of(run))
        run = yield final("final", config, found, s)
        together = zip(methods, found, accuracies_of(run, found), strict=True)
        return findings(random, [Trained(*one) for one in together])


def check_comparable(other: Run, config: RunConfig, facts: dict[str, Any]) -> None:
    """Raises UserError for a search of another kind of space, or on other images."""
    if other.config.space.owner is not config.space.owner:
        kinds = other.config.space.owner.name, config.space.owner.name
        raise UserError(f"study.against: {other.folder} searched a space of kind {kinds[0]}, not {kinds[1]}")
    if other.about["data"]["fingerprint"] != facts["fingerprint"]:
        raise UserError(f"study.against: {other.folder} searched on other images than the study's")


def random_networks(config: RunConfig, facts: dict[str, Any], count: int) -> list[Network]:
    """As strategy `random` draws them by the seed of `config`, within its bounds and limits."""
    search = config.search.model_dump(mode="json")
    limits = {name: search[name] for name in ("objectives", "limits") if name in search}
    drawing = varied(config, search=strategy("random", population=count, generations=1, **limits))
    space = drawing.build_space(facts)
    drawer: Strategy = drawing.build_strategy(space)
    architectures = [candidate.architecture for candidate in drawer.ask()]
    size = space.images.image_size
    return [Network(f"random-{n}", arch, arch.count_macs(size)) for n, arch in enumerate(architectures)]


def method_of(run: Run) -> str:
    """Its strategy, and what makes it cheaper."""
    search = run.config.search
    name = search.owner.name
    cheaper = [option for option in ("fidelity", "inherit") if getattr(search, option, None)]
    return " + ".join([name, *cheaper])


Methods = dict[str, list[Trained]]
Improved = dict[str, list[float]]  # by method, RI of each search


def improvement(accuracy: float, random: float) -> float:
    """RI in percent, of an accuracy over the mean accuracy of random networks."""
    return 100 * (accuracy - random) / random


def findings(random: Sequence[Trained], found: Sequence[Trained]) -> Findings:
    """How much better what was found is than the random networks, search by search and on average."""
    mean = fmean(one.accuracy for one in random)
    methods: Methods = {}
    for one in found:
        methods.setdefault(one.method, []).append(one)
    improved = {name: [improvement(one.accuracy, mean) for one in some] for name, some in methods.items()}
    return Findings(
        summary=tuple(_sentences(random, methods, improved)),
        tables=(_means(random, methods, improved), _networks(random, found, mean)),
        charts=_charts(random, methods, improved),
        values={
            "random": {"accuracies": _accuracies(random), "parameters": _parameters(random), "mean": mean},
            "methods": {
                name: {
                    "accuracies": _accuracies(some),
                    "parameters": _parameters(some),
                    "improvements": improved[name],
                }
                for name, some in methods.items()
            },
        },
    )


def _accuracies(some: Sequence[Trained]) -> list[float]:
    return [one.accuracy for one in some]


def _parameters(some: Sequence[Trained]) -> list[int]:
    return [one.network.parameters for one in some]


def _sentences(random: Sequence[Trained], methods: Methods, improved: Improved) -> Iterator[str]:
    accuracies = _accuracies(random)
    yield (
        f"{len(random)} random networks reach {spread(accuracies)} % on the test images, from "
        f"{min(accuracies):.2f} to {max(accuracies):.2f} %, with {_millions(random)} M parameters (after ± the "
        "standard deviation)."
    )
    for name, some in methods.items():
        values, searches = improved[name], "search" if len(some) == 1 else "searches"
        better = sum(value > 0 for value in values)
        less = 100 * (1 - fmean(_parameters(some)) / fmean(_parameters(random)))
        yield (
            f"What {len(some)} {searches} by {name} found reach{'es' * (len(some) == 1)} "
            f"{spread(_accuracies(some))} % with {_millions(some)} M parameters ({abs(less):.0f} % "
            f"{'fewer' if less >= 0 else 'more'}): a relative improvement of {mean_interval(values)} %, "
            f"above 0 in {better} of {len(some)} (paper: above 2 in 5 of 5)."
        )


def _millions(some: Sequence[Trained]) -> str:
    return spread([parameters / 1e6 for parameters in _parameters(some)], 3)


def _means(random: Sequence[Trained], methods: Methods, improved: Improved) -> Table:
    told = str(mean_accuracy(_accuracies(random))), _millions(random), None
    rows: list[tuple[Cell, ...]] = [("random", len(random), *told)]
    for name, some in methods.items():
        accuracy, relative = (str(mean_interval(values)) for values in (_accuracies(some), improved[name]))
        rows.append((name, len(some), accuracy, _millions(some), relative))
    return Table(
        "means",
        "On average",
        ("networks", "how many", "test accuracy, %", "parameters, M", "RI, %"),
        (*rows, *PUBLISHED),
        "In brackets the 95 % interval of the mean, by Student's t; that of RI is over searches and takes the "
        "random networks' mean as it is. After ± the standard deviation. The paper's are of CIFAR-10 "
        "(Table 3); it tells RI > 2 in 5 searches.",
    )


def _networks(random: Sequence[Trained], found: Sequence[Trained], mean: float) -> Table:
    rows = tuple(
        (
            one.network.name,
            one.method or "random",
            one.network.architecture.summary(),
            one.network.parameters,
            one.network.macs,
            one.network.accuracy,
            one.accuracy,
            improvement(one.accuracy, mean),
        )
        for one in sorted([*found, *random], key=lambda one: -one.accuracy)
    )
    columns = ("network", "by", "is", "parameters", "MACs", "in its search, %", "test accuracy, %", "RI, %")
    return Table("networks", "All networks, the most accurate first", columns, rows)


def _charts(random: Sequence[Trained], methods: Methods, improved: Improved) -> tuple[Chart, ...]:
    groups = {"random": random, **methods}
    series = tuple(
        Series(
            name,
            tuple(float(parameters) for parameters in _parameters(some)),
            tuple(_accuracies(some)),
            text=tuple(one.network.name for one in some),
        )
        for name, some in groups.items()
    )
    most = max(len(some) for some in improved.values())
    lines = ((0.0, "the random networks' mean"), (2.0, "the paper's: above 2"))
    ends = (0.0, most + 1.0)
    relative = tuple(
        Series(name, tuple(float(n + 1) for n in range(len(values))), tuple(values))
        for name, values in improved.items()
    ) + tuple(Series(name, ends, (value, value), "line") for value, name in lines)
    return (
        Chart("sizes", "Accuracy over size", "parameters", "test accuracy, %", series, log_x=True),
        Chart("improvements", "Relative improvement", "search", "RI, %", relative),
    )
