"""Studies through the command line: presets, folders, kills, what stands in the way."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time

import pytest
from forked_python import Python

from facenas.config import read_yaml, shipped
from facenas.errors import UserError
from facenas.runs import list_runs
from facenas.runs.run import locked
from facenas.studies import load_study
from facenas.studies.base import study_names

SMALL = ["--set", "data.data_fraction=0.1", "--set", "execution.executor=serial"]
SMALL += ["--networks", "5", "--epochs", "2"]
DRAWS = ["--set", "study.draws=5"]


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
    process = python.start(*command, cwd=tmp_path, stderr=str(tmp_path / "stderr"))
    folder = tmp_path / "runs" / "ranks"
    journal = folder / "networks" / "trials.jsonl"
    stop_after(process, journal, 1, signal.SIGINT)
    told = (tmp_path / "stderr").read_text()
    assert told.endswith("facenas: stopped; `facenas resume runs/ranks` goes on\n")
    process = python.start("-m", "facenas.cli", "resume", "ranks", cwd=tmp_path)
    stop_after(process, journal, 2, signal.SIGKILL)
    before = journal.read_text()
    refused(facenas, "its study has not ended; `facenas resume runs/ranks` goes on", "report", "ranks")
    with locked(folder):
        refused(facenas, "runs/ranks: its study is under way", "report", "ranks")
    refused(facenas, "not max_trials, study.draws=5", "resume", "ranks", "--max-trials", "1", *DRAWS)
    refused(facenas, "`facenas train runs/ranks/networks --so-far`", "train", "runs/ranks/networks")
    done = facenas("resume", "ranks", "--json", "--set", "execution.speculate=false")
    assert done.returncode == 0, done.stderr
    for about in (folder / "study.yaml", folder / "networks" / "run.yaml"):
        assert read_yaml(about)["config"]["execution"]["speculate"] is False
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
    refused(facenas, "exists already", "study", "ranking-demo", "--run", "ranks")
    for command in (["train", "ranks"], ["export", "ranks"], ["replay", "runs/ranks"]):
        refused(facenas, "is a study; name one of its runs, such as runs/ranks/networks", *command)
    refused(facenas, "--watch are for one of its runs", "report", "ranks", "--watch")
    # Another study takes the results of this one by their keys.
    done = facenas("study", "ranking-demo", "--run", "more", "--reuse", str(folder / "networks"), *SMALL)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "runs" / "more" / "networks" / "trials.jsonl").read_text().splitlines()
    assert [json.loads(line)["reused"] for line in lines] == ["networks"] * 5
    assert facenas("replay", "runs/ranks/networks").returncode == 0
    # As if the last training had failed.
    kept = journal.read_text().splitlines(keepends=True)
    failed = json.loads(kept[-1]) | {"status": "failed", "accuracy": 0.0, "reason": "memory"}
    journal.write_text("".join([*kept[:-1], json.dumps(failed) + "\n"]))
    done = facenas("resume", "ranks", "--json", "--retry-failed")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["values"] == told["values"]
    (folder / "study.yaml").write_text("config: {}\n")
    refused(facenas, "runs/ranks/study.yaml: has no group `study` with its kind", "resume", "ranks")


def stop_after(process, journal, trials, how):
    while not journal.exists() or journal.read_bytes().count(b"\n") < trials:
        assert process.poll() is None, "it ended before it could be stopped"
        time.sleep(0.01)
    os.kill(process.pid, how)
    process.wait()


def refused(facenas, sentence, *command):
    done = facenas(*command)
    assert (done.returncode, sentence in done.stderr) == (2, True), done.stderr


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
        ("ranking", ["study.seeds=3"], "study ranking with these settings: seeds: is not a known setting"),
        ("ranking", ["study.networks=2"], "greater than or equal to 4"),
        ("ranking", ["data.name=cifar10", "space.min_depht=3"], "space.min_depht: is not a known setting"),
    ],
)
def test_what_is_wrong_is_said(name, given, fault):
    with pytest.raises(UserError, match=fault):
        load_study(name, given, {})
