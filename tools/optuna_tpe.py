"""Optuna's TPE as a strategy: `search.strategy: optuna_tpe:TPE`, with this folder on PYTHONPATH.

The tree-structured Parzen estimator (Bergstra et al., NIPS 2011) over depth, width, and each layer's operation
and kernel. Our journal, workers and resume hold for it as for any strategy: told the same results, a study of
the same seed suggests the same networks.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import optuna
from pydantic import Field

from facenas.spaces.plain import KERNELS, OPERATIONS
from facenas.strategies import Budget, Candidate, Decision, Strategy, TrialResult
from facenas.strategies.base import StrategySettings


class TPE(Strategy):
    """TPE with Optuna's defaults, but that at most half of its networks are drawn at random.

    `batch` networks are suggested at once, so that as many workers are busy.
    """

    class Settings(StrategySettings):
        """Epochs of every candidate, how many there are, and how many at once."""

        epochs: int = Field(5, ge=1)
        trials: int = Field(20, ge=1)
        batch: int = Field(2, ge=1)

    needs = ("at", "depths", "widths")

    def begin(self) -> None:
        """A study of its own, in memory: a resume tells it again what the journal holds."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = optuna.samplers.TPESampler(
            n_startup_trials=max(3, min(10, self.settings.trials // 2)), seed=self.seed, constant_liar=True
        )
        self.study = optuna.create_study(direction="maximize", sampler=sampler)
        self.told = 0
        self.best: tuple[float, Any] = (-1.0, None)
        self.waiting: list[tuple[optuna.Trial, Candidate]] = []
        self._suggest()

    def ask(self) -> list[Candidate]:
        """What is left of the batch."""
        return [candidate for _, candidate in self.waiting]

    def tell(self, result: TrialResult) -> Decision:
        """A failed candidate has accuracy 0."""
        trial, candidate = self.waiting.pop(0)
        self.study.tell(trial, result.accuracy)
        self.told += 1
        kept = result.accuracy > self.best[0]
        if kept:
            self.best = result.accuracy, candidate.architecture
        if not self.waiting:
            self._suggest()
        return Decision.KEPT if kept else Decision.REJECTED

    def result(self) -> dict[str, Any]:
        """The most accurate."""
        accuracy, arch = self.best
        return {"architecture": arch and arch.to_json(), "accuracy": max(0.0, accuracy)}

    def _suggest(self) -> None:
        count = min(self.settings.batch, self.settings.trials - self.told)
        trials = [self.study.ask() for _ in range(count)]
        budget = Budget(self.settings.epochs)
        self.waiting = [
            (trial, Candidate(self._network(trial), budget, "tpe", "suggested")) for trial in trials
        ]

    def _network(self, trial: optuna.Trial) -> Any:
        depths, widths = self.space.depths(), self.space.widths()
        depth = trial.suggest_int("depth", depths[0], depths[-1], step=depths.step)
        width = trial.suggest_int("width", widths[-1], widths[0], step=-widths.step)
        arch = self.space.at(depth, width)
        layers = range(len(arch.operations))
        return replace(
            arch,
            operations=tuple(trial.suggest_categorical(f"operation {i}", OPERATIONS) for i in layers),
            kernels=tuple(trial.suggest_categorical(f"kernel {i}", KERNELS) for i in layers),
        )
