"""Files and folders are written whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from facenas.errors import SearchStoppedError, UserError
from facenas.files import (
    as_cells,
    check_place,
    name_in_cell,
    publish_folder,
    read_json,
    read_npy,
    reading,
    walk_files,
    write_atomically,
    write_json,
    write_text,
)


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


def test_a_device_or_a_pipe_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="a pipe or a device"):
        write_text(tmp_path / "pipe", "gone")
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("old", [None, "old"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("unexpected pos")])
def test_a_failure_leaves_the_old_file_and_no_other(tmp_path, old, error):
    path = tmp_path / "state.pt"
    if old:
        path.write_text(old)
    with pytest.raises(SearchStoppedError, match=r"state\.pt: cannot be written"):
        write_atomically(path, half(error))
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == ({"state.pt": old} if old else {})


PLACES = [OSError(code, os.strerror(code)) for code in (errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EISDIR)]


@pytest.mark.parametrize("error", PLACES, ids=lambda error: error.strerror)
def test_where_the_place_is_at_fault_nobody_is_told_to_make_room(tmp_path, error):
    for call in (
        lambda: write_atomically(tmp_path / "a", half(error)),
        lambda: publish_folder(tmp_path / "b", half(error)),
    ):
        with pytest.raises(UserError, match=r"; choose another place, or have this one made writable$"):
            call()


def test_places_are_tried_before_the_work(tmp_path):
    (tmp_path / "file").touch()
    check_place(tmp_path / "new/folder")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]  # nothing is made
    for place in (tmp_path / "file", tmp_path / "file/below/it"):
        with pytest.raises(UserError, match=r"cannot be written \(Not a directory\); choose another place"):
            check_place(place)


@pytest.mark.parametrize("error", [TypeError("not JSON"), KeyboardInterrupt()], ids=["fault", "Ctrl-C"])
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
        (b'{"a": NaN}', "NaN is no number of JSON"),
        (b'{"a": -Infinity}', "-Infinity is no number of JSON"),
        (5000 * b"[", "not valid JSON"),
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


def filled(text: str):
    """A writer of a folder with a file in it and one below."""

    def write(folder: Path) -> None:
        (folder / "a").write_text(text)
        (folder / "below").mkdir()
        (folder / "below/b").write_text(text)

    return write


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


def test_a_folder_appears_whole_and_replaces_an_older_one(tmp_path):
    path = tmp_path / "new/cache"
    for text in ("old", "new"):
        publish_folder(path, filled(text))
        assert contents(path.parent) == {"cache/a": text, "cache/below/b": text}
    publish_folder(path, filled("the same, from another process"), replace=False)
    assert contents(path.parent) == {"cache/a": "new", "cache/below/b": "new"}


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("old", [True, False])
def test_a_folder_that_fails_leaves_the_old_one_and_no_other(tmp_path, old, error):
    def fail(folder: Path) -> None:
        filled("half")(folder)
        raise error

    path = tmp_path / "cache"
    if old:
        publish_folder(path, filled("old"))
    expected = UserError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as told:
        publish_folder(path, fail, remedy="go elsewhere")
    if expected is UserError:
        words = "cannot be written (No space left on device); go elsewhere"
        assert str(told.value) == f"{path}: {words}"
    assert contents(tmp_path) == ({"cache/a": "old", "cache/below/b": "old"} if old else {})
    assert len(list(tmp_path.iterdir())) == old


def test_a_folder_cannot_take_the_place_of_a_file(tmp_path):
    for replace in (True, False):
        (tmp_path / "cache").write_text("text")
        with pytest.raises(UserError, match="cannot be written"):
            publish_folder(tmp_path / "cache/inside", filled("new"), replace=replace)
    with pytest.raises(UserError, match="cannot be written"):
        publish_folder(tmp_path / "cache", filled("new"), replace=False)
    assert contents(tmp_path) == {"cache": "text"}


KILLED = """
import os, sys
from pathlib import Path
from facenas import files
from facenas.files import publish_folder

files._exchanged = lambda *_: False  # as on a file system that cannot
renames = []
rename = Path.rename
def counted(self, target):
    if len(renames) == int(sys.argv[2]):
        os.kill(os.getpid(), 9)
    renames.append(self)
    return rename(self, target)

Path.rename = counted
publish_folder(Path(sys.argv[1]), lambda folder: (folder / "a").write_text("new"))
"""


@pytest.mark.parametrize("renames", [0, 1])
def test_killed_between_two_renames_nothing_is_lost(tmp_path, renames):
    path = tmp_path / "cache"
    publish_folder(path, filled("old"))
    done = subprocess.run([sys.executable, "-c", KILLED, str(path), str(renames)], check=False)
    assert done.returncode == -9
    assert path.exists() == (renames == 0)
    assert sum(text == "old" for text in contents(tmp_path).values()) == 2
    publish_folder(path, filled("newest"), replace=False)  # the old one has its name back, and stays
    assert contents(tmp_path) == {"cache/a": "old", "cache/below/b": "old"}
    assert len(list(tmp_path.iterdir())) == 1


KILLED_AFTER_THE_EXCHANGE = """
import os, shutil, sys
from pathlib import Path
from facenas.files import publish_folder

shutil.rmtree = lambda *_, **__: os.kill(os.getpid(), 9)
publish_folder(Path(sys.argv[1]), lambda folder: (folder / "a").write_text("new"))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux exchanges folders in one step")
def test_folders_change_places_in_one_step(tmp_path):
    path = tmp_path / "cache"
    publish_folder(path, filled("old"))
    done = subprocess.run([sys.executable, "-c", KILLED_AFTER_THE_EXCHANGE, str(path)], check=False)
    assert done.returncode == -9
    assert contents(path) == {"a": "new"}
    assert len(list(tmp_path.iterdir())) == 2  # the old one waits for the next call
    publish_folder(path, filled("newest"))
    assert contents(tmp_path) == {"cache/a": "newest", "cache/below/b": "newest"}


LEFT = """
import os, sys
from pathlib import Path
from facenas.files import scratch_folder, write_atomically

def die(temporary):
    temporary.write_text("half")
    with scratch_folder(Path(sys.argv[1])) as folder:
        (folder / "rows.npy").write_text("a face")
        os.kill(os.getpid(), 9)

write_atomically(Path(sys.argv[1], "best.json"), die)
"""


def test_what_killed_processes_left_is_removed_by_the_next(tmp_path):
    """Not what one that lives has, nor one of another machine that shares the folder."""
    done = subprocess.run([sys.executable, "-c", LEFT, str(tmp_path)], check=False)
    assert done.returncode == -9
    assert len(list(tmp_path.iterdir())) == 2
    host, pid = socket.gethostname(), os.getppid()
    kept = {f".a.{host}-{pid}.tmp", f"scratch-{host}-{pid}-x", ".a.another-2.tmp", ".a.tmp", "scratch-1"}
    for name in kept:
        (tmp_path / name).touch()
    write_text(tmp_path / "best.json", "whole")
    assert {path.name for path in tmp_path.iterdir()} == kept | {"best.json"}


def test_no_text_in_a_csv_file_is_a_formula():
    names = ["=1+1.jpg", "+a", "-a", "@a", "\ta", "\ra", "'=a", "a=1.jpg", "", "'"]
    cells = as_cells(names)
    assert cells[0] == "'=1+1.jpg"
    assert cells[7:9] == names[7:9]
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in cells)
    assert [name_in_cell(cell) for cell in cells] == names
    assert as_cells([-1, -0.5, "x"]) == [-1, -0.5, "x"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("bad header\nand more"), r"is damaged \(bad header\); give a whole copy"),
        (KeyError("key"), r"is damaged \(KeyError: 'key'\)"),
        (OSError(5, "Input/output error"), r"cannot be read \(Input/output error\)"),
        (RecursionError("deep"), "is nested too deeply"),
        (MemoryError(), "needs more memory than there is"),
        (UserError("told already"), "^told already$"),
    ],
)
def test_whatever_a_file_makes_its_reader_raise_is_one_sentence(tmp_path, error, words):
    with pytest.raises(UserError, match=words) as told, reading(tmp_path / "file"):
        raise error
    assert "\n" not in str(told.value)


@pytest.mark.skipif(sys.platform == "win32", reason="makes a pipe")
def test_a_pipe_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path(os.devnull)):
        with pytest.raises(UserError, match=r"cannot be read \(it is a pipe or a device\)"):
            read_json(path)


def test_arrays_are_of_the_kind_that_is_asked_for(tmp_path):
    path = tmp_path / "rows.npy"
    np.save(path, np.ones((2, 3), np.float32))
    assert read_npy(path, np.float32, 2).shape == (2, 3)
    whole = path.read_bytes()
    damaged = [b"", whole[:100], whole[:-1], whole.replace(b"(2, 3)", b"(9**9**9,)"), b"\x93NUMPY\x09" + whole]
    damaged += [whole.replace(b"(2, 3), }  ", b"(%d, 3), }" % n) for n in (20, -2)]
    damaged.append(whole.replace(b"(2, 3), }" + 20 * b" ", b"(99999999999999999999999, 3),}"))
    np.save(path, np.array([None]), allow_pickle=True)
    for data in (*damaged, path.read_bytes()):
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"rows\.npy: is damaged .*; give a whole copy"):
            read_npy(path, np.float32, 2)


@pytest.mark.skipif(sys.platform == "win32", reason="makes links and a pipe")
def test_each_folder_is_walked_once_and_regular_files_alone(tmp_path):
    root = tmp_path / "set"
    for name in ("set/b/1.jpg", "set/b/c/2.jpg", "set/.hidden/3.jpg", "else/where/4.jpg", "set/5.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    links = {"a": "b", "b/loop": ".", "b/up": "..", "d": "../else", "e": "../else/where", "out": ".."}
    links |= {"f.jpg": "5.jpg", "gone": "nothing", "round": "round", "null.jpg": os.devnull}
    for name, target in links.items():
        (root / name).symlink_to(target)
    (tmp_path / "else/on").symlink_to(tmp_path)  # above the root, met through a link
    os.mkfifo(root / "pipe.jpg")
    found = walk_files(root)
    assert found.files == ["5.jpg", "b/1.jpg", "b/c/2.jpg", "d/where/4.jpg", "f.jpg"]
    assert dict(found.skipped) == {
        "a": "is the folder b again",
        "b/loop": "is a link to a folder above it",
        "b/up": "is a link to a folder above it",
        "d/on": "is a link to a folder above it",
        "e": "is the folder d/where again",
        "gone": "is a link to nothing",
        "null.jpg": "is no regular file",
        "out": "is a link to a folder above it",
        "pipe.jpg": "is no regular file",
        "round": "is a link to nothing",
    }
    with pytest.raises(UserError, match=r"b/1\.jpg: cannot be listed \(Not a directory\)"):
        walk_files(root / "b/1.jpg")
