"""A budget for a network: read from words, and the best member of a front within it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from facenas.errors import UserError
from facenas.report.front.members import Member
from facenas.report.records import COSTS

Budget = dict[str, float]  # the most that is allowed, by cost

EXAMPLE = "params=1M,macs=80M,memory=4MB"
_NAMES = {"params": "parameters"} | {name: name for name in COSTS}
_SIZES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
_AMOUNT = re.compile(r"(\d+\.?\d*|\.\d+)\s*([kMG]?)(B|ms)?", re.ASCII)
_SUFFIXES = {"B": "memory", "ms": "latency"}  # each belongs to one cost


def parse_budget(text: str) -> Budget:
    """Limits out of `params=1M,macs=80M,memory=4MB`: k, M and G are powers of 1000, B may follow for bytes of
    memory, ms for milliseconds of latency. Raises UserError that tells what is wrong.
    """
    budget: Budget = {}
    for part in text.split(","):
        name, equals, amount = (word.strip() for word in part.partition("="))
        if not equals:
            raise UserError(f"--budget: {part.strip()!r} is no limit; write it as {EXAMPLE}")
        if name not in _NAMES:
            raise UserError(f"--budget: {name!r} is no cost; there are {', '.join(_NAMES)}")
        if _NAMES[name] in budget:
            raise UserError(f"--budget: {_NAMES[name]} is limited twice; leave one out")
        budget[_NAMES[name]] = _amount(_NAMES[name], amount)
    return budget


def recommend(front: Sequence[Member], budget: Budget) -> Member | None:
    """The most accurate within all limits, of equals the one with the smaller costs; None when there is none.

    Raises UserError when the front does not tell a cost that is limited.
    """
    for name in budget:
        if not all(name in member.costs for member in front):
            raise UserError(
                f"--budget: this search did not weigh {name}; leave it out, or search with it among "
                "search.objectives"
            )
    within = [m for m in front if all(m.costs[name] <= most for name, most in budget.items())]
    return min(within, key=lambda m: (-m.accuracy, *m.values.values(), m.id), default=None)


def _amount(name: str, text: str) -> float:
    found = _AMOUNT.fullmatch(text)
    suffix = found[3] if found else None
    value = float(found[1]) * _SIZES[found[2]] if found else 0.0
    if not 0 < value < float("inf") or (suffix and _SUFFIXES[suffix] != name):
        raise UserError(
            f"--budget: {text!r} is not a limit of {name}; write a number above 0 as in {EXAMPLE}"
        )
    return value
