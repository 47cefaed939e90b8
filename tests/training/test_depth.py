"""Rates by depth and frozen parts: what moves, how far, and what stays as it is to the last bit."""

from __future__ import annotations

import pytest
import torch

from facenas.data import open_image_set
from facenas.data.config import DataConfig
from facenas.data.faces.store import open_store
from facenas.device import pick_device
from facenas.errors import UserError
from facenas.spaces import IRArchitecture, PlainArchitecture
from facenas.training.depth import depths_of, stages_of
from facenas.training.recipes import FaceRecipe, Recipe
from facenas.training.tasks import TaskContext, build_task
from facenas.training.trainer import Trainer

FACES = IRArchitecture.uniform(2, (1, 2, 1, 1), embedding=16)
IMAGES = PlainArchitecture.uniform(6, 4, 1, 10)


@pytest.fixture
def trainer(digits, faces):
    def build(kind: str, **recipe: object) -> Trainer:
        """Its first 45 images an epoch, without decay or momentum unless `recipe` says so."""
        plain = {"batch_size": 15, "momentum": 0.0, "weight_decay": 0.0, "grad_clip": None, **recipe}
        arch, size = (FACES, 112) if kind == "faces" else (IMAGES, 8)
        data = open_store(faces) if kind == "faces" else open_image_set(digits)
        tuned = FaceRecipe(**plain) if kind == "faces" else Recipe(pad=1, cutout=2, **plain)
        config = DataConfig(validation_fraction=0.3, pairs=20)
        task = build_task(TaskContext(arch, data, config, tuned, 0, 5, pick_device(), final=True))
        if kind == "images":
            task.indices = task.indices[:45]
        return Trainer(task, tuned, 2, pick_device(), depths=depths_of(task, arch, size, tuned))

    return build


def test_stages_are_told_apart_by_the_side_of_what_they_give():
    names = [{name.split(".")[0] for name in s} for s in stages_of(FACES, 112)]
    assert names == [{"input_layer"}, {"body"}, {"body"}, {"body"}, {"body", "output_layer"}, {"output_layer"}]
    assert [len(stage) for stage in stages_of(FACES, 112)][1:4] == [1, 2, 1]
    last = stages_of(IMAGES, 32)[-1]
    assert last == [str(len(IMAGES.operations) + extra) for extra in (1, 2, 3)]


@pytest.mark.parametrize("kind", ["faces", "images"])
def test_the_first_step_is_shorter_the_deeper_a_part_lies(trainer, kind):
    """Plain SGD: by the same gradients, every parameter moves by a power of the factor as far."""
    usual, tuned = trainer(kind), trainer(kind, layer_decay=0.5)
    before = {name: p.detach().clone() for name, p in usual.task.network.named_parameters()}
    for one in (usual, tuned):
        one._set_rate(0.1)
        one.network.train()
        one.learn(*one.task.prepare(*next(iter(one.task.batches(0)))))
    moved = [dict(one.task.network.named_parameters()) for one in (usual, tuned)]
    stages = stages_of(FACES, 112) if kind == "faces" else stages_of(IMAGES, 8)
    prefix, top = ("backbone", len(stages)) if kind == "faces" else ("model", len(stages) - 1)
    for name, start in before.items():
        own = [n for n, parts in enumerate(stages) if any(name.startswith(f"{prefix}.{p}.") for p in parts)]
        factor = 0.5 ** (top - own[0]) if own else 1.0
        far, near = (found[name].detach() - start for found in moved)
        torch.testing.assert_close(near, factor * far, rtol=1e-3, atol=1e-7)
    assert len(tuned.optimizer.param_groups) == top + 1


@pytest.mark.parametrize("kind", ["faces", "images"])
@pytest.mark.parametrize("freeze", ["stem", "body"])
@pytest.mark.parametrize("parts", [1, 3])
def test_what_is_frozen_stays_and_all_else_moves(trainer, tmp_path, kind, freeze, parts):
    """Weights, statistics of BatchNorm, and no decay; a training that is resumed comes to the same bits."""
    usual = {"weight_decay": 0.1, "momentum": 0.9, "freeze": freeze, "accumulate": parts}
    whole, first, second = (trainer(kind, **usual) for _ in range(3))
    before = {name: value.clone() for name, value in whole.task.network.state_dict().items()}
    whole.run_epoch(0)
    whole.task.score()  # leaves the network in evaluation mode
    whole.run_epoch(1)
    frozen = [name for part in whole.still for name in part.state_dict()]
    assert frozen
    stages = stages_of(FACES, 112) if kind == "faces" else stages_of(IMAGES, 8)
    held = [part for stage in (stages[:1] if freeze == "stem" else stages[:-1]) for part in stage]
    for name, value in whole.task.network.state_dict().items():
        stays = any(name.split(".", 1)[1].startswith(f"{part}.") for part in held)
        assert torch.equal(value, before[name]) == (stays or name == "head.t"), name
    first.run_epoch(0)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    second.run_epoch(1)
    state = whole.task.network.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in second.task.network.state_dict().items())


def test_a_network_in_one_part_has_nothing_to_freeze(trainer):
    task = trainer("images").task

    class Whole(PlainArchitecture):
        def build(self, seed):
            return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))

    with pytest.raises(UserError, match=r"recipe\.freeze body: the network, of kind plain, is in one part"):
        depths_of(task, Whole(*vars(IMAGES).values()), 8, Recipe(freeze="body"))
