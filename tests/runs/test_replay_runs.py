"""Replay of our own runs: they match; what was edited in a journal is found at its trial."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from facenas.errors import UserError
from facenas.execution import TrialSpec
from facenas.runs import SearchLog, create_run, replay
from facenas.runs.config import RunConfig
from facenas.spaces import Plain, from_json
from facenas.strategies import MacroMicro, Strategy, Trend, TrialResult

DATA = {"fingerprint": "images", "in_channels": 1, "classes": 10, "image_size": 8}
SPACE = {"min_depth": 2, "max_depth": 9, "min_width": 4, "max_width": 8, "width_step": 2}
SEARCH = {"min_epochs": 5, "param_slack": 50}
# Growth to depth 3 and three drops; pruning to width 6, then W_min; a baseline; one plain layer, one 5x5.
GROWTH, PRUNING = [50.0, 60.0, 59.0, 59.0, 59.0], [60.0, 59.0]
REPLACE, UPDATE = [40.0, 39.0, 41.0, 41.0], [40.0, 40.0, 42.0]
ACCURACIES = GROWTH + PRUNING + REPLACE + UPDATE


def searched(folder: Path, search: Strategy, judge: Callable[[int], TrialResult]) -> Path:
    """A run folder as a search leaves it; judge: gives the result of a trial by its number."""
    config = RunConfig(space=Plain(**SPACE), search=search)
    run = create_run(folder, "own", config, DATA, "").folder
    strategy, log = config.build_strategy(config.build_space(DATA)), SearchLog(run, 8)
    while wanted := strategy.ask():
        spec = TrialSpec(wanted[0], {"seed": 0})
        told = replace(judge(log.next_trial), key=spec.key)
        decision = strategy.tell(told)
        log.finished(told, early=False)
        log.decided(spec, told, decision, strategy.note)
    best = strategy.result()
    parameters = from_json(best["architecture"]).count_parameters()
    (run / "best.json").write_text(json.dumps(best | {"params_millions": parameters / 1e6}))
    return run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Of macro-micro search."""
    return searched(
        tmp_path,
        MacroMicro(**SEARCH),
        lambda number: TrialResult(accuracy=ACCURACIES[number], train_accuracy=30.0),
    )


def test_a_search_by_trends_matches(tmp_path):
    """Trends are compared to the last digit, and swaps by which images were right."""
    rng = np.random.default_rng(0)

    def judge(number: int) -> TrialResult:
        right = rng.random(80) < 0.5 + number / 50
        bits = np.packbits(right).tobytes().hex()
        return TrialResult(accuracy=100 * float(right.mean()), validated=80, right_bits=bits)

    comparison = replay(searched(tmp_path, Trend(**SEARCH), judge))
    assert comparison.same, comparison.first_difference
    assert comparison.trials > 9


def test_our_own_run_matches_from_its_folder_and_its_journal(run):
    for path in (run, run / "trials.jsonl"):
        comparison = replay(path)
        assert comparison.to_json() == {
            "log": str(path),
            "trials": 14,
            "matched": 14,
            "final_matches": True,
            "first_difference": None,
        }


def edit_line(path: Path, number: int, change: Callable[[dict], object]) -> None:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    change(lines[number])
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_tampering_with_our_own_run_is_found(run):
    edit_line(run / "trials.jsonl", 6, lambda line: line.update(width=5))
    comparison = replay(run)
    assert (comparison.matched, comparison.final_matches) == (6, False)
    assert comparison.first_difference.startswith("trial 6: width")


def test_another_best_in_our_own_run_is_found(run):
    best = json.loads((run / "best.json").read_text())
    best["architecture"]["kernels"] = [3, 3, 3]
    (run / "best.json").write_text(json.dumps(best))
    assert "final: kernels" in replay(run).first_difference


def test_a_run_that_is_still_searching_matches_so_far(run):
    (run / "best.json").unlink()
    journal = run / "trials.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    for count in (0, 6):
        journal.write_text("".join(lines[:count]) + '{"torn')
        comparison = replay(run)
        assert (comparison.trials, comparison.matched, comparison.final_matches) == (
            count,
            count,
            False,
        )
        assert "the engine goes on" in comparison.first_difference


def test_a_journal_without_its_run_is_told(run):
    (run / "run.yaml").unlink()
    with pytest.raises(UserError, match=r"run\.yaml is not beside it"):
        replay(run / "trials.jsonl")


def test_a_damaged_journal_is_told(run):
    journal = run / "trials.jsonl"
    journal.write_text("damaged\n" + journal.read_text())
    with pytest.raises(UserError, match="line 1 is damaged"):
        replay(run)


@pytest.mark.parametrize("text", ['{"architecture', "{}"])
def test_a_damaged_best_is_told(run, text):
    (run / "best.json").write_text(text)
    with pytest.raises(UserError, match=r"best\.json"):
        replay(run)
