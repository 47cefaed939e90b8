"""Macro-micro search by trends: depth and width are read off curves that are fitted to few trainings.

Macro-micro search trains every depth and every width until noise stops it. Here a training is chosen by what
it is expected to tell (the knowledge gradient: Frazier, Powell, Dayanik 2008, "A knowledge-gradient policy for
sequential information collection"), and micro search swaps whole parts first, judged image by image.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from facenas.strategies.base import Budget, Candidate, Decision, StrategySettings, TrialResult, register
from facenas.strategies.chains import EPSILON, ChainSearch, Steps
from facenas.strategies.curves import Curves, Scale, depth_curves, width_curves
from facenas.strategies.paired import better, evidence

COARSE = (1.0, 1.5, 2.25)  # times the shallowest depth: what a trend of the depth begins with
COARSE_WIDTH = 0.5  # of the widest: what a trend of the width begins with
MOST_PLACES = 24  # that are compared for the next training; of more, even steps
UNTOLD_IMAGES = 10_000  # assumed to be validated on, for noise alone, where a result tells no number
AGAIN = ("", ", again", ", a third time")  # trainings of a swap, all of which must win


@dataclass
class _Axis:
    """What a phase of macro search reads off: networks by size, what trainings gave, the curves fitted to it.

    epochs: of each network. points: size, accuracy and epochs of each training. tried: their places.
    """

    phase: str
    sizes: list[int]
    networks: list[Any]
    epochs: list[int]
    curves: Curves
    points: list[list[float]] = field(default_factory=list)
    tried: list[int] = field(default_factory=list)

    def learn(self, place: int, result: TrialResult) -> None:
        self.curves.see(place, result.accuracy)
        self.points.append([self.sizes[place], float(result.accuracy), self.epochs[place]])
        self.tried.append(place)

    def told(self, chosen: int) -> dict[str, Any]:
        """The trend as plain JSON values, accuracies rounded to 0.0001 points; without sizes that failed."""
        mean, far, shown = self.curves.mean(), 1.96 * self.curves.deviation(), self.curves.open
        bands = {"mean": mean, "low": mean - far, "high": np.minimum(mean + far, 100)}
        told: dict[str, list[float]] = {name: np.round(band[shown], 4).tolist() for name, band in bands.items()}
        sizes = [size for size, is_shown in zip(self.sizes, shown, strict=True) if is_shown]
        return {"chosen": self.sizes[chosen], "points": list(self.points), "sizes": sizes, **told}


@register("trend")
class Trend(ChainSearch):
    """The strategy: `_macro` for depth, then for width, then `_micro` for operations and kernels."""

    class Settings(StrategySettings):
        """Epochs as in macro-micro search; all widths are trained as long as the depth that was chosen.

        gain: share of its errors that a network must save by twice the parameters. tolerance: points for each
        epoch spent that a further training must be expected to give. confidence: of each comparison that a swap
        must win; of all six swaps, 9 % of simulated searches kept a useless one.
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
        self._failed: set[Any] = set()  # architectures of which a training of macro search failed
        self._asked: Counter[tuple[Any, int]] = Counter()  # by architecture and epochs
        self._expected = 0.0
        self.trends: dict[str, dict[str, Any]] = {}
        super().begin()

    def result(self) -> dict[str, Any]:
        """As of macro-micro search, and `trends`: of depth and width what was trained, and the curve.

        `points` (size, accuracy, epochs), `sizes` with `mean`, `low` and `high` (95 %), the size `chosen`.
        """
        return super().result() | {"trends": self.trends}

    def _search(self) -> Steps:
        depths = list(self.space.depths())
        epochs = [self.settings.min_epochs + i * self.settings.depth_epoch_step for i in range(len(depths))]
        widths = yield from self._start(depths[0], epochs[0])
        if not widths:
            return
        scale = self._scale()
        networks = [self.space.at(depth, widths[-1]) for depth in depths]
        curves = depth_curves(np.array(depths, float), scale, self._prices(networks))
        axis = _Axis("depth", depths, networks, epochs, curves)
        yield from self._macro(axis, depths[0] * np.array(COARSE))
        # The depth that the trend says; if its first training fails, the best that was trained.
        for chosen in (curves.choice(), self._take_trained(axis)):
            self.trends["depth"] = axis.told(chosen)
            if (yield from self._width(axis, chosen, widths, scale)):
                break
        self.macro_width, self.macro_epochs = self.best.width, epochs[depths.index(self.best.depth)]
        self.macro_accuracy = self.best_result.accuracy
        if self.settings.micro:
            yield from self._swaps()

    # Depth and width.

    def _start(self, depth: int, epochs: int) -> Generator[Candidate, TrialResult, list[int]]:
        """Trains the widest network, half as wide as long as that fails; the widths up to the one that did not.

        What fails here, for want of memory say, would fail at every depth.
        """
        widths = list(self.space.widths()[::-1])
        while widths:
            result = yield from self._train("depth", self.space.at(depth, widths[-1]), epochs, "start")
            if result.status == "ok":
                break
            widths = [width for width in widths if width <= widths[-1] / 2]
        return widths

    def _macro(self, axis: _Axis, coarse: Sequence[float]) -> Steps:
        """Trains the sizes nearest to `coarse`, then what tells most, until that is worth too little.

        Ends where the first training fails: what is in doubt then is not the size.
        """
        for place, network in enumerate(axis.networks):
            for result in self._trained.get(network, []):
                axis.learn(place, result)
        beginning = [int(np.abs(np.array(axis.sizes) - size).argmin()) for size in coarse]
        while axis.curves.open.any():
            self.trends[axis.phase] = axis.told(axis.curves.choice())
            waiting = [place for place in beginning if axis.curves.open[place] and place not in axis.tried]
            telling = waiting[0] if waiting else self._most_telling(axis)
            if telling is None:
                break
            trains = yield from self._try(axis, telling, f"{axis.phase} {axis.sizes[telling]}")
            if not trains and not axis.points:
                break

    def _width(
        self, depth: _Axis, chosen: int, widths: list[int], scale: Scale
    ) -> Generator[Candidate, TrialResult, bool]:
        """Searches the width at the depth chosen; whether a network of it trains."""
        known, deviation = depth.curves.mean()[chosen], depth.curves.deviation()[chosen]
        networks = [self.space.at(depth.sizes[chosen], width) for width in widths]
        scale = replace(scale, error=max(100 - known, scale.image))
        curves = width_curves(np.array(widths, float), scale, self._prices(networks))
        if networks[-1] not in self._trained:
            curves.see(len(widths) - 1, known, deviation)
        axis = _Axis("width", widths, networks, [depth.epochs[chosen]] * len(widths), curves)
        yield from self._macro(axis, [widths[-1] * COARSE_WIDTH])
        if axis.points:
            yield from self._settle(axis)
        return bool(axis.points)

    def _most_telling(self, axis: _Axis) -> int | None:
        """The place whose training is worth most an epoch; None: all are worth less than the tolerance."""
        curves, count = axis.curves, len(axis.networks)
        places = sorted({*range(0, count, -(-count // MOST_PLACES)), curves.choice(), count - 1})
        worths = {
            place: curves.worth(place) / axis.epochs[place]
            for place in places
            if curves.open[place] and axis.networks[place] not in self._failed
        }
        if not worths:
            return None
        best = max(worths, key=lambda place: (round(worths[place], 9), -axis.tried.count(place), -place))
        return best if worths[best] >= self.settings.tolerance else None

    def _try(self, axis: _Axis, place: int, reason: str) -> Generator[Candidate, TrialResult, bool]:
        """Trains a place and learns from it; whether it did not fail.

        Of one that fails, what is larger would need as much memory, or diverge as well: unless a network of
        as many parameters was trained.
        """
        network, curves = axis.networks[place], axis.curves
        self._expected = float(curves.mean()[place])
        result = yield from self._train(axis.phase, network, axis.epochs[place], reason)
        if result.status == "ok":
            axis.learn(place, result)
            chosen = axis.sizes[curves.choice()]
            self.note += f"; {axis.phase} {chosen}, {curves.misses().min():.2f} points off"
        elif network not in self._trained:
            parameters = network.count_parameters()
            curves.close(place, all(other.count_parameters() < parameters for other in self._trained))
        return result.status == "ok"

    def _settle(self, axis: _Axis) -> Steps:
        """Trains the choice if it was not yet, and takes what misses least of all that were trained."""
        curves = axis.curves
        while curves.open.any() and axis.networks[curves.choice()] not in self._trained:
            if (yield from self._try(axis, curves.choice(), "what the trend says")):
                break
        self.trends[axis.phase] = axis.told(self._take_trained(axis))

    def _take_trained(self, axis: _Axis) -> int:
        """The place that misses least of those that were trained, which becomes the best."""
        misses = axis.curves.misses()
        chosen = min(axis.tried, key=lambda place: misses[place])
        self.best = axis.networks[chosen]
        self.best_result = self._trained[self.best][0]
        return chosen

    def _train(
        self, phase: str, arch: Any, epochs: int, reason: str
    ) -> Generator[Candidate, TrialResult, TrialResult]:
        """A candidate, by other draws if it was trained before; the most accurate one is the best so far."""
        result = yield Candidate(arch, self._budget(arch, epochs), phase, reason)
        if result.status == "ok":
            self._trained.setdefault(arch, []).append(result)
        else:
            self._failed.add(arch)
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

    def _budget(self, arch: Any, epochs: int) -> Budget:
        """The next of its trainings for so many epochs, each by draws of its own."""
        self._asked[arch, epochs] += 1
        return Budget(epochs, repeat=self._asked[arch, epochs] - 1)

    def _scale(self) -> Scale:
        """By the start."""
        result = self.best_result
        image = 100 / (result.validated or UNTOLD_IMAGES)
        error = min(max(100 - result.accuracy, image), 99.0)
        return Scale(error, float(np.sqrt(error * (100 - error) * image / 100)), image)

    # Operations and kernels.

    def _swaps(self) -> Steps:
        """Operations, then kernels, against a short training of what macro search found; none if that fails."""
        found = self.best_result
        yield from self._baseline(repeat=self._budget(self.best, self.settings.micro_epochs).repeat)
        if self.best_result.status == "failed":
            self.best_result = found
            return
        self._briefly = [self.best_result]  # short trainings of the best
        yield from self._micro("ops")
        yield from self._micro("kernels")

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
        """Whether a swap in `part` of `arch` does better than the best, in three trainings of each.

        Short trainings scatter by more than their images do: so all must win against all that the best had.
        """
        swapped = self._swapped(arch, base, phase, part)
        layers = f"{part[0] + 1}" if len(part) == 1 else f"{part[0] + 1} to {part[-1] + 1}"
        reason = f"{self.space.unit} {layers}: {self._what(phase)}"
        epochs, best = self.settings.micro_epochs, self._briefly
        self._expected = self.best_result.accuracy
        results: list[TrialResult] = []
        for again in AGAIN:
            if len(best) == len(results):
                best.append(
                    (yield Candidate(self.best, self._budget(self.best, epochs), phase, "baseline again"))
                )
                self._decision, self.note = Decision.BASELINE, "what swaps are compared with"
            results.append((yield Candidate(swapped, self._budget(swapped, epochs), phase, reason + again)))
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
        """Whether `one` is better than each of `others` that did not fail with `confidence`; why, in words."""
        chances = [(better(one, other), evidence(one, other)) for other in others if other.status == "ok"]
        chance, images = min(chances)
        return chance >= self.settings.confidence, f"{images}, {chance:.1%} likely better"

    def _likely(self, candidate: Candidate) -> TrialResult:
        """As the trend expects; swaps are mostly rejected."""
        return TrialResult(accuracy=self._expected)
