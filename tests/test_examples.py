"""Every example runs: as a script, and as the cell of a notebook, which is no file."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from conftest import ROOT

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


# What makes seconds of those that take a minute; all others run as they stand.
SMALLER = {
    "01_search_digits": ('"data.data_fraction": 0.5', '"data.data_fraction": 0.1'),
    "07_mlflow": ('"search.micro": False', '"search.micro": False, "data.data_fraction": 0.1'),
    "05_faces": ('search("demo", ', 'search("demo", settings={"space.max_depth": 10}, '),
}


def tracked_once(folder: Path) -> None:
    """MLflow's own store has every trial once, though the search was interrupted and resumed."""
    trials = [json.loads(line) for line in (folder / "runs/tracked/trials.jsonl").read_text().splitlines()]
    with sqlite3.connect(folder / "mlflow.db") as store:
        names = [name for (name,) in store.execute("select name from runs")]
        steps = store.execute(
            "select step, value from metrics join runs using (run_uuid) "
            "where runs.name = 'tracked: search' and key = 'accuracy' order by step"
        ).fetchall()
    expected = [f"trial {trial['trial']}" for trial in trials] + ["tracked: search", "tracked: training"]
    assert sorted(names) == sorted(expected)
    assert len(trials) > 2
    assert steps == [(trial["trial"], trial["accuracy"]) for trial in trials]
    assert len(list((folder / "mlruns").rglob("report.html"))) == 2


@pytest.fixture
def arguments(faces, tmp_path):
    """By example: the faces of the tests as a folder, instead of 2,880 that are drawn for half a minute."""
    from test_configs import unpack

    def build(name: str) -> list[str]:
        if not name.startswith("05"):
            return []
        unpack(faces, tmp_path / "people")
        return ["people"]

    return build


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_it_runs_as_a_cell(python, example, arguments, tmp_path):
    source = example.read_text()
    assert len(source.splitlines()) <= 100
    if example.stem in SMALLER:
        assert source.count(SMALLER[example.stem][0]) == 1
        source = source.replace(*SMALLER[example.stem])
    done = python.run("-c", source, *arguments(example.name), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    if example.stem == "07_mlflow":
        tracked_once(tmp_path)


def test_one_runs_as_a_script(python, tmp_path):
    done = python.run(str(EXAMPLES[2]), cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_no_example_is_longer_than_a_screen_or_two():
    for example in EXAMPLES:
        lines = [line for line in example.read_text().splitlines() if line.strip()]
        assert len(lines) <= 60, example.name
