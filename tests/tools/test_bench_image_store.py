"""The bench of image stores on a handful of files: both ways give batches, and the table is whole."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

TOOLS = Path(__file__).parents[2] / "tools"


def test_the_table_of_speeds(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "path", [*sys.path, str(TOOLS)])
    bench = importlib.import_module("bench_image_store")
    monkeypatch.setattr(bench, "CLASSES", 2)
    monkeypatch.setattr(bench, "DISTINCT", 4)
    bench.measure_speed(files=8, seconds=0.001, rounds=1, root=tmp_path)
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines()]
    assert [row[0].strip() for row in rows] == [
        f"{what} at {size}"
        for what in ("random resized crop, flip", "resize, center crop")
        for size in (224, 64)
    ]
    assert all(float(row[1]) > 0 and float(row[2]) > 0 for row in rows)
