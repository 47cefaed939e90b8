"""Search strategies: pure state machines, one file each, found by name. Never imports torch.

`MacroMicro(micro=True)`, `NSGA2(population=20)`, `RandomSearch()`: a strategy with its settings, for
`facenas.search`; one's own is a subclass of `Strategy`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from facenas.strategies.base import (
    STRATEGIES,
    Budget,
    Candidate,
    Decision,
    Known,
    Strategy,
    TrialResult,
    register,
)
from facenas.strategies.joint import Joint
from facenas.strategies.listed import Listed
from facenas.strategies.macro_micro import MacroMicro

if TYPE_CHECKING:
    from facenas.strategies.evolution import NSGA2, WeightedSum
    from facenas.strategies.random_search import RandomSearch
    from facenas.strategies.trend import Trend

__all__ = [
    "NSGA2",
    "STRATEGIES",
    "Budget",
    "Candidate",
    "Decision",
    "Joint",
    "Known",
    "Listed",
    "MacroMicro",
    "RandomSearch",
    "Strategy",
    "Trend",
    "TrialResult",
    "WeightedSum",
    "register",
]

# pymoo takes half a second to import, numpy a tenth: macro-micro search does without.
_LATER = {
    "NSGA2": "evolution",
    "WeightedSum": "evolution",
    "RandomSearch": "random_search",
    "Trend": "trend",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
