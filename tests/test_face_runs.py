"""Searches and trainings of face networks by command, end to end, on a small store."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch
import yaml
from conftest import small_faces

from facenas.spaces import IRArchitecture

ARCH = IRArchitecture.uniform(2, (1, 1, 1, 1), embedding=16)
MICRO = ["--set", "micro=true", "--set", "search.micro_epochs=1"]
SPLIT = [
    "--set", "data.validation_fraction=0.3", "--set", "data.test_fraction=0.2",
    "--set", "data.pairs=20", "--set", "recipe.batch_size=16",
]  # fmt: skip


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def decisions(run: Path) -> list[tuple]:
    fields = ("phase", "depth", "width", "ops", "kernels", "epochs", "accuracy", "decision", "key")
    return [tuple(str(line[field]) for field in fields) for line in lines(run / "trials.jsonl")]


@pytest.fixture(scope="module")
def searched(tmp_path_factory, python, faces) -> Path:
    """A micro search by two workers; the folder it ran in."""
    folder = tmp_path_factory.mktemp("searched")
    settings = [*MICRO, "--data", str(faces), "--workers", "2", "--run", "two"]
    done = python.run("-m", "facenas.cli", *small_faces(*settings), "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    (folder / "found.json").write_text(done.stdout.splitlines()[-1])
    return folder


def test_a_search_of_faces_leaves_what_it_found(searched, faces):
    run = searched / "runs" / "two"
    found = json.loads((searched / "found.json").read_text())
    assert found["architecture"] == json.loads((run / "best.json").read_text())["architecture"]
    arch = IRArchitecture.from_json(found["architecture"])
    assert arch.count_parameters() == found["parameters"]
    trials = lines(run / "trials.jsonl")
    assert trials[0]["stages"] == [1, 1, 1, 1]
    assert {trial["phase"] for trial in trials} == {"depth", "width", "ops", "kernels"}
    assert all(trial["validated"] == 20 for trial in trials)
    assert all(trial["accuracy"] == 100 * trial["correct"] / 20 for trial in trials)
    assert (run / "report.html").stat().st_size > 1e6


def test_micro_search_keeps_the_parameters(searched):
    """Separable blocks are cheaper, 5x5 ones dearer: the width makes up for it, within the slack."""
    trials = lines(searched / "runs" / "two" / "trials.jsonl")
    base = next(t for t in trials if t["reason_proposed"] == "baseline")
    micro = [t for t in trials if t["phase"] in ("ops", "kernels")][1:]
    assert len(micro) == 2 * len(base["ops"])
    assert all(t["parameters"] <= base["parameters"] + 2 * 10_000 for t in micro)
    assert all(0 in t["ops"] for t in micro if t["phase"] == "ops")


def test_workers_do_not_change_a_search_of_faces(facenas, searched, faces, tmp_path):
    settings = [*MICRO, "--data", str(faces), "--executor", "serial", "--run", "one"]
    done = facenas(*small_faces(*settings))
    assert done.returncode == 0, done.stderr
    assert decisions(tmp_path / "runs" / "one") == decisions(searched / "runs" / "two")


def test_a_search_of_faces_can_be_replayed(facenas, searched):
    done = facenas("replay", str(searched / "runs" / "two"), "--json")
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_was_found_trains_with_another_recipe_as_a_run_of_its_own(facenas, searched):
    done = facenas(
        "train", "two", "--recipe", "adaface-casia", "--run", "own", "--epochs", "1",
        "--set", "recipe.batch_size=16", "--runs-dir", str(searched / "runs"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads((searched / "runs" / "own" / "train.json").read_text())
    found = json.loads((searched / "found.json").read_text())
    assert result["architecture"] == found["architecture"]
    # As AdaFace trains: on all identities, without any to choose an epoch on.
    assert (result["identities"], result["best_epoch"], result["verification"]) == (14, None, None)
    assert (searched / "runs" / "own" / "report.html").exists()
    assert not (searched / "runs" / "two" / "train.json").exists()


def train(store: Path, run: str, *more: str) -> list[str]:
    return ["train", "net.json", "--data", str(store), "--run", run, "--epochs", "4", *SPLIT, *more]


def test_killed_and_resumed_gives_the_same_bits(facenas, python, tmp_path, faces):
    (tmp_path / "net.json").write_text(json.dumps(ARCH.to_json()))
    assert facenas(*train(faces, "whole")).returncode == 0
    runs = tmp_path / "runs"
    process = python.start("-m", "facenas.cli", *train(faces, "killed"), cwd=tmp_path)
    metrics = runs / "killed" / "metrics.jsonl"
    while not metrics.exists() or metrics.read_bytes().count(b"\n") < 2:
        assert process.poll() is None
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert not (runs / "killed" / "train.json").exists()
    assert facenas("train", "killed", "--epochs", "4").returncode == 0
    assert metrics.read_text() == (runs / "whole" / "metrics.jsonl").read_text()
    whole, killed = (
        torch.load(runs / run / "checkpoints" / "model.pt", weights_only=True)["model"]
        for run in ("whole", "killed")
    )
    assert all(torch.equal(whole[name], killed[name]) for name in whole)


def test_the_best_epoch_is_kept_and_tested_on_unseen_identities(facenas, tmp_path, faces):
    (tmp_path / "net.json").write_text(json.dumps(ARCH.to_json()))
    done = facenas(*train(faces, "net"), "--json")
    result = json.loads(done.stdout.splitlines()[-1])
    run = tmp_path / "runs" / "net"
    epochs = lines(run / "metrics.jsonl")
    best = max(epochs, key=lambda epoch: epoch["accuracy"])
    assert result["best_epoch"] == best["epoch"]
    assert (result["train_images"], result["identities"]) == (64, 8)
    assert result["verification"]["identities"] == "test"
    assert result["head_parameters"] == 8 * 16


def test_divergence_is_a_failure_not_a_result(facenas, tmp_path, faces):
    (tmp_path / "net.json").write_text(json.dumps(ARCH.to_json()))
    done = facenas(*train(faces, "net", "--set", "recipe.lr=1e30", "--set", "recipe.grad_clip=null"))
    assert done.returncode == 1
    assert "the loss became" in done.stderr
    assert not (tmp_path / "runs" / "net" / "train.json").exists()


def test_torchrun_writes_one_run(python, tmp_path, faces):
    (tmp_path / "net.json").write_text(json.dumps(ARCH.to_json()))
    command = [
        "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "--", "facenas.cli",
        *train(faces, "two"), "--json",
    ]  # fmt: skip
    done = python.run(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["processes"] == 2
    assert len(lines(tmp_path / "runs" / "two" / "metrics.jsonl")) == 4


def test_lfw_is_evaluated_by_its_pairs(facenas, tmp_path, faces, lfw):
    """Pictures of one person are the same picture here, so every network gets all pairs right."""
    (tmp_path / "net.json").write_text(json.dumps(ARCH.to_json()))
    assert facenas(*train(faces, "net")).returncode == 0
    evaluate = ["eval", "--bench", "lfw", "--model", "net", "--json", "--data"]
    result = json.loads(facenas(*evaluate, str(lfw)).stdout)
    assert (result["pairs"], result["accuracy"]) == (40, 1.0)
    assert result["network"]["parameters"] == ARCH.count_parameters()
    own = facenas("eval", "--bench", "pairs", "--model", "net", "--data", str(faces))
    assert (own.returncode, "is what net was trained on, whose people it knows" in own.stderr) == (0, True)

    state = torch.load(tmp_path / "runs" / "net" / "checkpoints" / "model.pt", weights_only=True)
    theirs = {f"model.{name}": value for name, value in state["model"].items()}
    torch.save({"state_dict": theirs}, tmp_path / "adaface.ckpt")
    evaluate[4] = "adaface.ckpt"
    assert json.loads(facenas(*evaluate, str(lfw)).stdout)["accuracy"] == 1.0

    (lfw / "Person_0_0" / "Person_0_0_0002.jpg").unlink()
    done = facenas(*evaluate, str(lfw))
    assert done.returncode == 2
    assert "Person_0_0/Person_0_0_0002.jpg is missing" in done.stderr
    (lfw.parent / "pairs.txt").write_text("2\t10\nPerson\t1\t2\n")
    assert "has 1 pairs, but its first line says 40" in facenas(*evaluate, str(lfw)).stderr


SPHEREFACE = """
import math

from facenas.models.heads import HEADS
from facenas.models.heads.base import MarginHead


@HEADS.register("sphereface")
class SphereFace(MarginHead):
    \"\"\"The angle at the label is `margin` times as wide.\"\"\"

    class Settings(MarginHead.Settings):
        margin: float = 1.5

    def apply_margin(self, cosines, norms):
        return (self.settings.margin * cosines.arccos()).clamp(max=math.pi).cos()
"""


@pytest.mark.parametrize(
    ("kind", "start"),
    [
        ("own:SphereFace", ["-m", "facenas.cli"]),
        # As if the file lay in the package: found by its name.
        ("sphereface", ["-c", "import facenas.models.heads as heads; heads.__path__.append('.')\n"
                              "from facenas.cli import main; main()"]),
    ],
)  # fmt: skip
def test_a_head_in_one_file_trains(python, tmp_path, faces, kind, start):
    (tmp_path / "net.json").write_text(json.dumps(ARCH.to_json()))
    (tmp_path / "own.py").write_text(SPHEREFACE)
    head = ["--set", f"recipe.head.kind={kind}", "--set", "recipe.head.scale=16"]
    done = python.run(*start, *train(faces, "net", *head), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = (tmp_path / "runs" / "net" / "run.yaml").read_text()
    assert yaml.safe_load(told)["config"]["recipe"]["head"] == {
        "kind": kind,
        "margin": 1.5,
        "scale": 16.0,
        "sample_rate": 1.0,
    }
    losses = [epoch["train_loss"] for epoch in lines(tmp_path / "runs" / "net" / "metrics.jsonl")]
    assert losses[-1] < losses[0] - 1
