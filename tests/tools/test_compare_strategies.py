"""Strategies against each other by what the networks they find are worth: a small comparison, gone on with."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from facenas.spaces import IR, ImageFacts, Plain
from facenas.testing import check_strategy

TOOLS = Path(__file__).parents[2] / "tools"
PRESET = """
data: {name: digits, validation_fraction: 0.2, data_fraction: 0.2}
space: {kind: plain, min_depth: 3, max_depth: 5, min_width: 4, max_width: 6, width_step: 2}
search: {strategy: macro_micro, min_epochs: 1, micro: false, width_epoch_step: 1}
recipe: {batch_size: 32, lr: 0.05, pad: 1, cutout: 2}
execution: {executor: serial}
"""
METHODS = ["macro_micro", "macro_micro + subset", "random", "tpe"]


@pytest.fixture
def tool(monkeypatch):
    pytest.importorskip("optuna")
    monkeypatch.syspath_prepend(TOOLS)
    return importlib.import_module("compare_strategies")


@pytest.mark.parametrize(
    "space",
    [Plain(min_depth=3, max_depth=6).bind(ImageFacts(1, 10, 28)), IR(max_depth=14).bind(ImageFacts(3, 0, 112))],
)
def test_tpe_keeps_the_contract(tool, space):
    check_strategy(tool.TPE(trials=7, epochs=1), space)


def test_all_are_trained_alike_and_the_same_command_goes_on(tool, tmp_path, capsys, monkeypatch):
    preset = tmp_path / "preset.yaml"
    preset.write_text(PRESET, encoding="utf-8")
    runs = tmp_path / "runs"
    command = [str(preset), "--runs-dir", str(runs), "--strategies", *METHODS, "--epochs", "1"]
    command += ["--repeats", "2", "--fraction", "0.2"]
    tool.main(command)
    told = json.loads((runs / "comparison.json").read_text(encoding="utf-8"))["rows"]
    assert [(row["method"], row["share"]) for row in told if row["share"] == 1] == [(m, 1.0) for m in METHODS]
    by_method = {(row["method"], row["share"]): row for row in told}
    assert by_method["macro_micro", 1.0]["ratio"] == 1
    assert by_method["macro_micro", 1.0]["gain"] == 0
    assert by_method["random", 0.2]["images"] <= by_method["random", 1.0]["images"]
    printed = capsys.readouterr().out
    assert printed.count("\n| ") == 1 + len(told)

    monkeypatch.setattr(tool.facenas, "search", lambda *_, **__: pytest.fail("a search is made anew"))
    tool.main(command)
    assert capsys.readouterr().out == printed


def test_the_interval_of_a_mean_is_students(tool):
    assert tool.half_range([1.0]) is None
    assert tool.half_range([1.0, 2.0, 3.0]) == pytest.approx(4.3027 * 1 / 3**0.5, rel=1e-4)
