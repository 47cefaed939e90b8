"""Two self-contained HTML pages: about a run, and about an evaluation.

The pages know no algorithm. They show what the files of a run hold: trials by phase in order of appearance,
a front where there is one, a rank check where networks were judged twice.
"""

from facenas.report.evaluation_page import write_evaluation_page
from facenas.report.search_page import write_search_page
from facenas.report.watch import watch_search_page

__all__ = ["watch_search_page", "write_evaluation_page", "write_search_page"]
