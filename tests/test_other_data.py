"""`facenas train RUN --data OTHER [--from ...]`: a found network on other data."""

from __future__ import annotations

import json
import logging
import shutil

import numpy as np
import pytest
import torch

import facenas
from facenas.spaces import Plain, PlainArchitecture

ARCH = PlainArchitecture.uniform(3, 4, 1, 10)
EPOCHS = 2
SMALL = {"recipe.batch_size": 16, "recipe.lr": 0.01}


@pytest.fixture(scope="module")
def found(tmp_path_factory, _own_cache):
    """The folder of runs, with `digits`, trained for one epoch on 8x8 grey images."""
    runs = tmp_path_factory.mktemp("transfer") / "runs"
    facenas.train(ARCH, preset="demo-digits", epochs=1, run="digits", runs_dir=runs)
    return runs


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """48 images of 64x64 in color, of three classes."""
    rng, labels = np.random.default_rng(0), np.arange(48) % 3
    images = rng.integers(0, 80, (48, 64, 64, 3), np.uint8)
    images[np.arange(48), :, :, labels] += 120
    path = tmp_path_factory.mktemp("pictures") / "pictures.npz"
    np.savez(path, images=images, labels=labels)
    return path


def weights(run):
    return torch.load(run / "checkpoints" / "model.pt", weights_only=True)["model"]


def train(runs, pictures, name, **more):
    options = {"data": pictures, "epochs": EPOCHS, "settings": SMALL, "runs_dir": runs, "run": name}
    return facenas.train("digits", **options | more)


def test_a_found_network_is_adapted_and_begins_with_its_weights(found, pictures, caplog):
    """Without its source it goes on from a checkpoint, and from nothing, to the same bits."""
    with caplog.at_level(logging.INFO, "facenas"):
        whole = train(found, pictures, "from", weights=found / "digits")
    told = caplog.text
    assert (
        "digits: found for 1 channel, 10 classes, 8 pixels; trained for 3 channels, 3 classes, 64 pixels, with "
        "a stride of 2 in the stem"
    ) in told
    assert "27 of 29 tensors taken, 0.0.weight fitted to other channels; drawn anew: 6.weight, 6.bias" in told
    assert whole.architecture == PlainArchitecture((ARCH.width), ARCH.operations, ARCH.kernels, 3, 3, 2)
    beginning = whole.details["beginning"]
    assert (beginning["source"], beginning["taken"]) == (str(found / "digits"), 27)
    assert "weights from" in whole.report.read_text()
    run, expected = whole.run, weights(whole.run)
    scratch = train(found, pictures, "scratch")
    assert "beginning" not in scratch.details
    assert not any(
        torch.equal(expected[name], value) for name, value in weights(scratch.run).items() if "num_" not in name
    )

    (found / "digits").rename(found / "elsewhere")
    try:
        for lost in (("model.pt",), ("model.pt", "training.pt")):
            for name in (*(f"checkpoints/{file}" for file in lost), "train.json"):
                (run / name).unlink()
            again = facenas.train("from", epochs=EPOCHS, runs_dir=found)
            assert {**again.details, "seconds": 0} == {**whole.details, "seconds": 0}
            assert all(torch.equal(value, expected[name]) for name, value in weights(run).items())
    finally:
        (found / "elsewhere").rename(found / "digits")
    network = facenas.load("from", runs_dir=found)
    labels, _ = network.predict(np.zeros((2, 64, 64, 3), np.uint8))
    assert len(labels) == 2


def test_the_same_images_at_another_size_are_other_images(found):
    """With hardly a step, the weights are still those that it began with."""
    still = {"data.image_size": 16, "recipe.lr": 1e-9}
    done = facenas.train("digits", settings=still, epochs=1, run="larger", runs_dir=found, weights="digits")
    assert done.architecture == ARCH
    assert json.loads((done.run / "best.json").read_text())["macs"] == ARCH.count_macs(16)
    assert done.details["beginning"]["fitted"] == []
    before, now = weights(found / "digits"), weights(done.run)
    for name in ("0.0.weight", "3.2.weight", "6.weight"):
        assert torch.allclose(now[name], before[name], atol=1e-4) == (name != "6.weight")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"weights": "nothing"}, "nothing: no such run"),
        (
            {"weights": "untrained"},
            r"model\.pt: is missing; `facenas train .*untrained` trains the network first",
        ),
        (
            {"weights": "other"},
            r"other: holds the weights of another network, plain \(depth 4, .* differ in depth",
        ),
    ],
)
def test_what_cannot_be_is_told_and_leaves_no_run(found, pictures, options, sentence):
    if not (found / "other").exists():
        other = PlainArchitecture.uniform(4, 4, 1, 10)
        facenas.train(other, preset="demo-digits", epochs=1, run="other", runs_dir=found)
        shutil.copytree(found / "digits", found / "untrained")
        (found / "untrained" / "checkpoints" / "model.pt").unlink()
    with pytest.raises(facenas.UserError, match=sentence):
        train(found, pictures, "refused", **options)
    assert not (found / "refused").exists()


def test_a_file_is_trained_as_it_says(pictures, tmp_path):
    path = tmp_path / "net.json"
    path.write_text(json.dumps(ARCH.to_json()))
    with pytest.raises(
        facenas.UserError, match=r"takes 1 channels and 10 classes, but .* a file is trained as it says"
    ):
        facenas.train(path, data=pictures, preset="demo-digits", run="net", runs_dir=tmp_path)


def test_a_search_binds_its_space_to_large_images(pictures, tmp_path):
    """Its networks have a stem for them; a resume builds the same space from run.yaml."""
    brief = facenas.strategies.MacroMicro(min_epochs=1, width_epoch_step=0, micro=False)
    space = Plain(min_depth=3, max_depth=3, min_width=2, max_width=2)
    settings = {**SMALL, "data.validation_fraction": 0.3}
    done = facenas.search(
        space=space, strategy=brief, data=pictures, run=tmp_path / "large", settings=settings, executor="serial"
    )
    assert done.architecture.stem_stride == 2
    (done.run / "best.json").unlink()
    assert facenas.resume(done.run).trials == done.trials
