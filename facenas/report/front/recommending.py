"""The recommendation of a finished or running search for a budget, as page and terminal tell it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facenas.errors import UserError
from facenas.report.front.budget import Budget, recommend
from facenas.report.front.costs import LABELS, exactly, listed, told
from facenas.report.front.members import Member, front_of, weighed
from facenas.report.reading import read_run
from facenas.report.wording import percent


@dataclass(frozen=True)
class Recommendation:
    """What a front holds for a budget; `member` is None when nothing keeps it."""

    budget: Budget
    member: Member | None
    sentence: str

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        found: dict[str, Any] | None = None
        if self.member:
            found = {"id": self.member.id, "accuracy": self.member.accuracy, **self.member.values}
            found["architecture"] = self.member.architecture.to_json()
        return {"budget": self.budget, "recommended": found}


def recommendation(run: Path, budget: Budget) -> Recommendation:
    """What the run at this folder recommends. Raises UserError when it is damaged or has no front."""
    read = read_run(run)
    if read.front_settings is None:
        raise UserError(f"{run}: is no search for a Pareto front, so it has nothing for a --budget")
    return advise(front_of(read, weighed(read)), budget)


def advise(front: Sequence[Member], budget: Budget) -> Recommendation:
    """The best of `front` within the budget, in words too."""
    member = recommend(front, budget)
    limits = listed(f"{told(name, most)} {LABELS[name]}" for name, most in budget.items())
    if member is None:
        return Recommendation(budget, None, f"No network of the front keeps {limits}.")
    costs = [exactly(name, value) for name, value in member.costs.items()]
    found = f"trial {member.id}, accuracy {percent(member.accuracy)}, {listed(costs)}"
    return Recommendation(budget, member, f"The most accurate within {limits}: {found}.")
