"""What all searches for a Pareto front share: objectives, who was judged, who is on the front."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from facenas.config import Config
from facenas.errors import UserError
from facenas.spaces.base import Architecture, fingerprint
from facenas.strategies.base import (
    Budget,
    Candidate,
    Decision,
    Strategy,
    StrategySettings,
    TrialResult,
)
from facenas.strategies.rank_check import RankCheck

Points = NDArray[np.float64]  # (candidates, objectives)

_SAMPLES = 100  # of the space, for the scale of an objective without a limit
_MEASURED_SCALE = 1000.0  # of what only a trial tells; of latency in milliseconds: a second
GROUP_OBJECTIVES = frozenset({"worst_group", "group_gap"})  # in percent, of people by `data.groups`
TRIES = 100  # draws for each new member, before a generation is left smaller


@dataclass(frozen=True)
class Objective:
    """`of(architecture, result)`, to be minimized; no candidate above `limit` is accepted.

    scale: what counts as a whole in weighted sums, and the far end of the box for hypervolumes; counted: known
    from the architecture alone, so that one above the limit is refused before anything is trained.
    """

    name: str
    of: Callable[[Any, TrialResult], float]
    scale: float
    limit: float = float("inf")
    counted: bool = True

    def measured_in(self, result: TrialResult) -> bool:
        """Whether the trial told it, or needed not: it failed."""
        return self is ERROR or result.status == "failed" or self.name in result.values

    def allows(self, architecture: Architecture) -> bool:
        """Whether a counted value is known and keeps the limit; true for what only training can tell."""
        if not self.counted:
            return True
        value = self.of(architecture, TrialResult())
        return value <= self.limit and math.isfinite(value)


# The limit keeps failed candidates, whose accuracy is 0, off the front.
ERROR = Objective("error", lambda _, result: 100 - result.accuracy, 100.0, float(np.nextafter(100, 0)), False)


class SupernetSettings(Config):
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


class ParetoSettings(StrategySettings):
    """A search for a Pareto front: of the error and `objectives`, all to be made small.

    objectives: what an architecture counts (`parameters`, `macs`, `memory`), `latency`, of faces `worst_group`
    and `group_gap` (see `data.groups`), or a value that one's own evaluation measures. limits: by objective,
    above which no candidate is accepted; crossover, mutation: how probable each is; weights: of the error and
    then of `objectives` in their order, used by the weighted sum alone. epochs: of every candidate's training,
    unless a supernet judges them.
    """

    epochs: int = Field(5, ge=1)
    population: int = Field(20, ge=4)
    generations: int = Field(10, ge=1)
    objectives: tuple[str, ...] = ("parameters",)
    limits: dict[str, float] = Field({})
    crossover: float = Field(0.9, gt=0, lt=1)
    mutation: float = Field(0.9, gt=0, lt=1)
    weights: tuple[float, ...] = ()
    supernet: SupernetSettings | None = None

    @model_validator(mode="after")
    def _settings_fit(self) -> Self:
        if not self.objectives or len(set(self.objectives)) < len(self.objectives):
            raise ValueError("objectives: name one or more, each once")
        if taken := {"error", "accuracy"} & set(self.objectives):
            raise ValueError(f"objectives: {min(taken)} is always the first; name what it costs")
        if strange := set(self.limits) - set(self.objectives):
            raise ValueError(f"limits: {min(strange)} is not among the objectives")
        return self


class ParetoSearch(Strategy):
    """Base of the strategies; the first of `objectives` is the error, which the front is ordered by.

    waiting: architectures asked for and not yet told. No architecture is asked for twice, and none that
    breaks a counted limit is asked for at all.
    """

    Settings = ParetoSettings
    needs: ClassVar[tuple[str, ...]] = ("sample",)
    revisable: ClassVar[tuple[str, ...]] = ("limits",)

    @classmethod
    def check(cls, settings: Any, space: Any) -> None:
        """Also whether the space's architectures count what is to be made small, and share a supernet."""
        super().check(settings, space)
        for name in settings.objectives:
            if name in _COUNTED and not hasattr(space.Architecture, f"count_{name}"):
                raise UserError(f"search.objectives: {name} is not counted for a space of kind {space.name}")
        if settings.supernet and not hasattr(space, "largest"):
            raise UserError(f"a space of kind {space.name} has no supernet")
        if settings.supernet and (settings.fidelity or settings.inherit):
            raise UserError(
                "search.supernet judges without training: leave search.fidelity and search.inherit out"
            )

    def bind(self, space: Any, seed: int) -> Strategy:
        """With a supernet, its ranking of networks is checked first."""
        search = super().bind(space, seed)
        return RankCheck(search) if self.settings.supernet else search

    def begin(self) -> None:
        """Nobody is asked for yet: a subclass goes on with its first `refill`."""
        settings = self.settings
        self.objectives = build_objectives(self.space, settings)
        self.budget = Budget(0 if settings.supernet else settings.epochs)
        self.generation = 0
        self.judged: list[tuple[Architecture, TrialResult]] = []
        self.waiting: list[Architecture] = []
        self.reason = ""
        self._asked: set[str] = set()
        self._limits = np.array([objective.limit for objective in self.objectives])
        self._best = np.empty((0, len(self.objectives)))  # values of the front

    def ask(self) -> list[Candidate]:
        """All that wait, in order; empty when the search is over."""
        phase = f"generation {self.generation}"
        return [Candidate(a, self.budget, phase, self.reason) for a in self.waiting]

    def tell(self, result: TrialResult) -> Decision:
        """The result of the first that waits; decides where it stands among those so far."""
        if not self.waiting:
            raise RuntimeError("the search is over: nothing was asked for")
        if missing := [o.name for o in self.objectives if not o.counted and not o.measured_in(result)]:
            known = ", ".join([*_COUNTED, *result.values])
            raise UserError(
                f"search.objectives: no trial measures {missing[0]}; what is counted or measured is {known}"
            )
        architecture = self.waiting.pop(0)
        decision = self._place([o.of(architecture, result) for o in self.objectives])
        self.judged.append((architecture, result))
        if not self.waiting:
            self.refill()
        return decision

    def refill(self) -> None:
        """Everybody asked for is told: says by `want` who comes next, if anybody does."""
        raise NotImplementedError

    def want(self, reason: str, architectures: Sequence[Architecture]) -> None:
        """Asks for these, the next generation."""
        self.generation, self.reason = self.generation + 1, reason
        self.waiting = list(architectures)
        self._asked |= {fingerprint(architecture.to_json()) for architecture in architectures}

    def fresh(self, architecture: Architecture) -> bool:
        """Whether it was never asked for, and keeps all limits that can be counted."""
        if fingerprint(architecture.to_json()) in self._asked:
            return False
        return all(objective.allows(architecture) for objective in self.objectives)

    def front(self) -> list[int]:
        """Numbers of the judged candidates within all limits that no other beats, the lowest error first."""
        points = points_of(self.judged, self.objectives)
        allowed = np.flatnonzero((points <= self._limits).all(axis=1))
        return [int(allowed[row]) for row in non_dominated(points[allowed])]

    def result(self) -> dict[str, Any]:
        """`front`: its members with their trial number as `id`; the most accurate also as `architecture`."""
        points = points_of(self.judged, self.objectives)
        names = [objective.name for objective in self.objectives]
        front = [
            {
                "id": number,
                "accuracy": self.judged[number][1].accuracy,
                **dict(zip(names, points[number].tolist(), strict=True)),
                "architecture": self.judged[number][0].to_json(),
            }
            for number in self.front()
        ]
        best = front[0] if front else {"architecture": None, "accuracy": 0.0}
        return {
            "architecture": best["architecture"],
            "accuracy": best["accuracy"],
            "objectives": names,
            "front": front,
        }

    def _place(self, values: list[float]) -> Decision:
        """Where a candidate stands among those before it; the front so far takes it up."""
        point = np.array(values)
        if (point > self._limits).any():
            self.note = "above a limit"
            return Decision.REJECTED
        if (self._best <= point).all(axis=1).any():
            self.note = "dominated"
            return Decision.REJECTED
        beaten = (point <= self._best).all(axis=1)
        self._best = np.vstack([self._best[~beaten], point])
        self.note = "on the front"
        return Decision.KEPT


_COUNTED = ("parameters", "macs", "memory")


def build_objectives(space: Any, settings: ParetoSettings) -> list[Objective]:
    """The error and the costs that `settings` names, for images as the space is bound to.

    What the architecture or `space.costs` tell is counted. The scale of a cost is its limit, else the largest
    of a hundred random members; of what only a trial tells, 1000, of errors by group 100.
    """
    size = space.images.image_size
    counts: dict[str, Callable[[Any, TrialResult], float]] = {
        "parameters": lambda arch, _: float(arch.count_parameters()),
        "macs": lambda arch, _: float(arch.count_macs(size)),
        "memory": lambda arch, _: float(arch.count_memory(size)),
        **{name: _cost(function) for name, function in space.costs.items()},
    }
    rng = random.Random(0)
    members = [space.sample(rng) for _ in range(_SAMPLES)]
    found = [ERROR]
    for name in settings.objectives:
        limit = settings.limits.get(name, float("inf"))
        if name in counts:
            values = (counts[name](member, TrialResult()) for member in members)
            largest = max((value for value in values if math.isfinite(value)), default=_MEASURED_SCALE)
            scale = settings.limits.get(name, largest)
            found.append(Objective(name, counts[name], scale, limit))
        else:
            scale = settings.limits.get(name, 100.0 if name in GROUP_OBJECTIVES else _MEASURED_SCALE)
            found.append(Objective(name, _measured(name), scale, limit, counted=False))
    return found


def _cost(function: Callable[[Any], float]) -> Callable[[Any, TrialResult], float]:
    return lambda arch, _: function(arch)


def _measured(name: str) -> Callable[[Any, TrialResult], float]:
    return lambda _, result: result.values.get(name, 0.0)


def points_of(judged: Sequence[tuple[Architecture, TrialResult]], objectives: Sequence[Objective]) -> Points:
    """(candidates, objectives) float64 of judged architectures."""
    values = [[o.of(architecture, result) for o in objectives] for architecture, result in judged]
    return np.array(values, np.float64).reshape(len(judged), len(objectives))


def non_dominated(points: Points) -> list[int]:
    """Rows that no other row beats, from the smallest first column; of equal rows the first alone."""
    front: list[int] = []
    for row in np.lexsort(points.T[::-1]).tolist():  # whatever beats a row comes before it
        if not any((points[kept] <= points[row]).all() for kept in front):
            front.append(row)
    return front


def hypervolume(points: Points, reference: Sequence[float]) -> float:
    """Share of the box from 0 to `reference` that the points dominate, 0..1."""
    from pymoo.indicators.hv import HV  # takes half a second to import

    inside = points[(points < np.asarray(reference)).all(axis=1)]
    if not len(inside):
        return 0.0
    return float(HV(ref_point=np.ones(len(reference)))(inside / np.asarray(reference)))
