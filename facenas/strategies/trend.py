"""Macro-micro search by trends: depth and width are read off curves that are fitted to few trainings.

Macro-micro search trains every depth and every width until noise stops it. Here a training is chosen by what
it is expected to tell (the knowledge gradient: Frazier, Powell, Dayanik 2008, "A knowledge-gradient policy for
sequential information collection"), and micro search swaps whole parts first, judged image by image.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from facenas.strategies.base import Budget, Candidate, Decision, StrategySettings, TrialResult, register
from facenas.strategies.chains import EPSILON, ChainSearch, Steps
from facenas.strategies.curves import Curves, depth_curves, width_curves

COARSE = (1.0, 1.5, 2.25)  # times the shallowest depth: what a trend of the depth begins with
MOST_PLACES = 24  # that are compared for the next training; of more, even steps
UNTOLD_IMAGES = 10_000  # assumed to be validated on, for noise alone, where a result tells no number


@register("trend")
class Trend(ChainSearch):
    """The strategy: `_macro` for depth, then for width, then `_micro` for operations and kernels."""

    class Settings(StrategySettings):
        """Epochs as in macro-micro search; all widths are trained as long as the depth that was chosen.

        gain: share of its errors that a network must save by twice the parameters. tolerance: points for each
        epoch spent that a further training must be expected to give. confidence: with which a swap must be
        better to be kept.
        """

        min_epochs: int = Field(10, ge=1)
        depth_epoch_step: int = Field(1, ge=0)
        gain: float = Field(0.03, ge=0, lt=1)
        tolerance: float = Field(0.001, gt=0)
        micro: bool = True
        micro_epochs: int = Field(2, ge=1)
        confidence: float = Field(0.95, gt=0.5, lt=1)
        param_slack: int = Field(10_000, ge=0)

    def begin(self) -> None:
        """Stands before the first candidate, the shallowest and widest network."""
        self._trained: dict[Any, list[TrialResult]] = {}  # by architecture, those that did not fail
        self._expected = 0.0
        self.trends: dict[str, dict[str, Any]] = {}
        super().begin()

    def result(self) -> dict[str, Any]:
        """As of macro-micro search, and `trends`: of depth and width what was trained, and the curve.

        `points` (size, accuracy, epochs), `sizes` with `mean`, `low` and `high` (95 %), the size `chosen`.
        """
        return super().result() | {"trends": self.trends}

    def _search(self) -> Steps:
        depths = self.space.depths()
        widest = self.space.start().width
        networks = [self.space.at(depth, widest) for depth in depths]
        epochs = [self.settings.min_epochs + i * self.settings.depth_epoch_step for i in range(len(depths))]
        first = networks[0]
        yield from self._train("depth", first, epochs[0], "start")
        error, noise = self._scale(first)
        curves = depth_curves(np.array(depths, float), error, noise, self._prices(networks))
        coarse = {int(np.abs(np.array(depths) - depths[0] * factor).argmin()) for factor in COARSE}
        chosen = yield from self._macro("depth", list(depths), networks, epochs, curves, sorted(coarse))

        depth, known, deviation = depths[chosen], curves.mean()[chosen], curves.deviation()[chosen]
        widths = self.space.widths()[::-1]
        networks = [self.space.at(depth, width) for width in widths]
        curves = width_curves(np.array(widths, float), max(100 - known, 0.1), noise, self._prices(networks))
        if networks[-1] not in self._trained:
            curves.see(len(widths) - 1, known, deviation)
        same = [epochs[chosen]] * len(widths)
        chosen = yield from self._macro("width", list(widths), networks, same, curves, [])
        yield from self._settle(networks, same, curves)
        self.macro_width, self.macro_epochs = self.best.width, same[0]
        self.macro_accuracy = self.best_result.accuracy
        if self.settings.micro:
            yield from self._baseline()
            self._briefly = [self.best_result]  # short trainings of the best
            yield from self._micro("ops")
            yield from self._micro("kernels")

    # Depth and width.

    def _macro(
        self,
        phase: str,
        sizes: list[int],
        networks: Sequence[Any],
        epochs: Sequence[int],
        curves: Curves,
        coarse: list[int],
    ) -> Generator[Candidate, TrialResult, int]:
        """Trains the `coarse` places, then what tells most, until that is worth too little; the choice."""
        tried: list[int] = []
        points: list[list[float]] = []

        def learn(place: int, result: TrialResult) -> None:
            curves.see(place, result.accuracy)
            points.append([sizes[place], float(result.accuracy), epochs[place]])

        for place, network in enumerate(networks):
            for result in self._trained.get(network, []):
                learn(place, result)
                tried.append(place)
        while True:
            self.trends[phase] = _told(sizes, curves, points)
            waiting = [place for place in coarse if place not in tried]
            telling = waiting[0] if waiting else self._most_telling(curves, epochs, tried)
            if telling is None:
                return curves.choice()
            place = telling
            self._expected = float(curves.mean()[place])
            tried.append(place)
            result = yield from self._train(phase, networks[place], epochs[place], f"{phase} {sizes[place]}")
            if result.status == "failed" and place == 0:
                return 0
            if result.status == "failed":
                curves.cut(place)  # what is larger would need as much memory, or diverge as well
                coarse = [smaller for smaller in coarse if smaller < place]
            else:
                learn(place, result)
                self.note += f"; {phase} {sizes[curves.choice()]}, {curves.misses().min():.2f} points off"

    def _most_telling(self, curves: Curves, epochs: Sequence[int], tried: list[int]) -> int | None:
        """The place whose training is worth most an epoch; None: all are worth less than the tolerance."""
        count = len(curves.prices)
        places = sorted({*range(0, count, -(-count // MOST_PLACES)), curves.choice(), count - 1})
        worths = {place: curves.worth(place) / epochs[place] for place in places}
        best = max(worths, key=lambda place: (round(worths[place], 9), -tried.count(place), -place))
        return best if worths[best] >= self.settings.tolerance else None

    def _settle(self, networks: Sequence[Any], epochs: Sequence[int], curves: Curves) -> Steps:
        """Trains the choice if it was not yet, and takes what misses least of all that were trained."""
        chosen = networks[curves.choice()]
        if chosen not in self._trained:
            self._expected = float(curves.mean()[curves.choice()])
            result = yield from self._train("width", chosen, epochs[0], "what the trend says")
            if result.status == "ok":
                curves.see(curves.choice(), result.accuracy)
        misses = curves.misses()
        places = [place for place in range(len(misses)) if networks[place] in self._trained]
        if places:
            self.best = networks[min(places, key=lambda place: misses[place])]
            self.best_result = self._trained[self.best][0]

    def _train(
        self, phase: str, arch: Any, epochs: int, reason: str
    ) -> Generator[Candidate, TrialResult, TrialResult]:
        """A candidate, by other draws if it was trained before; the most accurate one is the best so far."""
        before = self._trained.get(arch, [])
        result = yield Candidate(arch, Budget(epochs, repeat=len(before)), phase, reason)
        if result.status == "ok":
            self._trained.setdefault(arch, []).append(result)
        if result.status == "ok" and result.accuracy > self.best_result.accuracy + EPSILON:
            self._take(arch, result)
        else:
            self._reject("no better" if result.status == "ok" else "failed")
        return result

    def _prices(self, networks: Sequence[Any]) -> NDArray[np.float64]:
        """Share of the errors that each network has to save over the first."""
        parameters = np.array([network.count_parameters() for network in networks], float)
        prices: NDArray[np.float64] = self.settings.gain * np.log2(parameters / parameters[0])
        return prices

    def _scale(self, first: Any) -> tuple[float, float]:
        """Points that are wrong at the start, and the binomial deviation of an accuracy."""
        result = self.best_result
        wrong = min(max(100 - result.accuracy, 0.1), 99.0)
        images = result.validated or UNTOLD_IMAGES
        return wrong, float(np.sqrt(wrong * (100 - wrong) / images))

    # Operations and kernels.

    def _micro(self, phase: str) -> Steps:
        """Each third of the network in turn; of one that wins, halves as long as one of them does better."""
        base, count = self.best, len(self.best.operations)
        thirds = [range(count * i // 3, count * (i + 1) // 3) for i in range(3)]
        for part in thirds:
            before = self.best
            if part and (yield from self._better(phase, before, base, part)):
                while len(part) > 1:
                    for half in (part[: len(part) // 2], part[len(part) // 2 :]):
                        if (yield from self._better(phase, before, base, half)):
                            part = half
                            break
                    else:
                        break

    def _better(self, phase: str, arch: Any, base: Any, part: range) -> Generator[Candidate, TrialResult, bool]:
        """Whether a swap in `part` of `arch` does better than the best, in two trainings of each.

        Short trainings scatter by more than their images do: so both must win against all that the best had.
        """
        swapped = self._swapped(arch, base, phase, part)
        layers = f"{part[0] + 1}" if len(part) == 1 else f"{part[0] + 1} to {part[-1] + 1}"
        reason = f"{self.space.unit} {layers}: {self._what(phase)}"
        budget, best = Budget(self.settings.micro_epochs), self._briefly
        self._expected = self.best_result.accuracy
        results: list[TrialResult] = []
        for repeat, again in enumerate(("", ", again")):
            if len(best) == repeat:
                best.append(
                    (yield Candidate(self.best, replace(budget, repeat=repeat), phase, "baseline again"))
                )
                self._decision, self.note = Decision.BASELINE, "what swaps are compared with"
            results.append((yield Candidate(swapped, replace(budget, repeat=repeat), phase, reason + again)))
            won, note = self._wins(results[-1], best)
            if not won:
                self._reject(f"undone: {note}")
                return False
            self._reject(f"trained again: {note}")
        self._take(swapped, results[0])
        self._briefly = results
        self.note += f": {note}"
        return True

    def _wins(self, one: TrialResult, others: list[TrialResult]) -> tuple[bool, str]:
        """Whether `one` is better than each of `others` with `confidence`, and why, in words."""
        if one.status == "failed":
            return False, "it failed"
        chance, images = max(_chance(one, other) for other in others)
        return bool(chance <= 1 - self.settings.confidence), f"{images}, p = {chance:.2g}"

    def _likely(self, candidate: Candidate) -> TrialResult:
        """As the trend expects; swaps are mostly rejected."""
        return TrialResult(accuracy=self._expected)


def _chance(one: TrialResult, other: TrialResult) -> tuple[float, str]:
    """Chance of `one` doing so much better than `other` if it is no better, and what it rests on, in words."""
    if one.right_bits and len(one.right_bits) == len(other.right_bits):
        wins, losses = discordant(one.right_bits, other.right_bits)
        return mcnemar(wins, losses), f"{wins} images won, {losses} lost"
    if one.validated and other.validated:
        return by_accuracies(one, other), "by accuracies alone"
    return float(one.accuracy <= other.accuracy + EPSILON), "by accuracies alone, of images untold"


def discordant(one: str, other: str) -> tuple[int, int]:
    """Images that only the first has right, and only the second, by their `right_bits`."""
    first, second = int(one, 16), int(other, 16)
    return (first & ~second).bit_count(), (second & ~first).bit_count()


def mcnemar(wins: int, losses: int) -> float:
    """Exact one-sided McNemar test: chance of so many wins, or more, of all images that only one has right.

    Binomial with 1/2 (McNemar 1947); 1 where there are no such images.
    """
    from scipy.special import betainc

    return float(betainc(wins, losses + 1, 0.5)) if wins else 1.0


def by_accuracies(one: TrialResult, other: TrialResult) -> float:
    """Chance of so much more right, or more, by two independent binomials: on the same images it is less."""
    shares = [(result.accuracy / 100, result.validated) for result in (one, other)]
    variance = sum(share * (1 - share) / images for share, images in shares)
    difference = (one.accuracy - other.accuracy) / 100
    return 1 - NormalDist().cdf(difference / variance**0.5) if variance else float(difference <= 0)


def _told(sizes: list[int], curves: Curves, points: list[list[float]]) -> dict[str, Any]:
    """A trend as plain JSON values, accuracies rounded to 0.0001 points."""
    mean, far = curves.mean(), 1.96 * curves.deviation()
    bands = {"mean": mean, "low": mean - far, "high": np.minimum(mean + far, 100)}
    told: dict[str, list[float]] = {name: np.round(band, 4).tolist() for name, band in bands.items()}
    return {"chosen": sizes[curves.choice()], "points": list(points), "sizes": sizes[: len(mean)], **told}
