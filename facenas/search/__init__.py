"""Search strategies: pure state machines. Never imports torch."""

from facenas.search.base import Candidate, Outcome, Strategy
from facenas.search.macro_micro import MacroMicro

__all__ = ["Candidate", "MacroMicro", "Outcome", "Strategy"]
