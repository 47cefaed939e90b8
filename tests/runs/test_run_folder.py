"""Run folders: created whole, opened, listed; one process at a time works on a run."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from facenas.errors import UserError
from facenas.runs import Run, create_run, list_runs, open_run
from facenas.runs.config import RunConfig
from facenas.runs.presets import load_run_config

DATA = {"name": "digits", "fingerprint": "abc", "classes": 10}


def make(runs_dir: Path, name: str = "first", config: RunConfig | None = None) -> Run:
    return create_run(runs_dir, name, config or RunConfig(), DATA, "facenas search --preset demo-digits")


def test_a_run_comes_back_as_it_was_created(tmp_path):
    config = load_run_config("demo-digits", ["seed=7", "data.root=some/where", "recipe.crop=12"], {})
    run = make(tmp_path / "runs", config=config)
    assert run.folder == tmp_path / "runs" / "first"
    assert run.name == "first"
    assert [p.name for p in run.folder.iterdir()] == ["run.yaml"]
    assert [p.name for p in run.folder.parent.iterdir()] == ["first"], "the temporary folder is gone"
    opened = open_run(tmp_path / "runs", "first")
    assert opened == run
    assert opened.config == config
    assert opened.about["data"] == DATA
    assert opened.about["command"] == "facenas search --preset demo-digits"
    assert opened.about["versions"]["python"] == platform.python_version()
    assert opened.about["created"].endswith("+00:00")


def test_a_run_is_opened_by_its_path_too(tmp_path, monkeypatch):
    run = make(tmp_path / "elsewhere")
    assert open_run(tmp_path / "runs", str(run.folder)) == run
    monkeypatch.chdir(tmp_path)
    assert open_run(Path("runs"), "elsewhere/first").config == run.config


def test_a_taken_name_is_refused_and_nothing_is_touched(tmp_path):
    run = make(tmp_path)
    before = (run.folder / "run.yaml").read_bytes()
    with pytest.raises(UserError, match="first: exists already"):
        make(tmp_path, config=RunConfig(seed=5))
    assert (run.folder / "run.yaml").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["first"]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "a/", "../a"])
def test_a_name_that_is_no_folder_name_is_refused(tmp_path, name):
    with pytest.raises(UserError, match="one folder name"):
        make(tmp_path / "runs", name)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_too_long_is_refused(tmp_path):
    with pytest.raises(UserError):
        make(tmp_path, "x" * 300)


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be created"):
        make(tmp_path / "file")


FULL_DISK = """
import os, resource, signal, sys
from pathlib import Path
from facenas.runs.config import RunConfig
from facenas.errors import SearchStoppedError, UserError
from facenas.runs import create_run

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
try:
    create_run(Path(sys.argv[1]), "first", RunConfig(), {}, "")
except (SearchStoppedError, UserError):
    raise SystemExit(7)
"""


def test_a_full_disk_leaves_no_half_a_run(tmp_path):
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], timeout=60, check=False)
    assert done.returncode == 7
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_not_there_is_told(tmp_path):
    make(tmp_path)
    with pytest.raises(UserError, match="second: no such run in"):
        open_run(tmp_path, "second")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not valid YAML"),
        ("[]", "mapping"),
        ("name: first", "config"),
        ("config: {sedd: 1}", "sedd: is not a known setting"),
    ],
)
def test_a_damaged_run_is_told_and_listed_as_such(tmp_path, text, words):
    run = make(tmp_path)
    make(tmp_path, "whole")
    (run.folder / "run.yaml").write_text(text)
    with pytest.raises(UserError, match=words) as told:
        open_run(tmp_path, "first")
    assert str(run.folder / "run.yaml") in str(told.value)
    rows = {row["run"]: row["state"] for row in list_runs(tmp_path)}
    assert rows["first"].startswith("damaged")
    assert words in rows["first"]
    assert rows["whole"] == "searching"


def test_a_run_of_a_class_that_is_elsewhere_is_listed_with_its_figures(tmp_path):
    run = make(tmp_path)
    about = yaml.safe_load((run.folder / "run.yaml").read_text())
    about["config"]["space"] = {"kind": "nowhere:Space"}
    (run.folder / "run.yaml").write_text(yaml.safe_dump(about))
    journal(run, 40.0, 80.0)
    [row] = list_runs(tmp_path)
    assert (row["state"], row["trials"], row["best_accuracy"], row["data"]) == ("searching", 2, 80.0, "digits")
    with pytest.raises(UserError, match="there is no module nowhere here"):
        open_run(tmp_path, "first")


def journal(run: Run, *accuracies: float) -> None:
    lines = [json.dumps({"trial": i, "accuracy": a}) + "\n" for i, a in enumerate(accuracies)]
    (run.folder / "trials.jsonl").write_text("".join(lines))


def test_runs_are_listed_the_newest_last_with_how_far_they_are(tmp_path):
    assert list_runs(tmp_path / "nowhere") == []
    names = ["searching", "found", "trained"]  # in the order of their making, not of the alphabet
    for day, name in enumerate(names, start=1):
        run = make(tmp_path, name)
        about = yaml.safe_load((run.folder / "run.yaml").read_text())
        about["created"] = f"2025-01-{day:02}T00:00:00+00:00"
        (run.folder / "run.yaml").write_text(yaml.safe_dump(about))
        journal(run, 40.0, 80.0, 60.0)
        if name != "searching":
            run.write_best({"accuracy": 70.0, "parameters": 123})
        if name == "trained":
            (run.folder / "train.json").write_text('{"test_accuracy": 91.5}')
    (tmp_path / "no run").mkdir()
    rows = list_runs(tmp_path)
    assert [row["run"] for row in rows] == [row["state"] for row in rows] == names
    assert [row["trials"] for row in rows] == [3, 3, 3]
    # Of what was found, not of the best of all trials: accuracy and size are of one network.
    assert [row["best_accuracy"] for row in rows] == [80.0, 70.0, 70.0]
    assert [row["parameters"] for row in rows] == [None, 123, 123]
    assert [row["test_accuracy"] for row in rows] == [None, None, 91.5]
    assert {row["data"] for row in rows} == {"digits"}


def test_a_run_that_was_never_finished_making_is_not_listed(tmp_path):
    make(tmp_path)
    leftover = tmp_path / ".second.123.tmp"  # killed between writing run.yaml and the renaming
    leftover.mkdir()
    (leftover / "run.yaml").write_bytes((tmp_path / "first" / "run.yaml").read_bytes())
    assert [row["run"] for row in list_runs(tmp_path)] == ["first"]


def test_one_damaged_journal_does_not_hide_the_other_runs(tmp_path):
    (make(tmp_path).folder / "trials.jsonl").write_text("{}\n")
    make(tmp_path, "whole")
    assert {row["run"] for row in list_runs(tmp_path)} == {"first", "whole"}


def test_best_and_trained_are_none_before_they_are_there(tmp_path):
    run = make(tmp_path)
    assert run.best() is None
    assert run.trained() is None
    run.write_best({"architecture": {}, "parameters": 5})
    assert run.best() == {"architecture": {}, "parameters": 5}


def test_images_that_changed_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("FACENAS_CACHE", str(tmp_path / "cache"))
    run = make(tmp_path / "runs")
    with pytest.raises(UserError, match="the images have changed since run first began"):
        run.open_data()
    fingerprint = _fingerprint(run)
    same = create_run(tmp_path / "runs", "second", RunConfig(), {"fingerprint": fingerprint}, "")
    folder, image_set = same.find_data(), same.open_data()
    assert image_set.fingerprint == fingerprint
    assert folder.is_dir()


def _fingerprint(run: Run) -> str:
    from facenas.data import open_image_set, prepare

    return open_image_set(prepare(run.config.data)).fingerprint


HOLD = """
import sys, time
from pathlib import Path
from facenas.runs import open_run

with open_run(Path(sys.argv[1]), "first").lock():
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_until_the_first_is_dead(tmp_path):
    run = make(tmp_path)
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            with (
                pytest.raises(UserError, match="another process is working on this run"),
                run.lock(),
            ):
                pytest.fail("two processes hold the lock")
            with make(tmp_path, "second").lock():
                pass  # another run is free
        finally:
            os.kill(holder.pid, signal.SIGKILL)
            holder.wait()
    for _ in range(2):  # free again, and after the one who had it then
        with run.lock():
            pass


def test_the_lock_is_freed_by_an_error(tmp_path):
    run = make(tmp_path)
    with pytest.raises(ZeroDivisionError), run.lock():
        1 / 0  # noqa: B018
    with run.lock(), pytest.raises(UserError), open_run(tmp_path, "first").lock():
        pass


def test_a_run_that_cannot_be_written_is_told_before_the_work(tmp_path):
    run = make(tmp_path)
    (run.folder / ".lock").mkdir()
    with pytest.raises(UserError, match=r": cannot be written \(Is a directory\); choose another"), run.lock():
        pytest.fail("the work began")
