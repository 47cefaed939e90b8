"""Whole pages against what is checked in; after a change that is meant, look at the pages and renew them:

FACENAS_RENEW_GOLDEN=1 python -m pytest tests/report/test_golden.py
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from report_evaluations import MODEL, pair_outcome, ranking_outcome, template_outcome
from report_extract import Page
from report_runs import (
    FACES,
    FRONT,
    GRAPH,
    finish_front,
    finish_search,
    finish_training,
    ir,
    line,
    macro_micro,
    make_run,
    plain,
    with_supernet,
    write_lines,
)

from facenas.report import write_evaluation_page, write_search_page

GOLDEN = Path(__file__).parent / "golden"


def _macro_micro(folder: Path) -> Path:
    """A finished search, and a training with a confusion matrix."""
    run, found = make_run(folder / "chain", macro_micro()), plain(6, 8, (2,), (5,))
    finish_search(run, found)
    confusion = {
        "confusion": [[40, 2, 0], [5, 30, 1], [0, 0, 22]],
        "classes": ["cat", "dog", "<owl>"],
    }
    finish_training(run, found, **confusion)
    return write_search_page(run)


def _supernet(folder: Path) -> Path:
    """A front judged by a supernet, with a budget and random search beside."""
    trials, search = with_supernet(), {**FRONT, "supernet": {"epochs": 2, "rank_networks": 3}}
    run = make_run(folder / "front", trials, space=GRAPH, search=search)
    finish_front(run, trials, [6, 7, 8], ["macs", "memory"])
    epochs = [{"trial": "supernet", "epoch": e, "train_loss": 2 / e, "train_accuracy": 40 * e} for e in (1, 2)]
    write_lines(run / "metrics.jsonl", epochs)
    drawn = [t | {"phase": "generation 1", "accuracy": t["accuracy"] - 5} for t in trials[6:]]
    make_run(folder / "dice", drawn, space=GRAPH, search={**search, "strategy": "random"})
    return write_search_page(run, budget={"macs": 60_000})


def _faces(folder: Path) -> Path:
    """A search of face networks, trained and verified on test identities."""
    found = ir(6, [1, 1, 2, 1], 1)
    trials = [line(0, "depth", ir(8, [1, 1, 1, 1]), 54.0), line(1, "width", found, 57.0)]
    run = make_run(folder / "faces", trials, FACES, space={"kind": "ir"}, recipe={"kind": "faces"})
    finish_search(run, found)
    verification: dict[str, Any] = {
        "identities": "test",
        "pairs": 300,
        "accuracy": 62.5,
        "std": 3.25,
    }
    verification["tar_at_far"] = {"0.1": 40.0, "0.01": 12.0, "0.001": 4.0}
    verification["roc"] = {"far": [0.0, 0.0, 0.01, 0.1, 1.0], "tar": [0.0, 0.04, 0.12, 0.4, 1.0]}
    more = {"head_parameters": 64 * 284, "identities": 284, "best_epoch": 2, "device": "cpu"}
    finish_training(run, found, verification=verification, **more)
    return write_search_page(run)


def _plug_in(folder: Path) -> Path:
    """Another package's strategy and space, of which nothing is known here, under way."""
    names = ("climb", "tunnel <b>", "climb", "rest")
    trees = [{"kind": "mine:Rules", "rules": [n], "size": 3 + n} for n in range(4)]
    trials = [line(n, names[n], trees[n], 50.0 + n, energy=2.5) for n in range(4)]
    search = {"strategy": "mine:Climber", "steps": 3, "inner": {"rate": 0.5, "on": True}}
    return write_search_page(make_run(folder / "climber", trials, space={"kind": "mine:Rules"}, search=search))


def _evaluation(folder: Path) -> Path:
    """Three kinds of benches."""
    outcomes = [pair_outcome(pairs=60), template_outcome(200), ranking_outcome(20)]
    return write_evaluation_page(folder, MODEL, outcomes)


@pytest.mark.parametrize("make", [_macro_micro, _supernet, _faces, _plug_in, _evaluation])
def test_page_shows_what_is_checked_in(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    found = Page(make(tmp_path).read_text(encoding="utf-8")).extract()
    golden = GOLDEN / f"{make.__name__.strip('_')}.txt"
    if os.environ.get("FACENAS_RENEW_GOLDEN"):
        golden.write_text(found, encoding="utf-8")
    assert found == golden.read_text(encoding="utf-8")
