"""The bench of a card runs its parts, here on a CPU, and its tables have a figure in every cell."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import torch

from facenas.device import Device
from facenas.spaces import IRArchitecture

TOOLS = Path(__file__).parents[2] / "tools"


def test_every_way_runs(monkeypatch):
    monkeypatch.syspath_prepend(TOOLS)
    specification = importlib.util.spec_from_file_location("bench_gpu", TOOLS / "bench_gpu.py")
    bench = importlib.util.module_from_spec(specification)
    monkeypatch.setitem(sys.modules, "bench_gpu", bench)
    specification.loader.exec_module(bench)
    cpu = Device(torch.device("cpu"), False)
    monkeypatch.setattr(bench, "SLOTS", 2)
    networks = {"tiny": (IRArchitecture.uniform(2, (1, 1, 1, 1), embedding=8), 8)}
    tables = (bench.bench_candidates(0.01, cpu, ((4, 4),), 64), bench.bench_faces(0.01, cpu, networks, 16))
    for head, rule, row, *_ in tables:
        assert head.count("|") == rule.count("|") == row.count("|")
        rates = [float(cell.replace(",", "")) for cell in row.split("|")[3:-2]]
        assert all(rate > 0 for rate in rates)
    assert "float32; images a second" in bench.about(cpu)
    # The prototype's rates of docs/results/gpu.md: what the page says of a search's cost.
    costs = bench.recorded_costs({(10, 64): 45_029, (20, 64): 26_025, (40, 32): 16_580}, 41_633 / 26_153)
    assert "| fashionmnist-tiny | 58 | 2.52 h | 18 min | 11 min |" in costs
