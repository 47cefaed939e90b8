"""RecordIO against files written in the exact format by a plain restatement of it."""

import struct

import numpy as np
import pytest
from face_files import MAGIC, framed, insightface, payload, write_records
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from facenas.data.faces.record_io import Index, Record, RecordFile
from facenas.data.faces.sources import key_ranges, open_records
from facenas.errors import UserError

PIECES = st.one_of(st.just(MAGIC), st.binary(max_size=5), st.just(MAGIC[:3]), st.just(MAGIC * 2))
PAYLOADS = st.lists(PIECES, max_size=6).map(b"".join)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PAYLOADS, min_size=1, max_size=5))
@example([MAGIC, MAGIC * 3, b"abcd" + MAGIC, MAGIC + b"abcd", b"ab" + MAGIC + b"cd", b""])
@example([b"abcd" + MAGIC * 2 + b"efgh" + MAGIC, b"abc" + MAGIC * 2])
def test_payloads_come_back(tmp_path, payloads):
    rec = write_records(tmp_path / "x.rec", dict(enumerate(payloads)))
    index, file = Index(rec.with_suffix(".idx")), RecordFile(rec)
    assert [file.payload(offset) for _, offset in index.offsets(0, index.size)] == payloads


def test_the_bytes_of_the_format(tmp_path):
    """A payload of 4 + 4 (the magic) + 3 bytes, byte by byte as dmlc-core writes it."""
    content = "0a23d7ce 04000020 61626364 0a23d7ce 03000060 65666700"
    (tmp_path / "x.rec").write_bytes(bytes.fromhex(content))
    assert RecordFile(tmp_path / "x.rec").payload(0) == b"abcd" + MAGIC + b"efg"
    assert framed(b"abcd" + MAGIC + b"efg") == bytes.fromhex(content)


def test_headers_and_labels(tmp_path):
    payloads = [payload(7.0, b"image"), payload([3.0, 9.5], MAGIC), payload([1.0]), payload(2.0)]
    rec = write_records(tmp_path / "x.rec", dict(enumerate(payloads)))
    index, file = Index(rec.with_suffix(".idx")), RecordFile(rec)
    assert [file.record(index.offset(key)) for key in range(4)] == [
        Record((7.0,), False, b"image"),
        Record((3.0, 9.5), True, MAGIC),
        Record((1.0,), True, b""),
        Record((2.0,), False, b""),
    ]


def test_every_truncation_is_told(tmp_path):
    whole = framed(payload(1.0, b"some" + MAGIC + b"image bytes"))
    path = tmp_path / "x.rec"
    for size in range(len(whole) - 1):  # the last byte is padding
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match="truncated"):
            RecordFile(path).payload(0)
    path.write_bytes(whole)
    assert RecordFile(path).record(0).image == b"some" + MAGIC + b"image bytes"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (struct.pack("<II", 0x3ED7230A, 0), "the magic number is wrong"),
        (MAGIC + struct.pack("<I", 2 << 29), "not the first part"),
        (MAGIC + struct.pack("<I", 1 << 29) + framed(b"abcd"), "without its last part"),
        (framed(b"short"), "a record of only 5 bytes"),
        (framed(struct.pack("<IfQQ", 9, 0, 0, 0)), "24 bytes with 9 labels"),
    ],
)
def test_what_is_no_record(content, message, tmp_path):
    (tmp_path / "x.rec").write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        RecordFile(tmp_path / "x.rec").record(0)
    assert str(caught.value).startswith(f"{tmp_path / 'x.rec'}: byte 0 ")


def test_an_index_in_any_order(tmp_path):
    path = tmp_path / "x.idx"
    path.write_text("3\t30\n1\t0\n7\t70\n0\t99\n")
    index = Index(path)
    assert list(index.offsets(0, index.size)) == [(0, 99), (1, 0), (3, 30), (7, 70)]
    assert list(index.offsets(1, 7)) == [(1, 0), (3, 30)]
    assert (index.size, index.count(1, 4)) == (8, 2)
    assert [index.offset(key) for key in (0, 2, 7, 8)] == [99, None, 70, None]


@pytest.mark.parametrize(
    "content",
    ["", "1\t2\n1\t3\n", "1\n", "a\tb\n", "1,2\n", "-1\t2\n", "1\t2\t3\n", "999999999999\t0\n"],
)
def test_what_is_no_index(content, tmp_path):
    (tmp_path / "x.idx").write_text(content)
    with pytest.raises(UserError, match=r"x\.idx: (should hold lines|is empty or lists)"):
        Index(tmp_path / "x.idx")


def test_missing_files(tmp_path):
    with pytest.raises(UserError, match=r"train\.rec: cannot be read \(No such file"):
        open_records(tmp_path / "train.rec")
    (tmp_path / "train.rec").write_bytes(framed(b""))
    with pytest.raises(UserError, match=r"train\.idx: cannot be read .*beside the \.rec"):
        open_records(tmp_path / "train.rec")


@pytest.mark.parametrize("images", [16_777_210, 16_777_217, 20_000_001, 42_474_557])
def test_key_ranges_beyond_what_float32_can_tell(images, tmp_path):
    """Record 0 of a set of so many images, whose other records exist in our minds only."""
    identities = 2_059_906
    index = Index.__new__(Index)
    index.path, index.size = tmp_path / "x.idx", images + 1 + identities
    told = struct.unpack("<2f", struct.pack("<2f", images + 1, images + 1 + identities))
    asked = []

    def has_image(key):
        asked.append(key)
        return key <= images

    keys, found = key_ranges(Record(told, True, b""), index, has_image)
    assert (keys, found) == (range(1, images + 1), identities)
    assert len(asked) < 10


@pytest.mark.parametrize("labels", [(5.0,), (0.0, 3.0), (9.0, 3.0), (np.nan, 3.0), (1.0, np.inf)])
def test_key_ranges_without_sense(labels, tmp_path):
    (tmp_path / "x.idx").write_text("0\t0\n")
    with pytest.raises(UserError, match=r"record 0 tells key ranges .* that make no sense"):
        key_ranges(Record(labels, True, b""), Index(tmp_path / "x.idx"), lambda key: True)


def source(folder, images, told=None):
    if told:
        folder.mkdir(exist_ok=True)
        (folder / "property").write_text(told)
    return open_records(write_records(folder / "train.rec", insightface(images)))


def test_insightface_layout(tmp_path):
    images = [(2, b"x"), (0, MAGIC), (0, b"y")]
    found = source(tmp_path / "faces", images)
    assert (found.total, found.numbered, found.title) == (3, 3, "RecordIO faces/train.rec")
    told = [(item.name, *item.load()) for item in found.items()]
    assert told == [("record 1", "2", b"x"), ("record 2", "0", MAGIC), ("record 3", "0", b"y")]
    assert source(tmp_path / "faces", images, "10,112,112\n").numbered == 10


def test_records_without_an_identity_table(tmp_path):
    payloads = {0: payload(1.0, b"x"), 1: payload([0.0, 5.0], b"y")}
    rec = write_records(tmp_path / "any.rec", payloads)
    with pytest.raises(UserError, match="property: is missing; write it as"):
        open_records(rec)
    (tmp_path / "property").write_text("2,112,112")
    assert [item.load()[0] for item in open_records(rec).items()] == ["1", "0"]


@pytest.mark.parametrize("label", [2.0, -1.0, 0.5, np.nan, np.inf])
def test_labels_out_of_range(label, tmp_path):
    (tmp_path / "property").write_text("2,112,112")
    rec = write_records(tmp_path / "x.rec", {0: payload(1.0, b"x"), 1: payload(label, b"y")})
    with pytest.raises(UserError, match=r"record 1 has label .*, but there are 2 identities"):
        [item.load() for item in open_records(rec).items()]


@pytest.mark.parametrize("told", ["", "many,112,112", "5", "0,112,112", "5,112,112,3", "\xff"])
def test_a_wrong_property(told, tmp_path):
    tmp_path.joinpath("property").write_text(told, encoding="latin-1")
    with pytest.raises(UserError, match="property: should hold"):
        source(tmp_path, [(0, b"x")])


def test_an_index_cut_short(tmp_path):
    rec = write_records(tmp_path / "x.rec", insightface([(0, b"x"), (0, b"y"), (1, b"z")]))
    lines = rec.with_suffix(".idx").read_text().splitlines(keepends=True)
    rec.with_suffix(".idx").write_text("".join(lines[1:]))
    with pytest.raises(UserError, match="lists 2 of 3 images"):
        open_records(rec)
    rec.with_suffix(".idx").write_text("".join(lines[:-1]))
    with pytest.raises(UserError, match="does not list record 0"):
        open_records(rec)
