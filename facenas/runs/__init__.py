"""Runs: the folder, the journal, replay."""

from facenas.runs.replay import Comparison, replay
from facenas.runs.run import Run, create_run, list_runs, open_run
from facenas.runs.search_log import SearchLog, right_images

__all__ = [
    "Comparison",
    "Run",
    "SearchLog",
    "create_run",
    "list_runs",
    "open_run",
    "replay",
    "right_images",
]
