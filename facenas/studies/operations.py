"""Whether searching the operations helps: the same search with and without that step, all found trained alike.

"Efficient Global Neural Architecture Search", section 4.1: ten seeds of each, candidates trained for 20 epochs,
89.92 % with operations and 89.13 % without; trained for 600 epochs, the best of each reach 96 % and 95.82 %.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from facenas.errors import UserError
from facenas.runs.config import RunConfig
from facenas.studies.base import Conduct, Member, Study, register, varied
from facenas.studies.findings import Cell, Chart, Findings, Interval, Series, Table, mean_interval
from facenas.studies.networks import Final, Network, Tested, accuracies_of, final, found_by, seeds_of, spread

KINDS = ("with", "without")
PUBLISHED = {"with": 89.92, "without": 89.13}


@dataclass(frozen=True)
class Found(Tested):
    """What a search found, and its accuracies after each final training."""

    network: Network
    accuracies: list[float]


@dataclass(frozen=True)
class Pair:
    """What the searches of one seed found, with operations and without."""

    seed: int
    found: dict[str, Found]

    @property
    def gain(self) -> float:
        """Points that searching the operations gives."""
        return self.found["with"].accuracy - self.found["without"].accuracy


@register("operations")
class Operations(Study):
    """The study: `seeds` searches with operations and as many without, and what they found trained alike."""

    class Settings(Final):
        """seeds: how many searches of each kind."""

        seeds: int = Field(10, ge=1)

    title = "Searches with and without operations"

    def conduct(self, config: RunConfig, facts: dict[str, Any]) -> Conduct:
        """Both searches of each seed; then all that they found. Raises UserError for another strategy."""
        search = config.model_dump(mode="json")["search"]
        if "operations" not in search or not search.get("micro"):
            raise UserError(
                f"study operations: search.strategy {config.search.owner.name} searches no operations by a "
                "setting `operations`; take macro_micro, with micro: true"
            )
        seeds, networks = seeds_of(config, self.settings.seeds), []
        for seed in seeds:
            for kind in KINDS:
                asked = varied(config, seed=seed, search={**search, "operations": kind == "with"})
                run = yield Member(f"{kind}-{seed}", asked)
                networks.append(found_by(run, run.name))
        run = yield final("final", config, networks, self.settings)
        found = [Found(*one) for one in zip(networks, accuracies_of(run, networks), strict=True)]
        both = zip(found[::2], found[1::2], strict=True)
        return findings(
            [Pair(seed, dict(zip(KINDS, pair, strict=True))) for seed, pair in zip(seeds, both, strict=True)]
        )


def findings(pairs: Sequence[Pair]) -> Findings:
    """What each kind reaches, and the gain, paired over seeds."""
    gain = mean_interval([pair.gain for pair in pairs])
    return Findings(
        summary=tuple(_sentences(pairs, gain)),
        tables=(_means(pairs, gain), _seeds(pairs)),
        charts=_charts(pairs, gain),
        values={
            "seeds": [pair.seed for pair in pairs],
            "accuracies": {kind: _accuracies(pairs, kind) for kind in KINDS},
            "parameters": {kind: _parameters(pairs, kind) for kind in KINDS},
            "gain": [gain.value, gain.low, gain.high],
        },
    )


def _accuracies(pairs: Sequence[Pair], kind: str) -> list[float]:
    return [pair.found[kind].accuracy for pair in pairs]


def _parameters(pairs: Sequence[Pair], kind: str) -> list[int]:
    return [pair.found[kind].network.parameters for pair in pairs]


def _sentences(pairs: Sequence[Pair], gain: Interval) -> Iterator[str]:
    told = {kind: spread(_accuracies(pairs, kind)) for kind in KINDS}
    yield (
        f"Over {len(pairs)} seeds, what is found with operations reaches {told['with']} % on the test images, "
        f"without them {told['without']} % (mean and standard deviation; paper: 89.92 and 89.13 %)."
    )
    better = sum(pair.gain > 0 for pair in pairs)
    yield (
        f"Searching the operations gives {gain} points, by pairs of the same seed (paper: 0.79), and more than "
        f"nothing with {better} of {len(pairs)} seeds."
    )
    same = sum(len({pair.found[kind].network.architecture for kind in KINDS}) == 1 for pair in pairs)
    if same:
        yield f"With {same} of {len(pairs)} seeds both searches found the same network."


def _means(pairs: Sequence[Pair], gain: Interval) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for kind in KINDS:
        searched = [pair.found[kind].network.accuracy or 0.0 for pair in pairs]
        sizes = [parameters / 1e6 for parameters in _parameters(pairs, kind)]
        told = spread(searched), str(mean_interval(_accuracies(pairs, kind))), spread(sizes, 3)
        rows.append((f"{kind} operations", *told, PUBLISHED[kind]))
    rows.append(("difference", None, str(gain), None, PUBLISHED["with"] - PUBLISHED["without"]))
    return Table(
        "means",
        "On average",
        ("search", "in the search, %", "test accuracy, %", "parameters, M", "paper (CIFAR-10), %"),
        tuple(rows),
        "In brackets the 95 % interval by Student's t, of the difference over pairs of the same seed; after ± "
        "the standard deviation.",
    )


def _seeds(pairs: Sequence[Pair]) -> Table:
    columns = [f"{kind}: {what}" for kind in KINDS for what in ("network", "parameters", "test accuracy, %")]
    rows = []
    for pair in pairs:
        cells: list[Cell] = [f"seed {pair.seed}"]
        for found in pair.found.values():
            architecture = found.network.architecture
            cells += [architecture.summary(), found.network.parameters, found.accuracy]
        rows.append((*cells, pair.gain))
    return Table("seeds", "Seed by seed", ("search", *columns, "difference"), tuple(rows))


def _charts(pairs: Sequence[Pair], gain: Interval) -> tuple[Chart, ...]:
    sizes = tuple(
        Series(
            f"{kind} operations",
            tuple(float(parameters) for parameters in _parameters(pairs, kind)),
            tuple(_accuracies(pairs, kind)),
            text=tuple(
                f"seed {pair.seed}: {pair.found[kind].network.architecture.summary()}" for pair in pairs
            ),
        )
        for kind in KINDS
    )
    seeds = tuple(float(pair.seed) for pair in pairs)
    ends = (min(seeds) - 1, max(seeds) + 1)
    gains = (
        Series("pairs", seeds, tuple(pair.gain for pair in pairs)),
        _level("mean", ends, gain),
        _level("paper", ends, Interval(PUBLISHED["with"] - PUBLISHED["without"])),
    )
    return (
        Chart("sizes", "Accuracy over size", "parameters", "test accuracy, %", sizes),
        Chart("gains", "What operations give", "seed", "difference, points", gains),
    )


def _level(name: str, ends: tuple[float, float], value: Interval) -> Series:
    low, high = (None if end is None else (end,) * 2 for end in (value.low, value.high))
    return Series(name, ends, (value.value,) * 2, "line", low, high)
