"""Simulated searches: the surface of a log is what a made-up log was drawn from; both strategies end on it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from facenas.strategies import Budget, Candidate, TrialResult
from facenas.strategies.paired import discordant

REPOSITORY = Path(__file__).parents[2]
TOOL = REPOSITORY / "tools" / "simulate_strategies.py"
LOGS = Path(__file__).parents[1] / "recorded_searches"


def load_tool() -> ModuleType:
    specification = importlib.util.spec_from_file_location("simulate_strategies", TOOL)
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module  # dataclasses look their module up
    specification.loader.exec_module(module)
    return module


tool = load_tool()


def law(depth: int, width: int, epochs: int) -> float:
    """Half the width of 64 costs 0.5, half of 128 the half of that; e times the epochs give 2."""
    return 90 - 4 * np.exp(-(depth - 10) / 5) + 2 * np.log(epochs / depth) - 32 / width + 0.5


@pytest.fixture
def made_up(tmp_path: Path) -> Path:
    """The fashionmnist logs with accuracies by the law, and brief ones between 40 and 60."""
    for kind in ("tiny", "mobile"):
        log = json.loads((LOGS / f"fashionmnist-{kind}.json").read_text())
        for number, trial in enumerate(log["trials"]):
            brief = trial["phase"] in ("ops", "kernels")
            told = 40 + number % 21 if brief else law(trial["depth"], trial["width"], trial["epochs"])
            trial["accuracy"] = told
        (tmp_path / f"fashionmnist-{kind}.json").write_text(json.dumps(log))
    return tmp_path / "fashionmnist-tiny.json"


def test_a_surface_is_what_its_log_was_drawn_from(made_up):
    surface = tool.fit_surface(made_up)
    assert surface.growth == pytest.approx((90, 4, 5), rel=1e-4)
    assert surface.width_cost == pytest.approx(0.5)
    assert surface.epoch_gain == pytest.approx(2)
    assert surface.scatter < 1e-3
    for depth, width, epochs in ((10, 64, 10), (18, 40, 50), (30, 16, 30)):
        assert surface.macro(depth, width, epochs) == pytest.approx(law(depth, width, epochs), abs=1e-3)


def test_a_trainings_bits_are_its_accuracy_and_networks_share_what_is_difficult():
    surface = tool.fit_surface(LOGS / "cifar10-tiny.json")
    judge = tool.Judge(surface, 0, bits=True, share=0.0)
    candidate = Candidate(surface.space.at(20, 64), Budget(2), "ops", "baseline")
    one, other = (judge(candidate) for _ in range(2))
    assert isinstance(one, TrialResult)
    first, second = discordant(one, other)
    images = surface.images / 100
    assert first - second == pytest.approx(images * (one.accuracy - other.accuracy))
    assert (first + second) / images < 30  # independent ones of 40 % differ on 48 % of the images


def test_it_runs_from_the_command_line(tmp_path):
    command = [
        sys.executable,
        str(TOOL),
        str(LOGS / "kmnist-tiny.json"),
        "--seeds",
        "2",
        "--trend",
        "gain=0.05",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, cwd=tmp_path)
    title, _, head, _, row, mean = done.stdout.splitlines()[:6]
    assert title == "trend: gain 0.05; 2 seeds, swaps vary by 0 of the noise"
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert len(cells) == head.count("|") - 1
    assert cells[0] == "kmnist-tiny"
    assert 0.05 < float(cells[2]) < 0.5
    images = sum(map(float, cells[1].split(", ")))
    assert float(cells[3]) == pytest.approx(images / tool.logged(LOGS / "kmnist-tiny.json"), abs=0.01)
    by_rule, equal, same_size, same_size_equal = (float(cells[at].split(" ± ")[0]) for at in (5, 6, 8, 9))
    assert by_rule - same_size == pytest.approx(equal - same_size_equal, abs=2e-3)  # what the width costs
    assert mean.startswith("| **mean** |")
