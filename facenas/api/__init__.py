"""What a notebook calls, and what the command line calls: search, resume, train, load, study.

Everything here is re-exported by `facenas` itself. Errors speak of arguments; a wrong one is a UserError in one
sentence. Calls leave the process as they found it: environment, threads, signal handlers.
"""

from __future__ import annotations

from facenas.api.loading import export_int8, export_latency, load
from facenas.api.searching import SearchResult, resume, search
from facenas.api.studying import StudyResult, study
from facenas.api.training import TrainResult, train

__all__ = [
    "SearchResult",
    "StudyResult",
    "TrainResult",
    "export_int8",
    "export_latency",
    "load",
    "resume",
    "search",
    "study",
    "train",
]
