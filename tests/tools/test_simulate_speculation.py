"""The simulation of speculation: one worker takes the sum of all trials, more are never slower."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from facenas.runs.replay import RecordedSearch, read_recorded
from facenas.spaces import ImageFacts, Plain
from facenas.strategies import MacroMicro, TrialResult

REPOSITORY = Path(__file__).parents[2]
TOOL = REPOSITORY / "tools" / "simulate_speculation.py"
LOGS = Path(__file__).parents[1] / "recorded_searches"
NAMES = ["cifar10-tiny", "cifar100-tiny", "emnist-tiny", "fashionmnist-tiny", "kmnist-tiny"]
SPACE = {"min_depth": 2, "max_depth": 9, "min_width": 4, "max_width": 10}
# Growth to 3 with three drops, three drops in pruning, baseline, three layers undone twice.
ACCURACIES = [50.0, 60.0, *[59.0] * 6, *[40.0] * 7]


def result(accuracy: float, train_accuracy: float = 0.0, **values: float) -> TrialResult:
    return TrialResult(accuracy=accuracy, train_accuracy=train_accuracy, values=values)


def load_tool() -> ModuleType:
    specification = importlib.util.spec_from_file_location("simulate_speculation", TOOL)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


tool = load_tool()


def published(name: str) -> Path:
    return LOGS / f"{name}.json"


def made_up_log(seconds_per_epoch: float = 10) -> dict[str, Any]:
    """A search whose trials take ten seconds an epoch, from just before midnight."""
    strategy = MacroMicro().bind(Plain(**SPACE).bind(ImageFacts(1, 10, 32)), seed=0)
    clock, trials = datetime(2025, 1, 1, 23, 59, 30), []
    for accuracy in ACCURACIES:
        [wanted] = strategy.ask()
        arch = wanted.architecture
        clock += timedelta(seconds=seconds_per_epoch * wanted.budget.epochs)
        described = {**arch.to_json(), "phase": wanted.phase, "epochs": wanted.budget.epochs}
        described |= {"params_millions": arch.count_parameters() / 1e6, "accuracy": accuracy}
        trials.append(described | {"train_accuracy": 30.0, "finished": f"{clock:%Y-%m-%d %H:%M:%S},000"})
        strategy.tell(result(accuracy, 30.0))
    assert strategy.ask() == []
    return {
        "settings": SPACE,
        "num_classes": 10,
        "input_channels": 1,
        "trials": trials,
        "final": None,
    }


@pytest.fixture
def recorded(tmp_path: Path) -> RecordedSearch:
    path = tmp_path / "made-up.json"
    path.write_text(json.dumps(made_up_log()))
    return tool.with_seconds(read_recorded(path))


EPOCHS = [10, 11, 12, 13, 14, 16, 18, 20, *[2] * 7]


def test_trials_take_what_the_log_tells(recorded):
    assert [trial["epochs"] for trial in recorded.trials] == EPOCHS
    assert [trial["seconds"] for trial in recorded.trials] == [10 * epochs for epochs in EPOCHS]


def test_one_worker_takes_the_sum_of_all_trials(recorded):
    assert tool.simulate(recorded, 1) == (10 * sum(EPOCHS), 10 * sum(EPOCHS))


def test_two_workers_by_hand(recorded):
    """Seconds from the start; a trial takes ten times its epochs.

    Growth: depth 2 0-100, 3 0-110, 4 100-220, 5 110-240, 6 220-360, and 7 240-360, given up. Pruning: 8
    360-520, 6 360-540, 4 520-720. After two drops the third is assumed: the seven micro trials 540-680.
    """
    assert tool.simulate(recorded, 2) == (720, 10 * sum(EPOCHS) + 120)


@pytest.mark.parametrize("slots", [2, 3, 4, 8, 50])
def test_more_workers_are_never_slower_and_find_the_same(recorded, slots):
    wall, busy = tool.simulate(recorded, slots)
    assert max(10 * epochs for epochs in EPOCHS) <= wall <= 10 * sum(EPOCHS)
    assert busy <= slots * wall + 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_recorded_searches_on_more_workers(name):
    recorded = tool.with_seconds(read_recorded(published(name)))
    alone = sum(trial["seconds"] for trial in recorded.trials)
    wall, busy = tool.simulate(recorded, 1)
    assert wall == pytest.approx(alone, rel=1e-9)
    assert busy == pytest.approx(alone, rel=1e-9)
    for slots in (2, 4):
        wall, busy = tool.simulate(recorded, slots)
        assert alone / slots - 1e-6 <= wall <= alone
        assert busy <= slots * wall + 1e-6


@pytest.mark.parametrize("name", ["made-up", "kmnist-tiny"])
def test_it_runs_from_the_command_line(tmp_path, name):
    if name == "made-up":
        path = tmp_path / "made-up.json"
        path.write_text(json.dumps(made_up_log()))
    else:
        path = published(name)
    command = [sys.executable, str(TOOL), str(path), "--workers", "1", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, cwd=tmp_path)
    head, _, row, mean = done.stdout.splitlines()
    assert head == "| log | trials | hours on one | 1 workers | 2 workers |"
    trials = {"made-up": 15, "kmnist-tiny": 62}[name]
    assert row.startswith(f"| {name} | {trials} |")
    assert "1.00x (100 % useful)" in row
    speedups = [float(cell.strip(" *").split("x")[0]) for cell in mean.split("|")[4:6]]
    assert speedups[0] == 1
    assert 1 < speedups[1] <= 2
