"""The generations of a search: what each brought, how long it took, and how much the front dominates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from facenas.report.front.members import generation_of, points, within
from facenas.report.records import Trial
from facenas.strategies.pareto import Objective, hypervolume


@dataclass(frozen=True)
class Generation:
    """One generation, and the front as it was after it.

    trained: candidates in it and before. best: accuracy in percent. hypervolume: share 0..1 of the box from 0
    to the objectives' scales. seconds: of training, summed; wall: of the search, None when it is not told.
    """

    number: int
    trials: int
    trained: int
    failed: int
    best: float | None
    front: int
    hypervolume: float
    seconds: float
    wall: float | None


def generations(trials: Sequence[Trial], objectives: Sequence[Objective]) -> list[Generation]:
    """Those that have begun, in order; trials that are no candidates count for their time alone."""
    front = np.empty((0, len(objectives)))
    scales = [objective.scale for objective in objectives]
    found: list[Generation] = []
    for number, members, wall in _grouped(trials):
        both = np.vstack([front, points(members, objectives)])
        front = both[within(both, objectives)]
        ok = [trial.accuracy for trial in members if not trial.failed]
        found.append(
            Generation(
                number=number,
                trials=len(members),
                trained=len(members) + (found[-1].trained if found else 0),
                failed=len(members) - len(ok),
                best=max(ok, default=None),
                front=len(front),
                hypervolume=hypervolume(front, scales),
                seconds=sum(trial.seconds or 0 for trial in members),
                wall=wall,
            )
        )
    return found


def _grouped(trials: Sequence[Trial]) -> list[tuple[int, list[Trial], float | None]]:
    """(number, members, wall clock): from the decision before its first trial to that of its last."""
    members: dict[int, list[Trial]] = {}
    begun: dict[int, float | None] = {}
    clock: float | None = 0.0
    for trial in trials:
        number = generation_of(trial)
        if number is not None:
            members.setdefault(number, []).append(trial)
            begun.setdefault(number, clock)
        clock = trial.search_seconds
    return [(n, mine, _between(begun[n], mine[-1].search_seconds)) for n, mine in members.items()]


def _between(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else end - start
