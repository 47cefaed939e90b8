"""Studies through the command line: presets, folders, kills, what stands in the way."""

from __future__ import annotations

import json
import shutil
import time

import pytest
from forked_python import Python

from facenas.config import read_yaml, shipped
from facenas.errors import UserError
from facenas.runs import list_runs
from facenas.studies import load_study
from facenas.studies.base import study_names

SMALL = ["--set", "data.data_fraction=0.1", "--set", "execution.executor=serial"]
SMALL += ["--networks", "5", "--epochs", "2"]


@pytest.mark.parametrize("name", study_names())
def test_every_study_loads_and_says_all_of_its_settings(name):
    study, config = load_study(name, [], {})
    tree = read_yaml(shipped("configs") / "studies" / f"{name}.yaml")
    assert tree["study"] == {"kind": study.name, **study.settings.model_dump(mode="json")}
    if study.makes_runs:
        assert config.space.model_dump(mode="json") | {"kind": config.space.owner.name} == tree["space"]
    assert study.title


def test_killed_resumed_reported_and_listed(facenas, python: Python, tmp_path):
    command = ["-m", "facenas.cli", "study", "ranking-demo", "--run", "ranks", *SMALL]
    process = python.start(*command, cwd=tmp_path)
    folder = tmp_path / "runs" / "ranks"
    journal = folder / "networks" / "trials.jsonl"
    while not journal.exists() or journal.read_bytes().count(b"\n") < 2:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    process.kill()
    process.wait()
    before = journal.read_text()
    assert facenas("report", "ranks").returncode == 2  # there is nothing to report yet
    done = facenas("resume", "ranks", "--json")
    assert done.returncode == 0, done.stderr
    assert journal.read_text().startswith(before)
    told = json.loads(done.stdout)
    assert told["values"]["networks"] == 5
    page = (folder / "report.html").read_text()
    assert told["summary"][0] in page
    (folder / "report.html").unlink()
    assert facenas("report", "ranks").returncode == 0
    assert (folder / "report.html").read_text() == page
    assert (folder / "tables" / "correlations.csv").read_text().count("\n") == 1 + 5
    (row,) = [row for row in list_runs(tmp_path / "runs") if row["run"] == "ranks"]
    assert (row["state"], row["trials"]) == ("study", 5)
    again = facenas("study", "ranking-demo", "--run", "ranks")
    assert again.returncode == 2
    assert "exists already" in again.stderr
    # Another study takes the results of this one by their keys.
    done = facenas("study", "ranking-demo", "--run", "more", "--reuse", str(folder / "networks"), *SMALL)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "runs" / "more" / "networks" / "trials.jsonl").read_text().splitlines()
    assert [json.loads(line)["reused"] for line in lines] == ["networks"] * 5
    assert facenas("replay", "runs/ranks/networks").returncode == 0


def test_a_member_of_other_settings_is_not_taken(facenas, tmp_path):
    done = facenas("study", "ranking-demo", "--run", "one", *SMALL)
    assert done.returncode == 0, done.stderr
    done = facenas("study", "ranking-demo", "--run", "two", *SMALL, "--seed", "1", "--networks", "4")
    assert done.returncode == 0, done.stderr
    shutil.rmtree(tmp_path / "runs/two/networks")
    shutil.copytree(tmp_path / "runs/one/networks", tmp_path / "runs/two/networks")
    done = facenas("resume", "two")
    assert done.returncode == 2
    assert "has other settings than its study asks for" in done.stderr


@pytest.mark.parametrize(
    ("name", "given", "fault"),
    [
        ("rankings", [], "no such study; there are"),
        ("ranking", ["study.seeds=3"], "study: seeds: is not a known setting"),
        ("ranking", ["study.networks=2"], "greater than or equal to 4"),
        ("ranking", ["data.name=cifar10", "space.min_depht=3"], "space.min_depht: is not a known setting"),
    ],
)
def test_what_is_wrong_is_said(name, given, fault):
    with pytest.raises(UserError, match=fault):
        load_study(name, given, {})
