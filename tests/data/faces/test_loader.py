"""Order, pixels and labels are the same for any number of readers and ranks; errors come out; threads end."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from facenas.data.faces import loader as loader_module
from facenas.data.faces.augment import FaceAugment
from facenas.data.faces.loader import FaceLoader, batches_in_order, to_input
from facenas.data.faces.store import open_store
from facenas.data.faces.writer import StoreWriter
from facenas.errors import UserError

IMAGES = 53
AUGMENT = FaceAugment(0.3, 0.3, 0.3, flip=True)
PLAIN = FaceAugment(0.0, 0.0, 0.0, flip=False)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Raw pixels; the first pixel of every image is its number."""
    path = tmp_path_factory.mktemp("stores") / "faces.zarr"
    rng = np.random.default_rng(0)
    with StoreWriter(path, "made for tests", "raw") as writer:
        for number in range(IMAGES):
            pixels = np.repeat(np.repeat(rng.integers(0, 256, (14, 14, 3), np.uint8), 8, 0), 8, 1)
            pixels[0, 0] = number
            writer.add(f"identity {number // 5}", pixels)
    return open_store(path)


def loader(store, batch_size=8, augment=AUGMENT, seed=1, indices=None, **kwargs):
    indices = np.arange(len(store)) if indices is None else indices
    labels = store.labels[indices].astype(np.int64)
    return FaceLoader(store, indices, labels, batch_size, augment, seed, **kwargs)


def joined(batches):
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


def test_every_image_comes_once_with_its_label(store):
    indices = np.arange(1, IMAGES, 2)
    images, labels = joined(loader(store, augment=PLAIN, indices=indices).epoch(0))
    numbers = images[:, 0, 0, 0].numpy()
    assert images.dtype == torch.uint8
    assert labels.dtype == torch.int64
    assert sorted(numbers.tolist()) == indices.tolist() != numbers.tolist()
    np.testing.assert_array_equal(labels, numbers // 5)
    np.testing.assert_array_equal(images, store.read(numbers.astype(np.int64)))


def test_seed_and_epoch_decide_order_and_pixels(store):
    first, again = (joined(loader(store).epoch(3)) for _ in range(2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[1], joined(loader(store).epoch(4))[1])
    assert not torch.equal(first[1], joined(loader(store, seed=2).epoch(3))[1])


def test_drawing_ahead_changes_nothing(store, monkeypatch):
    monkeypatch.setattr(loader_module, "DRAWN", 3)
    few = joined(loader(store, batch_size=4).epoch(5))
    monkeypatch.setattr(loader_module, "DRAWN", 100)
    many = joined(loader(store, batch_size=4).epoch(5))
    assert torch.equal(few[0], many[0])
    assert torch.equal(few[1], many[1])


def test_augmentation_does_not_change_the_order(store):
    assert torch.equal(joined(loader(store).epoch(0))[1], joined(loader(store, augment=PLAIN).epoch(0))[1])


@pytest.mark.parametrize("readers", [2, 3, 8])
def test_any_number_of_readers_gives_the_same(store, readers):
    one, many = joined(loader(store).epoch(0)), joined(loader(store, readers=readers).epoch(0))
    assert torch.equal(one[0], many[0])
    assert torch.equal(one[1], many[1])


@pytest.mark.parametrize("world", [2, 3, 4])
def test_ranks_share_out_the_joint_batches(store, world):
    whole = list(loader(store, batch_size=16).epoch(2))
    ranks = [loader(store, batch_size=16, rank=rank, world=world) for rank in range(world)]
    shares = [list(rank.epoch(2)) for rank in ranks]
    for number, batch in enumerate(zip(*shares, strict=True)):
        images, labels = joined(batch)
        assert torch.equal(images, whole[number][0])
        assert torch.equal(labels, whole[number][1])
        sizes = [len(share[1]) for share in batch]
        assert max(sizes) - min(sizes) <= 1
        starts = [rank.place(number) for rank in ranks]
        assert starts == [(sum(sizes[:rank]), sum(sizes)) for rank in range(world)]


@pytest.mark.parametrize(
    ("images", "batch", "world", "sizes"),
    [
        (32, 8, 1, [8] * 4),
        (34, 8, 1, [8] * 4 + [2]),
        (33, 8, 1, [8] * 4),  # one is too few
        (36, 8, 2, [4] * 4 + [2]),
        (35, 8, 2, [4] * 4),
        (5, 64, 2, [2]),
    ],
)
def test_a_last_batch_is_smaller_or_left_out(store, images, batch, world, sizes):
    found = loader(store, batch, indices=np.arange(images), world=world)
    assert len(found) == len(sizes)
    assert [len(labels) for _, labels in found.epoch(0)] == sizes


@pytest.mark.parametrize(("images", "batch", "world"), [(1, 8, 1), (3, 8, 2), (20, 3, 2), (0, 8, 1)])
def test_too_few_images_for_a_batch_are_refused(store, images, batch, world):
    with pytest.raises(UserError, match=f"{images} images in batches of {batch} are too few for {world}"):
        loader(store, batch, indices=np.arange(images), world=world)


@pytest.mark.parametrize("readers", [1, 3])
def test_an_unreadable_image_raises_in_its_batch(tmp_path, readers):
    with StoreWriter(tmp_path / "faces.zarr", "made for tests") as writer:
        for number in range(40):
            writer.add("one", np.full((112, 112, 3), number, np.uint8))
    store = open_store(tmp_path / "faces.zarr")
    read, bad = store.read, int(np.random.default_rng([1, 0]).permutation(40)[20])

    def failing(indices, out=None):
        if bad in indices:
            raise UserError(f"image {bad} is damaged")
        return read(indices, out)

    store.read = failing
    batches = loader(store, readers=readers).epoch(0)
    assert [len(next(batches)[1]) for _ in range(2)] == [8, 8]
    with pytest.raises(UserError, match=f"image {bad} is damaged"):
        next(batches)
    assert not reader_threads()


def reader_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("faces")]


def test_threads_end_when_the_iterator_is_dropped(store):
    batches = loader(store, batch_size=2, readers=3).epoch(0)
    next(batches)
    assert reader_threads()
    del batches
    assert not reader_threads()


def test_readers_stay_a_few_batches_ahead(store):
    read, seen = store.read, []
    store.read = lambda indices, out=None: (seen.append(len(indices)), read(indices, out))[1]
    try:
        batches = loader(store, batch_size=2, readers=2).epoch(0)
        next(batches)
        assert len(seen) <= 5
        batches.close()
    finally:
        del store.read


@pytest.mark.parametrize("readers", [1, 2])
def test_evaluation_keeps_images_and_order(store, readers):
    indices = np.array([7, 3, 3, 50, 0])
    batches = list(batches_in_order(store, indices, 2, readers))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    np.testing.assert_array_equal(torch.cat(batches), store.read(indices))
    assert list(batches_in_order(store, indices[:0], 2, readers)) == []


def formula(images):
    return (images.double().permute(0, 3, 1, 2) / 255 - 0.5) / 0.5


def test_to_input_is_the_formula_with_channels_last():
    images = torch.arange(256, dtype=torch.uint8).repeat(21 * 147)[: 21 * 112 * 112 * 3]
    images = images.reshape(21, 112, 112, 3)
    values = to_input(images)
    assert (values.shape, values.dtype) == ((21, 3, 112, 112), torch.float32)
    assert values.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(values.double(), formula(images), atol=2e-7, rtol=0)
    assert torch.equal(to_input(images[::2]), values[::2])
    assert to_input(images[:0]).shape == (0, 3, 112, 112)


@pytest.mark.parametrize(("least", "greatest"), [(0, 0), (255, 255), (7, 7), (3, 250), (254, 255)])
def test_to_input_is_the_formula_for_any_range_of_values(least, greatest):
    images = torch.randint(least, greatest + 1, (3, 112, 112, 3), dtype=torch.uint8)
    torch.testing.assert_close(to_input(images).double(), formula(images), atol=2e-7, rtol=0)
