"""Own arrays and Datasets: cached like any other set, found again by name, and refused in one sentence."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from conftest import small_search
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, TensorDataset
from torchvision.datasets import FakeData
from torchvision.transforms import Normalize, ToTensor

from facenas.data import DataConfig, from_arrays, from_dataset, open_image_set, prepare
from facenas.errors import UserError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (40, 12, 12, 3), np.uint8)
LABELS = np.arange(40) % 4


class Pairs(Dataset):
    """(image, label) pairs out of a list."""

    def __init__(self, items, classes=None):
        self.items = items
        if classes:
            self.classes = classes

    def __len__(self):
        return len(self.items)

    def __getitem__(self, number):
        return self.items[number]


def opened(name, **settings):
    return open_image_set(prepare(DataConfig(name=name, **settings)))


def test_arrays_with_a_test_part_are_kept_as_they_are():
    found = opened(from_arrays((IMAGES, LABELS), (IMAGES[:8], LABELS[:8]), classes=list("abcd")))
    np.testing.assert_array_equal(found.train_images, IMAGES)
    np.testing.assert_array_equal(found.train_labels, LABELS)
    np.testing.assert_array_equal(found.test_images, IMAGES[:8])
    assert found.train_labels.dtype == np.int64
    assert (found.classes, found.name, found.flip) == (("a", "b", "c", "d"), "arrays", True)
    assert (found.crop_size, found.image_size, found.in_channels) == (12, 12, 3)
    np.testing.assert_allclose(found.mean, IMAGES.reshape(-1, 3).mean(0) / 255)


def test_without_a_test_part_the_same_fifth_is_held_out_as_of_a_folder(tmp_path):
    order = np.argsort(LABELS, kind="stable")
    for number in order:
        path = tmp_path / "folder" / str(LABELS[number]) / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(IMAGES[number]).save(path)
    folder = opened(str(tmp_path / "folder"))
    arrays = opened(from_arrays((IMAGES[order], LABELS[order])))
    assert arrays.fingerprint == folder.fingerprint
    assert (arrays.classes, arrays.mean, arrays.flip) == (folder.classes, folder.mean, folder.flip)


def test_the_same_arrays_are_the_same_data_and_others_are_not(tmp_path):
    def name(images=IMAGES, labels=LABELS, **options):
        return from_arrays((images, labels), cache=tmp_path, **options)

    first = name()
    written = (tmp_path / first / "train_images.npy").stat().st_mtime_ns
    assert name(IMAGES.copy(), LABELS.tolist()) == first
    assert (tmp_path / first / "train_images.npy").stat().st_mtime_ns == written
    others = [
        name(IMAGES ^ 1),
        name(labels=LABELS[::-1]),
        name(flip=False),
        name(classes=list("abcd")),
    ]
    assert len({first, *others}) == 5


def test_grey_arrays_lists_and_tensors():
    grey = IMAGES[..., 0]
    prints = {
        opened(from_arrays(given)).fingerprint
        for given in (
            (grey, LABELS),
            (grey[..., None], LABELS.astype(np.uint8)),
            (list(grey), LABELS.tolist()),
            (torch.from_numpy(grey), torch.from_numpy(LABELS)),
        )
    }
    assert len(prints) == 1
    assert opened(from_arrays((grey, LABELS))).in_channels == 1


def test_image_size_resizes_as_it_does_everywhere():
    oblong = IMAGES[:, :9]
    found = opened(from_arrays((oblong, LABELS), (oblong[:4], LABELS[:4]), image_size=8))
    expected = Image.fromarray(oblong[3]).resize((8, 8), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(found.train_images[3], np.asarray(expected))
    whole = from_arrays((IMAGES, LABELS), (IMAGES[:4], LABELS[:4]), classes=list("abcd"))
    resized = opened(whole, image_size=10)
    expected = Image.fromarray(IMAGES[3]).resize((10, 10), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(resized.train_images[3], np.asarray(expected))
    assert (resized.crop_size, resized.classes) == (10, ("a", "b", "c", "d"))
    assert prepare(DataConfig(name=whole, image_size=12)) == prepare(DataConfig(name=whole))


@pytest.mark.parametrize(
    ("train", "options", "message"),
    [
        (IMAGES, {"test": LABELS}, "train: a ndarray, where a pair"),
        ((IMAGES, LABELS, IMAGES, LABELS), {}, "train: a tuple, where a pair"),
        ((IMAGES / 255, LABELS), {}, r"train images: float64 of shape \(40, 12, 12, 3\), where uint8"),
        ((IMAGES.transpose(0, 3, 1, 2), LABELS), {}, r"shape \(40, 3, 12, 12\).* channels last"),
        ((IMAGES[0], LABELS), {}, "train labels: int64 of shape .40,., where an integer for each of 12"),
        ((IMAGES[:0], LABELS[:0]), {}, "train images: there are none"),
        ((IMAGES, LABELS[:-1]), {}, "where an integer for each of 40 images"),
        ((IMAGES, LABELS / 1), {}, "train labels: float64"),
        ((IMAGES, np.eye(4)[LABELS]), {}, r"train labels: float64 of shape \(40, 4\)"),
        ((IMAGES, LABELS - 1), {}, "labels: -1 to 2, where 0 to 2 are the classes"),
        ((IMAGES, LABELS), {"classes": ["a", "b"]}, "labels: 0 to 3, where 0 to 1 are the classes"),
        ((IMAGES, LABELS), {"classes": list("abcde")}, "class 4 has no training images"),
        ((IMAGES, LABELS * 2), {}, "class 1 has no training images; number the classes"),
        ((IMAGES, LABELS * 0), {}, "all images are of one class"),
        ((IMAGES[:4], LABELS[:4]), {}, "one a class is too few to hold out"),
        ((IMAGES[:, :9], LABELS), {}, "12x9 pixels, where squares of one size .* image_size"),
        ((IMAGES, LABELS), {"test": (IMAGES[:, :9, :9], LABELS)}, "9x9 pixels, where squares"),
        ((IMAGES, LABELS), {"test": (IMAGES[..., 0], LABELS)}, "another number of channels"),
        ((IMAGES, LABELS), {"test": (IMAGES[:0], LABELS[:0])}, "test images: there are none"),
        ((IMAGES, LABELS), {"test": (IMAGES, LABELS + 1)}, "class 4 has no training images"),
    ],
)  # fmt: skip
def test_arrays_that_are_refused(train, options, message, tmp_path):
    with pytest.raises(UserError, match=message) as caught:
        from_arrays(train, **options, cache=tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "cache").exists()


def test_every_kind_of_image_gives_the_same_set():
    kinds = {
        "PIL": Image.fromarray,
        "array": np.asarray,
        "tensor": lambda image: torch.from_numpy(image).permute(2, 0, 1),
        "floats": ToTensor(),
    }
    names = [
        from_dataset(Pairs([(kind(image), int(n)) for image, n in zip(IMAGES, LABELS, strict=True)]))
        for kind in kinds.values()
    ]
    assert set(names) == {names[0]}
    found = opened(names[0])
    assert found.name == "Pairs"
    assert found.fingerprint == opened(from_arrays((IMAGES, LABELS))).fingerprint


def test_a_tensor_dataset_of_grey_images():
    grey = torch.from_numpy(IMAGES[..., 0])
    planes = TensorDataset(grey[:, None], torch.from_numpy(LABELS))
    assert from_dataset(planes) == from_dataset(TensorDataset(grey, torch.from_numpy(LABELS)))
    assert opened(from_dataset(planes)).train_images.shape == (32, 12, 12, 1)


def test_torchvisions_fake_data():
    data = FakeData(60, (3, 16, 16), 3, transform=ToTensor())
    found = opened(from_dataset(data, FakeData(20, (3, 16, 16), 3)))
    assert (len(found.train_labels), len(found.test_labels), found.num_classes) == (60, 20, 3)
    image, label = FakeData(60, (3, 16, 16), 3)[7]
    np.testing.assert_array_equal(found.train_images[7], np.asarray(image))
    assert found.train_labels[7] == label


def test_class_names_are_the_datasets_own_where_they_fit():
    items = [(image, int(n)) for image, n in zip(IMAGES, LABELS, strict=True)]
    assert opened(from_dataset(Pairs(items, list("wxyz")))).classes == ("w", "x", "y", "z")
    assert opened(from_dataset(Pairs(items, list("vwxyz")))).classes == ("0", "1", "2", "3")
    assert opened(from_dataset(Pairs(items), classes=list("abcd"))).classes == ("a", "b", "c", "d")


def test_pictures_of_many_sizes_are_resized():
    sizes = [(10 + i % 3, 9) for i in range(20)]
    pictures = [Image.fromarray(IMAGES[i]).resize(size) for i, size in enumerate(sizes)]
    data = Pairs([(picture, i % 2) for i, picture in enumerate(pictures)])
    assert opened(from_dataset(data, image_size=8)).train_images.shape == (16, 8, 8, 3)
    with pytest.raises(UserError, match=r"image 1: is of shape \(9, 11, 3\) where the first is"):
        from_dataset(data)


class Stream(IterableDataset):
    def __iter__(self):
        yield IMAGES[0], 0


NORMALIZED = Normalize((0.5,) * 3, (0.2,) * 3)(ToTensor()(IMAGES[0]))


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (Pairs([]), "Pairs: is empty"),
        (Stream(), "Stream: has no length"),
        (Pairs([{"image": IMAGES[0]}]), r"Pairs: gives a dict where a pair \(image, label\)"),
        (Pairs([(IMAGES[0], 1.5)]), "label of image 0: 1.5 is not an integer"),
        (Pairs([(IMAGES[0], torch.eye(3)[0])]), "label of image 0: .* is not an integer"),
        (Pairs([(IMAGES[0], 0), (NORMALIZED, 1)]), "image 1: its floats reach beyond 0..1"),
        (Pairs([(IMAGES[0].astype(np.int32), 0)]), r"image 0: int32 of shape \(12, 12, 3\)"),
        (Pairs([(IMAGES[0].transpose(2, 0, 1), 0)]), r"image 0: uint8 of shape \(3, 12, 12\)"),
        (Pairs([("a.png", 0)]), "image 0: .* is no image"),
        (Pairs([(IMAGES[0], 0), (IMAGES[1][..., 0], 1)]), r"image 1: is of shape \(12, 12, 1\)"),
    ],
)
def test_datasets_that_are_refused(dataset, message, tmp_path):
    with pytest.raises(UserError, match=message) as caught:
        from_dataset(dataset, cache=tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "cache").exists()


def test_a_search_on_arrays_resumes_without_them(facenas, tmp_path):
    generator = np.random.default_rng(1)
    labels = np.arange(120) % 3
    images = generator.integers(0, 120, (120, 8, 8), np.uint8) + (60 * labels[:, None, None]).astype(np.uint8)
    name = from_arrays((images, labels))
    smaller = ("search.micro=false", "space.max_depth=6", "space.max_width=6")
    settings = [part for setting in smaller for part in ("--set", setting)]
    done = facenas(*small_search("--run", "own", "--data", name, "--executor", "serial", *settings, "--json"))
    assert done.returncode == 0, done.stderr
    journal = tmp_path / "runs/own/trials.jsonl"
    lines = journal.read_text().splitlines()
    journal.write_text("\n".join(lines[:1]) + "\n")
    (tmp_path / "runs/own/best.json").unlink(missing_ok=True)
    again = facenas("resume", "own", "--json")
    assert again.returncode == 0, again.stderr
    keys = [[json.loads(line)["key"] for line in text] for text in (lines, journal.read_text().splitlines())]
    assert len(keys[0]) > 1
    assert keys[0] == keys[1]
