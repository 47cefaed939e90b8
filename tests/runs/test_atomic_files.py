"""Files are written whole or not at all."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from facenas.errors import SearchStoppedError, UserError
from facenas.files import read_json, write_atomically, write_json, write_text


def half(error: Exception):
    """A writer that fails when half is written."""

    def write(path: Path) -> None:
        path.write_text("half")
        raise error

    return write


def test_text_and_json_come_back(tmp_path):
    path = tmp_path / "best.json"
    for tree in ({"a": [1, None, 0.1], "name": "début"}, {"b": 2}):  # the second replaces the first
        write_json(path, tree)
        assert read_json(path) == tree
    write_text(tmp_path / "note", "naïve\n")
    assert (tmp_path / "note").read_bytes() == "naïve\n".encode()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.json", "note"]


@pytest.mark.parametrize("old", [None, "old"])
@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RuntimeError("unexpected pos")]
)
def test_a_failure_leaves_the_old_file_and_no_other(tmp_path, old, error):
    path = tmp_path / "state.pt"
    if old:
        path.write_text(old)
    with pytest.raises(SearchStoppedError, match=r"state\.pt: cannot be written"):
        write_atomically(path, half(error))
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == ({"state.pt": old} if old else {})


@pytest.mark.parametrize(
    "error", [TypeError("not JSON"), KeyboardInterrupt()], ids=["fault", "Ctrl-C"]
)
def test_any_other_failure_leaves_no_temporary_file_either(tmp_path, error):
    with pytest.raises(type(error)):
        write_atomically(tmp_path / "best.json", half(error))
    assert list(tmp_path.iterdir()) == []


def test_what_json_cannot_tell_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "best.json", {"a": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "best.json", {"a": float("nan")})
    assert read_json(tmp_path / "best.json") == {"a": 1}
    assert len(list(tmp_path.iterdir())) == 1


def test_a_missing_folder_is_told(tmp_path):
    with pytest.raises(SearchStoppedError, match="cannot be written"):
        write_text(tmp_path / "nowhere" / "note", "text")


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from facenas.errors import SearchStoppedError
from facenas.files import write_text

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
try:
    write_text(Path(sys.argv[1]), "x" * 100_000)
except SearchStoppedError:
    raise SystemExit(7)
"""


def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "best.json"
    path.write_text("old")
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(path)], timeout=60, check=False)
    assert done.returncode == 7
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"best.json": "old"}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, "cannot be read"),
        (b"", "not valid JSON"),
        (b'{"a"', "not valid JSON"),
        (b"\xff", "not valid JSON"),
    ]
    + [(json.dumps(tree).encode(), "should hold a JSON object") for tree in ([], 1, None)],
)
def test_a_damaged_json_file_is_told_in_a_sentence(tmp_path, data, words):
    path = tmp_path / "best.json"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(UserError, match=words) as told:
        read_json(path)
    assert str(path) in str(told.value)
