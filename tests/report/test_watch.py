"""`facenas report --watch`: the page of a search under way, in a process of its own as a person runs it."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from forked_python import Command, Python
from report_extract import Page
from report_runs import finish_search, macro_micro, make_run, plain

TRIALS = macro_micro()


def page(run: Path) -> Page:
    return Page((run / "report.html").read_text(encoding="utf-8"))


def is_live(run: Path) -> bool:
    """Whether the page loads itself anew."""
    ((_, attrs),) = [(tag, attrs) for tag, attrs in page(run).tags if tag == "html"]
    return "data-written" in attrs


def rows(run: Path) -> int:
    return sum("data-trial" in attrs for _, attrs in page(run).tags)


def wait_for(true: Callable[[], bool], watcher: Command) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert watcher.poll() is None, "the watcher has ended"
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("end", ["found", "ctrl-c"])
def test_the_page_follows_the_search_to_its_end(tmp_path: Path, python: Python, end: str) -> None:
    run = make_run(tmp_path / "runs" / "r", TRIALS[:2])
    watcher = python.start("-m", "facenas.cli", "report", "r", "--watch", cwd=tmp_path)
    wait_for((run / "report.html").exists, watcher)
    assert is_live(run)
    assert rows(run) == 2
    with (run / "trials.jsonl").open("a") as journal:
        journal.write(json.dumps(TRIALS[2]) + "\n")
    wait_for(lambda: rows(run) == 3, watcher)
    assert is_live(run)
    if end == "found":
        finish_search(run, plain(6, 10))
    else:
        os.kill(watcher.pid, signal.SIGINT)
    assert watcher.wait(60) == 0
    assert not is_live(run)
    assert rows(run) == 3
