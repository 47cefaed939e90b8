"""Training and searching on a card: captured steps, no waiting, the same twice, kills.

pytest -m gpu tests/gpu
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import count, islice
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "training")]

from conftest import SMALL_SEARCH
from teachers import teacher_of, write_teacher

from facenas.data import ImageSet
from facenas.data.config import DataConfig
from facenas.data.faces.store import open_store
from facenas.device import Device, pick_device
from facenas.models.heads import HEADS
from facenas.spaces import SPACES, ImageFacts, IRArchitecture
from facenas.spaces.named import NAMED
from facenas.training import trainer as training
from facenas.training.capture import CapturedSteps, side_stream
from facenas.training.recipes import Distill, FaceRecipe, Recipe
from facenas.training.tasks import TaskContext, build_task
from facenas.training.trainer import Trainer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use"),
]
KINDS = [*((kind, None) for kind in ("plain", "cells", "graph")), *(("face", head) for head in HEADS.names())]
KINDS += [("named", name) for name in ("mobilefacenet", "ghostfacenet_1.3_2", "edgeface_xs")]
KINDS += [("taught", by) for by in ("cosine", "relational", "online")]


def float32(kind="cuda"):
    return replace(pick_device(), bf16=False) if kind == "cuda" else Device(torch.device("cpu"), False)


def images(number=3200):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, number)
    # Something to learn, so that losses stay finite: a class has its shade.
    pixels = rng.integers(0, 128, (number, 32, 32, 3)) + 12 * labels[:, None, None, None]
    halves = pixels.astype(np.uint8), labels, pixels[:64].astype(np.uint8), labels[:64]
    return ImageSet(
        "made up", *halves, tuple("0123456789"), (0.4,) * 3, (0.2,) * 3, flip=True, crop_size=32, fingerprint=""
    )


def taught(context, by, faces):
    """The same with a teacher, whose embeddings are kept or, online, made in the step."""
    folder = faces.parent / "teacher"
    if not folder.exists():
        write_teacher(folder)
    settings = {"online": True} if by == "online" else {"kind": by}
    recipe = context.recipe.model_copy(update={"distill": Distill(teacher=folder, **settings)})
    return replace(context, recipe=recipe, teacher=teacher_of(folder, context.data, **settings))


def context_of(kind, head, device, faces, residency="auto"):
    if kind == "taught":
        return taught(context_of("face", "adaface", device, faces, residency), head, faces)
    if kind in ("face", "named"):
        arch = IRArchitecture.uniform(4, (1, 1, 1, 1), embedding=32)
        if kind == "named":
            arch, head = NAMED[head].scaled(width=0.25, embedding=32), "adaface"
        config = DataConfig.model_validate({"validation_fraction": 0.3, "pairs": 20, "residency": residency})
        recipe = FaceRecipe(batch_size=16, lr=0.01, head={"kind": head})
        return TaskContext(arch, open_store(faces), config, recipe, 0, 5, device)
    arch = SPACES.get(kind)().bind(ImageFacts(3, 10, 32)).start()
    config = DataConfig.model_validate({"residency": residency})
    return TaskContext(arch, images(), config, Recipe(), 0, 5, device)


def trainer_of(context, captured=True):
    trainer = Trainer(build_task(context), context.recipe, 100, context.device)
    if not captured:
        trainer.steps = CapturedSteps(None)
    return trainer


def losses(trainer, steps):
    """Of each of so many steps, through as many epochs as they take."""
    found = []
    trainer.network.train()
    with side_stream(trainer._stream):
        trainer._set_rate(trainer.recipe.lr)
        for batch in islice((batch for epoch in count() for batch in trainer.task.batches(epoch)), steps):
            trainer._sums.zero_()
            trainer.steps(trainer.step, batch)
            found.append(trainer._sums[0] / trainer._sums[2])
    return torch.stack(found).tolist()


@pytest.mark.parametrize(("kind", "head"), KINDS)
def test_captured_steps_give_the_losses_of_steps_that_are_not(kind, head, faces):
    """Fifty steps in float32, within 1e-3; on a CPU the first ones are the same as well."""
    context = context_of(kind, head, float32(), faces)
    captured = trainer_of(context)
    found = losses(captured, 50)
    assert captured.steps.graphs >= 1
    assert found == pytest.approx(losses(trainer_of(context, captured=False), 50), rel=1e-3)
    on_cpu = replace(context, device=float32("cpu"))
    # Low resolution is within 2 grey levels; and TF32 is on for convolutions.
    assert found[:5] == pytest.approx(losses(trainer_of(on_cpu), 5), rel=0.05)


@pytest.mark.parametrize(("kind", "head"), KINDS)
@pytest.mark.parametrize("residency", ["device", "host"])
def test_no_step_waits_for_the_card(kind, head, residency, faces, monkeypatch):
    trainer = trainer_of(context_of(kind, head, pick_device(), faces, residency))
    for epoch in range(5):  # whole and last batches are captured after three
        trainer.run_epoch(epoch)
    assert trainer.steps.graphs >= 1
    assert trainer.task.facts()["images_on"] == ("cuda:0" if residency == "device" else "cpu")

    def total(values):  # the end of an epoch, where it may wait
        torch.cuda.set_sync_debug_mode("default")
        return values

    monkeypatch.setattr(training.distributed, "total", total)
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer.run_epoch(5)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(("kind", "head"), [("plain", None), ("face", "adaface")])
def test_resident_and_streamed_images_train_the_same_bits(kind, head, faces):
    found = [
        losses(trainer_of(context_of(kind, head, pick_device(), faces, where)), 30)
        for where in ("device", "host")
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize(("kind", "head"), [("plain", None), ("cells", None), ("face", "adaface")])
def test_the_same_training_twice_gives_the_same_bits(kind, head, faces):
    context = context_of(kind, head, pick_device(), faces)
    assert losses(trainer_of(context), 60) == losses(trainer_of(context), 60)


def test_a_resumed_training_goes_on_to_the_same_bits(faces, tmp_path):
    context = context_of("face", "adaface", pick_device(), faces)
    whole, first, second = (trainer_of(context) for _ in range(3))
    for epoch in range(3):
        whole.run_epoch(epoch)
        first.run_epoch(epoch)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert [whole.run_epoch(epoch) for epoch in (3, 4)] == [second.run_epoch(epoch) for epoch in (3, 4)]


def test_compiled_steps_learn_as_the_others(faces):
    context = context_of("face", "adaface", float32(), faces)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = Trainer(build_task(context), context.recipe, 100, context.device, compiled=True)
    assert losses(compiled, 20) == pytest.approx(losses(trainer_of(context), 20), rel=1e-2)
    assert torch._dynamo.utils.counters["frames"]["ok"]
    assert compiled.facts() | {"captured": True, "compiled": True} == compiled.facts()


# Searches.


def command(folder, *more):
    return [sys.executable, "-m", "facenas.cli", *more, "--runs-dir", str(folder / "runs")]


def search(folder, name, *more):
    settings = [f"--set={setting}" for setting in SMALL_SEARCH]
    return command(folder, "search", "--preset", "demo-digits", "--run", name, *settings, *more)


def decisions(folder, name):
    lines = (folder / "runs" / name / "trials.jsonl").read_text(encoding="utf-8").splitlines()
    kept = ("key", "accuracy", "correct", "decision", "facts")
    return [{key: json.loads(line).get(key) for key in kept} for line in lines]


def test_killed_and_resumed_and_with_one_slot_or_four_it_decides_the_same(tmp_path):
    subprocess.run(search(tmp_path, "one", "--workers", "1"), check=True, timeout=200)
    expected = decisions(tmp_path, "one")
    assert all(trial["facts"]["images_on"] == "cuda:0" for trial in expected)
    subprocess.run(search(tmp_path, "four"), check=True, timeout=200)
    assert decisions(tmp_path, "four") == expected

    running = subprocess.Popen(search(tmp_path, "killed"))
    journal = tmp_path / "runs" / "killed" / "trials.jsonl"
    while running.poll() is None and (not journal.exists() or len(journal.read_bytes().splitlines()) < 3):
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert len(decisions(tmp_path, "killed")) < len(expected)
    subprocess.run(command(tmp_path, "resume", "killed"), check=True, timeout=200)
    assert decisions(tmp_path, "killed") == expected
