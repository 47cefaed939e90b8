"""Sets known by name: found in every usual place, compared with torchvision and scikit-learn."""

import gzip
import struct
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facenas.data import open_image_set, prepare
from facenas.data.config import DataConfig
from facenas.data.named import KNOWN_NAMES, NAMED_SETS, known_name
from facenas.errors import UserError

REAL = Path(__file__).parents[2].parent / "shared" / "data" / "images"


def write_idx_set(folder, zipped=False, prefixes=("train", "t10k"), classes=10, size=28, **faults):
    """A tiny set in the exact format; `faults` replaces a file's array by name."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(len(folder.name))
    for prefix, count in zip(prefixes, (30, 12), strict=True):
        arrays = {
            "images-idx3": generator.integers(0, 256, (count, size, size), np.uint8),
            "labels-idx1": np.arange(count).astype(np.uint8) % classes,
        }
        for kind, array in arrays.items():
            array = faults.get(f"{prefix}_{kind[:6]}", array)
            content = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
            content += array.tobytes()
            name = f"{prefix}-{kind}-ubyte"
            if zipped:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / name).write_bytes(content)


def load(name, root, cache, **settings):
    return open_image_set(prepare(DataConfig(name=name, root=root, **settings), cache))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("fashion-mnist", "fashion_mnist"),
        ("FashionMNIST", "fashion_mnist"),
        ("CIFAR-10", "cifar10"),
        ("cifar_100", "cifar100"),
        ("EMNIST-Balanced", "emnist_balanced"),
        ("Digits", "digits"),
        ("imagenet", None),
        ("./digits", None),
    ],
)
def test_spellings(text, name):
    assert known_name(text) == name


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("mnist", "MNIST/raw"),
        ("mnist", "mnist"),
        ("mnist", "."),
        ("fashion_mnist", "FashionMNIST/raw"),
        ("fashion_mnist", "fashion-mnist"),
        ("fashion_mnist", "fashion_mnist"),
        ("kmnist", "KMNIST/raw"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_idx_sets_in_every_place(name, folder, zipped, tmp_path):
    root = tmp_path / "root"
    write_idx_set(root / folder, zipped)
    found = load(name, root, tmp_path / "cache")
    assert found.name == name
    assert found.train_images.shape == (30, 28, 28, 1)
    assert found.test_images.shape == (12, 28, 28, 1)
    assert found.test_labels.tolist() == [i % 10 for i in range(12)]
    assert (found.crop_size, found.image_size, found.in_channels) == (32, 28, 1)
    assert found.flip == (name == "fashion_mnist")
    assert found.mean == NAMED_SETS[name].mean


def test_a_root_named_after_another_set_is_not_taken_for_this_one(tmp_path):
    write_idx_set(tmp_path / "mnist")
    with pytest.raises(UserError, match="kmnist: not found"):
        load("kmnist", tmp_path / "mnist", tmp_path / "cache")
    assert load("mnist", tmp_path / "mnist", tmp_path / "cache").name == "mnist"


def test_the_readers_agree_with_torchvision(tmp_path):
    datasets = pytest.importorskip("torchvision.datasets")
    write_idx_set(tmp_path / "KMNIST" / "raw")
    balanced = ("emnist-balanced-train", "emnist-balanced-test")
    write_idx_set(tmp_path / "EMNIST" / "raw", prefixes=balanced, classes=47)
    for name in ("kmnist", "emnist_balanced"):
        ours = load(name, tmp_path, tmp_path / "cache")
        known = NAMED_SETS[name]
        for train in (True, False):
            theirs = getattr(datasets, known.torchvision)(tmp_path, train=train, **known.arguments)
            images = ours.train_images if train else ours.test_images
            labels = ours.train_labels if train else ours.test_labels
            np.testing.assert_array_equal(images[..., 0], theirs.data.numpy())
            np.testing.assert_array_equal(labels, theirs.targets.numpy())
            assert ours.classes == tuple(theirs.classes)
    for name in ("mnist", "fashion_mnist"):
        assert NAMED_SETS[name].classes == tuple(
            getattr(datasets, NAMED_SETS[name].torchvision).classes
        )
    for known in NAMED_SETS.values():
        assert isinstance(known.layout.places(tmp_path), list)
        assert issubclass(getattr(datasets, known.torchvision), datasets.VisionDataset)


def test_digits_are_scikit_learns(tmp_path):
    from sklearn.datasets import load_digits

    ours = load("digits", tmp_path, tmp_path / "cache")
    assert (len(ours.train_labels), len(ours.test_labels)) == (1438, 359)
    assert (ours.image_size, ours.crop_size, ours.flip, ours.num_classes) == (8, 8, False, 10)
    images = np.concatenate([ours.train_images, ours.test_images])[..., 0]
    labels = np.concatenate([ours.train_labels, ours.test_labels])
    assert images.min() == 0
    assert images.max() == 255
    digits = load_digits()
    back = np.rint(images / 255 * 16).reshape(-1, 64)
    theirs = sorted((*row, label) for row, label in zip(digits.data, digits.target, strict=True))
    assert sorted((*row, label) for row, label in zip(back, labels, strict=True)) == theirs
    shares = np.bincount(ours.test_labels) / np.bincount(digits.target)
    assert np.abs(shares - 0.2).max() < 0.01
    assert ours.mean[0] == pytest.approx(ours.train_images.mean() / 255, abs=1e-9)
    assert ours.std[0] == pytest.approx(ours.train_images.std() / 255, abs=1e-9)


@pytest.mark.parametrize("size", [8, 28, 40])
def test_image_size_resizes_named_sets_as_pillow_does(size, tmp_path):
    write_idx_set(tmp_path)
    whole = load("mnist", tmp_path, tmp_path / "cache")
    resized = load("mnist", tmp_path, tmp_path / "cache", image_size=size)
    assert (resized.image_size, resized.crop_size) == (size, size)
    picture = Image.fromarray(whole.train_images[29, :, :, 0])
    expected = np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(resized.train_images[29, :, :, 0], expected)


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        ({"train_labels": np.zeros(29, np.uint8)}, "30 images and 29 labels"),
        ({"train_images": np.zeros((0, 28, 28), np.uint8)}, "0 images and 30 labels"),
        ({"t10k_labels": np.full(12, 10, np.uint8)}, "labels beyond its 10 classes"),
        ({"t10k_images": np.zeros((12, 27, 28), np.uint8)}, "images of 28x27 where 28x28"),
    ],
)
def test_files_that_do_not_fit_each_other(faults, message, tmp_path):
    write_idx_set(tmp_path, **faults)
    with pytest.raises(UserError, match=message) as caught:
        load("mnist", tmp_path, tmp_path / "cache")
    assert str(caught.value).startswith(f"{tmp_path}: ")


@pytest.mark.parametrize("name", NAMED_SETS)
def test_a_missing_set_says_where_and_how(name, tmp_path):
    with pytest.raises(UserError) as caught:
        load(name, tmp_path / "nowhere", tmp_path / "cache")
    message = str(caught.value)
    assert message.startswith(f"{name}: not found at {tmp_path / 'nowhere'}")
    assert "--data-root" in message
    assert "--download" in message
    assert "\n" not in message
    assert not (tmp_path / "cache").exists()


def test_an_unknown_name_lists_the_known_ones(tmp_path):
    with pytest.raises(UserError, match="imagenet: unknown data set") as caught:
        load("imagenet", tmp_path, tmp_path / "cache")
    assert all(name in str(caught.value) for name in KNOWN_NAMES)


def fake_torchvision(monkeypatch, fetcher):
    package, datasets = types.ModuleType("torchvision"), types.ModuleType("torchvision.datasets")
    package.datasets = datasets
    datasets.EMNIST = datasets.MNIST = fetcher
    monkeypatch.setitem(sys.modules, "torchvision", package)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", datasets)


def test_download_fetches_what_is_missing_once(tmp_path, monkeypatch, capsys):
    calls = []

    def fetch(root, download, **arguments):
        print("Downloading")
        calls.append((root, download, arguments))
        prefixes = ("emnist-balanced-train", "emnist-balanced-test")
        write_idx_set(root / "EMNIST" / "raw", prefixes=prefixes)

    fake_torchvision(monkeypatch, fetch)
    for _ in range(2):
        found = load("emnist_balanced", tmp_path, tmp_path / "cache", download=True)
    assert calls == [(tmp_path, True, {"split": "balanced"})]
    assert found.num_classes == 47
    assert capsys.readouterr().out == ""


def test_a_failed_download_says_so(tmp_path, monkeypatch):
    def fail(root, download):
        raise RuntimeError("Error downloading train-images:\nTried a mirror")

    fake_torchvision(monkeypatch, fail)
    with pytest.raises(UserError, match=r"mnist: the download into .* failed") as caught:
        load("mnist", tmp_path, tmp_path / "cache", download=True)
    assert "\n" not in str(caught.value)
    fake_torchvision(monkeypatch, lambda root, download: None)
    with pytest.raises(UserError, match="mnist: not found"):
        load("mnist", tmp_path, tmp_path / "cache", download=True)


@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "mnist"), ("fashion_mnist", "fashion-mnist")]
)
def test_the_real_files(name, folder, tmp_path):
    if not (REAL / folder).is_dir():
        pytest.skip(f"needs the real {name} files in ../shared/data/images/{folder}")
    found = load(name, REAL, tmp_path)
    assert found.train_images.shape == (60_000, 28, 28, 1)
    assert found.test_images.shape == (10_000, 28, 28, 1)
    assert np.bincount(found.test_labels).sum() == 10_000
    assert found.train_images.mean() / 255 == pytest.approx(found.mean[0], abs=1e-3)
    assert found.train_images.std() / 255 == pytest.approx(found.std[0], abs=1e-3)
