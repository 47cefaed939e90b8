"""IJB-B and IJB-C from small folders in the official layout, whole and with one fault each."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg
from ijb_folder import IMAGES, LISTS, read_ijb, write_ijb

from facenas.data.faces.align import align
from facenas.data.faces.store import open_store
from facenas.errors import UserError
from facenas.evaluation.benches import find_bench
from facenas.evaluation.benches.ijb import read_meta


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FACENAS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def data(tmp_path):
    """The folder above a whole IJBC."""
    write_ijb(tmp_path / "data" / "IJBC")
    return tmp_path / "data"


def edit(data: Path, name: str, old: str, new: str) -> None:
    path = data / "IJBC" / "meta" / f"ijbc_{name}"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))


def test_reads_what_was_written(data):
    found, _images = read_ijb("ijbc", data)
    assert found.names.tolist() == [f"{k}.jpg" for k in range(1, IMAGES + 1)]
    assert found.templates.tolist() == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]
    assert found.media.tolist() == [60000 + k // 2 for k in range(1, IMAGES + 1)]
    assert found.detector_scores.dtype == np.float32
    np.testing.assert_allclose(found.detector_scores, 0.9 + np.arange(1, 13) / 1000)
    assert found.pairs.tolist() == [[1, 4], [1, 5], [2, 5], [2, 4], [3, 6]]
    assert (found.pairs.dtype, found.same.dtype) == (np.int64, np.bool_)
    assert found.same.tolist() == [True, False, True, False, False]
    assert found.warnings == ()
    lists = [(one.name, one.templates.tolist(), one.subjects.tolist()) for one in found.galleries]
    assert lists == [("G1", [1, 2], [11, 12]), ("G2", [3], [13])]
    assert found.probes.templates.tolist() == [4, 5, 6]
    assert found.probes.subjects.tolist() == [11, 12, 13]


def test_images_are_the_aligned_crops(data):
    found, images = read_ijb("ijbc", data)
    assert len(images) == IMAGES
    numbers = np.array([7, 0, 7])
    pixels = images.read(numbers)
    assert (pixels.shape, pixels.flags.c_contiguous) == ((3, 112, 112, 3), True)
    for row, number in enumerate(numbers):
        file = data / "IJBC" / "loose_crop" / f"{number + 1}.jpg"
        crop = cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB)
        np.testing.assert_array_equal(pixels[row], align(crop, found.points[number]))


def test_the_folder_itself_may_be_given(data):
    (_, whole), (_, own) = read_ijb("ijbc", data), read_ijb("ijbc", data / "IJBC")
    assert whole.fingerprint == own.fingerprint


def test_ijbb_has_other_names(data):
    (data / "IJBC").rename(data / "IJBB")
    for file in (data / "IJBB" / "meta").iterdir():
        name = file.name.replace("ijbc", "ijbb").replace("_G", "_S")
        file.rename(file.with_name(name))
    found, _ = read_ijb("ijbb", data)
    assert [one.name for one in found.galleries] == ["S1", "S2"]
    with pytest.raises(UserError, match="has no folders meta and loose_crop, nor a folder IJBC"):
        read_ijb("ijbc", data)


def test_parsed_and_aligned_once(data, cache, monkeypatch):
    first, crops = read_ijb("ijbc", data)
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*") if path.is_file()}
    monkeypatch.setattr("numpy.loadtxt", None)
    again, crops_again = read_ijb("ijbc", data)
    after = {path: path.stat().st_mtime_ns for path in cache.rglob("*") if path.is_file()}
    assert before == after
    np.testing.assert_array_equal(first.points, again.points)
    assert crops.fingerprint == crops_again.fingerprint
    assert len(list(cache.iterdir())) == 4  # three text files, one store; nothing half-written


def test_changed_files_are_read_anew(data):
    _first, crops = read_ijb("ijbc", data)
    edit(data, "template_pair_label.txt", "3 6 0", "3 6 1\n1 6 0")
    crop = data / "IJBC" / "loose_crop" / "3.jpg"
    crop.write_bytes(simplejpeg.encode_jpeg(np.zeros((120, 120, 3), np.uint8), 95, "RGB"))
    again, crops_again = read_ijb("ijbc", data)
    assert again.same.tolist() == [True, False, True, False, True, False]
    assert crops_again.fingerprint != crops.fingerprint
    assert not crops_again.read(np.array([2])).any()


def test_damage_in_the_cache_is_mended(data, cache):
    first, crops = read_ijb("ijbc", data)
    points = np.array(first.points)  # what is mapped is about to be cut
    for path in cache.rglob("*"):
        if path.name in ("points.npy", "pairs.npy") or ("pixels/c" in str(path) and path.is_file()):
            os.truncate(path, 100)
    again, crops_again = read_ijb("ijbc", data)
    np.testing.assert_array_equal(points, again.points)
    assert crops.fingerprint == crops_again.fingerprint


def test_the_store_knows_its_templates(data, cache):
    read_ijb("ijbc", data)
    (path,) = cache.glob("ijbc-crops-*.zarr")
    store = open_store(path)
    assert (store.layout, list(store.names)) == ("raw", ["1", "2", "3", "4", "5", "6"])


@pytest.mark.parametrize("missing", [["gallery_G1"], ["gallery_G2", "probe_mixed"], LISTS])
def test_lists_that_are_missing_are_told(data, missing):
    for name in missing:
        (data / "IJBC" / "meta" / f"ijbc_1N_{name}.csv").unlink()
    found, _images = read_ijb("ijbc", data)
    assert (found.galleries, found.probes) == ((), None)
    (warning,) = found.warnings
    assert all(f"ijbc_1N_{name}.csv" in warning for name in missing)
    assert "1:N is left out" in warning


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("template_pair_label.txt", "2 5 1\n", "2\t5  1 \n"),
        ("template_pair_label.txt", "3 6 0\n", "3 6 0"),
        ("template_pair_label.txt", "2 5 1\n", "\n2 5 1\r\n"),
        ("face_tid_mid.txt", "2.jpg 1", " 2.jpg  1"),
        ("1N_gallery_G1.csv", "1,11", "1,11,img/5.png,3"),
    ],
)
def test_harmless_differences(data, name, old, new):
    whole = read_meta(find_bench("ijbc"), data / "IJBC")
    edit(data, name, old, new)
    found = read_meta(find_bench("ijbc"), data / "IJBC")
    np.testing.assert_array_equal(found.pairs, whole.pairs)
    np.testing.assert_array_equal(found.same, whole.same)
    np.testing.assert_array_equal(found.templates, whole.templates)


@pytest.mark.parametrize(
    ("name", "old", "new", "sentence"),
    [
        ("template_pair_label.txt", "2 5 1", "2 5", "label.txt: line 3 is '2 5', not"),
        ("template_pair_label.txt", "2 5 1", "2 5 1 1", "line 3 is '2 5 1 1', not"),
        ("template_pair_label.txt", "2 5 1", "2 x 1", "line 3 is '2 x 1', not"),
        ("template_pair_label.txt", "2 5 1", "2 5.5 1", "line 3 is '2 5.5 1', not"),
        ("template_pair_label.txt", "2 5 1", f"2 {10**30} 1", "line 3 is '2 10000"),
        ("template_pair_label.txt", "2 5 1", "2 5 7", "line 3: the label is 7, not 0 or 1"),
        ("template_pair_label.txt", "2 5 1", "\n2 77 1", "line 4 names template 77, but no"),
        ("face_tid_mid.txt", "4.jpg 2", "4.jpg two", "line 4 is '4.jpg two 60002', not"),
        ("face_tid_mid.txt", "4.jpg 2", "4 .jpg 2", "line 4 is"),
        ("face_tid_mid.txt", "4.jpg 2", f"{'4' * 70}.jpg 2", "a name of 64 letters or more"),
        ("face_tid_mid.txt", "4.jpg 2", "5.jpg 2", "line 4 is of 4.jpg, but .* has 5.jpg there"),
        ("face_tid_mid.txt", "12.jpg 6 60006\n", "", "has 12 images but .* has 11"),
        ("name_5pts_score.txt", "4.jpg", "4.jpg 1.5", "line 4 is '4.jpg 1.5"),
        ("name_5pts_score.txt", "4.jpg", "", "line 4 is"),
        ("1N_gallery_G1.csv", "2,12", "2", "line 3 is '2', not"),
        ("1N_gallery_G1.csv", "2,12", "2,a", "line 3 is '2,a', not"),
        ("1N_gallery_G1.csv", "2,12", f"2,{10**30}", "line 3 is '2,1000"),
        ("1N_gallery_G1.csv", "2,12", "99,12", "names template 99, but no image"),
        ("1N_gallery_G2.csv", "3,13\n", "", "lists no templates"),
        ("1N_probe_mixed.csv", "4,11\n4,11", "4,11\n4,12", "line 4: template 4 is subject 12 here"),
    ],
)
def test_faults_are_named(data, name, old, new, sentence):
    edit(data, name, old, new)
    with pytest.raises(UserError, match=sentence) as caught:
        read_ijb("ijbc", data)
    assert "\n" not in str(caught.value)
    assert "ijbc_" in str(caught.value)


@pytest.mark.parametrize("word", ["nan", "inf", "1e99"])
def test_points_that_are_no_numbers(data, word):
    path = data / "IJBC" / "meta" / "ijbc_name_5pts_score.txt"
    lines = path.read_text().splitlines()
    lines[6] = " ".join([*lines[6].split()[:5], word, *lines[6].split()[6:]])
    path.write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"line 7: 7\.jpg has a number that is not finite"):
        read_ijb("ijbc", data)


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xff\xfe 1 2\n", b"\x00" * 500])
@pytest.mark.parametrize("name", ["face_tid_mid", "name_5pts_score", "template_pair_label"])
def test_files_that_are_no_lists(data, name, content):
    (data / "IJBC" / "meta" / f"ijbc_{name}.txt").write_bytes(content)
    with pytest.raises(UserError, match=f"ijbc_{name}.txt: ") as caught:
        read_ijb("ijbc", data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["face_tid_mid", "name_5pts_score", "template_pair_label"])
def test_files_that_are_not_there(data, name):
    path = data / "IJBC" / "meta" / f"ijbc_{name}.txt"
    path.unlink()
    with pytest.raises(UserError, match=f"ijbc_{name}.txt: cannot be read .No such file"):
        read_ijb("ijbc", data)
    path.mkdir()
    with pytest.raises(UserError, match=f"ijbc_{name}.txt: cannot be read .*[Ii]s a directory"):
        read_ijb("ijbc", data)
