"""Searches and trainings with a teacher by command, end to end, on a small store."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml
from conftest import ROOT, small_faces

sys.path.append(str(ROOT / "tests" / "training"))

from teachers import ARCH, write_teacher

FILE = "teacher/checkpoints/model.pt"
TRAIN = ["--set", "data.validation_fraction=0.3", "--set", "data.pairs=20", "--set", "recipe.batch_size=16"]


@pytest.fixture
def teacher(tmp_path) -> Path:
    (tmp_path / "net.json").write_text(json.dumps(ARCH.to_json()))
    return write_teacher(tmp_path / "teacher")


def told(done) -> dict:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_network_is_trained_by_its_teacher_and_refuses_another(facenas, teacher, faces, tmp_path):
    more = ["--data", str(faces), *TRAIN, "--set", "recipe.distill.weight=64"]
    command = ["train", "net.json", "--teacher", FILE, *more]
    done = told(facenas(*command, "--epochs", "1", "--run", "taught", "--json"))
    assert 0 <= done["agreement"] < 100
    assert done["verification"]["pairs"] == 20
    run = tmp_path / "runs" / "taught"
    about = yaml.safe_load((run / "run.yaml").read_text())
    assert about["config"]["recipe"]["distill"]["teacher"] == str(tmp_path / FILE)
    assert about["teacher"]["size"] == 24
    saved = torch.load(run / "checkpoints" / "model.pt", weights_only=True)
    assert saved["model"].keys() == ARCH.build(0).state_dict().keys()
    (run / "train.json").unlink()
    moved = shutil.move(teacher, tmp_path / "elsewhere") / Path(FILE).relative_to(teacher.name)
    write_teacher(teacher, seed=2)
    done = facenas("train", "taught", "--epochs", "1")
    assert (done.returncode, "the teacher has changed since run taught began" in done.stderr) == (2, True)
    wrong = Path(shutil.copytree(teacher, tmp_path / "wrong")) / "checkpoints" / "model.pt"
    for place, code in ((wrong, 2), (moved, 0)):
        done = facenas("resume", "taught", "--set", f"recipe.distill.teacher={place}")
        assert done.returncode == code, done.stderr
    assert facenas("train", "taught", "--epochs", "1").returncode == 0


def test_a_search_by_agreement_knows_the_teacher_wherever_it_lies(facenas, teacher, faces, tmp_path):
    more = [
        "--data",
        str(faces),
        "--executor",
        "serial",
        "--set",
        "recipe.distill.labels=false",
        "--set",
        "recipe.distill.weight=64",
        "--json",
    ]
    shutil.copytree(teacher, tmp_path / "moved" / "teacher")
    for file, run in ((FILE, "here"), (f"moved/{FILE}", "there")):
        told(facenas(*small_faces(*more, "--teacher", file, "--run", run, "--max-trials", "1")))
    here, there = (
        [json.loads(line) for line in (tmp_path / "runs" / name / "trials.jsonl").read_text().splitlines()]
        for name in ("here", "there")
    )
    assert [trial["key"] for trial in here] == [trial["key"] for trial in there]
    assert [trial["accuracy"] for trial in here] == [trial["accuracy"] for trial in there]
    assert "agreement with the teacher" in (tmp_path / "runs" / "here" / "report.html").read_text()
    assert all(0 <= trial["accuracy"] < 100 and trial["validated"] == 0 for trial in here)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["--preset", "tiny"], "a teacher is of faces, but this recipe is for classification"),
        (
            ["--set", "recipe.distill.labels=false", "--set", "data.test_fraction=0.2"],
            "data.test_fraction: is of",
        ),
        (["--set", "recipe.distill.input={std: [0.5]}"], "std 0.5: is below 1"),
    ],
)
def test_what_cannot_be_taught_is_refused_before_a_run_is_made(
    facenas, teacher, faces, tmp_path, settings, sentence
):
    done = facenas("train", "net.json", "--teacher", FILE, "--data", str(faces), *TRAIN, *settings)
    assert (done.returncode, sentence in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "runs").exists()
