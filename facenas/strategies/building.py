"""The strategy that a configuration names."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from facenas.strategies.base import Outcome, Strategy
from facenas.strategies.macro_micro import MacroMicro
from facenas.strategies.objectives import ERROR, Objective
from facenas.strategies.rank_check import RankCheck
from facenas.strategies.settings import MultiObjectiveConfig, SearchConfig

_SAMPLES = 100  # of the space, for the scale of an objective without a limit
_SLOW = 1000.0  # milliseconds


def build_strategy(
    space: Any, settings: SearchConfig | MultiObjectiveConfig, seed: int, image_size: int
) -> Strategy:
    """A new strategy over `space`; images of `image_size` pixels are what costs are counted for."""
    if isinstance(settings, SearchConfig):
        return MacroMicro(space, settings)
    # pymoo takes half a second to import: macro-micro search does without.
    from facenas.strategies.evolution import Evolution
    from facenas.strategies.random_search import RandomSearch

    kind = RandomSearch if settings.strategy == "random" else Evolution
    search = kind(space, build_objectives(space, settings, image_size), settings, seed)
    return RankCheck(search, space, settings.supernet, seed) if settings.supernet else search


def build_objectives(
    space: Any, settings: MultiObjectiveConfig, image_size: int
) -> list[Objective]:
    """The error and the costs that `settings` names.

    The scale of a cost is its limit, else the largest of a hundred random members; of latency, which only
    a trial tells, a second.
    """
    rng = random.Random(0)
    members = [space.sample(rng) for _ in range(_SAMPLES)]
    counts: dict[str, Callable[[Any, Outcome], float]] = {
        "parameters": lambda arch, _: float(arch.count_parameters()),
        "macs": lambda arch, _: float(arch.count_macs(image_size)),
        "memory": lambda arch, _: float(arch.count_memory(image_size)),
        "latency": lambda _, outcome: outcome.latency,
    }
    found = [ERROR]
    for name in settings.objectives:
        of, limit = counts[name], settings.limits.get(name, float("inf"))
        largest = max(of(member, Outcome(0.0, latency=_SLOW)) for member in members)
        scale = limit if name in settings.limits else largest
        found.append(Objective(name, of, scale, limit, counted=name != "latency"))
    return found
