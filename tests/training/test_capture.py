"""A captured step, with a stand-in for the card: Python records what a CUDA graph would, and replays it."""

from __future__ import annotations

import gc
import logging
import weakref
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from facenas.data import feed, open_image_set
from facenas.data.config import DataConfig
from facenas.data.faces.store import open_store
from facenas.device import Device, pick_device
from facenas.models.heads import HEADS
from facenas.spaces import SPACES, ImageFacts, IRArchitecture
from facenas.training import trainer as training
from facenas.training.capture import WARM_UP, CapturedSteps, HostOperations
from facenas.training.depth import depths_of
from facenas.training.recipes import FaceRecipe, Recipe
from facenas.training.tasks import TaskContext, build_task
from facenas.training.trainer import Trainer

GREY = ImageFacts(1, 10, 8)
SMALL = {"plain": {}, "cells": {}, "graph": {"widths": (4, 8), "max_blocks": 1}}
RECIPE = Recipe(batch_size=60, pad=1, cutout=2)


class Card(Device):
    """The CPU, taken for a GPU."""

    is_gpu = True


@pytest.fixture
def card(monkeypatch):
    """Captures are recorded functions; nothing but their static buffers reaches a replay."""
    monkeypatch.setattr(training, "cuda_graphs", lambda device: lambda step: step)
    return Card(torch.device("cpu"), False)


def context_of(kind, device, digits, faces=None, **recipe):
    if kind == "face":
        arch = IRArchitecture.uniform(2, (1, 1, 1, 1), embedding=16)
        config, made = DataConfig(validation_fraction=0.3, pairs=20), FaceRecipe(batch_size=15, **recipe)
        return TaskContext(arch, open_store(faces), config, made, 0, 5, device)
    space = SPACES.get(kind)(**SMALL[kind]).bind(GREY)
    config = DataConfig(data_fraction=0.1)
    return TaskContext(space.start(), open_image_set(digits), config, RECIPE, 0, 5, device)


def weights(trainer):
    return torch.cat(
        [value.detach().flatten().double() for value in trainer.task.network.state_dict().values()]
    )


@pytest.mark.parametrize("kind", [*SMALL, "face"])
def test_replays_train_to_the_same_bits_as_steps_that_are_not_captured(kind, card, digits, faces):
    """Whole and last, smaller batches; and the CPU's own way gives nearly the same."""
    context = context_of(kind, card, digits, faces)
    epochs = WARM_UP + 2
    captured, plain = (Trainer(build_task(context), context.recipe, epochs, card) for _ in range(2))
    plain.steps = CapturedSteps(None)
    first = []
    for epoch in range(epochs):
        metrics = captured.run_epoch(epoch)
        assert metrics == plain.run_epoch(epoch)
        first.append(metrics["train_loss"])
    assert captured.steps.graphs == 2
    assert plain.steps.graphs == 0
    assert torch.equal(weights(captured), weights(plain))
    assert captured.task.score().accuracy == plain.task.score().accuracy
    on_cpu = replace(context, device=pick_device())
    usual = Trainer(build_task(on_cpu), context.recipe, epochs, on_cpu.device).run_epoch(0)
    assert usual["train_loss"] == pytest.approx(first[0], rel=0.03 if kind == "face" else 1e-4)


def test_a_resumed_training_is_captured_anew_and_goes_on(card, digits, tmp_path):
    """The optimizer that is loaded has other buffers; AdamW's options of the card are not those of a CPU."""
    context = context_of("plain", card, digits)
    recipe = RECIPE.model_copy(update={"optimizer": "adamw", "lr": 0.01})
    whole, first, second = (Trainer(build_task(context), recipe, 8, card) for _ in range(3))
    for trainer in (whole, first, second):
        for epoch in range(4):
            trainer.run_epoch(epoch)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.run_epoch(4)
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert second.steps.graphs == 0
    for epoch in range(4, 8):
        whole.run_epoch(epoch)
        second.run_epoch(epoch)
    assert second.steps.graphs == 2
    assert torch.equal(weights(whole), weights(second))
    on_cpu = replace(context, device=pick_device())
    moved = Trainer(build_task(on_cpu), recipe, 8, on_cpu.device)
    moved.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    moved.run_epoch(4)
    assert moved.optimizer.param_groups[0]["capturable"] is False


@pytest.mark.parametrize("tuned", [{}, {"layer_decay": 0.5, "freeze": "stem"}], ids=["usual", "by depth"])
def test_rates_of_each_batch_reach_a_replay(card, digits, tuned):
    """By tensors that stay where they are; on a CPU numbers of the same values give the same losses."""
    context = context_of("plain", card, digits)
    recipe = RECIPE.model_copy(update={"schedule": "triangular", "nesterov": True, **tuned})

    def trainer(context):
        task = build_task(context)
        depths = depths_of(task, context.arch, GREY.image_size, recipe)
        return Trainer(task, recipe, WARM_UP + 1, context.device, depths=depths)

    captured, usual = trainer(context), trainer(replace(context, device=pick_device()))
    groups = captured.optimizer.param_groups
    places, rates = set(), []

    def noted(*batch):
        places.update(group["lr"].data_ptr() for group in groups)
        rates.append(groups[0]["lr"].clone())
        Trainer.step(captured, *batch)

    captured.step = noted
    for epoch in range(WARM_UP + 1):
        found = captured.run_epoch(epoch)["train_loss"]
        assert usual.run_epoch(epoch)["train_loss"] == pytest.approx(found, rel=1e-3)
    assert captured.steps.graphs == 2
    assert (len(places), len(groups) > 1) == (len(groups), bool(tuned))
    assert len(torch.stack(rates).unique()) == len(rates)


@pytest.mark.parametrize(("kind", "head"), [*((k, None) for k in SMALL), *(("face", h) for h in HEADS.names())])
def test_a_step_neither_draws_nor_waits(kind, head, card, digits, faces):
    """A graph would hold what the host saw at its capture, for ever."""
    context = context_of(kind, card, digits, faces, **({"head": {"kind": head}} if head else {}))
    trainer = Trainer(build_task(context), context.recipe, 1, card)
    trainer.network.train()
    batch = next(iter(trainer.task.batches(0)))
    before = torch.get_rng_state()
    with HostOperations() as watch:
        trainer.step(*batch)
    assert watch.found is None
    assert torch.equal(before, torch.get_rng_state())


class Draws(nn.Dropout):
    pass


class Waits(nn.Module):
    def forward(self, x):
        return x if float(x.sum()) > 0 else 2 * x


class Shapes(nn.Module):
    def forward(self, x):
        return x[x > 0].sum() * x


@pytest.mark.parametrize("layer", [Draws, Waits, Shapes])
def test_what_cannot_be_captured_is_said_once_and_runs(layer, caplog):
    network, seen = layer(), []

    def step(x):
        seen.append(network(x))

    steps = CapturedSteps(lambda function: pytest.fail("it is captured"))
    with caplog.at_level(logging.WARNING):
        for _ in range(6):
            steps(step, (torch.ones(4),))
    assert len(seen) == 6
    assert [record.message for record in caplog.records] == [caplog.records[0].message]
    assert "cannot be captured as a CUDA graph and runs slower: it calls aten." in caplog.text


def test_a_capture_that_fails_runs_the_step_all_the_same(caplog):
    def capture(step):
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")

    seen, steps = torch.zeros(1), CapturedSteps(capture)
    for number in range(6):
        steps(seen.add_, (torch.tensor(float(number)),))
    assert seen == 0 + 1 + 2 + 3 + 4 + 5
    assert caplog.text.count("operation not permitted when stream is capturing") == 1


def test_what_a_training_has_on_the_card_is_freed_at_once(digits, monkeypatch):
    """Not when Python next looks for cycles: the next candidate needs the memory."""
    monkeypatch.setattr(training, "cuda_graphs", lambda device: lambda step: step() or (lambda: None))
    card = Card(torch.device("cpu"), False)
    trainer = Trainer(build_task(context_of("plain", card, digits)), RECIPE, 4, card)
    for epoch in range(3):
        trainer.run_epoch(epoch)
    assert trainer.steps.graphs
    alive = weakref.ref(trainer.network)
    gc.disable()
    try:
        del trainer
        assert alive() is None
    finally:
        gc.enable()


class FakeCard(Device):
    """Takes a network to a fake card: torch cannot swap fake parameters."""

    def place(self, model):
        for module in model.modules():
            for name, value in module._parameters.items():
                if value is not None:
                    module._parameters[name] = nn.Parameter(value.detach().to(self.torch_device))
            for name, value in module._buffers.items():
                if value is not None:
                    module._buffers[name] = value.to(self.torch_device)
        return model


@pytest.mark.parametrize(("kind", "head"), [*((k, None) for k in SMALL), *(("face", h) for h in HEADS.names())])
def test_on_a_card_every_tensor_of_a_step_is_there(kind, head, digits, faces, monkeypatch):
    """Tensors without values, on a card that does not exist: other devices and waiting for values raise."""
    from torch._subclasses import FakeTensorMode

    card = FakeCard(torch.device("cuda", 0), False)
    packed = feed._packed
    monkeypatch.setattr(training, "stream_of", lambda device: None)
    monkeypatch.setattr(training, "cuda_graphs", lambda device: None)
    monkeypatch.setattr(feed, "_fits", lambda *_: True)
    monkeypatch.setattr(feed, "_packed", lambda batches, pin: packed(batches, False))
    monkeypatch.setattr(feed, "_RESIDENT", {})
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(synchronize=lambda: 0))
    recipe = {"head": {"kind": head}, "accumulate": 1} if head else {}
    with FakeTensorMode(allow_non_fake_inputs=True):
        trainer = Trainer(build_task(context_of(kind, card, digits, faces, **recipe)), RECIPE, 1, card)
        parameters = list(trainer.network.parameters())

        def backward(loss):  # torch's own asks the driver for its card
            for parameter in parameters:
                parameter.grad = torch.zeros_like(parameter)

        monkeypatch.setattr(torch.Tensor, "backward", backward)
        monkeypatch.setattr(trainer.optimizer, "step", lambda: None)  # it has no fake
        trainer.network.train()
        batch = next(iter(trainer.task.batches(0)))
        with HostOperations() as watch:
            trainer.steps(trainer.step, batch)
    assert watch.found is None
    assert {value.device for value in [*parameters, trainer._sums]} == {card.torch_device}
