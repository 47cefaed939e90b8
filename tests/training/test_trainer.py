"""The training loop against a plain restatement of the recipe."""

from __future__ import annotations

import math
from itertools import count

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from trainings import whole_and_resumed

from facenas.data import open_image_set
from facenas.data.config import DataConfig
from facenas.device import pick_device
from facenas.runs.presets import load_run_config
from facenas.spaces import PlainArchitecture
from facenas.training.classification import ClassificationTask
from facenas.training.recipes import FaceRecipe, Recipe
from facenas.training.tasks import TaskContext
from facenas.training.trainer import NonFiniteLossError, StoppedError, Trainer, learning_rate

ARCH = PlainArchitecture.uniform(3, 6, 1, 10)
RECIPE = Recipe(batch_size=50, pad=1, cutout=2, grad_clip=0.5)


@pytest.fixture
def training(digits):
    def build(epochs=3, seed=7, recipe=RECIPE, images=120):
        image_set, device = open_image_set(digits), pick_device()
        context = TaskContext(ARCH, image_set, DataConfig(), recipe, 0, seed, device, final=True)
        task = ClassificationTask(context)
        task.indices = torch.arange(images)
        return Trainer(task, recipe, epochs, device)

    return build


def test_equals_the_recipe_written_out(training):
    """SGD, torch's own cosine scheduler and clipping, on the batches that the loop draws."""
    epochs = 3
    real, plain = training(epochs), ARCH.build(7)
    optimizer = torch.optim.SGD(plain.parameters(), 0.025, momentum=0.9, weight_decay=3e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    twin = training(epochs)  # only for its batches
    for epoch in range(epochs):
        metrics = real.run_epoch(epoch)
        plain.train()
        losses, right, seen = 0.0, 0, 0
        for batch in twin.task.batches(epoch):
            images, labels = twin.task.prepare(*batch)
            logits = plain(images)
            loss = F.cross_entropy(logits, labels)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
            optimizer.step()
            losses += loss.item() * len(labels)
            right += int((logits.argmax(1) == labels).sum())
            seen += len(labels)
        assert metrics["lr"] == pytest.approx(scheduler.get_last_lr()[0])
        assert metrics["train_loss"] == pytest.approx(losses / seen, rel=1e-4)
        assert metrics["train_accuracy"] == pytest.approx(100 * right / seen)
        assert (metrics["epoch"], seen) == (epoch + 1, 120)
        scheduler.step()
    for ours, theirs in zip(real.task.model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def fast(**settings):
    """The shipped recipe for images of 8x8 pixels: 120 of them are 3 batches."""
    whole = load_run_config("tiny", [], {"recipe": "fast-classification"}).recipe
    return whole.model_copy(update={"batch_size": 50, "pad": 1, "flip": True, **settings})


def test_the_fast_recipe_equals_it_written_out(training):
    """Nesterov's momentum, and a rate for each batch."""
    recipe, epochs = fast(), 3
    real, twin, plain = training(epochs, recipe=recipe), training(epochs, recipe=recipe), ARCH.build(7)
    decay = {"weight_decay": recipe.weight_decay, "nesterov": True}
    optimizer = torch.optim.SGD(plain.parameters(), 1, momentum=recipe.momentum, **decay)
    steps = count()
    for epoch in range(epochs):
        metrics = real.run_epoch(epoch)
        plain.train()
        for batch in twin.task.batches(epoch):
            step = next(steps)
            rate = recipe.lr * np.interp(step / 9, [0, recipe.peak, 1], [0.2, 1, 0.07])
            optimizer.param_groups[0]["lr"] = rate
            if step % 3 == 0:
                assert metrics["lr"] == pytest.approx(rate)
            images, labels = twin.task.prepare(*batch)
            optimizer.zero_grad()
            F.cross_entropy(plain(images), labels, label_smoothing=recipe.label_smoothing).backward()
            torch.nn.utils.clip_grad_norm_(plain.parameters(), recipe.grad_clip)
            optimizer.step()
    assert next(steps) == 9
    for ours, theirs in zip(real.task.model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_alternating_flips_mirror_each_image_in_every_other_epoch(training):
    """Other images by another seed; and not the order of images decides which."""
    recipe = fast(pad=0, crop=8, cutout=0)

    def mirrored(trainer):
        """(4 epochs, images) bool, by the pixels."""
        found, normalize = [], trainer.task.augment.normalize
        for epoch in range(4):
            numbers, inputs = [], []
            for batch in trainer.task.batches(epoch):
                numbers.append(batch[0][0])
                inputs.append(trainer.task.prepare(*batch)[0])
            known = normalize(trainer.task.pixels[torch.cat(numbers)])
            as_it_is, flipped = (
                (torch.cat(inputs) == like).flatten(1).all(1) for like in (known, known.flip(3))
            )
            assert (as_it_is != flipped).all()
            found.append(flipped[torch.cat(numbers).argsort()])
        return torch.stack(found)

    even, odd, again, last = mirrored(training(recipe=recipe))
    assert torch.equal(even, ~odd)
    assert torch.equal(even, again)
    assert torch.equal(odd, last)
    assert 40 < even.sum() < 80
    assert not torch.equal(even, mirrored(training(recipe=recipe, seed=8))[0])


def test_every_epoch_sees_every_image_once_in_another_order(training):
    real = training()
    seen = [torch.cat([real.task.prepare(*batch)[1] for batch in real.task.batches(i)]) for i in range(2)]
    assert not torch.equal(*seen)
    truth = real.task.labels[:120].sort().values
    assert all(torch.equal(labels.sort().values, truth) for labels in seen)


def test_same_seed_same_bits_and_another_seed_others(training):
    def weights(seed):
        made = training(seed=seed)
        made.run_epoch(0)
        return torch.cat([p.detach().flatten() for p in made.task.model.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_global_random_state_is_neither_used_nor_changed(training):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    training().run_epoch(0)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("recipe", [RECIPE, None], ids=["classification", "fast-classification"])
def test_state_dict_goes_on_bit_for_bit(training, recipe, tmp_path):
    whole, resumed = whole_and_resumed(lambda: training(recipe=recipe or fast()), 3, tmp_path)
    for one, other in zip(whole.task.model.parameters(), resumed.task.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_divergence_and_stopping_are_errors(training):
    with pytest.raises(NonFiniteLossError, match=r"the loss became (nan|inf) in epoch 1"):
        training(recipe=RECIPE.model_copy(update={"lr": 1e30})).run_epoch(0)
    with pytest.raises(StoppedError):
        training().run_epoch(0, stop=lambda: True)


def test_divergence_is_noticed_after_two_hundred_steps(training, monkeypatch):
    """Not at the end of the epoch, which may be an hour away."""
    real, seen = training(recipe=RECIPE.model_copy(update={"batch_size": 2}), images=1000), []
    prepare = real.task.prepare

    def spoilt(*batch):
        images, labels = prepare(*batch)
        seen.append(len(labels))
        return images * math.nan, labels

    monkeypatch.setattr(real.task, "prepare", spoilt)
    with pytest.raises(NonFiniteLossError, match="the loss became nan in epoch 1"):
        real.run_epoch(0)
    assert len(seen) == 200


def test_what_the_test_tells_equals_scikit_learn(training, digits):
    from sklearn.metrics import balanced_accuracy_score, confusion_matrix

    image_set, trained = open_image_set(digits), training()
    trained.run_epoch(0)
    told = trained.task.test()
    assert told["classes"] == list("0123456789")
    trained.task.model.eval()
    found = []
    for image in image_set.test_images:  # one by one: it does not depend on the batch
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
        logits = trained.task.model((pixels - image_set.mean[0]) / image_set.std[0])
        found.append(logits.argmax().item())
    truth = image_set.test_labels
    assert told["confusion"] == confusion_matrix(truth, found).tolist()
    assert told["balanced_accuracy"] == pytest.approx(100 * balanced_accuracy_score(truth, found))
    assert told["test_correct"] == sum(a == b for a, b in zip(truth, found, strict=True))
    assert told["test_accuracy"] == 100 * told["test_correct"] / told["test_images"]


def test_steps_fall_at_the_milestones_as_torch_has_them():
    recipe = FaceRecipe(lr=0.1, schedule="steps", milestones=(12, 20, 24), final_epochs=26)
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], 0.1)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [12, 20, 24], 0.1)
    for epoch in range(26):
        assert learning_rate(recipe, epoch, 26) == pytest.approx(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    # Half as long: the milestones come at 6, 10 and 12.
    rates = [round(learning_rate(recipe, epoch, 13), 9) for epoch in range(13)]
    assert rates == [0.1] * 6 + [0.01] * 4 + [0.001] * 2 + [0.0001]


def test_norms_decay_only_when_the_recipe_says_so(training):
    kept = training(recipe=RECIPE.model_copy(update={"decay_norms": False}))
    decayed, spared = kept.optimizer.param_groups
    assert decayed["weight_decay"] == RECIPE.weight_decay
    assert spared["weight_decay"] == 0
    assert len(spared["params"]) == 2 * (ARCH.depth + 1)
    assert all(p.dim() == 1 for p in spared["params"])
    assert len(training().optimizer.param_groups) == 1
