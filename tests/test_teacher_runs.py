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

sys.path.extend(str(ROOT / "tests" / part) for part in ("training", "report"))

from report_extract import Page
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


def page(folder: Path, run: str) -> str:
    return Page((folder / "runs" / run / "report.html").read_text(encoding="utf-8")).text()


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
    assert "It is judged by agreement with the teacher on crops that no candidate" in page(tmp_path, "here")
    assert all(0 <= trial["accuracy"] < 100 and trial["validated"] == 0 for trial in here)


def test_the_page_of_a_training_says_what_it_was_judged_by(facenas, teacher, faces, tmp_path):
    """A teacher alone knows no identities, pairs or accuracy; beside a head it may choose the epoch."""
    command = ["train", "net.json", "--teacher", FILE, "--data", str(faces), *TRAIN, "--epochs", "1", "--json"]
    alone = told(facenas(*command, "--set", "recipe.distill.labels=false", "--run", "alone"))
    said = page(tmp_path, "alone")
    assert f"Agreement {alone['agreement']:.2f} % with the teacher, on held-out crops" in said
    assert f"On training crops {alone['train_accuracy']:.2f} %." in said
    assert f"on {alone['train_images']} images" in said
    for word in ("Test accuracy", "identities to train on", "training accuracy", "with a margin", "None"):
        assert word not in said
    beside = told(facenas(*command, "--set", "recipe.distill.agreement=true", "--run", "beside"))
    said = page(tmp_path, "beside")
    assert f"chosen by agreement with the teacher, {beside['agreement']:.2f} %" in said
    assert "on 20 pairs of validation identities" in said


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
