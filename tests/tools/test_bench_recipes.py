"""Epochs that a recipe saves: read off curves, and a small run gone on with."""

from __future__ import annotations

import importlib
import math
from pathlib import Path

import pytest


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "tools")
    return importlib.import_module("bench_recipes")


def test_epochs_lie_between_those_that_were_trained(tool):
    curve = {2: 40.0, 4: 50.0, 8: 48.0, 16: 60.0}
    assert tool.epochs_for(39, curve) == 2
    assert tool.epochs_for(45, curve) == pytest.approx(math.sqrt(8))
    assert tool.epochs_for(54, curve) == pytest.approx(8 * math.sqrt(2))
    assert tool.epochs_for(61, curve) == math.inf
    told = tool.row("net", 16, [45.0, 54.0], {2: [40.0, 40.0], 4: [50.0, 50.0], 8: [50.0, 58.0]})
    assert told == "| net | 16 | 49.50 % (45.00 to 54.00) |  | 3.9 (2.8 to 5.7) | 4.1x |"
    assert tool.row("net", 4, [30.0], {2: [40.0], 4: [50.0]}).endswith(
        "| 50.00 % (50.00 to 50.00) | < 2 (< 2 to < 2) | > 2.0x |"
    )
    assert tool.row("net", 4, [70.0], {2: [40.0], 4: [50.0]}).endswith("| > 4 (> 4 to > 4) | < 1.0x |")


def test_a_small_run_prints_the_table_and_the_same_command_trains_nothing_again(
    tool, tmp_path, capsys, monkeypatch
):
    command = [
        "--data",
        "digits",
        "--runs-dir",
        str(tmp_path),
        "--networks",
        "3x4",
        "3x4p",
        "--epochs",
        "1",
        "2",
    ]
    command += ["--targets", "2", "--set", "data.data_fraction=0.2", "--set", "execution.executor=serial"]
    tool.main(command)
    printed = capsys.readouterr().out
    assert [line.split(" | ")[0] for line in printed.splitlines()[2:]] == ["| 3x4", "| 3x4p"]
    monkeypatch.setattr(tool.facenas, "search", lambda *_, **__: pytest.fail("trained anew"))
    tool.main(command)
    assert capsys.readouterr().out == printed
