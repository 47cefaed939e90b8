"""Macro-micro search: grow depth, prune width, then swap operations and kernels at constant parameters.

Algorithm 1 of "Efficient Global Neural Architecture Search" with the settings its authors really ran.
The four methods `_grow`, `_prune`, `_replace` and `_update` are its four steps, each readable top to
bottom: a `yield` asks for a candidate to be trained and returns its outcome.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from facenas.spaces import IR, IRArchitecture, Plain, PlainArchitecture
from facenas.spaces.plain import PLAIN
from facenas.strategies.base import Candidate, Known, Outcome
from facenas.strategies.settings import SearchConfig

# Accuracies logged by others carry float32 rounding of up to 1e-5 points; one image in a million is 1e-4.
EPSILON = 5e-5

Arch = PlainArchitecture | IRArchitecture
Steps = Generator[Candidate, Outcome, None]


class MacroMicro:
    """The strategy. `space` bounds depth and width; `settings` has epochs, tolerances and stopping rules."""

    def __init__(self, space: Plain | IR, settings: SearchConfig) -> None:
        self.space = space
        self.settings = settings
        self.best: Arch = space.start()
        self.best_outcome = Outcome(0.0)
        self.macro_accuracy = 0.0
        self.macro_width = self.best.width
        self.macro_epochs = settings.min_epochs
        self.decision = ""
        self._drops = 0
        self._told: list[Outcome] = []
        self._steps = self._search()
        self._wanted: Candidate | None = next(self._steps)

    def ask(self) -> list[Candidate]:
        """The one candidate whose outcome decides what comes next, or nothing when the search is over."""
        return [self._wanted] if self._wanted else []

    def tell(self, outcome: Outcome) -> str:
        """Goes on with `outcome` for the candidate asked for; returns the decision in words."""
        if self._wanted is None:
            raise RuntimeError("the search is over: nothing was asked for")
        self._told.append(outcome)
        try:
            self._wanted = self._steps.send(outcome)
        except StopIteration:
            self._wanted = None
        return self.decision

    def look_ahead(self, count: int, known: Known) -> list[Candidate]:
        """What comes next if growth and pruning go on, and if replacements are rejected.

        Growth and pruning ask for the same candidates whatever the accuracies are, until they end.
        """
        ahead = self._copy()
        found: list[Candidate] = []
        while ahead._wanted and len(found) <= count:
            found.append(ahead._wanted)
            ahead.tell(known(found[-1]) or ahead._likely(found[-1]))
        return found[1:]

    def result(self) -> dict[str, Any]:
        """The best network so far; the `macro_` values are those that pruning ended with."""
        return {
            "architecture": self.best.to_json(),
            "accuracy": self.best_outcome.accuracy,
            "macro_accuracy": self.macro_accuracy,
            "macro_width": self.macro_width,
            "macro_epochs": self.macro_epochs,
        }

    def _search(self) -> Steps:
        epochs = yield from self._grow()
        yield from self._prune(epochs)
        self.macro_accuracy = self.best_outcome.accuracy
        if self.settings.micro:
            yield from self._baseline()
            yield from self._swap("ops")
            yield from self._swap("kernels")

    def _grow(self) -> Generator[Candidate, Outcome, int]:
        """Step 1: one layer, or block, and one epoch more each time; returns the epochs at the end."""
        s, depths, epochs = self.settings, self.space.depths(), self.settings.min_epochs
        first = self.space.start()
        self._take(first, (yield Candidate(first, epochs, "depth", "start")), "best")
        for depth in depths[1:]:
            if self._good_enough():
                break
            epochs += s.depth_epoch_step
            arch = self.space.at(depth, first.width)
            reason = f"depth {depth - depths.step} + {depths.step}"
            outcome = yield Candidate(arch, epochs, "depth", reason)
            if self._at_least(outcome, s.depth_gain):
                self._drops = 0
                self._take(arch, outcome, "best")
            elif self._at_least(outcome, -s.depth_drop):
                self.decision = "go on"
            else:
                self._drops += 1
                self.decision = f"drop {self._drops} of {s.max_depth_drops}"
                if self._drops == s.max_depth_drops:
                    break
        self.macro_epochs = epochs
        return epochs

    def _prune(self, epochs: int) -> Steps:
        """Step 2: narrower and longer trained each time; a network as good as the best replaces it."""
        s, self._drops = self.settings, 0
        for width in self.space.widths()[1:]:
            epochs += s.width_epoch_step
            arch = self.best.with_width(width)
            outcome = yield Candidate(
                arch, epochs, "width", f"width - {self.space.settings.width_step}"
            )
            if self._at_least(outcome, 0.0):
                self._drops = 0
                self._take(arch, outcome, "best")
                self.macro_width, self.macro_epochs = width, epochs
            else:
                self._drops += 1
                self.decision = f"drop {self._drops} of {s.max_width_drops}"
                if self._drops == s.max_width_drops:
                    break

    def _baseline(self) -> Steps:
        """Candidates of micro search train briefly: so the macro network is trained anew, as briefly."""
        epochs = self.settings.micro_epochs
        self._take(self.best, (yield Candidate(self.best, epochs, "ops", "baseline")), "baseline")

    def _swap(self, phase: str) -> Steps:
        """Steps 3 and 4: layer by layer, another operation or kernel, as wide as the parameters allow."""
        base, operation, kernel = self.best, self.space.swap_operation, self.space.swap_kernel
        for layer in range(len(base.operations)):
            if phase == "ops":
                swapped = self.best.with_operation(layer, operation)
                what = "plain convolution" if operation == PLAIN else "separable convolution"
            else:
                swapped, what = self.best.with_kernel(layer, kernel), f"kernel {kernel}"
            arch = self._fitted(swapped.with_width(base.width), base.count_parameters())
            reason = f"{self.space.unit} {layer + 1}: {what}"
            outcome = yield Candidate(arch, self.settings.micro_epochs, phase, reason)
            if outcome.accuracy > self.best_outcome.accuracy + EPSILON:
                self._take(arch, outcome, "kept")
            else:
                self.decision = "undone"

    def _fitted(self, arch: Arch, parameters: int) -> Arch:
        """As wide as `parameters` allow: a costlier network is narrowed, a cheaper one widened."""
        most = parameters + self.settings.param_slack
        if arch.count_parameters() < parameters:
            while arch.width < self.space.settings.max_width:
                wider = arch.with_width(arch.width + 1)
                if wider.count_parameters() > most:
                    break
                arch = wider
        while arch.width > 1 and arch.count_parameters() > most:
            arch = arch.with_width(arch.width - 1)
        return arch

    def _take(self, arch: Arch, outcome: Outcome, decision: str) -> None:
        self.best, self.best_outcome, self.decision = arch, outcome, decision

    def _at_least(self, outcome: Outcome, margin: float) -> bool:
        return outcome.accuracy >= self.best_outcome.accuracy + margin - EPSILON

    def _good_enough(self) -> bool:
        s, best = self.settings, self.best_outcome
        reached = best.accuracy >= s.target_accuracy - s.target_slack - EPSILON
        return reached or best.train_accuracy >= s.saturated_train_accuracy - EPSILON

    def _copy(self) -> MacroMicro:
        """A second machine in the same state: a generator cannot be copied, but it can be told again."""
        copy = MacroMicro(self.space, self.settings)
        for outcome in self._told:
            copy.tell(outcome)
        return copy

    def _likely(self, candidate: Candidate) -> Outcome:
        """Replacements are mostly rejected, and two narrower networks that lost are followed by a third.

        Measured on the five recorded searches (tools/simulate_speculation.py).
        """
        last_chance = (
            candidate.phase == "width" and self._drops == self.settings.max_width_drops - 1
        )
        rejected = last_chance or candidate.phase in ("ops", "kernels")
        return Outcome(0.0 if rejected else self.best_outcome.accuracy)
