"""Found against hand-made and random networks: equal budgets, known sizes, a comparison that goes on."""

from __future__ import annotations

import importlib
import json
import random
from pathlib import Path

import pytest

from facenas.errors import UserError
from facenas.runs import open_run
from facenas.spaces import Graph, ImageFacts

TOOLS = Path(__file__).parents[2] / "tools"
SMALL = [
    "search.population=6", "search.generations=1", "search.supernet.epochs=2",
    "search.supernet.rank_networks=2", "search.supernet.rank_epochs=1",
    "search.supernet.recalibration=64", "data.data_fraction=0.3",
]  # fmt: skip
SPACE = Graph(Graph.Settings()).bind(ImageFacts(3, 10, 32))


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(TOOLS)
    return importlib.import_module("compare_front")


@pytest.mark.parametrize("limit", [1e6, 2e6, 3e6, 4e6, 12e6, 41e6])
@pytest.mark.parametrize(("operation", "expansion"), [("conv3", 1), ("bottleneck3", 6)])
def test_hand_made_networks_are_as_wide_as_the_limit_allows(tool, operation, expansion, limit):
    found = tool.hand_made(SPACE, operation, expansion, limit)
    assert found.stages == ((operation,) * 3,) * 3
    first, second, third = found.widths
    assert abs(second - 2 * first) <= 1
    assert abs(third - 2 * second) <= 1
    assert 0.85 * limit < found.count_macs(32) <= limit


def test_resnet_20_is_as_large_as_published(tool):
    """He et al. (arXiv 1512.03385, table 6): 0.27 million parameters; 41 million multiply-accumulates."""
    resnet = tool.hand_made(SPACE, "conv3", 1, 40.9e6)
    assert resnet.widths == (16, 32, 64)
    assert resnet.count_parameters() == pytest.approx(270_000, rel=0.02)
    assert resnet.count_macs(32) == pytest.approx(40.8e6, rel=0.02)


def test_random_networks_cost_nearly_the_limit(tool):
    drawn = tool.random_networks(SPACE, 12e6, 3, random.Random(0))
    assert len(set(drawn)) == 3
    assert all(9.6e6 <= arch.count_macs(32) <= 12e6 for arch in drawn)
    assert drawn == tool.random_networks(SPACE, 12e6, 3, random.Random(0))
    assert drawn != tool.random_networks(SPACE, 12e6, 3, random.Random(1))


def test_limits_that_nothing_keeps_are_told(tool, monkeypatch):
    monkeypatch.setattr(tool, "DRAWS", 20)
    with pytest.raises(UserError, match="cost more at any width"):
        tool.hand_made(SPACE, "conv3", 1, 1000)
    with pytest.raises(UserError, match="too few networks"):
        tool.random_networks(SPACE, 1000, 1, random.Random(0))


def test_a_comparison_from_a_search_to_its_table(facenas, python, tmp_path, tool):
    settings = [part for setting in SMALL for part in ("--set", setting)]
    searched = facenas("search", "--preset", "pareto-demo", "--run", "r", "--executor", "serial", *settings)
    assert searched.returncode == 0, searched.stderr
    best = json.loads((tmp_path / "runs" / "r" / "best.json").read_text())
    limit = max(member["macs"] for member in best["front"])

    def compare(*more):
        command = [str(TOOLS / "compare_front.py"), "runs/r", "--macs", str(limit)]
        command += ["--out", "out", "--epochs", "1", "--randoms", "1", *more]
        return python.run(*command, cwd=tmp_path)

    first = compare()
    assert first.returncode == 0, first.stderr
    rows = json.loads((tmp_path / "out" / "compared.json").read_text())["compared"]
    run = open_run(tmp_path / "runs", "r")
    wanted = tool.entries(run, [str(limit)], 1)
    assert [row["architecture"] for row in rows] == [entry.arch.to_json() for entry in wanted]
    most_accurate = max(best["front"], key=lambda member: member["accuracy"])
    assert rows[0]["origin"] == f"found {most_accurate['id']}"
    assert all(row["test_images"] == 359 and row["epochs"] == 1 for row in rows)
    assert all(f"| {row['test_accuracy']:.2f} % |" in first.stdout for row in rows)

    trained = tmp_path / "out" / f"resnet-20-{limit:.0f}" / "train.json"
    kept = trained.stat().st_mtime_ns
    again = compare()
    assert again.stdout.splitlines()[-7:] == first.stdout.splitlines()[-7:]
    assert trained.stat().st_mtime_ns == kept
    other = compare("--set", "recipe.lr=0.2")
    assert (other.returncode, other.stderr.count("\n")) == (1, 1)
    assert "other settings" in other.stderr
