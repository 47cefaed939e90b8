"""The simulated cluster: one perfect worker takes the sum of all trials; no cost of it changes a decision."""

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

from facenas.runs.replay import read_recorded
from facenas.spaces import ImageFacts, Plain
from facenas.strategies import MacroMicro, TrialResult

REPOSITORY = Path(__file__).parents[2]
TOOL = REPOSITORY / "tools" / "simulate_cluster.py"
LOGS = Path(__file__).parents[1] / "recorded_searches"
SPACE = {"min_depth": 2, "max_depth": 9, "min_width": 4, "max_width": 10}
# Growth to 3 with three drops, three drops in pruning, baseline, three layers undone twice.
ACCURACIES = [50.0, 60.0, *[59.0] * 6, *[40.0] * 7]


def result(accuracy: float, train_accuracy: float = 0.0, **values: float) -> TrialResult:
    return TrialResult(accuracy=accuracy, train_accuracy=train_accuracy, values=values)


def load_tool() -> ModuleType:
    specification = importlib.util.spec_from_file_location("simulate_cluster", TOOL)
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module  # dataclasses look their module up
    specification.loader.exec_module(module)
    return module


tool = load_tool()


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
def logged(tmp_path: Path) -> Path:
    path = tmp_path / "made-up.json"
    path.write_text(json.dumps(made_up_log()))
    return path


@pytest.fixture
def recorded(logged: Path) -> Any:
    return tool.recorded_search(logged)


def wide(*settings: str, preset: str = "cells") -> Any:
    """Two generations of eight, a second for every image."""
    small = ["search.population=8", "search.generations=2", *settings]
    return tool.preset_search(preset, small, tool.Cost(1.0, 1e-6, 0.0))


EPOCHS = [10, 11, 12, 13, 14, 16, 18, 20, *[2] * 7]


def test_trials_take_what_the_log_tells(logged):
    trials = tool.with_seconds(read_recorded(logged)).trials
    assert [trial["epochs"] for trial in trials] == EPOCHS
    assert [trial["seconds"] for trial in trials] == [10 * epochs for epochs in EPOCHS]


def test_one_perfect_worker_takes_the_sum_of_all_trials(recorded):
    done = tool.simulate(recorded, tool.Cluster(1))
    assert done.wall == done.alone == 10 * sum(EPOCHS)


def test_two_workers_by_hand(recorded):
    """Seconds from the start; a trial takes ten times its epochs.

    Growth: depth 2 0-100, 3 0-110, 4 100-220, 5 110-240, 6 220-360, and 7 240-360, given up. Pruning: 8
    360-520, 6 360-540, 4 520-720. After two drops the third is assumed: the seven micro trials 540-680.
    """
    assert tool.simulate(recorded, tool.Cluster(2)).wall == 720


def test_what_a_worker_pays_by_hand(recorded):
    """A thousand bytes at ten a second, then a start of 7 s, and 2 s more for each of 15 trials."""
    cluster = tool.Cluster(1, start=7, latency=2, shipped=1000, bandwidth=10)
    assert tool.simulate(recorded, cluster).wall == 100 + 7 + 15 * 2 + 10 * sum(EPOCHS)


def test_nodes_wait_for_their_data_one_after_another(recorded):
    """The second node has its data at 600 s: growth has ended on the first, which got them at 300 s."""
    shipped = {"per_node": 1, "shipped": 300, "bandwidth": 1}
    first = tool.simulate(recorded, tool.Cluster(1, **shipped)).wall
    assert first == 300 + 10 * sum(EPOCHS)
    assert first - 720 < tool.simulate(recorded, tool.Cluster(2, **shipped)).wall < first


@pytest.mark.parametrize("slots", [2, 4, 50])
def test_more_workers_are_never_slower_and_find_the_same(recorded, slots):
    alone, more = (tool.simulate(recorded, tool.Cluster(n)) for n in (1, slots))
    assert max(10 * epochs for epochs in EPOCHS) <= more.wall <= alone.wall
    assert (more.journal, more.found) == (alone.journal, alone.found)


@pytest.mark.parametrize("name", ["kmnist-tiny", "fashionmnist-mobile"])
def test_recorded_searches_on_more_workers(name):
    workload = tool.recorded_search(LOGS / f"{name}.json")
    alone = tool.simulate(workload, tool.Cluster(1))
    assert alone.wall == pytest.approx(alone.alone, rel=1e-9)
    assert alone.alone / 4 <= tool.simulate(workload, tool.Cluster(4)).wall <= alone.wall


def test_a_wide_search_is_never_slower_on_more_workers_up_to_its_population():
    workload = wide()
    walls = [tool.simulate(workload, tool.Cluster(workers)).wall for workers in (1, 3, 8, 16)]
    assert walls == sorted(walls, reverse=True)
    assert walls[0] == pytest.approx(tool.simulate(workload, tool.Cluster(1)).alone)
    assert walls[-2] == walls[-1]


@pytest.mark.parametrize("seed", [0, 1])
def test_lost_nodes_cost_time_and_change_no_decision(recorded, seed):
    for workload in (recorded, wide()):
        safe = tool.simulate(workload, tool.Cluster(4))
        spot = {"per_node": 2, "lost_after": safe.wall / 3, "back_after": safe.wall / 50, "seed": seed}
        lossy = tool.simulate(workload, tool.Cluster(4, **spot))
        assert lossy.lost
        assert lossy.wall > safe.wall
        assert (lossy.journal, lossy.found) == (safe.journal, safe.found)
        assert tool.simulate(workload, tool.Cluster(4, **spot)).wall == lossy.wall


def test_a_supernet_is_trained_before_the_first_trial():
    """Two random networks ranked; all the rest are paths, which take a third of an image's seconds."""
    ranked = ["search.supernet.rank_networks=2", "search.supernet.epochs=3"]
    workload = wide(*ranked, preset="pareto")
    assert workload.prepare > 3 * 45_000 * 4  # four paths an image, a second each and their MACs
    assert workload.prepare < tool.simulate(workload, tool.Cluster(64)).wall < workload.prepare * 2


def test_the_costs_fitted_to_the_logs():
    cost = tool.fit_cost(sorted(LOGS.glob("*-*.json")))
    assert cost.image > 0
    assert cost.mac > 0
    assert 0 < cost.error < 0.3


def test_it_runs_from_the_command_line(tmp_path, logged):
    command = [sys.executable, str(TOOL), str(logged), str(logged), "--workers", "2", "--factors"]
    command += ["--lost-after", "0.1", "--draws", "3", "--per-node", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, cwd=tmp_path)
    head, _, row, _, mean = done.stdout.splitlines()
    assert head == (
        "| search | trials | hours on one | 2 perfect workers | start (2) | latency (2) | shipping (2) | "
        "failures (2) | all (2) |"
    )
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells[:4] == ["made-up", "15", "0.36", "1.78x (0.0 lost)"]
    speedups = [float(cell.split("x")[0]) for cell in cells[3:]]
    assert speedups[0] == max(speedups)
    assert "lost" in cells[-1]
    assert mean.startswith("| mean of the logs | | | **1.78x** |")
