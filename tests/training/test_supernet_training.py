"""Judging paths of a trained supernet: data are prepared once, and no candidate sees what another left."""

from __future__ import annotations

import random

import pytest
import torch

from facenas.data import open_data
from facenas.data.config import DataConfig
from facenas.device import pick_device
from facenas.errors import UserError
from facenas.spaces import Graph, ImageFacts
from facenas.strategies.pareto import SupernetSettings
from facenas.training import faces as face_training
from facenas.training.fit import TrainState, fit, read_checkpoint
from facenas.training.recipes import FaceRecipe, Recipe
from facenas.training.supernet import PathJudge, supernet_trainer
from facenas.training.tasks import TaskContext

SETTINGS = SupernetSettings(epochs=1, recalibration=32)


@pytest.fixture(scope="module", params=["classification", "face"])
def trained(request, digits, faces, tmp_path_factory):
    """(context, space, the checkpoint of a supernet of one epoch)."""
    folder = tmp_path_factory.mktemp("supernet")
    if request.param == "face":
        space = Graph(widths=(2, 3, 4, 4), max_blocks=1, embedding=8)
        space = space.bind(ImageFacts(3, 0, 112))
        data, recipe = DataConfig(validation_fraction=0.4, pairs=20), FaceRecipe(batch_size=16)
    else:
        space = Graph(widths=(4, 8), max_blocks=1).bind(ImageFacts(1, 10, 8))
        data, recipe = DataConfig(data_fraction=0.1), Recipe(batch_size=50, pad=1, cutout=2)
    opened = open_data(faces if request.param == "face" else digits)
    context = TaskContext(space.largest(), opened, data, recipe, 0, 7, pick_device())
    trainer, supernet = supernet_trainer(context, space, SETTINGS)
    path = folder / "checkpoints" / "supernet.pt"
    fit(TrainState(trainer, path, "key", {"supernet": supernet}), folder, "supernet", lambda *_: 0)
    return context, space, path


def test_adamw_trains_a_supernet_too(digits):
    """Parameters off the path have no gradient in a step; what fused SGD needs for it, AdamW must not have."""
    space = Graph(widths=(4, 8), max_blocks=1).bind(ImageFacts(1, 10, 8))
    recipe = Recipe(batch_size=50, pad=1, cutout=2, optimizer="adamw", lr=1e-3)
    context = TaskContext(
        space.largest(), open_data(digits), DataConfig(data_fraction=0.1), recipe, 0, 7, pick_device()
    )
    trainer, _ = supernet_trainer(context, space, SETTINGS)
    assert all(trainer.run_epoch(epoch)["train_loss"] < 3 for epoch in range(2))
    assert "momentum_buffer" not in {key for state in trainer.optimizer.state.values() for key in state}


def test_a_judge_of_many_says_what_a_judge_of_each_says(trained, monkeypatch):
    context, space, path = trained
    candidates = [(space.sample(random.Random(seed)), seed) for seed in range(4)]
    drawn, draw_pairs = [], face_training.draw_pairs
    monkeypatch.setattr(face_training, "draw_pairs", lambda *a: drawn.append(1) or draw_pairs(*a))
    judge = PathJudge(context, path, space, 32)
    together = [judge(*candidate) for candidate in candidates]
    assert len(drawn) == isinstance(context.recipe, FaceRecipe)
    for candidate, (score, network) in reversed(list(zip(candidates, together, strict=True))):
        alone, twin = PathJudge(context, path, space, 32)(*candidate)
        assert (alone.right == score.right).all()
        state = network.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in twin.state_dict().items())
    # The seed draws the images of BatchNorm's statistics.
    other = judge(candidates[0][0], 99)[1].state_dict()
    assert any(
        not torch.equal(value, other[name])
        for name, value in together[0][1].state_dict().items()
        if "running_mean" in name
    )


def test_a_killed_supernet_goes_on_to_the_same_bits(trained, tmp_path):
    context, space, _ = trained
    longer = SETTINGS.model_copy(update={"epochs": 2})
    states = []
    for name in ("whole", "killed", "resumed"):
        trainer, supernet = supernet_trainer(context, space, longer)
        folder = tmp_path / ("whole" if name == "whole" else "killed")
        state = TrainState(trainer, folder / "checkpoints" / "s.pt", "key", {"supernet": supernet})
        folder.mkdir(exist_ok=True)
        state.restore(read_checkpoint(state.path, "key"))
        states.append(state)
        if name == "killed":
            state.history.append(trainer.run_epoch(0))
            state.save()
        else:
            fit(state, folder, "supernet", lambda *_: None)
    whole, _, resumed = (state.also["supernet"].state_dict() for state in states)
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_a_damaged_supernet_is_told(trained, tmp_path):
    context, space, _ = trained
    (tmp_path / "s.pt").write_bytes(b"PK")
    with pytest.raises(UserError, match="is no supernet of this search"):
        PathJudge(context, tmp_path / "s.pt", space, 32)
