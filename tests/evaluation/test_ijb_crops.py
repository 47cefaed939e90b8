"""Crops that cannot be aligned or kept: one sentence each, and nothing half-written."""

from __future__ import annotations

import shutil
from collections import namedtuple

import cv2
import numpy as np
import pytest
import simplejpeg
from ijb_folder import IMAGES, read_ijb, write_ijb

from facenas.data.faces.align import REFERENCE
from facenas.errors import UserError
from facenas.evaluation.benches import ijb_crops
from facenas.evaluation.benches.ijb_crops import open_crops

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FACENAS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def data(tmp_path):
    write_ijb(tmp_path / "IJBC")
    return tmp_path / "IJBC"


def refused(data, cache, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        read_ijb("ijbc", data)
    assert "\n" not in str(caught.value)
    assert not [path for path in cache.iterdir() if "crops" in path.name]


def png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


@pytest.mark.parametrize(
    "content",
    [b"", b"no image", bytes(3000), png(np.zeros((9, 9, 3), np.uint8)), None],
    ids=["empty", "text", "zeros", "png", "cut"],
)
def test_a_damaged_crop_is_named(data, cache, content):
    crop = data / "loose_crop" / "5.jpg"
    crop.write_bytes(crop.read_bytes()[:-300] if content is None else content)
    refused(data, cache, r"loose_crop/5.jpg: is damaged \(.*\); unpack it again")


def test_a_missing_crop_is_named(data, cache):
    (data / "loose_crop" / "5.jpg").unlink()
    refused(data, cache, "loose_crop/5.jpg: cannot be read .*, but the meta files name it")


def test_a_folder_in_place_of_a_crop(data, cache):
    (data / "loose_crop" / "5.jpg").unlink()
    (data / "loose_crop" / "5.jpg").mkdir()
    refused(data, cache, "loose_crop/5.jpg: cannot be read")


def test_points_in_one_place(data, cache):
    path = data / "meta" / "ijbc_name_5pts_score.txt"
    lines = path.read_text().splitlines()
    lines[4] = f"5.jpg {' '.join(['50.0'] * 10)} 0.9"
    path.write_text("\n".join(lines))
    refused(data, cache, r"5.jpg: is damaged \(the landmarks lie all in one place")


def test_an_image_that_claims_to_be_huge(data, cache, monkeypatch):
    monkeypatch.setattr(ijb_crops, "MAX_PIXELS", 1000)
    refused(data, cache, "more than 50 megapixels")


def test_no_room_is_told_before_the_work(data, cache, monkeypatch):
    monkeypatch.setattr(ijb_crops, "StoreWriter", None)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10, 5, 5))
    refused(data, cache, r"has 0\.0 GB free, but the aligned crops take 0\.0 GB; make room or set")


def test_a_cache_that_cannot_be_written(data, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FACENAS_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match=r"cannot be written .*; set FACENAS_CACHE to another"):
        read_ijb("ijbc", data)


def test_many_small_blocks_give_the_same(data, monkeypatch):
    whole = read_ijb("ijbc", data)[1]
    monkeypatch.setattr(ijb_crops, "_AT_ONCE", 5)
    monkeypatch.setattr(ijb_crops, "_VERSION", 0)  # another place in the cache
    assert read_ijb("ijbc", data)[1].fingerprint == whole.fingerprint


def test_grey_crops_and_crops_in_folders(tmp_path):
    (tmp_path / "img").mkdir()
    grey = np.full((112, 112, 1), 77, np.uint8)
    (tmp_path / "img" / "1.jpg").write_bytes(simplejpeg.encode_jpeg(grey, 95, "GRAY"))
    images = open_crops(tmp_path, np.array(["img/1.jpg"]), REFERENCE[None], np.array([1]))
    np.testing.assert_array_equal(images.read(np.array([0]))[0], np.repeat(grey, 3, 2))


def test_damage_found_while_reading_tells_what_to_do(data, cache):
    images = read_ijb("ijbc", data)[1]
    shutil.rmtree(cache)
    with pytest.raises(UserError, match=r"; delete .*zarr, it is made anew") as caught:
        images.read(np.arange(IMAGES))
    assert str(caught.value).count(";") == 1
