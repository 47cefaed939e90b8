"""Measured latency: it grows with the network, and a search that weighs it keeps to its limit."""

from __future__ import annotations

import json

from facenas.models.latency import measure_latency
from facenas.spaces import PlainArchitecture


def test_a_hundred_times_larger_network_is_slower():
    small, large = (
        PlainArchitecture.uniform(depth, width, 3, 10, operation=1).build(0)
        for depth, width in ((2, 4), (8, 32))
    )
    assert measure_latency(large, (3, 32, 32)) > 2 * measure_latency(small, (3, 32, 32)) > 0


def test_a_search_measures_it_and_keeps_the_limit(facenas, tmp_path):
    settings = [
        "search.objectives=[latency]", "search.limits={latency: 1000}", "search.population=4",
        "search.generations=1", "search.epochs=1", "data.data_fraction=0.3",
    ]  # fmt: skip
    done = facenas(
        "search", "--preset", "cells-demo", "--run", "l", "--executor", "serial", "--json",
        *(part for setting in settings for part in ("--set", setting)),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    lines = [json.loads(x) for x in (tmp_path / "runs/l/trials.jsonl").read_text().splitlines()]
    for member in found["front"]:
        assert 0 < member["latency"] == lines[member["id"]]["values"]["latency"] <= 1000
    assert facenas("resume", "l").returncode == 0


def test_missing_packages_are_told_before_anything_is_trained(facenas, tmp_path):
    """A file in the working folder, which is searched first, stands for a package that is not installed."""
    (tmp_path / "onnxscript.py").write_text("raise ImportError(name='onnxscript')\n")
    arguments = ["search", "--preset", "cells-demo", "--run", "l"]
    arguments += ["--set", "search.objectives=[latency]"]
    done = facenas(*arguments)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "facenas: latency needs onnxscript, which is not installed: pip install 'facenas[onnx]'"
    )
    assert not (tmp_path / "runs" / "l" / "trials.jsonl").exists()
