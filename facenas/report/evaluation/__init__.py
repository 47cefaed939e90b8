"""One self-contained HTML page about an evaluation: `write_evaluation`."""

from facenas.report.evaluation.page import write_evaluation

__all__ = ["write_evaluation"]
