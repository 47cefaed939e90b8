"""The benchmark of imports writes records that the import takes, and leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

TOOL = Path(__file__).parents[2] / "tools" / "bench_import.py"


def test_a_tiny_run_prints_the_table(tmp_path):
    for number in range(6):
        path = tmp_path / "faces" / f"identity {number // 3}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (112, 112, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path, quality=95)
    options = ["--images", "40", "--identities", "7", "--folder", str(tmp_path)]
    command = [sys.executable, str(TOOL), str(tmp_path / "faces"), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    head, *table = done.stdout.splitlines()
    assert head.startswith("40 images, 7 identities")
    assert [row.split("|")[1:3] for row in table[2:]] == [[" data import ", " 1 "], [" data check ", " 1 "]]
    assert [path.name for path in tmp_path.iterdir()] == ["faces"]  # nothing left behind
