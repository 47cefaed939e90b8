"""Training on a store: the same by any number of readers, and a network that sees files as it was judged."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

import facenas
from facenas.data import DataConfig, ImageSet, open_image_set, prepare
from facenas.data.augment import Draws
from facenas.data.classes.importing import import_classes
from facenas.data.classes.store import ImageStore, open_image_store
from facenas.device import pick_device
from facenas.errors import UserError
from facenas.export import export_run
from facenas.spaces import PlainArchitecture
from facenas.training import feeds
from facenas.training.recipes import Recipe
from facenas.training.tasks import TaskContext, build_task
from facenas.training.trainer import Trainer

ARCH = PlainArchitecture.uniform(3, 4, 3, 2)
RESIZED = Recipe(augment="random_resized_crop", color_jitter=0.3, label_smoothing=0.1, cutout=0, batch_size=8)


def picture(rng: np.random.Generator, label: int, height: int, width: int) -> bytes:
    """Red or blue, with a pattern."""
    pixels = rng.integers(0, 120, (6, 6, 3))
    pixels[..., 2 * label] += 100
    image = Image.fromarray(pixels.astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    image.save(stream, "jpeg", quality=95)
    return stream.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """<part>/<class>/<number>.jpg: 32 to train on, 12 to validate on, 12 to test on, all of 24x24 pixels."""
    return write(tmp_path_factory.mktemp("squares"), lambda rng: (24, 24))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """The same parts, of any size, and its folder."""
    root = write(tmp_path_factory.mktemp("any"), lambda rng: rng.integers(20, 60, 2).tolist())
    import_classes(root, root.with_suffix(".zarr"))
    return root.with_suffix(".zarr")


def write(root, size):
    rng = np.random.default_rng(0)
    for part, each in (("train", 16), ("val", 6), ("test", 6)):
        for label, name in enumerate(("red", "blue")):
            (root / part / name).mkdir(parents=True)
            for number in range(each):
                data = picture(rng, label, *size(rng))
                (root / part / name / f"{number:02d}.jpg").write_bytes(data)
    return root


def task_on(data, recipe, **settings):
    config = DataConfig(**settings)
    return build_task(TaskContext(ARCH, data, config, recipe, 0, 5, pick_device()))


def trained(data, recipe) -> list[torch.Tensor]:
    """Weights after two epochs, and what was judged after each."""
    task = task_on(data, recipe)
    trainer = Trainer(task, recipe, 2, pick_device())
    found = []
    for epoch in range(2):
        metrics = trainer.run_epoch(epoch)
        found += [torch.tensor(metrics["train_loss"]), torch.from_numpy(task.score().right)]
    return [*found, *task.model.state_dict().values()]


@pytest.mark.parametrize("recipe", [RESIZED, Recipe(pad=2, cutout=4, batch_size=8)], ids=lambda r: r.augment)
def test_the_number_of_readers_decides_nothing(store, recipe, monkeypatch):
    one = trained(open_image_store(store, 16), recipe)
    monkeypatch.setattr(feeds, "readers", lambda *_: 3)
    three = trained(open_image_store(store, 16), recipe)
    assert all(torch.equal(a, b) for a, b in zip(one, three, strict=True))


def test_squares_train_as_in_memory(folder, tmp_path):
    """Whole images, padded and cropped: the same batches from a store as from the cache."""
    import_classes(folder, tmp_path / "a.zarr")
    stored = open_image_store(tmp_path / "a.zarr")
    known = open_image_set(prepare(DataConfig(name=str(folder)), tmp_path / "cache"))
    assert isinstance(known, ImageSet)
    assert stored.image_size == known.image_size == 24
    recipe = Recipe(pad=2, cutout=4, batch_size=8)
    tasks = [task_on(data, recipe) for data in (stored, known)]
    assert tasks[0].images == tasks[1].images == 32
    for mine, theirs in zip(*(task.batches(0) for task in tasks), strict=True):
        (inputs, labels), (known_inputs, known_labels) = tasks[0].prepare(*mine), tasks[1].prepare(*theirs)
        assert torch.allclose(inputs, known_inputs, atol=1e-5)
        assert torch.equal(labels, known_labels)
    assert (tasks[0].score().right == tasks[1].score().right).all()


def test_random_crops_are_new_in_each_epoch_and_go_on_after_a_break(store):
    def epoch(task):
        return [task.prepare(*batch)[0] for batch in task.batches(0)]

    task = task_on(open_image_store(store, 16), RESIZED)
    first, state = epoch(task), task.state_dict()
    second = epoch(task)
    assert first[0].shape == (8, 3, 16, 16)
    assert not torch.equal(first[0], second[0])
    again = task_on(open_image_store(store, 16), RESIZED)
    again.load_state_dict(state)
    assert all(torch.equal(a, b) for a, b in zip(second, epoch(again), strict=True))


@pytest.mark.parametrize("usual", [RESIZED, Recipe(pad=2, batch_size=8)], ids=lambda r: r.augment)
def test_alternating_flips_of_a_store(store, usual, monkeypatch):
    """Random resized crops are mirrored as they are read, others afterwards."""
    task = task_on(
        open_image_store(store, 16), usual.model_copy(update={"alternating_flip": True, "flip": True})
    )
    read, by_reader = ImageStore.read, []

    def noted(store, numbers, boxes, mirrored=None):
        by_reader.append(mirrored)
        return read(store, numbers, boxes, mirrored)

    monkeypatch.setattr(ImageStore, "read", noted)
    epochs = []
    for epoch in range(3):
        plans = [batch[0] for batch in task.batches(epoch)]
        flips = torch.cat([Draws.of(plan[1:]).flip for plan in plans])
        if usual.augment == "random_resized_crop":
            assert torch.equal(flips, torch.from_numpy(np.concatenate(by_reader)))
            by_reader.clear()
        epochs.append(flips[torch.cat([plan[0] for plan in plans]).argsort()])
    assert torch.equal(epochs[0], ~epochs[1])
    assert torch.equal(epochs[0], epochs[2])
    assert 0 < epochs[0].sum() < len(epochs[0])


def test_a_trained_network_sees_files_as_it_was_judged(store, tmp_path):
    settings = {"data.image_size": 20, "recipe.augment": "random_resized_crop", "recipe.cutout": 0}
    result = facenas.train(
        ARCH, data=store, settings=settings, epochs=2, seed=1, run="net", runs_dir=tmp_path / "runs"
    )
    files = sorted(store.with_suffix("").glob("test/*/*.jpg"))
    network = facenas.load(result)
    assert network.trained.crop_fraction == 224 / 256
    labels, _ = network.predict(files)
    right = sum(path.parent.name == label for path, label in zip(files, labels, strict=True))
    assert right == result.details["test_correct"]
    exported = export_run(result.run, "safetensors")["file"]
    assert facenas.load(exported).predict(files)[0] == labels


def test_what_does_not_belong_together_is_refused(store, folder, faces, tmp_path):
    where = {"run": "none", "runs_dir": tmp_path / "runs"}
    resized = {"recipe.augment": "random_resized_crop"}
    cases = [
        ({"data": folder, "settings": resized}, "random_resized_crop needs images of their full size"),
        ({"data": faces}, "is a store of faces, but the recipe is for classification"),
        ({"data": store, "recipe": "face-search"}, "is a set of image classes, but the recipe is for faces"),
        ({"data": tmp_path / "gone.zarr"}, "there is no such store"),
    ]
    for given, message in cases:
        with pytest.raises(UserError, match=message):
            facenas.search(**({"preset": "small"} if "recipe" in given else {}), **given, **where)
    with pytest.raises(UserError, match="is decoded as it is read; choose auto or host"):
        task_on(open_image_store(store, 16), RESIZED, residency="device")
    assert not (tmp_path / "runs").exists()
