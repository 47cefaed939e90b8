"""Training of face networks: what is held out, that it learns, and that two processes train as one."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from trainings import weights, whole_and_resumed

from facenas.data.config import DataConfig
from facenas.data.faces.store import open_store
from facenas.device import pick_device
from facenas.errors import UserError
from facenas.models.dropout import shift_dropout
from facenas.spaces import IRArchitecture
from facenas.training import distributed
from facenas.training.class_means import class_means
from facenas.training.depth import depths_of
from facenas.training.faces import FaceTask, split_faces, tell_split
from facenas.training.recipes import FaceRecipe
from facenas.training.tasks import TaskContext, build_task
from facenas.training.trainer import Trainer

ARCH = IRArchitecture.uniform(2, (1, 1, 1, 1), embedding=16)
DATA = DataConfig(validation_fraction=0.3, test_fraction=0.2, pairs=20)
RECIPE = FaceRecipe(batch_size=15)
TUNED = {"freeze": "stem", "layer_decay": 0.5}


def build(store: Path, final: bool = False, seed: int = 5, **data: object) -> FaceTask:
    config = DATA.model_copy(update=data)
    context = TaskContext(ARCH, open_store(store), config, RECIPE, 0, seed, pick_device(), final)
    return FaceTask(context)


def test_identities_to_train_choose_and_test_on_are_apart(faces):
    labels = open_store(faces).labels
    train, (chosen, _), (tested, _) = split_faces(labels, DATA, seed=0)
    groups = [set(labels[images.ravel()].tolist()) for images in (train, chosen, tested)]
    assert sum(map(len, groups)) == len(set.union(*groups))
    assert [len(group) for group in groups] == [8, 3, 3]
    assert len(train) == 8 * 8
    for seed in (0, 1):
        again = split_faces(labels, DATA, seed)
        assert np.array_equal(again[0], train) == (seed == 0)


def test_people_of_one_image_train_and_a_fraction_that_would_do_is_told(caplog):
    """20 people with 1 to 3 images: a tenth of them make too few pairs, the fraction that is told does not."""
    labels = np.repeat(np.arange(20, dtype=np.int32), np.arange(20) % 3 + 1)
    config = DataConfig(validation_fraction=0.1)
    with pytest.raises(
        UserError, match=r"data\.validation_fraction 0\.1: .* 0\.\d+ would do, and 0 holds"
    ) as told:
        tell_split(labels, config, RECIPE, 0)
    enough = float(re.search(r"([\d.]+) would do", str(told.value))[1])
    train, judged, _ = split_faces(labels, config.model_copy(update={"validation_fraction": enough}), 0)
    assert set(np.flatnonzero(np.bincount(labels) == 1)) <= set(labels[train])
    assert len(judged[0]) == 20
    caplog.set_level("INFO")
    tell_split(labels, config.model_copy(update={"validation_fraction": enough}), RECIPE, 0)
    people = len(set(labels[train]))
    assert f"{len(train)} images of {people} people to train on (7 of one image)" in caplog.text
    assert "people are few to choose on" in caplog.text
    assert "data.validation_fraction 0.5 holds out 10" in caplog.text
    with pytest.raises(UserError, match=r"0\.1: [^;]*; hold out more identities; 0 holds out none"):
        tell_split(labels[:4], config, RECIPE, 0)


def test_a_candidate_sees_its_fraction_and_the_final_network_all(faces):
    assert build(faces, data_fraction=0.5).images == 32
    some = build(faces, data_fraction=0.5, subset_of="identities")
    assert (some.images, some.identities) == (32, 4)
    assert build(faces, final=True, data_fraction=0.5).images == 64
    assert build(faces).identities == 8


def test_without_test_identities_the_result_says_so(faces):
    task = build(faces, test_fraction=0.0)
    assert task.images == 10 * 8
    result = task.test()
    assert result["test_accuracy"] is None
    assert result["verification"]["identities"] == "validation"
    with_test = build(faces).test()
    assert with_test["test_accuracy"] == with_test["verification"]["accuracy"]


@pytest.mark.parametrize("tested", [0.0, 0.2])
@pytest.mark.parametrize(("recipe", "data"), [({"hold_out": False}, {}), ({}, {"validation_fraction": 0.0})])
def test_a_final_training_can_hold_nothing_out_to_choose_on(faces, recipe, data, tested):
    """Then all identities train but those to test on, and no epoch is better than another."""
    config = DATA.model_copy(update={**data, "test_fraction": tested})
    settings = RECIPE.model_copy(update=recipe)
    context = TaskContext(ARCH, open_store(faces), config, settings, 0, 5, pick_device())
    task = build_task(replace(context, final=True))
    assert task.identities == (11 if tested else 14)
    assert task.score() is None
    told = task.test()
    assert (told["test_accuracy"] is None) == (told["verification"] is None) == (not tested)
    if data:  # a candidate has to be judged
        with pytest.raises(UserError, match="leaves a search nothing to judge candidates on"):
            build_task(context)
    else:
        assert build_task(context).identities == (8 if tested else 10)


def test_it_learns_and_its_score_is_of_pairs(faces):
    task = build(faces)
    training = Trainer(task, RECIPE, 4, pick_device())
    losses = [training.run_epoch(epoch)["train_loss"] for epoch in range(4)]
    assert losses[-1] < losses[0] - 5
    score = task.score()
    assert score.accuracy == pytest.approx(100 * score.right.mean())
    assert len(score.right) == 20


def test_same_seed_same_bits_and_a_resumed_training_goes_on(faces, tmp_path):
    whole, resumed = whole_and_resumed(lambda: Trainer(build(faces), RECIPE, 2, pick_device()), 2, tmp_path)
    assert torch.equal(weights(whole), weights(resumed))
    other = Trainer(build(faces, seed=6), RECIPE, 2, pick_device())
    assert not torch.equal(weights(other), weights(Trainer(build(faces), RECIPE, 2, pick_device())))


def losses_in_double(store: Path, **recipe: object) -> list[float]:
    """Joint losses of one epoch's steps. In float64: float32's rounding would grow from step to step."""
    task, tuned = build(store), RECIPE.model_copy(update=recipe)
    if recipe:
        task.network.head.begin_at(class_means(task, 16))
    task.model.double()
    training = Trainer(task, tuned, 1, task.device, depths=depths_of(task, ARCH, 112, tuned))
    training.network.train()
    for part in training.still:
        part.eval()
    found = []
    for batch in task.batches(0):
        images, labels = task.prepare(*batch)
        loss, _ = training.learn(images.double(), labels)
        sums = distributed.total(torch.tensor([loss.item() * len(labels), len(labels)]).double())
        found.append((sums[0] / sums[1]).item())
    state = task.network.state_dict()
    norms = [float(v.sum()) for k, v in state.items() if "running_var" in k or "batch_" in k]
    return [*found, *norms]


def one_rank(rank: int, store: Path, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    found = [*losses_in_double(store), *losses_in_double(store, **TUNED)]
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_train_as_one(faces, tmp_path):
    """Loss of every step, running statistics and the head's: 15 images a batch, shared 7 and 8.

    And so they do with a head at the class means, rates by depth and a frozen stem.
    """
    mp.spawn(one_rank, (faces, tmp_path), nprocs=2)
    together = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    alone = [*losses_in_double(faces), *losses_in_double(faces, **TUNED)]
    assert len(alone) > 10
    for rank in (0, 1):
        np.testing.assert_allclose(together[rank], alone, rtol=1e-4)


def test_a_batch_in_parts_has_the_gradients_and_statistics_of_the_batch(faces):
    """Against one pass that keeps all parts in memory; the head sees the whole batch, BatchNorm each part."""
    in_parts, whole = (build(faces) for _ in range(2))
    recipe = RECIPE.model_copy(update={"accumulate": 3, "grad_clip": None})
    trainer = Trainer(in_parts, recipe, 1, in_parts.device)
    trainer.network.train()
    whole.network.train()
    batch = next(iter(in_parts.batches(0)))
    loss, hits = trainer.learn(*in_parts.prepare(*batch))

    images, labels = whole.prepare(*batch)
    outputs = []
    for part in images.split(5):
        outputs.append(whole.model(part))
        shift_dropout(whole.network, 5)
    expected, right = whole.network.judge(torch.cat(outputs), labels)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item())
    assert hits == right
    ours, theirs = (dict(task.network.named_parameters()) for task in (in_parts, whole))
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name].grad, value.grad, rtol=1e-4, atol=1e-6)
    ours, theirs = (dict(task.network.named_buffers()) for task in (in_parts, whole))
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-5, atol=1e-6)
