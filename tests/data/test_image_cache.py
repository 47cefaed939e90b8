"""The cache: made once, whole or not at all, shared by processes, and honest about damage."""

import json
import multiprocessing
import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from facenas.data import DataConfig, default_cache, open_image_set, prepare
from facenas.data import cache as entries
from facenas.data.cache import fingerprint, kept, mean_std, shrink
from facenas.errors import UserError

REPOSITORY = Path(__file__).parents[2]
FILES = ("meta.json", "test_images.npy", "test_labels.npy", "train_images.npy", "train_labels.npy")


@pytest.fixture
def images(tmp_path):
    """A folder of 2 x 10 grey images."""
    generator = np.random.default_rng(0)
    for name in "ab":
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(10):
            noise = generator.integers(0, 256, (8, 8), np.uint8)
            Image.fromarray(noise).save(tmp_path / "images" / name / f"{i}.png")
    return DataConfig(name=str(tmp_path / "images"))


def contents(cache):
    return sorted(path.name for path in cache.iterdir())


def test_an_entry_is_made_once(images, tmp_path, monkeypatch):
    entry = prepare(images, tmp_path / "cache")
    assert contents(tmp_path / "cache") == [entry.name]
    assert contents(entry) == ["found.json", *sorted(FILES)]
    monkeypatch.setattr(entries, "write_entry", None)
    assert prepare(images, tmp_path / "cache") == entry
    assert open_image_set(entry).fingerprint == open_image_set(entry).fingerprint


def test_options_and_sources_have_entries_of_their_own(images, tmp_path):
    cache = tmp_path / "cache"
    other = images.model_copy(update={"image_size": 10})
    digits = DataConfig(name="digits")
    assert len({prepare(config, cache) for config in (images, other, digits)}) == 3
    # What does not change the decoded set does not decode it again.
    assert prepare(digits.model_copy(update={"data_fraction": 0.5}), cache) == prepare(digits, cache)


def test_arrays_are_mapped_writable_in_private_and_silent_in_torch(images, tmp_path):
    torch = pytest.importorskip("torch")
    entry = prepare(images, tmp_path / "cache")
    found = open_image_set(entry)
    assert isinstance(found.train_images, np.memmap)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tensor = torch.from_numpy(found.train_images)
        torch.from_numpy(found.train_labels)
    tensor.zero_()
    assert open_image_set(entry).train_images.any()


@pytest.mark.parametrize("exception", [KeyboardInterrupt, MemoryError, UserError])
def test_an_interrupted_write_leaves_nothing(exception, images, tmp_path, monkeypatch):
    write = entries.write_entry

    def stop(name, decoded, folder):
        write(name, decoded, folder)
        raise exception

    monkeypatch.setattr(entries, "write_entry", stop)
    with pytest.raises(exception):
        prepare(images, tmp_path / "cache")
    assert contents(tmp_path / "cache") == []
    monkeypatch.undo()
    open_image_set(prepare(images, tmp_path / "cache"))


def test_a_killed_process_leaves_no_entry(images, tmp_path):
    script = """
import os, sys
from pathlib import Path
from facenas.data import DataConfig, cache, prepare
cache.mean_std = lambda images: os._exit(9)
prepare(DataConfig(name=sys.argv[1]), Path(sys.argv[2]))
"""
    cache = tmp_path / "cache"
    command = [sys.executable, "-c", script, images.name, str(cache)]
    assert subprocess.run(command, cwd=REPOSITORY, check=False).returncode == 9
    assert all(name.startswith(".") for name in contents(cache))
    assert len(open_image_set(prepare(images, cache)).train_labels) == 16


def test_many_at_once_agree(images, tmp_path, monkeypatch):
    cache, count = tmp_path / "cache", 4
    barrier, write, results = threading.Barrier(count), entries.write_entry, []

    def write_together(name, decoded, folder):
        write(name, decoded, folder)
        barrier.wait(20)

    monkeypatch.setattr(entries, "write_entry", write_together)
    threads = [threading.Thread(target=lambda: results.append(prepare(images, cache))) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == count
    assert len(set(results)) == 1
    assert contents(cache) == [results[0].name]
    assert contents(results[0]) == ["found.json", *sorted(FILES)]


def test_a_cache_that_cannot_be_written_is_named(images, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(UserError, match=r"cache.*: cannot be written \(.+\); set FACENAS_CACHE"):
        prepare(images, tmp_path / "cache")


def test_the_default_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("FACENAS_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache() == tmp_path / ".cache" / "facenas"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache() == tmp_path / "xdg" / "facenas"
    monkeypatch.setenv("FACENAS_CACHE", str(tmp_path / "own"))
    assert prepare(DataConfig(name="digits")).parent == tmp_path / "own"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["missing", "empty", "torn", "other"])
def test_a_damaged_entry_is_named(name, damage, images, tmp_path):
    entry = prepare(images, tmp_path / "cache")
    path = entry / name
    if damage == "missing":
        path.unlink()
    elif damage == "other":
        np.save(path.with_suffix(".npy"), np.zeros(3, np.float32))
        path.with_suffix(".npy").rename(path)
    else:
        path.write_bytes(path.read_bytes()[:-3] if damage == "torn" else b"")
    with pytest.raises(UserError) as caught:
        open_image_set(entry)
    assert str(caught.value) == (
        f"{path}: is missing or damaged; delete the cache entry {entry} to have it made anew"
    )


def test_labels_must_match_their_images(images, tmp_path):
    entry = prepare(images, tmp_path / "cache")
    np.save(entry / "test_labels.npy", np.zeros(3, np.int64))
    with pytest.raises(UserError, match=r"test_labels\.npy: is missing or damaged"):
        open_image_set(entry)
    meta = json.loads((entry / "meta.json").read_text())
    assert meta["name"] == "images"


def test_the_fingerprint_follows_pixels_labels_shapes_and_dtypes():
    pixels, labels = np.zeros((2, 4, 4, 1), np.uint8), np.zeros(2, np.int64)
    one_off = pixels.copy()
    one_off[1, 3, 3, 0] = 1
    prints = {
        fingerprint(arrays)
        for arrays in (
            [pixels, labels],
            [one_off, labels],
            [pixels, labels + 1],
            [pixels.reshape(2, 2, 8, 1), labels],
            [pixels.view(np.int8), labels],
            [labels, pixels],
        )
    }
    assert len(prints) == 6
    assert fingerprint([pixels.copy(), labels.copy()]) in prints


def test_the_fingerprint_is_of_the_set_not_of_its_place(images, tmp_path):
    here = open_image_set(prepare(images, tmp_path / "cache"))
    moved = (tmp_path / "images").rename(tmp_path / "elsewhere")
    there = open_image_set(prepare(DataConfig(name=str(moved)), tmp_path / "cache"))
    assert here.fingerprint == there.fingerprint
    picture = moved / "a" / "0.png"
    pixels = np.array(Image.open(picture))
    pixels[3, 3] ^= 1
    Image.fromarray(pixels).save(picture)
    os.utime(picture, (1, 1))
    changed = open_image_set(prepare(DataConfig(name=str(moved)), tmp_path / "cache"))
    assert changed.fingerprint != there.fingerprint


@pytest.mark.parametrize("shape", [(3, 5, 5, 1), (40, 200, 200, 3)])
def test_mean_and_deviation_are_numpys(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    mean, std = mean_std(pixels)
    flat = pixels.reshape(-1, shape[3]) / 255
    np.testing.assert_allclose(mean, flat.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(std, flat.std(axis=0), rtol=1e-10)


def test_images_of_one_colour_can_be_normalised():
    assert mean_std(np.full((2, 8, 8, 1), 51, np.uint8)) == ((0.2,), (1 / 255,))


def _fingerprint_of(entry):
    return open_image_set(entry).fingerprint


def test_another_process_opens_the_same_set(images, tmp_path):
    entry = prepare(images, tmp_path / "cache")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_fingerprint_of, (entry,)) == open_image_set(entry).fingerprint


def test_nothing_is_printed_when_not_in_a_terminal(images, tmp_path, capfd):
    prepare(images, tmp_path / "cache")
    assert capfd.readouterr() == ("", "")


def test_importing_the_package_is_light():
    script = "import sys, facenas.data; print(*{'torch', 'torchvision', 'sklearn'} & set(sys.modules))"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_cache_is_listed_and_the_least_recently_used_goes_first(tmp_path):
    made = {
        "digits-0123456789abcdef/train_images.npy": ("data set", 3000, 5),
        "generated-120x24-v1.zarr/pixels": ("generated faces", 2000, 1),
        "embeddings/0123456789abcdef0123456789abcdef/plain.npy": ("embeddings", 1000, 3),
        "ijbc-crops-0123456789abcdef.zarr/pixels": ("crops", 500, 2),
        "holiday/picture.jpg": (None, 10_000, 0),  # somebody's own, in a cache that is no folder of its own
    }
    for name, (_, size, used) in made.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x" * size)
        for each in (path, path.parent):
            os.utime(each, (used, used))
    found = kept(tmp_path)
    assert [entry.kind for entry in found] == ["generated faces", "crops", "embeddings", "data set"]
    assert all(entry.bytes == size for entry, size in zip(found, (2000, 500, 1000, 3000), strict=True))
    with FileLock(tmp_path / "embeddings/0123456789abcdef0123456789abcdef/.lock"):  # being computed
        assert [entry.kind for entry in shrink(4500, tmp_path)] == ["generated faces"]
        assert [entry.kind for entry in shrink(0, tmp_path)] == ["crops", "data set"]
    assert [entry.kind for entry in shrink(0, tmp_path)] == ["embeddings"]
    assert (tmp_path / "holiday/picture.jpg").exists()
