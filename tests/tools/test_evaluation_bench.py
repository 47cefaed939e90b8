"""The benchmark of the metrics runs on small sets, where its numbers are compared with the peers' as well."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def bench(monkeypatch):
    """Imports a part of the benchmark, by name."""
    monkeypatch.syspath_prepend(TOOLS)
    return lambda name: importlib.import_module(f"evaluation_bench.{name}")


def test_ten_fold(bench, monkeypatch, capsys):
    part = bench("ten_fold")
    monkeypatch.setattr(part, "PAIRS", 200)
    rows = part.rows()
    assert [len(row) for row in rows] == [4, 4]
    assert all(seconds > 0 for _, ours, theirs, _ in rows for seconds in (ours, theirs))
    bench("ten_fold").show(rows)
    assert capsys.readouterr().out.count("equal to the last bit") == 2


def test_tinyface(bench):
    alone, whole = bench("tinyface").rows(probes=40, matches=60, distractors=500)
    assert "40 x 560" in alone[0]
    assert "numbers equal" in whole[3]
