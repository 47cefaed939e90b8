"""TinyFace's folders: lists from the official set, pixels from aligned ones, and what warnings say."""

from __future__ import annotations

import numpy as np
import pytest
from bench_files import encoded, face, write

from facenas.errors import UserError
from facenas.evaluation.benches import BenchNotThereError
from facenas.evaluation.benches.tinyface import read_tinyface

PROBES = ["3_10", "3_2", "11_1"]
MATCHES = ["3_1", "11_7", "12_5"]
DISTRACTORS = ["99", "a_1", "3_99"]
PARTS = {"Probe": PROBES, "Gallery_Match": MATCHES, "Gallery_Distractor": DISTRACTORS}
ALL = [f"{part}/{stem}" for part, stems in PARTS.items() for stem in stems]
CROPS = r"the crops of AdaFace's author \(aligned_pad_0.1_pad_high\)"


def part_files(top, size=112, ending="jpg", leave_out=()):
    """A picture of its own for every name, by its place among all."""
    return {
        f"{top}{name}.{ending}": encoded(face(i, size), ending)
        for i, name in enumerate(ALL)
        if name not in leave_out
    }


def official():
    beside = {f"tinyface/Testing_Set/{n}_img_ID_pairs.mat": b"MATLAB" for n in ("probe", "gallery_match")}
    train = {"tinyface/Training_Set/1/1_1.jpg": encoded(face(0, 20))}
    return part_files("tinyface/Testing_Set/", size=20) | beside | train


@pytest.fixture(params=["data", "data.zip"])
def data(request, tmp_path):
    return tmp_path / request.param


def check(found, probes=PROBES, matches=MATCHES, distractors=DISTRACTORS):
    """Every image's id and pixels, by its name."""
    assert sorted(found.probe_ids) == sorted(int(stem.split("_")[0]) for stem in probes)
    ids = sorted(int(stem.split("_")[0]) for stem in matches) + [-100] * len(distractors)
    assert sorted(found.gallery_ids[: len(matches)]) + found.gallery_ids[len(matches) :].tolist() == ids
    assert found.probe_ids.dtype == found.gallery_ids.dtype == np.int64
    for images, ids in ((found.probe, found.probe_ids), (found.gallery, found.gallery_ids)):
        assert len(images) == len(ids)
        pixels = images.read(np.arange(len(ids))).astype(int)
        for name, label, picture in zip(images.names, ids, pixels, strict=True):
            key = "/".join(name.rpartition(".")[0].split("/")[-2:])
            assert np.abs(picture - face(ALL.index(key))).max() < 12
            expected = -100 if "Distractor" in key else int(key.split("/")[1].split("_")[0])
            assert label == expected


def test_the_official_layout(data):
    found = read_tinyface(write(data, official() | part_files("aligned_pad_0.1_pad_high/", ending="png")))
    check(found)
    assert found.warnings == ()
    assert all(name.startswith("aligned_pad_0.1_pad_high/") for name in found.gallery.names)


def test_only_the_authors_crops(data):
    found = read_tinyface(write(data, part_files("in/aligned_pad_0.1_pad_high/")))
    check(found)
    assert found.warnings == ("without Testing_Set, images that were lost in aligning are not known of",)


@pytest.mark.parametrize("name", ["aligned_pad_0.1_pad_high", "aligned_pad_0.1_pad_high.zip"])
def test_the_folder_of_crops_itself(tmp_path, name):
    check(found := read_tinyface(write(tmp_path / name, part_files(""))))
    assert len(found.warnings) == 1


def test_crops_of_other_means(data):
    lost = ("Probe/3_2", "Gallery_Distractor/99", "Gallery_Match/12_5")
    found = read_tinyface(write(data, official() | part_files("mine/", leave_out=lost)))
    check(found, ["3_10", "11_1"], ["3_1", "11_7"], ["a_1", "3_99"])
    assert found.warnings == (
        "the images of mine are not those of published numbers, which used the crops of AdaFace's author "
        "(aligned_pad_0.1_pad_high)",
        "3 images of Testing_Set are not in mine and are left out, 1 of them probes, "
        "Gallery_Distractor/99 the first",
    )


def test_an_aligned_testing_set(data):
    check(found := read_tinyface(write(data, part_files("out/Testing_Set/"))))
    assert len(found.warnings) == 2


def test_without_distractors(data):
    lost = [name for name in ALL if "Distractor" in name]
    top = "aligned_pad_0.1_pad_high/"
    found = read_tinyface(write(data, official() | part_files(top, leave_out=lost)))
    check(found, distractors=[])
    assert "3 images of Testing_Set are not in" in found.warnings[0]
    assert found.warnings[1].endswith("has no Gallery_Distractor: ranks are better than with it")


def test_raw_images_are_to_be_aligned(data):
    with pytest.raises(UserError, match=f"20x20 pixels, not 112x112; .* `facenas align`; .*{CROPS}"):
        read_tinyface(write(data, official()))


def test_faults(tmp_path):
    top = "aligned_pad_0.1_pad_high/"
    with pytest.raises(BenchNotThereError, match="has nothing of TinyFace"):
        read_tinyface(write(tmp_path / "a", {"Probe/1_1.jpg": encoded(face(0))}))
    with pytest.raises(UserError, match="neither a folder nor"):
        read_tinyface(tmp_path / "none")
    with pytest.raises(UserError, match="more than once, as mine and yours"):
        read_tinyface(write(tmp_path / "b", part_files("mine/") | part_files("yours/")))
    named = {f"{top}Probe/x_1.jpg": encoded(face(0))}
    with pytest.raises(UserError, match="Probe/x_1 does not begin with a person's number"):
        read_tinyface(write(tmp_path / "c", part_files(top) | named))
    others = {
        f"{top}Probe/77_1.jpg": encoded(face(0)),
        f"{top}Gallery_Match/77_2.jpg": encoded(face(0)),
    }
    with pytest.raises(UserError, match="_high has no image that Testing_Set lists"):
        read_tinyface(write(tmp_path / "d", official() | others))
