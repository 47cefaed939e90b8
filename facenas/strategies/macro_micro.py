"""Macro-micro search: grow depth, prune width, then swap operations and kernels at constant parameters.

Algorithm 1 of "Efficient Global Neural Architecture Search" with the settings its authors really ran.
The four methods `_grow`, `_prune`, `_replace` and `_update` are its four steps, each readable top to
bottom: a `yield` asks for a candidate to be trained and returns its result.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from pydantic import Field

from facenas.spaces.plain import PLAIN
from facenas.strategies.base import (
    Budget,
    Candidate,
    Decision,
    Known,
    Strategy,
    StrategySettings,
    TrialResult,
    register,
)

# Accuracies logged by others carry float32 rounding of up to 1e-5 points; one image in a million is 1e-4.
EPSILON = 5e-5

Steps = Generator[Candidate, TrialResult, None]


@register("macro_micro")
class MacroMicro(Strategy):
    """The strategy: `_grow`, `_prune`, then `_swap` operations and kernels.

    The space says which depths and widths there are (`depths`, `widths`, `at`) and what micro search swaps in
    (`swap_operation`, `swap_kernel`); its architectures are chains of layers, or of blocks (`unit`).
    """

    class Settings(StrategySettings):
        """Epochs, tolerances in percentage points, and stopping rules; defaults: what the authors ran."""

        min_epochs: int = Field(10, ge=1)
        depth_epoch_step: int = Field(1, ge=0)
        width_epoch_step: int = Field(2, ge=0)
        micro: bool = True
        micro_epochs: int = Field(2, ge=1)
        depth_gain: float = Field(0.1, ge=0)
        depth_drop: float = Field(0.05, ge=0)
        max_depth_drops: int = Field(3, ge=1)
        max_width_drops: int = Field(3, ge=1)
        target_accuracy: float = 100.0
        target_slack: float = 0.1
        saturated_train_accuracy: float = 100.0
        param_slack: int = Field(10_000, ge=0)

    needs = ("start", "at", "depths", "widths", "swap_operation", "swap_kernel", "unit")

    def begin(self) -> None:
        """Stands before the first candidate, the shallowest and widest network."""
        self.best = self.space.start()
        self.best_result = TrialResult()
        self.macro_accuracy = 0.0
        self.macro_width = self.best.width
        self.macro_epochs = self.settings.min_epochs
        self._decision = Decision.REJECTED
        self._drops = 0
        self._told: list[TrialResult] = []
        self._steps = self._search()
        self._wanted: Candidate | None = next(self._steps)

    def ask(self) -> list[Candidate]:
        """The one candidate whose result decides what comes next, or nothing when the search is over."""
        return [self._wanted] if self._wanted else []

    def tell(self, result: TrialResult) -> Decision:
        """Goes on with the result of the candidate asked for."""
        if self._wanted is None:
            raise RuntimeError("the search is over: nothing was asked for")
        self._told.append(result)
        try:
            self._wanted = self._steps.send(result)
        except StopIteration:
            self._wanted = None
        return self._decision

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
            "accuracy": self.best_result.accuracy,
            "macro_accuracy": self.macro_accuracy,
            "macro_width": self.macro_width,
            "macro_epochs": self.macro_epochs,
        }

    def _search(self) -> Steps:
        epochs = yield from self._grow()
        yield from self._prune(epochs)
        self.macro_accuracy = self.best_result.accuracy
        if self.settings.micro:
            yield from self._baseline()
            yield from self._swap("ops")
            yield from self._swap("kernels")

    def _grow(self) -> Generator[Candidate, TrialResult, int]:
        """Step 1: one layer, or block, and one epoch more each time; returns the epochs at the end."""
        s, depths, epochs = self.settings, self.space.depths(), self.settings.min_epochs
        first = self.space.start()
        self._take(first, (yield Candidate(first, Budget(epochs), "depth", "start")))
        for depth in depths[1:]:
            if self._good_enough():
                break
            epochs += s.depth_epoch_step
            arch = self.space.at(depth, first.width)
            reason = f"depth {depth - depths.step} + {depths.step}"
            result = yield Candidate(arch, Budget(epochs), "depth", reason)
            if self._at_least(result, s.depth_gain):
                self._drops = 0
                self._take(arch, result)
            elif self._at_least(result, -s.depth_drop):
                self._reject("go on")
            else:
                self._drops += 1
                self._reject(f"drop {self._drops} of {s.max_depth_drops}")
                if self._drops == s.max_depth_drops:
                    break
        self.macro_epochs = epochs
        return int(epochs)

    def _prune(self, epochs: int) -> Steps:
        """Step 2: narrower and longer trained each time; a network as good as the best replaces it."""
        s, self._drops = self.settings, 0
        for width in self.space.widths()[1:]:
            epochs += s.width_epoch_step
            arch = self.best.with_width(width)
            result = yield Candidate(arch, Budget(epochs), "width", f"width - {self.space.settings.width_step}")
            if self._at_least(result, 0.0):
                self._drops = 0
                self._take(arch, result)
                self.macro_width, self.macro_epochs = width, epochs
            else:
                self._drops += 1
                self._reject(f"drop {self._drops} of {s.max_width_drops}")
                if self._drops == s.max_width_drops:
                    break

    def _baseline(self) -> Steps:
        """Candidates of micro search train briefly: so the macro network is trained anew, as briefly."""
        candidate = Candidate(self.best, Budget(self.settings.micro_epochs), "ops", "baseline")
        self._take(self.best, (yield candidate))
        self._decision, self.note = Decision.BASELINE, "what swaps are compared with"

    def _swap(self, phase: str) -> Steps:
        """Steps 3 and 4: layer by layer, another operation or kernel, as wide as the parameters allow."""
        budget = Budget(self.settings.micro_epochs)
        base, operation, kernel = self.best, self.space.swap_operation, self.space.swap_kernel
        for layer in range(len(base.operations)):
            if phase == "ops":
                swapped = self.best.with_operation(layer, operation)
                what = "plain convolution" if operation == PLAIN else "separable convolution"
            else:
                swapped, what = self.best.with_kernel(layer, kernel), f"kernel {kernel}"
            arch = self._fitted(swapped.with_width(base.width), base.count_parameters())
            reason = f"{self.space.unit} {layer + 1}: {what}"
            result = yield Candidate(arch, budget, phase, reason)
            if result.accuracy > self.best_result.accuracy + EPSILON:
                self._take(arch, result)
            else:
                self._reject("undone")

    def _fitted(self, arch: Any, parameters: int) -> Any:
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

    def _take(self, arch: Any, result: TrialResult) -> None:
        self.best, self.best_result = arch, result
        self._decision, self.note = Decision.KEPT, "best so far"

    def _reject(self, note: str) -> None:
        self._decision, self.note = Decision.REJECTED, note

    def _at_least(self, result: TrialResult, margin: float) -> bool:
        return bool(result.accuracy >= self.best_result.accuracy + margin - EPSILON)

    def _good_enough(self) -> bool:
        s, best = self.settings, self.best_result
        reached = best.accuracy >= s.target_accuracy - s.target_slack - EPSILON
        return bool(reached or best.train_accuracy >= s.saturated_train_accuracy - EPSILON)

    def _copy(self) -> MacroMicro:
        """A second machine in the same state: a generator cannot be copied, but it can be told again."""
        twin = self.begun(self.space, self.seed)
        for result in self._told:
            twin.tell(result)
        assert isinstance(twin, MacroMicro)
        return twin

    def _likely(self, candidate: Candidate) -> TrialResult:
        """Replacements are mostly rejected, and two narrower networks that lost are followed by a third.

        Measured on the recorded searches (tools/simulate_cluster.py).
        """
        last_chance = candidate.phase == "width" and self._drops == self.settings.max_width_drops - 1
        rejected = last_chance or candidate.phase in ("ops", "kernels")
        return TrialResult(accuracy=0.0 if rejected else self.best_result.accuracy)
