"""`facenas train --from ...` of faces: few images a person, what is gained and forgotten, what is refused."""

from __future__ import annotations

import json
import logging
import re

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT

import facenas
from facenas.spaces import IRArchitecture

ARCH = IRArchitecture.uniform(2, (1, 1, 1, 1), embedding=16)
SMALL = {"data.validation_fraction": 0.4, "data.pairs": 20, "recipe.batch_size": 16}


@pytest.fixture(scope="module")
def runs(tmp_path_factory, faces):
    """The folder of runs, with `old`, trained for two epochs."""
    folder = tmp_path_factory.mktemp("finetune") / "runs"
    facenas.train(ARCH, data=faces, settings=SMALL, epochs=2, run="old", runs_dir=folder)
    return folder


@pytest.fixture
def own(tmp_path):
    """A store of 12 people with 1 to 4 images each."""
    from facenas.data.faces.writer import StoreWriter

    rng, path = np.random.default_rng(1), tmp_path / "own.zarr"
    with StoreWriter(path, "few") as writer:
        for person in range(12):
            face = rng.integers(0, 256, (112, 112, 3))
            for _ in range(person % 4 + 1):
                pixels = np.clip(face + rng.normal(0, 30, face.shape), 0, 255).astype(np.uint8)
                writer.add(f"person {person}", pixels)
    return path


def weights(run):
    return torch.load(run / "checkpoints" / "model.pt", weights_only=True)["model"]


def test_the_short_command_tells_what_is_gained_and_forgotten(runs, own, lfw, caplog):
    """Network and settings are the run's, the recipe is that of fine-tuning; killed at once, it ends alike."""
    options = {"settings": SMALL, "epochs": 2, "runs_dir": runs, "bench": "lfw", "bench_data": lfw}
    with caplog.at_level(logging.INFO, "facenas"):
        done = facenas.train(weights="old", data=own, run="own", **options)
    assert done.architecture == ARCH
    assert "(3 of one image); 5 held out to choose on, by " in caplog.text
    assert "tensors taken; the head begins at the class means" in caplog.text
    assert yaml.safe_load((done.run / "run.yaml").read_text())["config"]["recipe"]["layer_decay"] < 1
    before, after = done.details["before"], done.details["after"]
    assert after["verification"] == done.verification
    assert (before["measure"], before["bench"], after["bench"]) == ("accuracy", 100.0, 100.0)
    for sentence in (
        f"before the first epoch: held-out people {before['verification']:.2f} %",
        f"held-out people: {before['verification']:.2f} % before, {done.verification:.2f} % after",
        "lfw accuracy: 100.00 % before, 100.00 % after",
        "the best epoch was chosen on these people",
    ):
        assert sentence in caplog.text
    page = re.sub(r"<[^>]+>", "", done.report.read_text())
    assert f"held-out people {before['verification']:.2f} %" in page.replace("\u2009", " ").replace("\xa0", " ")
    expected = weights(done.run)
    for name in ("checkpoints/model.pt", "checkpoints/training.pt", "train.json"):
        (done.run / name).unlink()
    again = facenas.train("own", epochs=2, runs_dir=runs)
    assert {**again.details, "seconds": 0} == {**done.details, "seconds": 0}
    assert all(torch.equal(value, expected[name]) for name, value in weights(done.run).items())


def test_a_frozen_body_keeps_the_weights_of_a_file(runs, own, tmp_path):
    """And of an export alone, the network is known as well."""
    from facenas.export import export_run

    file = export_run(runs / "old", "safetensors", tmp_path / "old.safetensors")["file"]
    settings = {**SMALL, "recipe.freeze": "body"}
    done = facenas.train(weights=file, data=own, settings=settings, epochs=1, run="still", runs_dir=tmp_path)
    before, now = weights(runs / "old"), weights(done.run)
    moved = {name for name in before if not torch.equal(before[name], now[name])}
    assert {name.rsplit(".", 1)[0] for name in moved} == {"output_layer.3", "output_layer.4"}


@pytest.mark.parametrize(
    ("target", "options", "sentence"),
    [
        (None, {}, r"a run, an architecture, a network by name, or weights \(--from\)"),
        (
            "ir18",
            {"weights": "old"},
            r"old: holds the weights of another network, ir \(.* to be trained is ir \(",
        ),
        (
            "old",
            {"settings": {"recipe.freeze": "stem"}},
            "recipe.freeze stem: keeps weights as they are; begin",
        ),
        (None, {"weights": "old", "bench": "lfw"}, "bench lfw: a bench and its files go together"),
        (
            "old",
            {"bench": "lfw", "bench_data": "lfw"},
            "bench lfw: tells what a trained network forgets",
        ),
        (None, {"weights": "old", "bench": "lfw", "bench_data": "no.zip"}, "no.zip: does not exist"),
        (None, {"weights": "old", "bench": "lfw", "bench_data": ROOT / "docs"}, "docs: "),
        (None, {"weights": "old", "bench": "wfl", "bench_data": "no.zip"}, "bench wfl: is unknown"),
        (
            None,
            {"weights": "old", "settings": {"data.validation_fraction": 0.1}},
            r"data\.validation_fraction 0\.1: .* 0\.\d+ would do, and 0 holds out none",
        ),
    ],
)
def test_what_cannot_be_is_told_and_leaves_no_run(runs, own, target, options, sentence):
    with pytest.raises(facenas.UserError, match=sentence):
        facenas.train(target, data=own, run="refused", runs_dir=runs, **options)
    assert not (runs / "refused").exists()


def test_the_settings_of_a_fine_tuned_run_serve_a_training_from_scratch(runs, own, lfw):
    """Its bench is not for that: nothing is there to be forgotten."""
    options = {"data": own, "settings": SMALL, "epochs": 1, "runs_dir": runs}
    tuned = facenas.train(weights="old", run="first", bench="lfw", bench_data=lfw, **options)
    scratch = facenas.train("first", run="scratch", data=own, epochs=1, runs_dir=runs)
    assert "before" in tuned.details
    assert not {"before", "beginning"} & set(scratch.details)
    told = json.loads((tuned.run / "train.json").read_text())
    assert told["beginning"]["head"] == "class means"
