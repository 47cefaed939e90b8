"""The journal survives torn lines, cuts at any byte and a full disk; damage in the middle is refused."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facenas.errors import UserError
from facenas.runs.journal import Journal, read_journal

RECORDS = [
    {"trial": 0, "what": "début"},
    {"trial": 1, "nested": {"a": [1, None]}},
    {"trial": 2, "x": 0.1},
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.lists(st.dictionaries(st.text(), JSON, max_size=3), max_size=5)


def write(path: Path, records: list[dict]) -> bytes:
    path.unlink(missing_ok=True)
    journal = Journal(path)
    for record in records:
        journal.append(record)
    return path.read_bytes() if records else b""


@settings(deadline=None, max_examples=30)
@given(records=OBJECTS)
def test_round_trip(tmp_path_factory, records):
    path = tmp_path_factory.mktemp("journal") / "trials.jsonl"
    data = write(path, records)
    assert read_journal(path) == Journal(path).records == records
    assert [json.loads(line) for line in data.decode().split("\n")[:-1]] == records
    assert not data or data.endswith(b"\n")


def test_opening_makes_no_file(tmp_path):
    assert Journal(tmp_path / "trials.jsonl").records == []
    assert read_journal(tmp_path / "trials.jsonl") == []
    assert list(tmp_path.iterdir()) == []


def test_a_line_is_in_the_file_as_soon_as_append_returns(tmp_path):
    journal = Journal(tmp_path / "trials.jsonl")
    for count, record in enumerate(RECORDS, start=1):
        journal.append(record)
        assert read_journal(journal.path) == RECORDS[:count] == journal.records


def test_the_last_line_torn_at_every_byte_is_dropped_with_a_warning(tmp_path, caplog):
    path = tmp_path / "trials.jsonl"
    whole = write(path, RECORDS[:2])
    data = write(path, RECORDS)
    for end in range(len(whole) + 1, len(data)):
        path.write_bytes(data[:end])
        caplog.clear()
        with caplog.at_level(logging.WARNING, "facenas"):
            journal = Journal(path)
        assert journal.records == RECORDS[:2]
        assert path.read_bytes() == whole, "cut off, so that the next line does not join it"
        assert f"{path}: a torn last line ({end - len(whole)} bytes)" in caplog.text
        journal.append(RECORDS[2])
        assert path.read_bytes() == data


def test_a_whole_journal_is_opened_without_a_warning(tmp_path, caplog):
    write(tmp_path / "trials.jsonl", RECORDS)
    with caplog.at_level(logging.WARNING, "facenas"):
        Journal(tmp_path / "trials.jsonl")
    assert caplog.text == ""


def test_reading_does_not_cut(tmp_path):
    path = tmp_path / "trials.jsonl"
    torn = write(path, RECORDS) + b'{"torn'
    path.write_bytes(torn)
    assert read_journal(path) == RECORDS
    assert path.read_bytes() == torn


def test_a_file_that_grows_meanwhile_is_read_at_one_moment(tmp_path, monkeypatch, caplog):
    """A live search appends at any time: half a line more is no torn line, and no warning."""
    path = tmp_path / "trials.jsonl"
    write(path, RECORDS)
    read, reads = Path.read_bytes, []

    def growing(self: Path) -> bytes:
        reads.append(self)
        data = read(self)
        with self.open("ab") as file:
            file.write(b'{"half')
        return data

    monkeypatch.setattr(Path, "read_bytes", growing)
    assert read_journal(path) == RECORDS
    assert reads == [path]
    assert caplog.text == ""


@settings(deadline=None, max_examples=50)
@given(records=OBJECTS.filter(bool), data=st.data())
def test_cut_anywhere_exactly_the_whole_lines_before_are_left(tmp_path_factory, records, data):
    path = tmp_path_factory.mktemp("journal") / "trials.jsonl"
    lines = write(path, records).splitlines(keepends=True)
    end = data.draw(st.integers(0, sum(map(len, lines))))
    path.write_bytes(path.read_bytes()[:end])
    whole = [i for i in range(len(lines) + 1) if sum(map(len, lines[:i])) <= end][-1]
    assert read_journal(path) == records[:whole]
    journal = Journal(path)
    assert journal.records == records[:whole]
    assert path.read_bytes() == b"".join(lines[:whole])
    journal.append({"next": 1})
    assert read_journal(path) == [*records[:whole], {"next": 1}]


@pytest.mark.parametrize(
    "damage", [b"", b"\x00\x00\x00", b'{"trial": 1', b"[1]", b"\xff\xfe", b"{}{}", b"null"]
)
@pytest.mark.parametrize("number", [1, 2])
def test_a_damaged_line_in_the_middle_is_named(tmp_path, number, damage):
    path = tmp_path / "trials.jsonl"
    lines = write(path, RECORDS).split(b"\n")
    lines[number - 1] = damage
    path.write_bytes(b"\n".join(lines))
    for opened in (read_journal, Journal):
        with pytest.raises(UserError, match=f"trials.jsonl: line {number} is damaged"):
            opened(path)
    assert path.read_bytes() == b"\n".join(lines), "a damaged journal is left for the user to mend"


@pytest.mark.parametrize("damage", [b"\x00\x00\x00", b'{"trial": 1', b"\xff\xfe"])
def test_a_last_line_with_a_newline_but_no_text_is_torn(tmp_path, damage):
    path = tmp_path / "trials.jsonl"
    whole = write(path, RECORDS)
    path.write_bytes(whole + damage + b"\n")
    assert Journal(path).records == RECORDS
    assert path.read_bytes() == whole


def test_a_damaged_line_before_a_torn_one_is_named(tmp_path):
    path = tmp_path / "trials.jsonl"
    path.write_bytes(write(path, RECORDS[:1]) + b'{"damaged\n{"torn')
    with pytest.raises(UserError, match="line 2"):
        Journal(path)


FULL_DISK = """
import json, resource, signal, sys
from pathlib import Path
from facenas.errors import SearchStoppedError
from facenas.runs.journal import Journal

path, room = Path(sys.argv[1]), int(sys.argv[2])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that write fails as on a full disk
journal = Journal(path)
journal.append({"last": "before the disk is full"})
before, records = path.read_bytes(), list(journal.records)
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + room, hard))
for _ in range(2):  # also when tried again
    try:
        journal.append({"long": "x" * 100_000})
        raise SystemExit("the line was written")
    except SearchStoppedError as error:
        sentence = str(error)
    assert path.read_bytes() == before, "the journal has changed"
    assert journal.records == records
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
journal.append({"room": "made"})
assert path.read_bytes() == before + b'{"room": "made"}\\n'
print(sentence)
"""


@pytest.mark.parametrize("room", [0, 7, 90_000])
def test_a_full_disk_leaves_the_journal_as_it_was(tmp_path, room):
    path = tmp_path / "trials.jsonl"
    write(path, RECORDS)
    command = [sys.executable, "-c", FULL_DISK, str(path), str(room)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert str(path) in done.stdout
    assert "make room and resume" in done.stdout
    assert read_journal(path) == [*RECORDS, {"last": "before the disk is full"}, {"room": "made"}]


def test_a_value_that_json_cannot_tell_leaves_the_journal_as_it_was(tmp_path):
    path = tmp_path / "trials.jsonl"
    whole = write(path, RECORDS)
    journal = Journal(path)
    with pytest.raises(ValueError, match="JSON compliant"):
        journal.append({"loss": float("nan")})
    assert path.read_bytes() == whole
    assert journal.records == RECORDS
