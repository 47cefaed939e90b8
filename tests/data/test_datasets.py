"""Sets known by name: found in every usual place, compared with torchvision and scikit-learn."""

import gzip
import hashlib
import os
import pickle
import shutil
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torchvision
from PIL import Image

from facenas.data import open_image_set, prepare
from facenas.data.config import DataConfig
from facenas.data.datasets import KNOWN_NAMES, NAMED_SETS, known_name
from facenas.errors import UserError

BALANCED = ("emnist-balanced-train", "emnist-balanced-test")
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


def test_the_sets_are_those_of_torchvisions_classes(tmp_path):
    write_idx_set(tmp_path / "KMNIST" / "raw")
    write_idx_set(tmp_path / "EMNIST" / "raw", prefixes=BALANCED, classes=47)
    for name in ("kmnist", "emnist_balanced"):
        ours, known = load(name, tmp_path, tmp_path / "cache"), NAMED_SETS[name]
        for train in (True, False):
            theirs = getattr(torchvision.datasets, known.reader)(
                tmp_path, train=train, **({"split": known.split} if known.split else {})
            )
            images = ours.train_images if train else ours.test_images
            labels = ours.train_labels if train else ours.test_labels
            np.testing.assert_array_equal(images[..., 0], theirs.data.numpy())
            np.testing.assert_array_equal(labels, theirs.targets.numpy())
            assert ours.classes == tuple(theirs.classes)


def idx_bytes(array):
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


WHOLE = idx_bytes(np.arange(3 * 28 * 28).astype(np.uint8).reshape(3, 28, 28))
ZIPPED = gzip.compress(WHOLE, mtime=0)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>404</html>",
        WHOLE[:3],
        WHOLE[:10],
        idx_bytes(np.zeros(30, np.uint8)),
        WHOLE[:2] + b"\x0d" + WHOLE[3:],
        WHOLE[:-1],
        WHOLE + b"\0",
        WHOLE[:4] + b"\xff" * 12 + WHOLE[16:],
        ZIPPED[:-9],
        ZIPPED[:5],
        ZIPPED[:14] + b"\xff\xff\xff" + ZIPPED[17:],
        ZIPPED[:-5] + b"\0" + ZIPPED[-4:],
    ],
)
def test_damage_of_an_idx_file_is_named_in_one_sentence(content, tmp_path):
    write_idx_set(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        load("mnist", tmp_path, tmp_path / "cache")
    assert str(caught.value).startswith(f"{path}: is damaged, or no IDX file of unsigned bytes")
    assert str(caught.value).endswith("; delete it and fetch it again")
    assert "\n" not in str(caught.value)


def test_a_file_that_unpacks_without_an_end_is_cut_off(tmp_path, monkeypatch):
    monkeypatch.setattr("facenas.data.datasets._MOST_UNPACKED", 2_000_000)
    write_idx_set(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(gzip.compress(bytes(5_000_000)))
    with pytest.raises(UserError, match=r"unpacks to more than any of these sets has"):
        load("mnist", tmp_path, tmp_path / "cache")


def test_gzip_is_told_by_content_not_by_name(tmp_path):
    write_idx_set(tmp_path / "a")
    expected = load("mnist", tmp_path / "a", tmp_path / "cache").fingerprint
    for path in sorted((tmp_path / "a").iterdir()):
        path.rename(f"{path}.gz")  # as browsers store what a server compressed on the way
    assert load("mnist", tmp_path / "a", tmp_path / "cache").fingerprint == expected


def test_a_set_is_whole_or_not_there(tmp_path):
    write_idx_set(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(UserError, match="mnist: not found"):
        load("mnist", tmp_path, tmp_path / "cache")


def rows(count, seed):
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), np.uint8)


def write_cifar(root, monkeypatch, name="cifar10", last_label=9):
    """A tiny set in the authors' format; torchvision takes its checksums for those of the real files."""
    reader = getattr(torchvision.datasets, NAMED_SETS[name].reader)
    folder = root / reader.base_folder
    folder.mkdir(parents=True)
    key, count = ("labels", 10) if name == "cifar10" else ("fine_labels", 100)
    meta = {reader.meta["key"]: [f"class {n}" for n in range(count)]}
    contents = {
        file: {"data": rows(4, i), key: [i, 1, 2, last_label]}
        for i, (file, _) in enumerate([*reader.train_list, *reader.test_list])
    }
    for file, content in (contents | {reader.meta["filename"]: meta}).items():
        (folder / file).write_bytes(pickle.dumps(content, protocol=2))

    def md5(path):
        return hashlib.md5(path.read_bytes()).hexdigest()

    def told(listed):
        return [[file, md5(folder / file)] for file, _ in listed]

    with tarfile.open(root / reader.filename, "w:gz") as archive:
        archive.add(folder, reader.base_folder)
    monkeypatch.setattr(reader, "train_list", told(reader.train_list))
    monkeypatch.setattr(reader, "test_list", told(reader.test_list))
    monkeypatch.setattr(reader, "meta", {**reader.meta, "md5": md5(folder / reader.meta["filename"])})
    monkeypatch.setattr(reader, "tgz_md5", md5(root / reader.filename))
    return folder


@pytest.mark.parametrize(("name", "batches"), [("cifar10", 5), ("cifar100", 1)])
def test_cifar_from_the_folder_the_root_and_the_archive(name, batches, tmp_path, monkeypatch):
    folder = write_cifar(tmp_path / "files", monkeypatch, name)
    loose, archives = tmp_path / "loose", tmp_path / "archives"
    shutil.copytree(folder, loose)
    archives.mkdir()
    (tmp_path / "files" / NAMED_SETS[name].archive).rename(archives / NAMED_SETS[name].archive)
    sets = [load(name, root, tmp_path / "cache") for root in (tmp_path / "files", folder, loose, archives)]
    assert len({s.fingerprint for s in sets}) == 1
    cifar = sets[0]
    assert cifar.train_images.shape == (4 * batches, 32, 32, 3)
    assert cifar.train_labels.tolist() == [n for i in range(batches) for n in (i, 1, 2, 9)]
    assert cifar.test_labels.tolist() == [batches, 1, 2, 9]
    stored = np.concatenate([rows(4, i) for i in range(batches)]).reshape(-1, 3, 32, 32)
    np.testing.assert_array_equal(cifar.train_images, stored.transpose(0, 2, 3, 1))
    assert (cifar.flip, cifar.crop_size, cifar.classes[6]) == (True, 32, "class 6")
    assert cifar.mean == NAMED_SETS[name].mean


class Bomb:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_a_pickle_that_is_not_the_authors_is_not_read(tmp_path, monkeypatch):
    proof = tmp_path / "was-run"
    folder = write_cifar(tmp_path / "files", monkeypatch)
    content = pickle.dumps({b"data": Bomb(str(proof)), b"labels": [1]}, protocol=2)
    for file in ("data_batch_3", "test_batch", "batches.meta"):
        whole = (folder / file).read_bytes()
        (folder / file).write_bytes(content)
        with pytest.raises(UserError, match=rf"{file}: is missing, damaged or repacked \(its md5"):
            load("cifar10", tmp_path / "files", tmp_path / "cache")
        (folder / file).write_bytes(whole)
    shutil.rmtree(folder)
    archive = tmp_path / "files" / NAMED_SETS["cifar10"].archive
    archive.write_bytes(archive.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"tar\.gz: is missing, damaged or repacked"):
        load("cifar10", tmp_path / "files", tmp_path / "cache")
    assert not proof.exists()
    pickle.loads(content)
    assert proof.exists()


def test_cifar_labels_beyond_the_classes(tmp_path, monkeypatch):
    write_cifar(tmp_path, monkeypatch, last_label=10)
    with pytest.raises(UserError, match="labels beyond its 10 classes"):
        load("cifar10", tmp_path, tmp_path / "cache")


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
    assert "data.root" in message
    assert "data.download" in message
    assert "\n" not in message
    assert not (tmp_path / "cache").exists()


def test_an_unknown_name_lists_the_known_ones(tmp_path):
    with pytest.raises(UserError, match="imagenet: unknown data set") as caught:
        load("imagenet", tmp_path, tmp_path / "cache")
    assert all(name in str(caught.value) for name in KNOWN_NAMES)


def test_download_fetches_what_is_missing_once(tmp_path, monkeypatch, capsys):
    calls = []

    def fetch(self, root, download, **options):
        print("Downloading")
        calls.append((root, download, options))
        write_idx_set(root / "EMNIST" / "raw", prefixes=BALANCED)

    monkeypatch.setattr(torchvision.datasets.EMNIST, "__init__", fetch)
    for _ in range(2):
        found = load("emnist_balanced", tmp_path, tmp_path / "cache", download=True)
    assert calls == [(tmp_path, True, {"split": "balanced"})]
    assert found.num_classes == 47
    assert capsys.readouterr().out == ""


def test_a_failed_download_says_so(tmp_path, monkeypatch):
    def fail(self, root, download):
        raise RuntimeError("Error downloading train-images:\nTried a mirror")

    monkeypatch.setattr(torchvision.datasets.MNIST, "__init__", fail)
    with pytest.raises(UserError, match=r"mnist: the download into .* failed") as caught:
        load("mnist", tmp_path, tmp_path / "cache", download=True)
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(torchvision.datasets.MNIST, "__init__", lambda self, root, download: None)
    with pytest.raises(UserError, match="mnist: not found"):
        load("mnist", tmp_path, tmp_path / "cache", download=True)


@pytest.mark.parametrize(("name", "folder"), [("mnist", "mnist"), ("fashion_mnist", "fashion-mnist")])
def test_the_real_files(name, folder, tmp_path):
    if not (REAL / folder).is_dir():
        pytest.skip(f"needs the real {name} files in ../shared/data/images/{folder}")
    found = load(name, REAL, tmp_path)
    assert found.train_images.shape == (60_000, 28, 28, 1)
    assert found.test_images.shape == (10_000, 28, 28, 1)
    assert np.bincount(found.test_labels).sum() == 10_000
    assert found.train_images.mean() / 255 == pytest.approx(found.mean[0], abs=1e-3)
    assert found.train_images.std() / 255 == pytest.approx(found.std[0], abs=1e-3)


@pytest.mark.parametrize("name", ["digits", "demo", "mnist"])
def test_a_set_and_a_folder_of_its_name_are_not_confused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    if name == "digits":  # some images, or none, are no set
        assert prepare(DataConfig(name=name), tmp_path / "cache").exists()
    (tmp_path / name / "a").mkdir()
    with pytest.raises(
        UserError, match=rf"^{name}: is a data set, and there is .* as well; give \./{name} for that"
    ):
        prepare(DataConfig(name=name), tmp_path / "cache")
    with pytest.raises(UserError, match="0 class"):
        prepare(DataConfig(name=f"./{name}"), tmp_path / "cache")
