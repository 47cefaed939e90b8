"""InsightFace's .bin files: every way they were written, and everything that must be refused."""

from __future__ import annotations

import hashlib
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from bench_files import SHARED, encoded, face, read_pairs
from hypothesis import given, settings
from hypothesis import strategies as st

from facenas.errors import UserError
from facenas.evaluation.benches.insightface_bin import read_bin

ITEMS = [encoded(face(i)) for i in range(6)]
SAME = [True, False, True]
ARRAYS = [np.frombuffer(item, np.uint8) for item in ITEMS]
SETS = {
    "bytes": (ITEMS, SAME),
    "arrays": ([array.copy() for array in ARRAYS], SAME),
    "read-only arrays": (ARRAYS, SAME),
    "columns": ([array.reshape(-1, 1) for array in ARRAYS], SAME),
    "numpy bools": (ITEMS, [np.bool_(same) for same in SAME]),
    "array of bools": (ITEMS, np.array(SAME)),
    "numbers": (ITEMS, [1, 0, 1]),
    "array of objects": (np.array(ITEMS, object), np.array(SAME, object)),
    "array of integers": (ITEMS, np.array([1, 0, 1], ">i4")),
    "array of floats": (ITEMS, np.array([1.0, 0.0, 1.0])),
    "floats": (ITEMS, [1.0, 0.0, np.float32(1)]),
    "tuples": (tuple(ITEMS), tuple(SAME)),
}


def saved(folder: Path, content: bytes) -> Path:
    path = folder / "lfw.bin"
    path.write_bytes(content)
    return path


def python2(items: list[bytes], same: list[bool]) -> bytes:
    """As cPickle of Python 2 writes arrays by protocol 2: names of its NumPy, data as byte strings."""
    body = [b"\x80\x02]q\x01("]
    for item in items:
        body += [b"cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85U\x01b\x87R"]
        body += [
            b"(K\x01M",
            struct.pack("<H", len(item)),
            b"\x85cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R",
        ]
        body += [b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"]
        body += [b"T", struct.pack("<i", len(item)), item, b"tb"]
    return b"".join([*body, b"e](", *(b"\x88" if x else b"\x89" for x in same), b"e\x86."])


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", SETS)
def test_every_way_of_writing(tmp_path, name, protocol):
    content = pickle.dumps(SETS[name], protocol)
    found = read_pairs("lfw", saved(tmp_path, content))
    assert found.same.tolist() == SAME
    assert found.pairs.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert (found.folds, found.names[5]) == (10, "image 5")
    assert found.images.fingerprint == hashlib.sha256(content).hexdigest()
    pixels = found.images.read(np.arange(6))
    assert [np.abs(pixels[i].astype(int) - face(i)).max() < 12 for i in range(6)] == [True] * 6


def test_old_names_and_python_2(tmp_path):
    old = pickle.dumps(SETS["arrays"], 3).replace(b"numpy._core.", b"numpy.core.")
    for content in (old, python2(ITEMS, SAME), pickle.dumps(SETS["bytes"], 2)):
        found = read_pairs("lfw", saved(tmp_path, content))
        assert (found.same.tolist(), len(found.images)) == (SAME, 6)
    loaded = pickle.loads(python2(ITEMS, SAME), encoding="bytes")
    assert [item.tobytes() for item in loaded[0]] == ITEMS  # Python reads the same out of it


def test_a_real_file():
    path = SHARED / "small_lfw.bin"
    if not path.is_file():
        pytest.skip("needs a real .bin file in ../shared")
    found = read_pairs("lfw", path)
    assert found.same.tolist() == [True] * 10
    assert found.images.read(np.arange(20)).std() > 30


class Runs:
    def __init__(self, call, *arguments):
        self.reduced = call, arguments

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("place", ["images", "labels", "beside", "first"])
def test_a_hostile_file_runs_nothing(tmp_path, protocol, place):
    mark = tmp_path / "was run"
    for bomb in (Runs(os.mkdir, str(mark)), Runs(eval, f"open({str(mark)!r}, 'w')")):
        tree = {
            "images": ([*ITEMS[:5], bomb], SAME),
            "labels": (ITEMS, [True, False, bomb]),
            "beside": (ITEMS, SAME, bomb),
            "first": bomb,
        }[place]
        content = pickle.dumps(tree, protocol)
        refused = "is refused, and nothing of it was run|does not begin as a pickle"
        with pytest.raises(UserError, match=refused):
            read_bin(saved(tmp_path, content))
        assert not mark.exists()
        if place != "first":
            continue
        pickle.loads(content)  # it would have
        assert mark.exists()
        mark.rmdir() if mark.is_dir() else mark.unlink()


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"(S'echo'\nios\nsystem\n.", "instruction INST"),
        (b"\x80\x02ccopyreg\n_reconstructor\nq\x00.", "names copyreg._reconstructor"),
        (b"\x80\x02cnumpy\nload\n.", "names numpy.load"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "names os.system"),
        (b"\x80\x02cnumpy\nndarray\n)\x81.", "instruction NEWOBJ"),
        (b"\x80\x02Pperson\n.", "instruction PERSID"),
        (b"\x80\x02\x82\x01.", "instruction EXT1"),
        (b"\x80\x02cnumpy\ndtype\nN}b.", "instruction EMPTY_DICT"),
        (b"\x80\x02cnumpy\ndtype\nNN\x86b.", "it changes a function"),
        (b"\x80\x02Nr\xff\xff\xff\x7f.", "puts number 2147483647 into its memo"),
        (b"\x80\x02Np999999999\n.", "puts number 999999999 into its memo"),
        (b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00utf16\x86R.", "encoded in a way"),
    ],
)  # fmt: skip
def test_instructions_that_no_such_file_has(tmp_path, content, fault):
    with pytest.raises(UserError, match=f"is refused, and nothing of it was run: .*{fault}"):
        read_bin(saved(tmp_path, content))


def test_lengths_that_claim_too_much_are_damage(tmp_path):
    for head in (b"\x8e", b"\x96", b"\x8d"):
        content = b"\x80\x05" + head + struct.pack("<Q", 2**40) + b"abc."
        with pytest.raises(UserError, match="is damaged or not an InsightFace"):
            read_bin(saved(tmp_path, content))


def test_one_text_is_not_copied_again_and_again(tmp_path):
    text = b"X\x10\x27\x00\x00" + b"a" * 10_000 + b"q\x02X\x06\x00\x00\x00latin1q\x03\x86R"
    bomb = b"\x80\x02](c_codecs\nencode\nq\x01" + text + b"h\x01h\x02h\x03\x86R" * 100 + b"e."
    assert len(pickle.loads(bomb)) == 101
    with pytest.raises(UserError, match="encoded in a way no such file has"):
        read_bin(saved(tmp_path, bomb))


@pytest.mark.parametrize(
    ("tree", "fault"),
    [
        ((ITEMS[:5], SAME[:2]), "holds 5 images and 2 labels"),
        ((ITEMS, SAME[:2]), "holds 6 images and 2 labels"),
        (([], []), "holds 0 images and 0 labels"),
        ((ITEMS, [True, False, 2]), "a label is neither true nor false"),
        ((ITEMS, [True, False, None]), "a label is neither true nor false but NoneType"),
        (([*ITEMS[:5], "text"], SAME), "an image is no bytes but str"),
        (([*ITEMS[:5], np.zeros(9)], SAME), "an array of f8"),
        ((ITEMS, np.array([1, 0, 0.5])), "a label is neither true nor false"),
        ((ITEMS, np.array([1, 0, 1], complex)), "an array of c16"),
        (ITEMS, "is damaged or not"),
        ([1, 2], "is damaged or not"),
    ],
)
def test_other_contents(tmp_path, tree, fault):
    with pytest.raises(UserError, match=fault):
        read_bin(saved(tmp_path, pickle.dumps(tree)))


def test_other_files(tmp_path):
    for content in (b"", b"PK\x03\x04 a zip", ITEMS[0]):
        with pytest.raises(UserError, match="does not begin as a pickle"):
            read_bin(saved(tmp_path, content))
    with pytest.raises(UserError, match=r"no\.bin: cannot be read \(No such file"):
        read_bin(tmp_path / "no.bin")


def test_images_of_another_size_or_none_at_all(tmp_path):
    small = encoded(face(0, 96))
    images, _ = read_bin(saved(tmp_path, pickle.dumps(([small, b"no image"], [True]))))
    with pytest.raises(UserError, match=r"lfw\.bin: image 0: it is 96x96 pixels, not 112x112"):
        images.read(np.array([0]))
    with pytest.raises(UserError, match=r"lfw\.bin: image 1: it is no image"):
        images.read(np.array([1]))


WHOLE = pickle.dumps(([item[:40] for item in ITEMS], SAME), 2), python2([b"abc"] * 4, SAME[:2])


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(WHOLE), st.data())
def test_any_damage_is_one_sentence(tmp_path_factory, content, data):
    """Cut short or with a byte changed: another reading of it, or a UserError."""
    damaged = bytearray(content)
    at = data.draw(st.integers(2, len(content) - 1))
    damaged[at] = data.draw(st.integers(0, 255))
    path = saved(tmp_path_factory.getbasetemp(), bytes(damaged[: data.draw(st.integers(at, len(content)))]))
    said = ""
    try:
        read_bin(path)
    except UserError as error:
        said = str(error)
    assert "\n" not in said
