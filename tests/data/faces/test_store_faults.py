"""What is no whole store gets one sentence; what is not finished leaves nothing."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import zarr
from face_files import jpeg

from facenas.data.faces.store import check, open_store
from facenas.data.faces.writer import StoreWriter
from facenas.errors import UserError


@pytest.fixture
def path(tmp_path):
    """A store of six faces of two identities."""
    make(tmp_path / "a.zarr")
    return tmp_path / "a.zarr"


def make(path, count=6, layout="jpeg", stop=None, **options):
    with StoreWriter(path, "x", layout, **options) as writer:
        for index in range(count):
            writer.add("ab"[index % 2], jpeg(index))
        if stop:
            raise stop


def sentence(function, *arguments):
    with pytest.raises(UserError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def change(path, offset, content):
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)


def edit(path, **values):
    """Other attributes in a zarr.json."""
    tree = json.loads(path.read_text())
    tree["attributes"] |= values
    path.write_text(json.dumps(tree))


def test_what_is_no_store(tmp_path):
    (tmp_path / "file.zarr").write_text("text")
    (tmp_path / "folder").mkdir()
    zarr.create_group(tmp_path / "other.zarr").create_array("labels", shape=(3,), dtype="i4")
    zarr.create_group(tmp_path / "two.zarr", zarr_format=2)
    assert "no such store" in sentence(open_store, tmp_path / "gone.zarr")
    for name in ("file.zarr", "folder", "other.zarr", "two.zarr"):
        told = sentence(open_store, tmp_path / name)
        assert told.startswith(f"{tmp_path / name}: is not a facenas face store")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"version": 2}, "format 2, .* update facenas"),
        ({"colour": "BGR"}, "color order 'BGR'"),
        ({"layout": "png"}, "attributes are damaged"),
        ({"images": "6"}, "attributes are damaged"),
        ({"images": 7}, "should have 7 labels but has 6"),
        ({"identities": 3}, "should have 4 name_offsets but has 3"),
        ({"layout": "raw"}, "'pixels' is missing or not laid out as facenas does"),
        ({"format": "facenas cats"}, "is not a facenas face store"),
    ],
)
def test_other_attributes(values, message, path):
    edit(path / "zarr.json", **values)
    with pytest.raises(UserError, match=message):
        open_store(path)


@pytest.mark.parametrize("fault", ["missing", "short", "metadata", "compressed"])
def test_arrays_that_are_not_ours_or_not_whole(fault, path):
    shard = path / "jpeg/c/0"
    if fault == "missing":
        shard.unlink()
    elif fault == "short":
        os.truncate(shard, shard.stat().st_size - 1)
    elif fault == "metadata":
        (path / "jpeg/zarr.json").write_text('{"zarr_format": 3, "node_type": "array"}')
    else:
        values = zarr.open_group(path)["jpeg"][:]
        zarr.open_group(path).create_array("jpeg", data=values, overwrite=True)
    told = sentence(open_store, path)
    assert told.startswith(str(path))
    assert told.endswith(("import the store anew", "import it anew"))


@pytest.mark.parametrize(
    "other",
    [
        {"zarr_format": 2},
        {"node_type": "group"},
        {"shape": [-1]},
        {"shape": [True]},
        {"shape": []},
        {"data_type": "int64"},
        {"chunk_grid": {"name": "rectilinear", "configuration": {"chunk_shapes": [[192]]}}},
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [191]}}},
        {"chunk_key_encoding": {"name": "v2", "configuration": {"separator": "."}}},
        {"storage_transformers": [{"name": "any"}]},
        {"codecs": [{"name": "bytes", "configuration": {"endian": "little"}}]},
        {"codecs": []},
        {"index_location": "start"},
        {"index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}]},
        {"codecs inside": [{"name": "bytes", "configuration": {"endian": "big"}}]},
        {"codecs inside": [{"name": "bytes"}]},
        {"codecs inside": ["bytes", "zstd"]},
        {"chunk_shape": [0]},
    ],
    ids=str,
)
def test_an_array_of_another_layout(other, path):
    tree = json.loads((path / "labels/zarr.json").read_text())
    sharding = tree["codecs"][0]["configuration"]
    for key, value in other.items():
        if key in tree:
            tree[key] = value
        else:
            assert key.removesuffix(" inside") in sharding
            sharding[key.removesuffix(" inside")] = value
    (path / "labels/zarr.json").write_text(json.dumps(tree))
    assert "'labels' is missing or not laid out as facenas does" in sentence(open_store, path)


def test_a_damaged_shard_index(path):
    shard = path / "jpeg/c/0"
    change(shard, shard.stat().st_size - 4 - 16 * 32, b"\7")
    store = open_store(path)
    assert "shard index is damaged" in sentence(store.read, np.array([0]))


def test_labels_out_of_range(path):
    change(path / "labels/c/0", 4, (2).to_bytes(4, "little"))
    assert "has labels 0..2 but 2 identities" in sentence(open_store, path)


@pytest.mark.parametrize("fault", ["start", "bytes", "offset", "other face", "offsets", "name"])
def test_check_finds(fault, path):
    store = open_store(path)
    image = bytes(store.encoded(2))
    start = len(store.encoded(0)) + len(store.encoded(1))
    offsets = path / "offsets/c/0"
    if fault == "start":
        change(path / "jpeg/c/0", start, bytes(2))
    elif fault == "bytes":
        change(path / "jpeg/c/0", start + len(image) // 2, b"\xff\xd9\xff\xd9")
    elif fault == "offset":
        change(offsets, 8 * 3, (start + len(image) - 5).to_bytes(8, "little"))
    elif fault == "offsets":
        change(offsets, 8 * 3, bytes(8))
    elif fault == "name":
        change(path / "names/c/0", 0, b"\xff")
    else:
        change(path / "labels/c/0", 0, (1).to_bytes(4, "little"))
    told = sentence(check, path)
    expected = {
        "start": "image 2 is damaged (",
        "bytes": "image 2 is damaged (",
        "offset": "image 2 is damaged (Premature end",
        "offsets": "its offsets are damaged",
        "name": "identity name 0 is damaged",
        "other face": "its contents do not match its fingerprint",
    }
    assert told.startswith(f"{path}: ")
    assert expected[fault] in told
    if "image 2" in expected[fault]:
        assert "image 2 is damaged" in sentence(open_store(path).read, np.array([0, 2]))
    if fault == "offsets":
        assert "image 2 is damaged" in sentence(open_store(path).encoded, 2)


def test_an_exception_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "new/a.zarr", stop=KeyboardInterrupt)
    assert not list((tmp_path / "new").iterdir())


def test_a_store_without_images_is_refused(tmp_path):
    with (
        pytest.raises(UserError, match="no image that could be used"),
        StoreWriter(tmp_path / "a", "x"),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_overwriting(path):
    before = open_store(path)
    assert "is there already; overwrite" in sentence(StoreWriter, path, "x")
    with pytest.raises(ZeroDivisionError):
        make(path, 3, overwrite=True, stop=ZeroDivisionError)
    assert check(path)["fingerprint"] == before.fingerprint
    make(path, 3, "raw", overwrite=True)
    assert (len(open_store(path)), open_store(path).layout) == (3, "raw")
    assert [p.name for p in path.parent.iterdir()] == ["a.zarr"]


def test_only_stores_are_overwritten(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/only_copy.tex").write_text("x")
    (tmp_path / "file.zarr").write_text("x")
    for name, message in (("thesis", "no face store"), ("file.zarr", "is a file where")):
        assert message in sentence(lambda n=name: StoreWriter(tmp_path / n, "x", overwrite=True))
    assert (tmp_path / "thesis/only_copy.tex").exists()


def test_one_that_came_in_the_meantime_stays(tmp_path):
    path = tmp_path / "a.zarr"
    writer = StoreWriter(path, "x").__enter__()
    writer.add("a", jpeg(0))
    make(path)
    assert "is there already" in sentence(writer.__exit__, None, None, None)
    assert len(open_store(path)) == 6
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_among_the_parents(tmp_path):
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(UserError, match="cannot be written"),
        StoreWriter(tmp_path / "file/a.zarr", "x"),
    ):
        pass


def test_leftovers_of_a_killed_process_are_removed(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    program = (
        "import os, pathlib; from facenas.data.faces.writer import StoreWriter;"
        "StoreWriter('a.zarr', 'x', disks=[pathlib.Path('disk')]).__enter__(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path)
    assert (len(list(tmp_path.iterdir())), len(list(disk.iterdir()))) == (2, 1)
    make(tmp_path / "a.zarr", disks=[disk])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zarr", "disk"]
    assert [p.suffix for p in disk.iterdir()] == [".shards"]


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 256 kB, where one can be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], capture_output=True
    )
    if not mounted or mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_full_disk(tiny_disk):
    told = sentence(lambda: make(tiny_disk / "a.zarr", 20, "raw"))
    assert "cannot be written (No space left on device); make room" in told
    assert not list(tiny_disk.iterdir())


def test_files_that_may_not_grow(tmp_path):
    program = (
        "import resource, pathlib, numpy as np; from facenas.data.faces.writer import StoreWriter\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "with StoreWriter(pathlib.Path('a.zarr'), 'x', 'raw') as writer:\n"
        "    for i in range(9): writer.add('a', np.full((112, 112, 3), i, np.uint8))"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert "UserError: a.zarr: cannot be written (File too large)" in ended.stderr
    assert not list(tmp_path.iterdir())
