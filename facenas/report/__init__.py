"""One self-contained HTML page about a run: `write_report`."""

from facenas.report.page import write_report

__all__ = ["write_report"]
