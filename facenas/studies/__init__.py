"""Studies: questions about searches, each answered by runs, tables and a page; one file each, found by name.

A study never trains: it says which runs it needs, one after another, and makes findings of what they hold. So
its runs are ordinary run folders, resumed, replayed and reported as any other.
"""

from __future__ import annotations

from facenas.studies.base import STUDIES, Member, Study, load_study, register, strategy, varied
from facenas.studies.findings import Chart, Findings, Interval, Series, Table

__all__ = [
    "STUDIES",
    "Chart",
    "Findings",
    "Interval",
    "Member",
    "Series",
    "Study",
    "Table",
    "load_study",
    "register",
    "strategy",
    "varied",
]
