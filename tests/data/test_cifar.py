"""CIFAR's pickles: read as their authors wrote them, and nothing else is let in."""

import io
import os
import pickle
import struct
import tarfile

import numpy as np
import pytest

from facenas.data import open_image_set, prepare
from facenas.data.cifar import CifarLayout, read_batch
from facenas.data.config import DataConfig
from facenas.errors import UserError

LAYOUT = CifarLayout(
    "cifar-10-batches-py", "cifar-10-python.tar.gz", ("data_batch_1",), "test_batch", "labels"
)


def rows(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), np.uint8)


def batch_bytes(data, labels, label_key=b"labels", protocol=2):
    batch = {b"batch_label": b"one", label_key: labels, b"data": data, b"filenames": [b"a.png"]}
    return pickle.dumps(batch, protocol=protocol)


def python2_batch_bytes(data, labels):
    """A batch as Python 2 and numpy 1 pickled it: byte strings, and numpy.core's old name."""
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        + b"(K\x01"
        + b"K"
        + bytes([len(data)])
        + b"M"
        + struct.pack("<H", 3072)
        + b"\x86"
        + b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
        + b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        + b"\x89T"
        + struct.pack("<i", data.size)
        + data.tobytes()
        + b"tb"
    )
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(U\x04data" + array + b"U\x06labels" + numbers + b"u."


def read(content, label_key="labels"):
    return read_batch(io.BytesIO(content), label_key)


def write_cifar10(root, per_batch=4):
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for number in range(1, 6):
        labels = [(number + i) % 10 for i in range(per_batch)]
        content = python2_batch_bytes(rows(per_batch, number), labels)
        (folder / f"data_batch_{number}").write_bytes(content)
    (folder / "test_batch").write_bytes(python2_batch_bytes(rows(3, 9), [7, 8, 9]))
    return folder


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_pickled_arrays_of_any_protocol(protocol):
    data = rows(3)
    images, labels = read(batch_bytes(data, [5, 0, 9], protocol=protocol))
    np.testing.assert_array_equal(images[1, :, :, 2], data[1, 2048:].reshape(32, 32))
    np.testing.assert_array_equal(images, data.reshape(3, 3, 32, 32).transpose(0, 2, 3, 1))
    assert images.flags.c_contiguous
    assert labels.dtype == np.int64
    assert labels.tolist() == [5, 0, 9]


@pytest.mark.parametrize("dtype", ["<i8", ">i4", "u1"])
def test_labels_may_be_an_array_and_data_in_fortran_order(dtype):
    data = rows(2)
    content = batch_bytes(np.asfortranarray(data), np.array([3, 4], dtype))
    images, labels = read(content)
    np.testing.assert_array_equal(images, read(batch_bytes(data, [3, 4]))[0])
    assert labels.tolist() == [3, 4]


def test_python2_pickles_as_published():
    data = rows(2)
    content = python2_batch_bytes(data, [1, 6])
    np.testing.assert_array_equal(pickle.loads(content, encoding="bytes")[b"data"], data)
    images, labels = read(content)
    np.testing.assert_array_equal(images, data.reshape(2, 3, 32, 32).transpose(0, 2, 3, 1))
    assert labels.tolist() == [1, 6]


class Bomb:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path):
    proof = tmp_path / "was-run"
    folder = write_cifar10(tmp_path)
    content = pickle.dumps({b"data": Bomb(str(proof)), b"labels": [1]}, protocol=2)
    (folder / "data_batch_3").write_bytes(content)
    with pytest.raises(UserError, match=r"data_batch_3: refused .* asks for \w+\.mkdir"):
        prepare(DataConfig(name="cifar10", root=tmp_path), tmp_path / "cache")
    assert not proof.exists()
    pickle.loads(content)
    assert proof.exists()


def test_arrays_of_objects_are_never_built():
    # Given a dtype whose flags lie, numpy itself would take these bytes for object pointers.
    forged = python2_batch_bytes(rows(1), [1]).replace(b"U\x02u1", b"U\x02O8")
    with pytest.raises(ValueError, match="array of 'O8'"):
        read(forged)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "truncated or corrupt|cannot be read"),
        (batch_bytes(rows(2), [1, 2])[:-30], "refused|cannot be read|truncated"),
        (b"not a pickle", "cannot be read|refused"),
        (pickle.dumps([1, 2]), "holds no batch"),
        (pickle.dumps({b"data": rows(1)}, 2), "lacks 'data' or 'labels'"),
        (batch_bytes(rows(2)[:, :3000], [1, 2]), "rows of 3,072"),
        (batch_bytes(rows(2).astype(np.float32), [1, 2]), "array of 'f4'"),
        (batch_bytes(rows(2), [1]), "2 images and labels of shape"),
        (batch_bytes(rows(2), [1, 12]), "labels beyond its 10 classes"),
    ],
)
def test_damage_is_named(content, fault, tmp_path):
    folder = write_cifar10(tmp_path)
    (folder / "test_batch").write_bytes(content)
    with pytest.raises(UserError, match=fault) as caught:
        prepare(DataConfig(name="cifar10", root=tmp_path), tmp_path / "cache")
    assert str(caught.value).startswith(str(folder))


def test_cifar10_from_the_folder_the_root_and_the_archive(tmp_path):
    folder = write_cifar10(tmp_path)
    archives = tmp_path / "archives"
    archives.mkdir()
    with tarfile.open(archives / "cifar-10-python.tar.gz", "w:gz") as archive:
        archive.add(folder, "cifar-10-batches-py")
    sets = [
        open_image_set(prepare(DataConfig(name="CIFAR-10", root=root), tmp_path / "cache"))
        for root in (tmp_path, folder, archives)
    ]
    assert len({s.fingerprint for s in sets}) == 1
    cifar = sets[0]
    assert cifar.train_images.shape == (20, 32, 32, 3)
    assert cifar.train_labels.tolist() == [(n + i) % 10 for n in range(1, 6) for i in range(4)]
    assert cifar.test_labels.tolist() == [7, 8, 9]
    expected = rows(4, 2).reshape(4, 3, 32, 32).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(cifar.train_images[4:8], expected)
    assert (cifar.flip, cifar.crop_size, cifar.classes[6]) == (True, 32, "frog")
    assert cifar.mean == (0.49139968, 0.48215827, 0.44653124)


def test_cifar100_takes_the_fine_labels(tmp_path):
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for name, labels in (("train", [99, 0, 42]), ("test", [1, 98, 2])):
        batch = {b"data": rows(3), b"fine_labels": labels, b"coarse_labels": [0, 1, 2]}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    cifar = open_image_set(prepare(DataConfig(name="cifar100", root=tmp_path), tmp_path / "cache"))
    assert cifar.train_labels.tolist() == [99, 0, 42]
    assert cifar.num_classes == len(set(cifar.classes)) == 100
    assert list(cifar.classes) == sorted(cifar.classes)
    assert (cifar.classes[0], cifar.classes[99]) == ("apple", "worm")


def test_a_damaged_or_incomplete_archive_is_named(tmp_path):
    path = tmp_path / LAYOUT.archive
    folder = write_cifar10(tmp_path / "files")
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder / "data_batch_1", "cifar-10-batches-py/data_batch_1")
    with pytest.raises(UserError, match=r"tar.gz: .*test_batch is missing"):
        LAYOUT.read([path])
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(UserError, match=r"tar.gz.*: is truncated or corrupt"):
        LAYOUT.read([path])
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("cifar-10-batches-py/test_batch")
        content = pickle.dumps({b"data": Bomb(str(tmp_path / "was-run"))}, protocol=2)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    with pytest.raises(UserError, match=r"tar.gz/cifar-10-batches-py/test_batch: refused"):
        LAYOUT.read([path])
    assert not (tmp_path / "was-run").exists()
