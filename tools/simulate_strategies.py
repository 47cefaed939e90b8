"""What a search costs and finds, by simulation: macro_micro and trend on the surfaces of recorded searches.

    python tools/simulate_strategies.py                       # the ten logs, 100 seeds, trend as it is
    python tools/simulate_strategies.py --seeds 20 --trend gain=0.05 --trend gain=0.03,tolerance=1e-4
    python tools/simulate_strategies.py --swaps 0.08          # layers differ as much as the logs may hide

For each log a surface is fitted: accuracy over depth under the authors' epochs (a saturating exponential), what
more epochs and a smaller width do, and the scatter of trainings around that. The strategies search on it, and
what they find is compared by its accuracy without noise.

In the logs longer trainings go with deeper and with narrower networks. What width does is told apart by growth
in the two logs of a data set, at width 64 and at 128, as inversely proportional to it; what epochs do is then
what is left of the gains in pruning, as their logarithm. How much of growth is by its epochs is not told: so
networks are compared in two ways, trained for as many epochs as the authors' rule has for their depth, and for
equally many; and so they are as networks of one size, with the width of macro_micro's scaled to the parameters
of trend's. Images are compared with those that macro_micro takes here, and with those of the log; `work` counts
the MACs of every image.

The effects of single layers' operations and kernels cannot be told from the noise of brief trainings: the most
likely variance is none in all logs together, and at most 0.08 of the noise's (95 %). They are drawn so for each
seed. Which images are right is drawn for trainings of micro search: a normal difficulty, shared by networks as
on real ones (ten plain networks trained on Fashion-MNIST). Depths and widths beyond those of a log are
extrapolated.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from facenas.runs.replay import read_recorded
from facenas.spaces import PlainArchitecture, from_json
from facenas.strategies import Candidate, MacroMicro, Strategy, Trend, TrialResult

Array = NDArray[np.float64]

RECORDED = Path(__file__).parents[1] / "tests" / "recorded_searches"
VALIDATED = {"emnist": 18_800}  # the authors selected on the test images
TEST_IMAGES = 10_000
IMAGE_SIZE = 32
SHARED = 0.85  # correlation of the difficulty of an image for two networks: 0.77 to 0.92, mean 0.85


Effects = dict[str, Array]  # by phase: points of each layer's swap after a brief training


@dataclass(frozen=True)
class Surface:
    """Accuracy in percent of any chain trained for any epochs, as fitted to a log.

    growth: level, size and length of the exponential over depth under the authors' epochs; epoch_gain: points
    for e times the epochs; width_cost: points for half the widest; scatter: of trainings; briefly and
    brief_scatter: mean and scatter of brief ones; layers: depth that the effects of swaps are drawn for.
    """

    settings: MacroMicro.Settings
    space: Any
    growth: tuple[float, float, float]
    epoch_gain: float
    width_cost: float
    scatter: float
    briefly: float
    brief_scatter: float
    layers: int
    images: int

    def rule(self, depth: int) -> int:
        """Epochs that the authors train a depth."""
        return self.settings.min_epochs + self.settings.depth_epoch_step * (depth - self.shallowest)

    @property
    def shallowest(self) -> int:
        """Least depth of the space."""
        return int(self.space.settings.min_depth)

    def grown(self, depth: int) -> float:
        """Accuracy of the widest network of a depth, trained by the authors' rule."""
        level, size, length = self.growth
        return float(level - size * np.exp(-(depth - self.shallowest) / length))

    def macro(self, depth: int, width: float, epochs: float) -> float:
        """Expected accuracy of a network with all layers alike."""
        widest = self.space.settings.max_width
        narrowing = self.width_cost * (widest / width - 1)
        return float(self.grown(depth) + self.epoch_gain * np.log(epochs / self.rule(depth)) - narrowing)

    def truth(self, arch: PlainArchitecture, macro_width: float, effects: Effects) -> tuple[float, float]:
        """Accuracy without noise (by the rule, at equal epochs); swaps count by the share of errors left."""
        by_rule = self.macro(arch.depth, macro_width, self.rule(arch.depth))
        equal = self.macro(arch.depth, macro_width, self.rule(2 * self.shallowest))
        left = (100 - by_rule) / (100 - self.briefly)
        return by_rule + left * swapped(arch, effects), equal + left * swapped(arch, effects)


def swapped(arch: PlainArchitecture, effects: Effects) -> float:
    """Points that the swaps of a network give; its layers have the effects of those at the same place."""
    chosen = {"ops": np.array(arch.operations) == 1, "kernels": np.array(arch.kernels) == 5}
    total = 0.0
    for phase, points in effects.items():
        place = ((np.arange(arch.depth) + 0.5) / arch.depth * len(points)).astype(int)
        total += float(points[place][chosen[phase]].sum()) * len(points) / arch.depth
    return total


def fit_surface(path: Path) -> Surface:
    """The surface of a log, whose width is compared with the other log of the same data set beside it."""
    recorded = read_recorded(path)
    settings, space = recorded.strategy.settings, recorded.strategy.space
    depths, accuracies = growth(path)
    first, widest = depths[0], space.settings.max_width

    def residual(p: Array) -> Array:
        rest: Array = p[0] - p[1] * np.exp(-(depths - first) / p[2]) - accuracies
        return rest

    start = (accuracies.max(), np.ptp(accuracies), 5.0)
    grown = least_squares(residual, start, bounds=([0, 0, 1], [100, 100, 15]))
    cost = width_cost(path)
    widths, epochs, depth, pruned = _columns(recorded.trials, "width", "width", "epochs", "depth", "accuracy")
    base = grown.x[0] - grown.x[1] * np.exp(-(depth - first) / grown.x[2])
    longer = np.log(epochs / (settings.min_epochs + settings.depth_epoch_step * (depth - first)))
    gained = pruned - base + cost * (widest / widths - 1)
    gain = max(0.0, float(longer @ gained / (longer @ longer)))
    rest = np.concatenate([grown.fun, gained - gain * longer])
    brief = np.concatenate([_columns(recorded.trials, phase, "accuracy")[0] for phase in ("ops", "kernels")])
    return Surface(
        settings,
        space,
        tuple(grown.x),
        gain,
        cost,
        float(np.sqrt((rest**2).sum() / (len(rest) - 4))),
        float(brief.mean()),
        float(brief.std(ddof=1)),
        int(depth[0]),
        VALIDATED.get(path.stem.split("-")[0], TEST_IMAGES),
    )


def growth(path: Path) -> tuple[Array, Array]:
    """Depths and accuracies of a log's growth."""
    depths, accuracies = _columns(read_recorded(path).trials, "depth", "depth", "accuracy")
    return depths, accuracies


def width_cost(path: Path) -> float:
    """Points that half the widest width of a log costs: by growth to depths that both logs of its data have."""
    tiny, mobile = (path.with_name(f"{path.stem.split('-')[0]}-{kind}.json") for kind in ("tiny", "mobile"))
    (_, narrow), (_, wide) = growth(tiny), growth(mobile)
    count = min(len(narrow), len(wide))
    by_half = float((wide[:count] - narrow[:count]).mean())
    return by_half if path == mobile else 2 * by_half


def _columns(trials: Sequence[dict[str, Any]], phase: str, *fields: str) -> list[Array]:
    return [np.array([trial[field] for trial in trials if trial["phase"] == phase], float) for field in fields]


class Judge:
    """Trainings on a surface: every draw of noise from one seed."""

    def __init__(self, surface: Surface, seed: int, bits: bool, share: float) -> None:
        self.surface, self.bits = surface, bits
        self.rng = np.random.default_rng(seed)
        deviation = share**0.5 * surface.brief_scatter
        self.effects = {
            phase: deviation * self.rng.standard_normal(surface.layers) for phase in ("ops", "kernels")
        }
        self.difficulty = self.rng.standard_normal(surface.images) * SHARED**0.5

    def __call__(self, candidate: Candidate) -> TrialResult:
        """What a candidate's training gives: the accuracy, and of micro search which images are right."""
        surface, arch, epochs = self.surface, candidate.architecture, candidate.budget.epochs
        assert isinstance(arch, PlainArchitecture)
        if candidate.phase in ("depth", "width"):
            accuracy = (
                surface.macro(arch.depth, arch.width, epochs) + surface.scatter * self.rng.standard_normal()
            )
            return TrialResult(accuracy=min(accuracy, 100.0), validated=surface.images)
        mean = surface.briefly + swapped(arch, self.effects)
        accuracy = float(np.clip(mean + surface.brief_scatter * self.rng.standard_normal(), 1, 99))
        if not self.bits:
            return TrialResult(accuracy=accuracy, validated=surface.images)
        own = self.rng.standard_normal(surface.images) * (1 - SHARED) ** 0.5
        right = self.difficulty + own < NormalDist().inv_cdf(accuracy / 100)
        bits = np.packbits(right).tobytes().hex()
        return TrialResult(accuracy=100 * float(right.mean()), validated=surface.images, right_bits=bits)


@dataclass(frozen=True)
class Found:
    """images: epochs times the part of the images, by phase; work: the same times MACs.

    truth: accuracy without noise (by the rule, at equal epochs); resized: that at a width of so many times the
    parameters.
    """

    images: dict[str, float]
    work: float
    truth: tuple[float, float]
    parameters: int
    depth: int
    width: int
    swapped: bool
    resized: Callable[[float], tuple[float, float]]


def search(surface: Surface, strategy: Strategy, seed: int, share: float) -> Found:
    """One search on the surface; share: variance of swaps' effects over that of a brief training's noise."""
    bound = strategy.bind(surface.space, seed)
    judge = Judge(surface, seed, isinstance(strategy, Trend), share)
    images, work = {"depth": 0.0, "width": 0.0, "micro": 0.0}, 0.0
    while wanted := bound.ask():
        budget, phase = wanted[0].budget, wanted[0].phase
        images[phase if phase in images else "micro"] += budget.epochs * budget.data_fraction
        work += budget.epochs * budget.data_fraction * wanted[0].architecture.count_macs(IMAGE_SIZE)
        bound.tell(judge(wanted[0]))
    found = bound.result()
    arch: Any = from_json(found["architecture"])
    width = int(found["macro_width"])
    truth = surface.truth(arch, width, judge.effects)

    kept = any(arch.operations) or 5 in arch.kernels

    def resized(ratio: float) -> tuple[float, float]:
        return surface.truth(arch, width * ratio**0.5, judge.effects)

    return Found(images, work, truth, arch.count_parameters(), arch.depth, width, kept, resized)


def searches(path: Path, variants: Sequence[dict[str, Any]], seeds: int, share: float) -> list[list[Found]]:
    """What macro_micro as recorded finds by each seed, then trend with each of the settings, by its epochs."""
    surface = fit_surface(path)
    shared = ("min_epochs", "depth_epoch_step", "micro_epochs", "param_slack")
    same = {name: getattr(surface.settings, name) for name in shared}
    strategies = [MacroMicro(surface.settings), *(Trend(**same | variant) for variant in variants)]
    return [[search(surface, strategy, seed, share) for seed in range(seeds)] for strategy in strategies]


def logged(path: Path) -> float:
    """Epochs of a log."""
    return float(sum(trial["epochs"] for trial in read_recorded(path).trials))


Gap = tuple[float, float]  # a mean difference, and its interval (95 %)


@dataclass(frozen=True)
class Comparison:
    """Of trend with macro_micro on one surface: ratios of means over seeds, mean differences of accuracies.

    of_log: images over those of the log. gaps: by the rule, at equal epochs, and both at the same size.
    """

    images: float
    of_log: float
    work: float
    parameters: float
    gaps: tuple[Gap, ...]

    def cells(self) -> str:
        """Cells of a table."""
        gaps = [f"{mean:+.3f} ± {interval:.3f}" for mean, interval in self.gaps]
        ratios = [f"{ratio:.3f}" for ratio in (self.images, self.of_log, self.work)]
        return " | ".join([*ratios, *gaps[:2], f"{self.parameters:.2f}", *gaps[2:]])


def compared(mine: list[Found], theirs: list[Found], epochs_logged: float) -> Comparison:
    """The same seeds in pairs; intervals are over them."""
    pairs = list(zip(mine, theirs, strict=True))
    differences = [
        (*np.subtract(a.truth, b.truth), *np.subtract(a.truth, b.resized(a.parameters / b.parameters)))
        for a, b in pairs
    ]
    means, deviations = np.mean(differences, axis=0), np.std(differences, axis=0, ddof=1)
    return Comparison(
        _mean(mine, spent) / _mean(theirs, spent),
        _mean(mine, spent) / epochs_logged,
        _mean(mine, attrgetter("work")) / _mean(theirs, attrgetter("work")),
        _mean(mine, attrgetter("parameters")) / _mean(theirs, attrgetter("parameters")),
        tuple(zip(means.tolist(), (1.96 * deviations / len(pairs) ** 0.5).tolist(), strict=True)),
    )


def spent(found: Found) -> float:
    """Images of all phases."""
    return sum(found.images.values())


def _mean(found: list[Found], of: Callable[[Found], float]) -> float:
    return float(np.mean([of(one) for one in found]))


def main() -> None:
    """Prints a table for each of the settings of trend."""
    options = _parser().parse_args()
    paths = [Path(log) for log in options.logs] or sorted(RECORDED.glob("*-*.json"))
    variants = [_settings(text) for text in options.trend] or [{}]
    done = {path: searches(path, variants, options.seeds, options.swaps) for path in paths}
    for number, variant in enumerate(variants, 1):
        told = ", ".join(f"{key} {value:g}" for key, value in variant.items()) or "as it is"
        print(f"trend: {told}; {options.seeds} seeds, swaps vary by {options.swaps:g} of the noise\n")
        _print({path: (found[number], found[0]) for path, found in done.items()})


def _print(found: dict[Path, tuple[list[Found], list[Found]]]) -> None:
    print("| surface of | images: depth, width, micro | ratio | of the log | work | by the rule | "
          "equal epochs | parameters | same size, by the rule | same size, equal epochs | depth | width |\n"
          "|---|---|---|---|---|---|---|---|---|---|---|---|")  # fmt: skip
    rows = []
    for path, (mine, theirs) in found.items():
        rows.append(compared(mine, theirs, logged(path)))
        images = ", ".join(f"{np.mean([one.images[key] for one in mine]):.0f}" for key in mine[0].images)
        depth, width = (
            f"{_mean(mine, attrgetter(size)):.1f} ({_mean(theirs, attrgetter(size)):.1f})"
            for size in ("depth", "width")
        )
        print(f"| {path.stem} | {images} | {rows[-1].cells()} | {depth} | {width} |")
    print(f"| **mean** | | {_overall(rows).cells()} | | |\n")
    kept = [np.mean([one.swapped for pair in found.values() for one in pair[which]]) for which in range(2)]
    print(f"A swap was kept in {kept[0]:.1%} of the searches ({kept[1]:.1%}).\n")


def _overall(rows: list[Comparison]) -> Comparison:
    """Means over surfaces, intervals those of the means."""
    images, of_log, work, parameters = np.mean(
        [(row.images, row.of_log, row.work, row.parameters) for row in rows], axis=0
    ).tolist()
    means, intervals = np.moveaxis(np.array([row.gaps for row in rows]), 2, 0)
    of_means = np.sqrt((intervals**2).sum(axis=0)) / len(rows)
    gaps = zip(means.mean(axis=0).tolist(), of_means.tolist(), strict=True)
    return Comparison(images, of_log, work, parameters, tuple(gaps))


def _settings(text: str) -> dict[str, Any]:
    return {key: float(value) for key, value in (pair.split("=") for pair in text.split(","))}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("logs", nargs="*", metavar="LOG")
    add("--seeds", type=int, default=100)
    add("--trend", action="append", default=[], metavar="KEY=VALUE,...", help="settings of trend to try")
    add(
        "--swaps",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="variance of a layer's effect, over the noise's",
    )
    return parser


if __name__ == "__main__":
    main()
