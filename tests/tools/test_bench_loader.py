"""The benchmark of loading runs, and its table names all ways."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

TOOL = Path(__file__).parents[2] / "tools" / "bench_loader.py"


def load_tool() -> ModuleType:
    specification = importlib.util.spec_from_file_location("bench_loader", TOOL)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def one_thread():
    """The tool sets it; it is put back."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    yield
    torch.set_num_threads(before[0])
    cv2.setNumThreads(before[1])


@pytest.fixture
def folder(tmp_path):
    for number in range(12):
        path = tmp_path / "faces" / f"identity {number // 4}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((112, 112, 3), 20 * number, np.uint8)).save(path, quality=95)
    return tmp_path / "faces"


def test_a_tiny_run_prints_the_table(folder, one_thread, monkeypatch, capsys):
    options = ["--seconds", "0.05", "--rounds", "1", "--batch", "4"]
    monkeypatch.setattr("sys.argv", ["bench_loader.py", str(folder), *options])
    load_tool().main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("12 JPEGs of ")
    names = [
        "ours, jpeg",
        "ours, raw",
        "(a) ImageFolder",
        "ImageFolder, flip alone",
        "(b) AdaFace",
        "decoder alone",
    ]
    assert [line.split("|")[1].strip() for line in lines[3:]] == names
    assert all(float(line.split("|")[2]) > 0 for line in lines[3:])


def test_made_up_faces_have_the_size_of_real_ones():
    jpegs = load_tool().make_up(40)
    assert 6000 < np.mean([len(data) for _, data in jpegs]) < 8000
