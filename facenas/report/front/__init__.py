"""The report of a search for a Pareto front: its page, its table as CSV, what it recommends for a budget."""

from facenas.report.front.budget import Budget, parse_budget, recommend
from facenas.report.front.members import Member
from facenas.report.front.recommending import Recommendation, recommendation

__all__ = [
    "Budget",
    "Member",
    "Recommendation",
    "parse_budget",
    "recommend",
    "recommendation",
]
