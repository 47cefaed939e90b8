"""The page of a search under way: written anew after each decision, and it loads itself anew in the browser.

From a file a page can load nothing but itself; so it does, at once where it was, and ever more rarely while
nothing changes (`live.js`). The last version, written when the search or the watching ends, does not.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

from facenas.report.front import Budget
from facenas.report.search_page import write_search_page

log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
_SHARE = 5  # a page that takes 1 s to write is written every 5 s at most: the search needs the processor more
# Whoever else writes the page, as a search that stops does, writes one that stays as it is.
_FILES = ("trials.jsonl", "metrics.jsonl", "run.yaml", "best.json", "report.html")


def watch_search_page(run: Path, beside: Path | None = None, budget: Budget | None = None) -> Path:
    """Writes the page of `run` whenever its files have changed, until the search has ended, or Ctrl-C.

    Returns its path; arguments and errors as of `write_search_page`.
    """
    log.info("%s: follows the search until it ends, or Ctrl-C", run / "report.html")
    try:
        while not (run / "best.json").exists():
            begun = time.monotonic()
            before = _state(run)
            write_search_page(run, beside, budget, live=True)
            seen = before | _state(run, ("report.html",))
            time.sleep(_SHARE * (time.monotonic() - begun))
            while _state(run) == seen:
                time.sleep(_LOOK_SECONDS)
    except KeyboardInterrupt:
        log.info("the search is not watched any more; it goes on")
    return write_search_page(run, beside, budget)


def _state(run: Path, names: tuple[str, ...] = _FILES) -> dict[str, tuple[int, int]]:
    """Size and time of what is there."""
    found = {}
    for name in names:
        try:
            about = (run / name).stat()
        except FileNotFoundError:
            continue
        found[name] = about.st_size, about.st_mtime_ns
    return found
