"""Full training: resumable to the same bits, tested once."""

from __future__ import annotations

import json
import time

import pytest
import torch
from conftest import small_search

from facenas.spaces import PlainArchitecture

ARCH = PlainArchitecture.uniform(4, 6, 1, 10)
EPOCHS = 12


@pytest.fixture
def arch_file(tmp_path):
    path = tmp_path / "net.json"
    path.write_text(json.dumps(ARCH.to_json()))
    return path


def arguments(name):
    return ["train", "net.json", "--preset", "demo-digits", "--run", name, "--epochs", str(EPOCHS)]


def weights(run):
    state = torch.load(run / "checkpoints" / "model.pt", weights_only=True)
    return state["model"]


def untimed(run):
    result = json.loads((run / "train.json").read_text())
    return {key: value for key, value in result.items() if key != "seconds"}


def test_killed_and_resumed_gives_the_same_bits(facenas, python, tmp_path, arch_file):
    """By a recipe whose rate changes with every batch, and whose flips remember the epoch."""
    by_recipe = "--recipe", "fast-classification"
    assert facenas(*arguments("whole"), *by_recipe).returncode == 0
    runs = tmp_path / "runs"
    process = python.start("-m", "facenas.cli", *arguments("killed"), *by_recipe, cwd=tmp_path)
    metrics = runs / "killed" / "metrics.jsonl"
    while not metrics.exists() or metrics.read_bytes().count(b"\n") < 4:
        assert process.poll() is None
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert not (runs / "killed" / "train.json").exists()
    assert facenas("train", "killed", "--epochs", "5").returncode == 2  # another training
    done = facenas("train", "killed", "--epochs", str(EPOCHS), "--json")
    assert done.returncode == 0, done.stderr

    assert untimed(runs / "killed") == untimed(runs / "whole")
    assert metrics.read_text() == (runs / "whole" / "metrics.jsonl").read_text()
    whole, killed = weights(runs / "whole"), weights(runs / "killed")
    assert whole.keys() == killed.keys()
    assert all(torch.equal(whole[name], killed[name]) for name in whole)


def test_counts_and_model_file(facenas, tmp_path, arch_file):
    """The test accuracy is that of the saved weights, by a plain loop over the test images."""
    from facenas.data import open_image_set, prepare
    from facenas.data.config import DataConfig

    done = facenas(*arguments("net"), "--json")
    result = json.loads(done.stdout.splitlines()[-1])
    run = tmp_path / "runs" / "net"
    assert (result["epochs"], result["train_images"]) == (EPOCHS, 1438)
    assert result["test_accuracy"] == 100 * result["test_correct"] / result["test_images"]

    model = ARCH.build(0)
    model.load_state_dict(weights(run))
    model.eval()
    images = open_image_set(prepare(DataConfig(name="digits")))
    pixels = torch.from_numpy(images.test_images).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        predicted = model((pixels - images.mean[0]) / images.std[0]).argmax(1)
    assert int((predicted == torch.from_numpy(images.test_labels)).sum()) == result["test_correct"]

    before = (run / "train.json").read_text()
    again = facenas("train", "net", "--json")  # told, not trained or tested again
    assert json.loads(again.stdout)["test_correct"] == result["test_correct"]
    assert "net: is trained already, this is what it gave" in again.stderr
    assert (run / "train.json").read_text() == before
    other = facenas("train", "net", "--epochs", "3")
    assert other.returncode == 2
    assert f"was trained for {EPOCHS} epochs already" in other.stderr
    assert "facenas train net --epochs 3 --run NAME" in other.stderr
    assert facenas("train", "net", "--epochs", str(EPOCHS)).returncode == 0
    assert (run / "train.json").read_text() == before


def test_a_damaged_checkpoint_is_one_sentence(facenas, tmp_path, arch_file):
    assert facenas(*arguments("net")).returncode == 0
    run = tmp_path / "runs" / "net"
    (run / "train.json").unlink()
    checkpoint = run / "checkpoints" / "training.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    done = facenas("train", "net", "--epochs", str(EPOCHS))
    assert done.returncode == 2
    assert "training.pt: is damaged" in done.stderr
    assert "Traceback" not in done.stderr


def test_divergence_is_a_failure_not_a_result(facenas, tmp_path, arch_file):
    done = facenas(*arguments("net"), "--set", "recipe.lr=1e30")
    assert done.returncode == 1
    assert "the loss became" in done.stderr
    assert not (tmp_path / "runs" / "net" / "train.json").exists()


def test_a_search_needs_something_held_out_and_a_training_does_not(facenas, tmp_path, arch_file):
    nothing = ("--set", "data.validation_fraction=0")
    done = facenas("search", "--preset", "demo-digits", *nothing, "--run", "none")
    assert done.returncode == 2
    assert "leaves a search nothing to judge candidates on" in done.stderr
    assert not (tmp_path / "runs").exists()
    done = facenas(*arguments("net")[:-1], "1", *nothing, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["best_epoch"] is None


def test_an_unfinished_search_cannot_be_trained(facenas, tmp_path):
    facenas(*small_search("--run", "bad", "--executor", "serial", "--set", "recipe.lr=1e30"))
    done = facenas("train", "bad")
    assert done.returncode == 2
    assert "its search has not ended; `facenas resume bad` goes on" in done.stderr


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"in_channels": 3}, "takes 3 channels and 10 classes, but digits has 1 and 10"),
        ({"ops": [0, 2, 0, 0]}, "not a plain architecture"),
        ({"kind": "unheard of"}, "'unheard of' is unknown"),
        ({"width": None}, "should be a whole number"),
    ],
)
def test_an_architecture_that_does_not_fit(facenas, tmp_path, arch_file, change, sentence):
    arch_file.write_text(json.dumps(ARCH.to_json() | change))
    done = facenas(*arguments("net"))
    assert done.returncode == 2
    assert sentence in done.stderr
    assert not (tmp_path / "runs").exists()
