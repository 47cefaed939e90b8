"""Replay of our own runs: they match; what was edited in a journal is found at its trial."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from facenas.errors import UserError
from facenas.execution import TrialSpec
from facenas.runs import SearchLog, create_run, replay
from facenas.runs.config import RunConfig
from facenas.spaces import Plain
from facenas.strategies import MacroMicro, TrialResult

DATA = {"fingerprint": "images", "in_channels": 1, "classes": 10, "image_size": 8}
SPACE = {"min_depth": 2, "max_depth": 9, "min_width": 4, "max_width": 8, "width_step": 2}
SEARCH = {"min_epochs": 5, "param_slack": 50}
# Growth to depth 3 and three drops; pruning to width 6, then W_min; a baseline; one plain layer, one 5x5.
GROWTH, PRUNING = [50.0, 60.0, 59.0, 59.0, 59.0], [60.0, 59.0]
REPLACE, UPDATE = [40.0, 39.0, 41.0, 41.0], [40.0, 40.0, 42.0]
ACCURACIES = GROWTH + PRUNING + REPLACE + UPDATE


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder as a search leaves it."""
    config = RunConfig(space=Plain(**SPACE), search=MacroMicro(**SEARCH))
    folder = create_run(tmp_path, "own", config, DATA, "").folder
    strategy, log = config.build_strategy(config.build_space(DATA)), SearchLog(folder, 8)
    for accuracy in ACCURACIES:
        [wanted] = strategy.ask()
        spec = TrialSpec(wanted, {"seed": 0})
        told = TrialResult(spec.key, accuracy=accuracy, train_accuracy=30.0)
        decision = strategy.tell(told)
        log.finished(told, early=False)
        log.decided(spec, told, decision, strategy.note)
    best = strategy.result() | {"params_millions": strategy.best.count_parameters() / 1e6}
    (folder / "best.json").write_text(json.dumps(best))
    return folder


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
