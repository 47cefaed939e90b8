"""Extraction: right rows, nothing computed twice, nothing lost or wrongly trusted, whatever interrupts it."""

from __future__ import annotations

import logging
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from facenas.errors import UserError
from facenas.evaluation.embedders.cache import RowFile, extract
from facenas.evaluation.embedders.embedder import at_once

REPOSITORY = Path(__file__).parents[2]
SIZE = 8
WEIGHTS = np.random.default_rng(1).normal(size=(112 * 3, SIZE)).astype(np.float32)


class Faces:
    """Image i is drawn from seed i; `read` counts."""

    def __init__(self, count: int, fingerprint: str = "faces"):
        self.count, self.fingerprint, self.reads = count, fingerprint, 0

    def __len__(self):
        return self.count

    def read(self, numbers):
        self.reads += len(numbers)
        drawn = (np.random.default_rng(i).integers(0, 256, (112, 112, 3)) for i in numbers)
        return np.stack([image.astype(np.uint8) for image in drawn])


class Network:
    """A sum over the rows of an image, weighted: the mirror image has another. `seen` counts images."""

    name, size, alone, batch, cacheable = "network", SIZE, False, 64, True

    def __init__(self, fingerprint: str = "network", fail_at: int | None = None):
        self.fingerprint, self.fail_at, self.seen = fingerprint, fail_at, 0

    def begin(self, images, mirrored):
        return at_once(self)(images, mirrored)

    def __call__(self, images):
        self.seen += len(images)
        if self.fail_at is not None and self.seen > self.fail_at:
            raise KeyboardInterrupt
        return images.mean(1, dtype=np.float32).reshape(len(images), -1) @ WEIGHTS


def by_hand(count, flip=True):
    images = Faces(count).read(np.arange(count))
    network = Network()
    return network(images) + network(images[:, :, ::-1]) if flip else network(images)


def files(cache):
    return sorted(path for path in cache.rglob("*") if path.is_file() and path.suffix == ".npy")


@pytest.mark.parametrize("workers", [None, 1, 3])
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_rows(workers, batch_size, tmp_path):
    options = {"batch_size": batch_size, "workers": workers, "cache": tmp_path}
    summed = extract(Network(), Faces(20), **options)
    np.testing.assert_allclose(summed, by_hand(20), rtol=1e-5, atol=0.01)
    assert summed.dtype == np.float32
    assert not summed.flags.writeable
    plain = extract(Network(), Faces(20), flip=False, **options)
    np.testing.assert_allclose(plain, by_hand(20, flip=False), rtol=1e-5, atol=0.01)
    assert not plain.flags.writeable


def test_nothing_is_computed_twice(tmp_path):
    network, faces = Network(), Faces(20)
    plain = extract(network, faces, flip=False, batch_size=8, cache=tmp_path)
    assert (network.seen, faces.reads) == (20, 20)
    summed = extract(network, faces, batch_size=8, cache=tmp_path)
    assert (network.seen, faces.reads) == (40, 40)
    assert np.array_equal(extract(network, faces, cache=tmp_path), summed)
    assert np.array_equal(extract(network, faces, flip=False, cache=tmp_path), plain)
    assert network.seen == 40
    extract(Network("other"), Faces(20), cache=tmp_path)
    extract(network, Faces(20, "other"), cache=tmp_path)
    assert (network.seen, len(files(tmp_path))) == (80, 6)


def test_the_default_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FACENAS_CACHE", str(tmp_path / "own"))
    extract(Network(), Faces(2))
    assert len(files(tmp_path / "own" / "embeddings")) == 2


def test_no_images(tmp_path):
    assert extract(Network(), Faces(0), cache=tmp_path).shape == (0, SIZE)


def test_an_interruption_keeps_what_was_done(tmp_path):
    wanted = extract(Network(), Faces(20), batch_size=4, cache=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        extract(Network(fail_at=20), Faces(20), batch_size=4, workers=1, cache=tmp_path)
    network = Network()
    found = extract(network, Faces(20), batch_size=4, cache=tmp_path)
    assert network.seen == 2 * 20 - 16
    assert np.array_equal(found, wanted)


def test_plain_ahead_of_mirrored(tmp_path):
    extract(Network(), Faces(20), flip=False, batch_size=6, cache=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        extract(Network(fail_at=12), Faces(20), batch_size=6, workers=1, cache=tmp_path)
    network = Network()
    found = extract(network, Faces(20), batch_size=5, cache=tmp_path)
    assert network.seen == 8
    np.testing.assert_allclose(found, by_hand(20), rtol=1e-5, atol=0.01)


SCRIPT = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, "tests/evaluation")
from facenas.evaluation.embedders import cache
from test_cache import Faces, Network

cache._SAVE_SECONDS = 0
class Deadly(Network):
    def __call__(self, images):
        if self.seen > 30:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(images)
cache.extract(Deadly(), Faces(40), batch_size=2, workers=1, cache=Path(sys.argv[1]))
"""


def test_a_killed_process_is_gone_on_with(tmp_path):
    killed = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], cwd=REPOSITORY, check=False)
    assert killed.returncode == -signal.SIGKILL
    for path in files(tmp_path):  # as if the kill had come while rows were written
        with path.open("ab") as file:
            file.write(b"\xff" * 21)
    network = Network()
    found = extract(network, Faces(40), batch_size=2, cache=tmp_path)
    assert 40 < network.seen <= 50
    wanted = extract(Network(), Faces(40), batch_size=2, cache=tmp_path / "whole")
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize("fault", ["torn", "flipped", "gone", "record", "record of another"])
def test_damage_is_found(fault, tmp_path, caplog):
    wanted = extract(Network(), Faces(20), cache=tmp_path)
    path = files(tmp_path)[0]
    record = path.with_suffix(".json")
    content = bytearray(path.read_bytes())
    if fault == "torn":
        path.write_bytes(content[:-1])
    elif fault == "flipped":
        content[200] ^= 1  # the first 128 are the header
        path.write_bytes(content)
    elif fault == "gone":
        path.unlink()
    else:
        record.write_text("{" if fault == "record" else '{"rows": 19, "crc32": 5}')
    network = Network()
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(extract(network, Faces(20), cache=tmp_path), wanted)
    assert network.seen == 20
    assert [r.message for r in caplog.records] == [f"{path}: is damaged; its embeddings are computed again"]


def test_two_at_once(tmp_path):
    class Slow(Network):
        def __call__(self, images):
            time.sleep(0.02)
            return super().__call__(images)

    networks = [Slow(), Slow(), Slow()]
    found = []

    def work(network):
        found.append(extract(network, Faces(30), batch_size=4, workers=2, cache=tmp_path))

    threads = [threading.Thread(target=work, args=(network,)) for network in networks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(network.seen for network in networks) == [0, 0, 60]
    assert all(np.array_equal(rows, found[0]) for rows in found)


def test_a_full_disk(tmp_path):
    faces, soft = Faces(3000), resource.getrlimit(resource.RLIMIT_FSIZE)
    faces.read = lambda numbers: np.zeros((len(numbers), 112, 112, 3), np.uint8)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, soft[1]))
    try:
        with pytest.raises(UserError, match=r"cannot be written \(File too large\); make room") as caught:
            extract(Network(), faces, batch_size=100, workers=1, cache=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, soft)
        signal.signal(signal.SIGXFSZ, before)
    assert "\n" not in str(caught.value)
    network = Network()
    assert len(extract(network, faces, batch_size=100, cache=tmp_path)) == 3000
    assert network.seen == 2 * (3000 - 1500)  # 32 bytes a row, 128 of the header: 1,558 fitted


def test_a_cache_that_is_a_file(tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        extract(Network(), Faces(2), cache=tmp_path / "cache")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite(value, tmp_path):
    class Broken(Network):
        def __call__(self, images):
            rows = super().__call__(images)
            rows[-1, 3] = value
            return rows

    with pytest.raises(UserError, match=r"network: its embedding of image 3 is not finite"):
        extract(Broken(), Faces(9), batch_size=4, cache=tmp_path)


def test_an_image_that_cannot_be_read(tmp_path):
    class Missing(Faces):
        def read(self, numbers):
            if 13 in numbers:
                raise UserError("faces: image 13 is missing")
            return super().read(numbers)

    for _ in range(2):
        with pytest.raises(UserError, match="image 13 is missing"):
            extract(Network(), Missing(20), batch_size=4, cache=tmp_path)
    network = Network()
    extract(network, Faces(20), batch_size=4, cache=tmp_path)
    assert network.seen == 2 * 8


def test_rows_are_counted_only_when_saved(tmp_path):
    rows, path = np.arange(12, dtype=np.float32).reshape(3, 4), tmp_path / "a.npy"
    stored = RowFile(path, 4, 4)
    stored.append(rows)
    assert RowFile(path, 4, 4).count == 0
    stored.save()
    stored.append(rows[:1])  # killed here
    assert RowFile(path, 4, 4).count == 3
    again = RowFile(path, 4, 4)
    again.append(rows[2:])
    again.close()
    assert np.array_equal(again.read(), np.concatenate([rows, rows[2:]]))
    assert RowFile(path, 4, 4).count == 4
    assert RowFile(path, 3, 4).count == 0  # of fewer images


def test_a_full_extraction_is_a_plain_npy_file(tmp_path):
    extract(Network(), Faces(5), flip=False, cache=tmp_path)
    (path,) = files(tmp_path)
    np.testing.assert_allclose(np.load(path), by_hand(5, flip=False), rtol=1e-5, atol=0.01)


def test_nothing_is_kept_when_that_is_said(tmp_path):
    found = extract(Network(), Faces(9), cache=tmp_path, keep=False)
    np.testing.assert_allclose(found, by_hand(9), rtol=1e-5, atol=0.01)
    assert not list(tmp_path.iterdir())
