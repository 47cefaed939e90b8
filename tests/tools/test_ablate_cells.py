"""The ablation of blocks: every variant differs from the network found in one option alone."""

from __future__ import annotations

import importlib
import random
from dataclasses import asdict
from pathlib import Path

import pytest

from facenas.spaces import Cells, ImageFacts

TOOLS = Path(__file__).parents[2] / "tools"
SMALL = ["search.population=4", "search.generations=1", "search.epochs=1", "data.data_fraction=0.3"]


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(TOOLS)
    return importlib.import_module("ablate_cells")


def options(arch):
    """Of all blocks and cells: what may differ, by name."""
    blocks = [block for cell in arch.cells for pipeline in cell.pipelines for block in pipeline]
    found = {name: sorted(asdict(block)[name] for block in blocks) for name in asdict(blocks[0])}
    return found | {"merge": [cell.merge for cell in arch.cells]}


@pytest.mark.parametrize("seed", range(20))
def test_variants_differ_in_one_option(tool, seed):
    space = Cells(Cells.Settings(max_cells=3)).bind(ImageFacts(3, 10, 32))
    arch = space.sample(random.Random(seed))
    found = tool.variants(arch)
    assert found[0].name == tool.FOUND
    assert found[0].arch == arch
    assert len({variant.arch for variant in found}) == len(found)
    for variant in found[1:]:
        before, after = options(arch), options(variant.arch)
        different = {name for name in before if before[name] != after[name]}
        assert different
        assert different <= _expected(variant.name)


def _expected(name):
    if name.startswith("all convolutions"):
        return {"operation", "kernel"}
    words = {
        "BatchNorm": "batch_norm",
        "activation": "activation",
        "skip": "skip",
        "merge": "merge",
    }
    return {option for word, option in words.items() if word in name}


def test_an_ablation_from_a_search_to_its_table(facenas, python, tmp_path):
    settings = [part for setting in SMALL for part in ("--set", setting)]
    searched = facenas("search", "--preset", "cells-demo", "--run", "r", "--executor", "serial", *settings)
    assert searched.returncode == 0, searched.stderr
    command = [str(TOOLS / "ablate_cells.py"), "runs/r", "--epochs", "1", "--seeds", "2"]
    done = python.run(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    assert rows[0].startswith("| as found |")
    assert rows[0].endswith("| +0.00 |")
    assert len(rows) > 5
    strange = python.run(*command, "--pick", "999", cwd=tmp_path)
    assert (strange.returncode, strange.stderr.count("\n")) == (1, 1)
    assert "--pick 999: is not on the front" in strange.stderr
