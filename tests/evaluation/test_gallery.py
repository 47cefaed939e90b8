"""Galleries: exact search against sorting everything, files whole or refused."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facenas import files
from facenas.errors import UserError
from facenas.evaluation import gallery as gallery_module
from facenas.evaluation.gallery import (
    is_gallery,
    mean_templates,
    open_gallery,
    search,
    write_gallery,
)
from facenas.evaluation.int8_rows import int8_rows


def unit(seed, rows, size=16):
    values = np.random.default_rng(seed).standard_normal((rows, size)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def sorted_search(templates, probes, k):
    """All scores, sorted; among equal ones the lower number first."""
    scores = probes @ templates.T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, 1), order


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 10_000),
    st.integers(1, 70),
    st.integers(0, 9),
    st.integers(1, 80),
    st.integers(1, 30),
)
def test_search_is_exact_whatever_the_blocks(seed, people, probes, k, rows):
    rng = np.random.default_rng(seed)
    # Whole numbers: sums are exact, so there are many ties and no rounding.
    templates = rng.integers(-1, 2, (people, 4)).astype(np.float32)
    asked = rng.integers(-1, 2, (probes, 4)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gallery_module, "_ROWS", rows)
        patch.setattr(gallery_module, "_PROBES", 4)
        scores, numbers = search(templates, asked, k)
    expected = sorted_search(templates, asked, min(k, people))
    np.testing.assert_array_equal(numbers, expected[1])
    np.testing.assert_array_equal(scores, expected[0])
    assert scores.dtype == np.float32


def test_search_of_real_numbers(monkeypatch):
    monkeypatch.setattr(gallery_module, "_ROWS", 700)
    templates, probes = unit(0, 5000, 64), unit(1, 40, 64)
    scores, numbers = search(templates, probes, 7)
    expected = sorted_search(templates.astype(np.float64), probes.astype(np.float64), 7)
    np.testing.assert_array_equal(numbers, expected[1])
    np.testing.assert_allclose(scores, expected[0], atol=1e-6)
    own, places = search(templates, templates[:50], 1)
    assert places[:, 0].tolist() == list(range(50))
    np.testing.assert_allclose(own, 1, atol=1e-6)


def test_search_refuses_what_has_no_answer():
    templates = unit(0, 5)
    with pytest.raises(ValueError, match="empty"):
        search(templates[:0], templates, 1)
    with pytest.raises(ValueError, match="shape"):
        search(templates, unit(0, 2, 8), 1)
    with pytest.raises(ValueError, match="not finite"):
        search(templates, np.full((1, 16), np.nan, np.float32), 1)


def test_templates_are_unit_means():
    rows, labels = unit(3, 6), np.array([0, 0, 1, 2, 2, 2])
    found = mean_templates(rows, labels)
    for label in range(3):
        mean = rows[labels == label].astype(np.float64).mean(0)
        np.testing.assert_allclose(found[label], mean / np.linalg.norm(mean), atol=1e-6)
    with pytest.raises(ValueError, match="cancel"):
        mean_templates(np.array([[1, 0], [-1, 0]], np.float32), np.zeros(2, np.int64))


@pytest.fixture
def made(tmp_path):
    rows = unit(5, 7) * np.arange(1, 8, dtype=np.float32)[:, None]  # raw: of any length
    labels = np.array([0, 0, 0, 1, 2, 2, 2])
    names = ["Ann", "Bjørn 2", "日本"]
    return write_gallery(tmp_path / "people", names, rows, labels, "net.onnx", "abc")


def test_a_gallery_round_trip(made, tmp_path):
    found = open_gallery(tmp_path / "people")
    assert found.identities == made.identities == ("Ann", "Bjørn 2", "日本")
    assert found.images == (3, 1, 3)
    assert (found.model, found.fingerprint) == ("net.onnx", "abc")
    assert isinstance(found.templates, np.memmap)
    images = np.load(tmp_path / "people/embeddings.npy", allow_pickle=False)
    np.testing.assert_allclose(images, unit(5, 7), atol=1e-6)
    np.testing.assert_allclose(found.templates[1], images[3], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found.templates, axis=1), 1, atol=1e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["people"]


def again(path, **options):
    return write_gallery(path, ["Eve"], unit(9, 1), np.zeros(1, np.int64), "m", "f", **options)


def test_an_old_gallery_is_replaced_only_when_that_is_said(made, tmp_path):
    with pytest.raises(UserError, match=r"is there already; overwrite \(--overwrite\) replaces it"):
        again(made.path)
    assert again(made.path, overwrite=True).identities == ("Eve",)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["people"]
    other = tmp_path / "photographs"
    other.mkdir()
    with pytest.raises(UserError, match="is no gallery, so it is not overwritten"):
        again(other, overwrite=True)


@pytest.mark.parametrize(
    ("rows", "labels", "words"),
    [
        (unit(0, 0), [], "at least one"),
        (unit(0, 2), [0, 0], "at least one"),  # nobody is number 1
        (unit(0, 2), [1, 0], "in their order"),
        (np.full((2, 4), np.nan, np.float32), [0, 1], "not finite"),
        (np.zeros((2, 4), np.float32), [0, 1], "is zero"),
    ],
)
def test_embeddings_that_make_no_gallery(tmp_path, rows, labels, words):
    with pytest.raises(ValueError, match=words):
        write_gallery(tmp_path / "g", ["a", "b"], rows, np.array(labels, np.int64), "m", "f")
    assert not list(tmp_path.iterdir())


def edit(path, **changes):
    about = json.loads((path / "gallery.json").read_text(encoding="utf-8")) | changes
    (path / "gallery.json").write_text(json.dumps(about), encoding="utf-8")


FAULTS = {
    "no gallery": ("is no gallery", lambda path: (path / "gallery.json").unlink()),
    "empty": ("is an empty gallery", lambda path: edit(path, identities=[], images=[])),
    "a name too many": ("damaged", lambda path: edit(path, identities=["a"] * 4)),
    "another format": ("damaged", lambda path: edit(path, format="something")),
    "a later version": ("damaged", lambda path: edit(path, version=2)),
    "no list": ("damaged", lambda path: edit(path, images=None)),
    "torn text": ("damaged", lambda path: (path / "gallery.json").write_text('{"form')),
    "no templates": ("damaged", lambda path: (path / "templates.npy").unlink()),
    "torn templates": ("damaged", lambda path: (path / "templates.npy").write_bytes(b"\x93NUMPY")),
    "pickled templates": (
        "damaged",
        lambda path: np.save(path / "templates.npy", np.array([{}] * 3), allow_pickle=True),
    ),
    "other numbers": ("damaged", lambda path: np.save(path / "templates.npy", np.zeros((3, 4)))),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_damaged_galleries(made, fault):
    words, damage = FAULTS[fault]
    damage(made.path)
    with pytest.raises(UserError, match=words) as error:
        open_gallery(made.path)
    assert str(made.path) in str(error.value)


def test_cut_templates(made):
    path = made.path / "templates.npy"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UserError, match="damaged"):
        open_gallery(made.path)


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match=r"cannot be written .*choose another place"):
        again(tmp_path / "file" / "people")


def test_a_full_disk_leaves_the_old_gallery(made, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(UserError, match="No space left on device"):
        again(made.path, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["people"]
    assert open_gallery(made.path).identities == made.identities


def test_a_stopped_replacement_leaves_the_old_gallery(made, monkeypatch):
    rename = Path.rename

    def failing(self, target):
        if self.suffix != ".old" and target == made.path:
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    monkeypatch.setattr(files, "_exchanged", lambda *_: False)  # as on a file system that cannot
    with pytest.raises(UserError, match="Input/output error"):
        again(made.path, overwrite=True)
    assert open_gallery(made.path).identities == made.identities


def test_what_a_gallery_is(made, tmp_path):
    assert is_gallery(made.path)
    assert not is_gallery(tmp_path)
    shutil.rmtree(made.path)
    with pytest.raises(UserError, match="make one by `facenas enroll"):
        open_gallery(made.path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_row_that_is_not_finite_is_found(value):
    templates = np.eye(4, 8, dtype=np.float32)
    templates[2, 3] = value
    with pytest.raises(ValueError, match="a row of the gallery is not finite"):
        search(templates, np.eye(1, 8, dtype=np.float32), 2)


def crowd(seed, people=150, each=1, size=32, noise=0.6):
    """(rows, labels): unit rows round each person's own."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(people), each)
    rows = rng.normal(size=(people, size))[labels] + noise * rng.normal(size=(people * each, size))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), labels


def strangers(rows, labels, apart=()):
    """Of each image its best score with another person's template, by plain loops; `apart`: pairs of people."""
    means = mean_templates(rows, labels)
    found = []
    for row, label in zip(rows, labels, strict=True):
        others = [p for p in range(len(means)) if p != label and {p, int(label)} not in apart]
        found.append(max(float(row @ means[p]) for p in others))
    return sorted(found, reverse=True)


@pytest.mark.parametrize("block", [70, 16_384])
@pytest.mark.parametrize("each", [1, 3])
def test_one_photograph_under_two_names_does_not_set_the_threshold(tmp_path, each, block, monkeypatch):
    monkeypatch.setattr(gallery_module, "_ROWS", block)
    rows, labels = crowd(0, each=each)
    whole = write_gallery(tmp_path / "a", list(map(str, labels[::each])), rows, labels, "m", "f")
    assert whole.threshold == pytest.approx(strangers(rows, labels)[len(rows) // 100], abs=1e-6)
    assert not any("two names" in told for told in whole.warnings)
    for one, other in ((0, 4), (0, 7), (20, 90)):  # three people with one photograph, and two
        rows[each * other] = rows[each * one]
    names = [f"{label}/{number}.jpg" for number, label in enumerate(labels)]
    found = write_gallery(tmp_path / "b", list(map(str, labels[::each])), rows, labels, "m", "f", images=names)
    pairs = [{0, 4}, {0, 7}, {4, 7}, {20, 90}]
    expected = strangers(rows, labels, pairs)[len(rows) // 100]
    assert found.threshold == pytest.approx(expected, abs=1e-6)
    assert found.threshold < 0.9 < strangers(rows, labels)[0]
    (told,) = [told for told in found.warnings if "two names" in told]
    assert f"4/{4 * each}.jpg and 7/{7 * each}.jpg (1.0000)" in told
    assert f"20/{20 * each}.jpg and 90/{90 * each}.jpg (1.0000)" in told
    assert "put the images of one person into one folder" in told


def test_a_network_that_tells_nobody_apart_gives_no_threshold(tmp_path):
    rows, labels = crowd(1, people=200)
    rows[:] = rows[:1] + 0.01 * rows
    found = write_gallery(tmp_path / "g", list(map(str, labels)), rows, labels, "m", "f")
    assert found.threshold is None
    (told,) = found.warnings
    assert "does not tell people apart" in told
    assert ", and " in told
    assert len(told) < 900


def test_a_threshold_above_genuine_similarities_is_told(tmp_path):
    rows, labels = crowd(2, each=3, noise=0.3)
    names = [f"{number}.jpg" for number in range(len(rows))]
    clean = write_gallery(tmp_path / "a", list(map(str, range(150))), rows, labels, "m", "f", images=names)
    assert not clean.warnings
    rows[31] = rows[400]  # somebody else, among the images of person 10
    rows[31] += 0.7 * rows[200]
    found = write_gallery(tmp_path / "b", list(map(str, range(150))), rows, labels, "m", "f", images=names)
    row = rows[31] / np.linalg.norm(rows[31])
    others = rows[30] + rows[32]
    genuine = float(row @ others) / np.linalg.norm(others)
    assert genuine <= found.threshold
    told = found.warnings[-1]
    assert "by it, 1 of 450 enrolled images would not be recognized" in told
    assert f"least of all 31.jpg ({genuine:.4f})" in told


def test_a_gallery_in_int8_finds_the_same_people(tmp_path):
    templates, probes = unit(4, 20_000, 128), unit(4, 100, 128) + 0.6 * unit(5, 100, 128)
    probes /= np.linalg.norm(probes, axis=1, keepdims=True)
    rows = int8_rows(templates)
    scores, numbers = search(rows, probes, 3)
    expected = search(templates, probes, 3)
    np.testing.assert_array_equal(numbers[:, 0], expected[1][:, 0])
    assert (numbers == expected[1]).mean() > 0.97, "next to each other are strangers, nearly alike"
    np.testing.assert_allclose(scores, expected[0], atol=0.004)
    dequantised = rows.floats(np.arange(len(templates)))
    np.testing.assert_allclose(np.linalg.norm(dequantised, axis=1), 1, atol=1e-5)
    by_hand = np.einsum("mke,me->mk", dequantised[numbers], probes)
    np.testing.assert_allclose(scores, by_hand, atol=1e-6)
    assert (np.diff(scores, axis=1) <= 0).all()


def test_sums_of_int8_are_right_on_processors_without_instructions_for_them():
    """Without VNNI oneDNN's overflow; it reads the variable when it is first used."""
    code = (
        "import numpy as np\n"
        "from facenas.evaluation.int8_rows import Int8Rows\n"
        "a, b = np.random.default_rng(0).integers(-127, 128, (2, 64, 512)).astype(np.int8)\n"
        "found = Int8Rows(b, np.ones(64, np.float32)).scores(a, 0, 64)\n"
        "assert (found == a.astype(np.int64) @ b.T.astype(np.int64)).all()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_an_int8_gallery_is_a_quarter_and_opens_as_any(tmp_path):
    rows, labels = unit(1, 200, 64), np.repeat(np.arange(100), 2)
    people = [f"p{number}" for number in range(100)]
    whole, small = (
        write_gallery(tmp_path / name, people, rows, labels, "net", "f", int8=int8)
        for name, int8 in (("whole", False), ("small", True))
    )
    sizes = [sum(f.stat().st_size for f in one.path.glob("templates*.npy")) for one in (whole, small)]
    assert sizes[1] < 0.3 * sizes[0], sizes
    assert (small.threshold, small.images, small.templates.shape) == (whole.threshold, whole.images, (100, 64))
    np.testing.assert_array_equal(search(small.templates, rows, 1)[1], search(whole.templates, rows, 1)[1])
    (small.path / "templates_steps.npy").unlink()
    with pytest.raises(UserError, match="damaged"):
        open_gallery(small.path)
