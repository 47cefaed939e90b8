"""The recipes of CONTRIBUTING.md keep what they promise: by place, by name, killed and resumed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT, SMALL_FACES
from documents import blocks, write_files
from forked_python import Python
from test_configs import unpack

pytestmark = pytest.mark.timeout(600)
OWN = [
    "space.kind=pyramids:Pyramids",
    "search.strategy=halving:Halving",
    "search.networks=4",
    "data.data_fraction=0.1",
]


def settings(*given: str) -> list[str]:
    return [part for setting in given for part in ("--set", setting)]


def search(*more: str, own: list[str] = OWN) -> list[str]:
    return ["search", "--preset", "demo-digits", *settings(*own), *more]


@pytest.fixture
def recipes(tmp_path):
    """The files of all recipes, in the folder where `facenas` starts."""
    return write_files("CONTRIBUTING.md", tmp_path)


def journal(folder):
    """What a search decided, without the clock."""
    lines = (folder / "trials.jsonl").read_text().splitlines()
    clocks = ("seconds", "search_seconds", "finished", "threads", "speculative")
    return [{k: v for k, v in json.loads(line).items() if k not in clocks} for line in lines]


@pytest.mark.usefixtures("recipes")
def test_killed_resumed_replayed_and_trained_on_one_worker_and_two(facenas, tmp_path):
    done = facenas(*search("--executor", "serial", "--run", "one"))
    assert done.returncode == 0, done.stderr
    killed = subprocess.Popen(
        [sys.executable, "-m", "facenas.cli", *search("--workers", "2", "--run", "two")],
        cwd=tmp_path, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    trials = tmp_path / "runs" / "two" / "trials.jsonl"
    deadline = time.monotonic() + 100
    while not trials.exists() or trials.read_bytes().count(b"\n") < 2:
        assert killed.poll() is None, "it ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "runs" / "two" / "best.json").exists()
    before = trials.read_bytes()
    resumed = facenas("resume", "two")
    assert resumed.returncode == 0, resumed.stderr
    assert trials.read_bytes().startswith(before[: before.rindex(b"\n")])
    assert journal(tmp_path / "runs" / "one") == journal(tmp_path / "runs" / "two")
    assert len(journal(tmp_path / "runs" / "two")) == 4 + 2 + 1
    for command in (["replay", "runs/two"], ["report", "two"], ["train", "two", "--epochs", "1"]):
        done = facenas(*command)
        assert done.returncode == 0, done.stderr
    page = (tmp_path / "runs" / "two" / "report.html").read_text()
    assert "round 1" in page
    trained = json.loads((tmp_path / "runs" / "two" / "train.json").read_text())
    assert trained["architecture"]["kind"] == "pyramids:Pyramids"


@pytest.mark.usefixtures("recipes")
def test_the_head_trains_and_the_bench_measures(facenas, tmp_path, faces):
    (tmp_path / "arch.json").write_text(
        '{"kind": "ir", "width": 4, "stages": [1, 1, 1, 1], "ops": [1, 1, 1, 1], "kernels": [3, 3, 3, 3],'
        ' "embedding": 16}'
    )
    few = [setting for setting in SMALL_FACES if setting.startswith(("data.", "recipe."))]
    head = ["recipe.head={kind: combined:Combined, factor: 1.1, margin: 0.2, scale: 32}"]
    done = facenas(
        "train", "arch.json", "--preset", "small", "--data", str(faces), "--epochs", "1", "--run", "r",
        *settings(*few, *head),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    unpack(faces, tmp_path / "people")
    done = facenas("eval", "--bench", "people.yaml", "--data", "people", "--model", "r", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["bench"] == "people"
    assert 0 <= result["rank_1"] <= 1
    assert result["images"] == 14 * 8


def test_dropped_into_the_package_they_are_found_by_name(tmp_path, faces, monkeypatch):
    """In a copy of the package, with the decorator of the table above the class, and nothing else edited."""
    package = tmp_path / "copy" / "facenas"
    shutil.copytree(ROOT / "facenas", package, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in ("configs", "eval_protocols"):
        shutil.copytree(ROOT / folder, package / folder)
    files = {block.title: block.text for block in blocks("CONTRIBUTING.md") if block.title}
    rows = re.findall(
        r"\| `facenas/([\w/]+)/` \| `([\w.]+)\.(\w+)\.register\(\"(\w+)\"\)` \|",
        (ROOT / "CONTRIBUTING.md").read_text(),
    )
    assert len(rows) == 5
    for folder, module, registry, name in rows:
        (text,) = [text for title, text in files.items() if title == f"{name}.py"]
        decorated = re.sub(
            r"\n(class \w+\((?:Strategy|SearchSpace\[.*|MarginHead|Protocol|Executor)\))",
            rf'\nfrom {module} import {registry}\n\n@{registry}.register("{name}")\n\1',
            text,
        )
        assert decorated != text, name
        (package / folder / f"{name}.py").write_text(decorated)
    (tmp_path / "people.yaml").write_text("kind: nearest\ntitle: people\n")
    (tmp_path / "probe.py").write_text(files["probe.py"])
    unpack(faces, tmp_path / "people")

    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "copy"))
    python = Python()  # another one than that of the other tests: with the copy of the package

    def facenas(*arguments):
        done = python.run("-m", "facenas.cli", *arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr

    own = ["space.kind=pyramids", "search.strategy=halving", "search.networks=2"]
    facenas(*search("--workers", "1", "--run", "r", own=own))
    assert "strategy: halving" in (tmp_path / "runs" / "r" / "run.yaml").read_text()
    facenas("train", "r", "--epochs", "1")
    facenas(*search("--executor", "jobs", "--run", "p", own=[*own, "evaluate=probe:evaluate"]))
    few = [setting for setting in SMALL_FACES if setting.startswith(("data.", "recipe."))]
    (tmp_path / "arch.json").write_text(
        '{"kind": "ir", "width": 2, "stages": [1, 1, 1, 1], "ops": [1, 1, 1, 1], "kernels": [3, 3, 3, 3],'
        ' "embedding": 16}'
    )
    facenas(
        "train", "arch.json", "--preset", "small", "--data", str(faces), "--epochs", "1", "--run", "f",
        *settings(*few, "recipe.head={kind: combined, margin: 0.2}"),
    )  # fmt: skip
    facenas("eval", "--bench", "people.yaml", "--data", "people", "--model", "f")
    python.close()
