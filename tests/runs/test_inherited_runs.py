"""Searches whose candidates begin with each other's weights: killed, resumed, replayed, and with files lost."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import facenas
from facenas.errors import UserError
from facenas.report import write_search_page
from facenas.runs.replay import replay

SETTINGS = {
    "data": {"name": "digits", "validation_fraction": 0.2, "data_fraction": 0.3},
    "space": {"kind": "plain", "min_depth": 4, "max_depth": 6, "min_width": 6, "max_width": 8},
    "search": {"strategy": "macro_micro", "min_epochs": 1, "micro": False, "inherit": 1, "max_width_drops": 1},
    "recipe": {"batch_size": 16, "lr": 0.05, "pad": 1, "cutout": 2},
}
CLOCKS = ("seconds", "finished", "search_seconds")


def journal(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "trials.jsonl").read_text().splitlines()]


def told(run: Path) -> list[dict]:
    return [{k: v for k, v in line.items() if k not in CLOCKS} for line in journal(run)]


def weights(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run / "weights").glob("*.safetensors")}


@pytest.fixture(scope="module")
def preset(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("inherit") / "preset.yaml"
    path.write_text(json.dumps(SETTINGS))
    return path


@pytest.fixture(scope="module")
def whole(preset) -> Path:
    """The search, never interrupted."""
    return Path(facenas.search(preset, run=preset.parent / "whole", executor="serial").run)


def cut(run: Path, copy: Path, lines: int) -> Path:
    """A copy of the run as it was after so many trials."""
    shutil.copytree(run, copy)
    kept = (copy / "trials.jsonl").read_text().splitlines(keepends=True)[:lines]
    (copy / "trials.jsonl").write_text("".join(kept))
    (copy / "best.json").unlink()
    return copy


def test_growth_inherits_and_finalists_do_not(whole):
    lines = journal(whole)
    by_key = {line["key"]: line for line in lines}
    inheritors = [line for line in lines if "parent" in line]
    assert [line["depth"] for line in inheritors] == [5, 6]
    for line in inheritors:
        assert by_key[line["parent"]]["depth"] == line["depth"] - 1
        assert line["epochs"] == 1
    assert [line for line in lines if line["phase"] == "confirm"]
    assert set(weights(whole)) == {f"{line['key']}.safetensors" for line in lines}
    assert replay(whole).same


def test_killed_with_two_workers_and_resumed_it_finds_the_same(preset, whole, tmp_path):
    run = tmp_path / "runs" / "killed"
    words = [sys.executable, "-m", "facenas.cli", "search", "--preset", str(preset), "--run", "killed"]
    process = subprocess.Popen([*words, "--workers", "2"], cwd=tmp_path, stderr=subprocess.DEVNULL)
    while not (run / "trials.jsonl").exists() or len((run / "trials.jsonl").read_text().splitlines()) < 2:
        assert process.poll() is None, "the search ended before it could be killed"
        time.sleep(0.01)
    process.kill()
    process.wait()
    facenas.resume(run)
    assert told(run) == told(whole)
    assert weights(whole).items() <= weights(run).items()


FAULTS = {
    "missing": (lambda path: path.unlink(), "is missing; a candidate begins with these weights"),
    "torn": (lambda path: path.write_bytes(path.read_bytes()[:-9]), "is damaged"),
    "another": (
        lambda path: next(p.replace(path) for p in path.parent.iterdir() if p != path),
        "of this trial",
    ),
}


def test_without_the_right_weights_it_does_not_go_on(whole, tmp_path):
    run, lines = cut(whole, tmp_path / "run", 2), journal(whole)
    file = run / "weights" / f"{lines[2]['parent']}.safetensors"
    for spoil, sentence in FAULTS.values():
        spoil(file)
        with pytest.raises(UserError, match=f"{file.name}: .*{sentence}.* or start a new run"):
            facenas.resume(run, settings=["execution.executor=serial"])
        shutil.copy(whole / "weights" / file.name, file)
    assert len(journal(run)) == 2
    facenas.resume(run)
    assert told(run) == told(whole)


def test_results_of_another_run_come_with_their_weights(preset, whole, tmp_path):
    other = cut(whole, tmp_path / "other", 2)
    found = facenas.search(preset, run=tmp_path / "copied", executor="serial", reuse=other)
    lines = journal(Path(found.run))
    assert [line.get("reused") for line in lines[:3]] == ["other", "other", None]
    assert weights(whole).items() <= weights(Path(found.run)).items()

    (other / "weights" / f"{lines[1]['key']}.safetensors").unlink()
    found = facenas.search(preset, run=tmp_path / "anew", executor="serial", reuse=other, max_trials=1)
    assert [line.get("reused") for line in journal(Path(found.run))] == ["other", None]


def test_the_page_tells_what_was_inherited(whole):
    page, lines = write_search_page(whole).read_text(), journal(whole)
    inherited = [line for line in lines if "parent" in line]
    assert f"{len(inherited)} of {len(lines)} began with the weights of a smaller network" in page
    assert page.count("Began with the weights of trial 0") == sum(
        line["parent"] == lines[0]["key"] for line in inherited
    )


REFUSED = {
    "another space": (
        {"space.kind": "cells", "search.strategy": "random"},
        "search.inherit: a network of kind cells",
    ),
    "a measure of one's own": (
        {"evaluate": "math:floor"},
        "search.inherit: a measure of your own keeps no weights",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_keeps_no_weights_is_refused(case, tmp_path):
    settings, sentence = REFUSED[case]
    with pytest.raises(UserError, match=sentence):
        facenas.search(settings={"search.inherit": 2} | settings, run=tmp_path / "run")


def test_a_search_that_kept_none_cannot_begin_to_inherit(preset, tmp_path):
    facenas.search(
        preset, run=tmp_path / "run", settings={"search.inherit": None}, executor="serial", max_trials=1
    )
    with pytest.raises(UserError, match="its trials have kept no weights; start a new run"):
        facenas.resume(tmp_path / "run", settings={"search.inherit": 1})
