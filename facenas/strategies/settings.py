"""How a search decides."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from facenas.config import Config


class SearchConfig(Config):
    """Macro-micro search. Defaults: what the authors ran (gain, drop and accuracies in percentage points)."""

    strategy: Literal["macro_micro"] = "macro_micro"
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


Cost = Literal["parameters", "macs", "memory", "latency"]


class SupernetConfig(Config):
    """A supernet: trained once, then every candidate is judged by its path, with BatchNorm recalibrated.

    epochs: of its training; sandwich: every batch trains the largest, the smallest and two random paths,
    instead of one random path; recalibration: images for BatchNorm's statistics; rank_networks: random
    networks that are also trained alone, for `rank_epochs`, to see whether the supernet ranks them alike.
    """

    epochs: int = Field(30, ge=1)
    sandwich: bool = False
    recalibration: int = Field(1024, ge=2)
    rank_networks: int = Field(12, ge=2)
    rank_epochs: int = Field(5, ge=1)


class MultiObjectiveConfig(Config):
    """A search for a Pareto front: of the error and `objectives`, all to be made small.

    strategy: NSGA-II, a genetic algorithm on the weighted sum of all objectives (each divided by its
    scale), or as many random candidates, which a cleverer search has to beat. limits: by objective,
    above which no candidate is accepted; crossover, mutation: how probable each is; weights: of the
    error and then of `objectives` in their order, used by the weighted sum alone. epochs: of every
    candidate's training, unless a supernet judges them.
    """

    strategy: Literal["nsga2", "weighted_sum", "random"] = "nsga2"
    epochs: int = Field(5, ge=1)
    population: int = Field(20, ge=4)
    generations: int = Field(10, ge=1)
    objectives: tuple[Cost, ...] = ("parameters",)
    limits: dict[Cost, float] = Field({})
    crossover: float = Field(0.9, gt=0, lt=1)
    mutation: float = Field(0.9, gt=0, lt=1)
    weights: tuple[float, ...] = ()
    supernet: SupernetConfig | None = None

    @model_validator(mode="after")
    def _settings_fit(self) -> Self:
        if not self.objectives or len(set(self.objectives)) < len(self.objectives):
            raise ValueError("objectives: name one or more, each once")
        if strange := set(self.limits) - set(self.objectives):
            raise ValueError(f"limits: {min(strange)} is not among the objectives")
        if self.strategy == "weighted_sum" and len(self.weights) != 1 + len(self.objectives):
            raise ValueError("weights: give one for the error and one for each objective")
        return self
