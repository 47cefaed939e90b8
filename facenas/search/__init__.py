"""Search strategies: pure state machines. Never imports torch."""

from facenas.search.base import Candidate, Outcome, Strategy
from facenas.search.building import build_objectives, build_strategy
from facenas.search.macro_micro import MacroMicro

__all__ = ["Candidate", "MacroMicro", "Outcome", "Strategy", "build_objectives", "build_strategy"]
