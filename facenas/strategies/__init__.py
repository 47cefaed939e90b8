"""Search strategies: pure state machines. Never imports torch."""

from facenas.strategies.base import Candidate, Outcome, Strategy
from facenas.strategies.building import build_objectives, build_strategy
from facenas.strategies.macro_micro import MacroMicro

__all__ = ["Candidate", "MacroMicro", "Outcome", "Strategy", "build_objectives", "build_strategy"]
