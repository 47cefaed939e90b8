"""Macro-micro search: grow depth, prune width, then swap operations and kernels at constant parameters.

Algorithm 1 of "Efficient Global Neural Architecture Search" with the settings its authors really ran.
Its four steps are `_grow`, `_prune`, and `_swap` for operations and for kernels, each readable top to bottom: a
`yield` asks for a candidate to be trained and returns its result.
"""

from __future__ import annotations

from collections.abc import Generator

from pydantic import Field

from facenas.strategies.base import Budget, Candidate, StrategySettings, TrialResult, register
from facenas.strategies.chains import EPSILON, ChainSearch, Steps


@register("macro_micro")
class MacroMicro(ChainSearch):
    """The strategy: `_grow`, `_prune`, then `_swap` operations and kernels.

    The space says which depths and widths there are (`depths`, `widths`, `at`) and what micro search swaps in
    (`swap_operation`, `swap_kernel`); its architectures are chains of layers, or of blocks (`unit`).
    """

    class Settings(StrategySettings):
        """Epochs, tolerances in percentage points, and stopping rules; defaults: what the authors ran.

        micro: whether operations and kernels are searched at all; operations: or kernels alone (step 4).
        """

        min_epochs: int = Field(10, ge=1)
        depth_epoch_step: int = Field(1, ge=0)
        width_epoch_step: int = Field(2, ge=0)
        micro: bool = True
        operations: bool = True
        micro_epochs: int = Field(2, ge=1)
        depth_gain: float = Field(0.1, ge=0)
        depth_drop: float = Field(0.05, ge=0)
        max_depth_drops: int = Field(3, ge=1)
        max_width_drops: int = Field(3, ge=1)
        target_accuracy: float = 100.0
        target_slack: float = 0.1
        saturated_train_accuracy: float = 100.0
        param_slack: int = Field(10_000, ge=0)

    def begin(self) -> None:
        """Stands before the first candidate, the shallowest and widest network."""
        self._drops = 0
        super().begin()

    def _search(self) -> Steps:
        epochs = yield from self._grow()
        yield from self._prune(epochs)
        self.macro_accuracy = self.best_result.accuracy
        if self.settings.micro:
            phases = ("ops", "kernels") if self.settings.operations else ("kernels",)
            yield from self._baseline(phases[0])
            for phase in phases:
                yield from self._swap(phase)

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

    def _swap(self, phase: str) -> Steps:
        """Steps 3 and 4: layer by layer, another operation or kernel, as wide as the parameters allow."""
        budget = Budget(self.settings.micro_epochs)
        base = self.best
        for layer in range(len(base.operations)):
            arch = self._swapped(self.best, base, phase, (layer,))
            reason = f"{self.space.unit} {layer + 1}: {self._what(phase)}"
            result = yield Candidate(arch, budget, phase, reason)
            if result.accuracy > self.best_result.accuracy + EPSILON:
                self._take(arch, result)
            else:
                self._reject("undone")

    def _at_least(self, result: TrialResult, margin: float) -> bool:
        return bool(result.accuracy >= self.best_result.accuracy + margin - EPSILON)

    def _good_enough(self) -> bool:
        s, best = self.settings, self.best_result
        reached = best.accuracy >= s.target_accuracy - s.target_slack - EPSILON
        return bool(reached or best.train_accuracy >= s.saturated_train_accuracy - EPSILON)

    def _likely(self, candidate: Candidate) -> TrialResult:
        """Replacements are mostly rejected, and two narrower networks that lost are followed by a third.

        Measured on the recorded searches (tools/simulate_cluster.py).
        """
        last_chance = candidate.phase == "width" and self._drops == self.settings.max_width_drops - 1
        rejected = last_chance or candidate.phase in ("ops", "kernels")
        return TrialResult(accuracy=0.0 if rejected else self.best_result.accuracy)
