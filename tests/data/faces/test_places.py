"""Stores on several disks and at URLs: what is read is the same, what is not whole is no store."""

import shutil

import fsspec
import numpy as np
import pytest
import zarr
from face_files import jpeg, write

from facenas.data import DataConfig, open_data, prepare
from facenas.data.cache import kept
from facenas.data.faces.importing import import_faces
from facenas.data.faces.store import FIELDS, check, describe, open_store
from facenas.data.faces.writer import StoreWriter
from facenas.data.remote import LIMIT, Remote, folder_of
from facenas.errors import UserError

COUNT = 40
IMAGES = [jpeg(seed) for seed in range(COUNT)]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch, tmp_path):
    """Shards of 32 kB: a store of 40 images has several."""
    monkeypatch.setenv("FACENAS_CACHE", str(tmp_path / "cache"))
    for layout, fields in list(FIELDS.items()):
        monkeypatch.setitem(FIELDS, layout, tuple(field._replace(chunk_bytes=1024) for field in fields))


@pytest.fixture
def url():
    yield "memory://bucket/faces.zarr"
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def disks(tmp_path):
    folders = [tmp_path / "disk1", tmp_path / "disk2"]
    for folder in folders:
        folder.mkdir()
    return folders


def make(path, layout="jpeg", stop=None, **options):
    with StoreWriter(path, "made by a test", layout, **options) as writer:
        for index, image in enumerate(IMAGES):
            writer.add(f"person {index % 3}", image)
        if stop:
            raise stop


def plain(tmp_path, layout="jpeg"):
    make(tmp_path / "plain.zarr", layout, overwrite=True)
    return open_store(tmp_path / "plain.zarr")


@pytest.mark.parametrize("layout", ["jpeg", "raw"])
@pytest.mark.parametrize("limit", ["0", "some", "1GB"])
def test_what_is_read_at_a_url_is_the_same(layout, limit, url, tmp_path, monkeypatch):
    make(url, layout)
    expected = plain(tmp_path, layout)
    name = FIELDS[layout][-1].name
    shards = {path: size for path, size in Remote(url).sizes().items() if path.startswith(f"{name}/c/")}
    monkeypatch.setenv(LIMIT, str(next(iter(shards.values()))) if limit == "some" else limit)
    folder = prepare(DataConfig(name=url))
    store = open_data(folder)
    copied = {path for path in shards if (folder / path).exists()}
    assert {"0": not copied, "some": 0 < len(copied) < len(shards), "1GB": len(copied) == len(shards)}[limit]
    order = np.random.default_rng(0).permutation(COUNT)
    np.testing.assert_array_equal(store.read(order), expected.read(order))
    np.testing.assert_array_equal(store.labels, expected.labels)
    assert (store.fingerprint, store.path.stem) == (expected.fingerprint, "faces")
    with folder_of(url) as path:
        assert check(path)["fingerprint"] == expected.fingerprint
        told, near = describe(path), describe(expected.path)
    assert {**told, "store": 0} == {**near, "store": 0}
    assert prepare(DataConfig(name=url)) == folder
    assert [entry.kind for entry in kept()] == ["copy of a store"]


def test_zarr_reads_what_is_at_a_url(tmp_path):
    make(f"file://{tmp_path}/far/faces.zarr")
    assert (
        bytes(open_data(prepare(DataConfig(name=f"file://{tmp_path}/far/faces.zarr"))).encoded(9)) == IMAGES[9]
    )
    remote = zarr.storage.FsspecStore.from_url(f"file://{tmp_path}/far/faces.zarr", read_only=True)
    assert zarr.open_group(remote, mode="r")["jpeg"][:].tobytes() == b"".join(IMAGES)


def test_another_store_at_the_same_url_is_another_copy(url):
    make(url)
    first = prepare(DataConfig(name=url))
    with pytest.raises(UserError, match=r"is there already; overwrite \(--overwrite\) replaces it"):
        make(url)
    make(url, "raw", overwrite=True)
    assert prepare(DataConfig(name=url)) != first
    assert not any(name.startswith("jpeg") for name in Remote(url).sizes())


def test_an_import_that_ends_leaves_nothing_at_a_url(url):
    with pytest.raises(KeyboardInterrupt):
        make(url, stop=KeyboardInterrupt)
    assert Remote(url).sizes() == {}
    with pytest.raises(UserError, match=r"no such store, or one that is not yet whole"):
        prepare(DataConfig(name=url))


def test_what_is_no_store_at_a_url_stays(url):
    files = fsspec.filesystem(url.partition(":")[0])
    files.makedirs(url, exist_ok=True)
    files.pipe_file(f"{url}/thesis.tex", b"x")
    with pytest.raises(UserError, match=r"holds 'thesis.tex' and so is no store"):
        make(url, overwrite=True)
    assert Remote(url).sizes() == {"thesis.tex": 1}


def test_a_zarr_group_of_others_at_a_url_stays(url):
    zarr.open_group(zarr.storage.FsspecStore.from_url(url), mode="w").create_array(
        "offsets", shape=3, dtype="u1"
    )
    before = Remote(url).sizes()
    with pytest.raises(UserError, match="is a zarr group, but no store of ours"):
        make(url, overwrite=True)
    assert Remote(url).sizes() == before != {}


def test_a_store_at_a_url_is_replaced_by_images_alone(url, tmp_path):
    make(url)
    before = Remote(url).sizes()
    write(tmp_path / "people", {"a/1.jpg": b"nothing"})
    with pytest.raises(UserError, match="holds 1 image but none that can be used"):
        import_faces(tmp_path / "people", url, overwrite=True)
    assert Remote(url).sizes() == before


def test_a_connection_that_is_lost_is_one_sentence(url, monkeypatch):
    monkeypatch.setenv(LIMIT, "0")
    make(url)
    store = open_data(prepare(DataConfig(name=url)))
    Remote(url).remove([name for name in Remote(url).sizes() if name.startswith("jpeg/c/")])
    with pytest.raises(UserError, match=r"faces.zarr: cannot be read \(") as caught:
        store.read(np.arange(3))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("foo://bucket/a.zarr", "cannot be opened .Protocol not known: foo"),
        ("sftp://me:secret@host/a.zarr", "holds a password"),
        ("simplecache::s3://key:secret@bucket/a.zarr", "holds a password"),
        ("https://secret@host/a.zarr", "holds a password"),
        ("https://host/a.zarr?sig=secret", "holds a password"),
    ],
)
def test_urls_that_lead_nowhere(name, message):
    with pytest.raises(UserError, match=message) as caught:
        prepare(DataConfig(name=name))
    assert "secret" not in str(caught.value)


def test_images_spread_over_disks(tmp_path, disks):
    source = write(tmp_path / "people", {f"{i % 3}/{i}.jpg": image for i, image in enumerate(IMAGES)})
    import_faces(source, tmp_path / "near.zarr")
    import_faces(source, tmp_path / "far.zarr", disks=disks)
    shares = [len(list(disk.rglob("c/*"))) for disk in disks]
    assert min(shares) > 0
    assert abs(shares[0] - shares[1]) <= 1
    assert not [path for disk in disks for path in disk.iterdir() if path.name.startswith(".")]
    near, far = describe(tmp_path / "near.zarr"), describe(tmp_path / "far.zarr")
    assert {**near, "store": 0} == {**far, "store": 0}
    assert check(tmp_path / "far.zarr")["fingerprint"] == near["fingerprint"]
    shutil.copytree(tmp_path / "far.zarr", tmp_path / "copy.zarr", symlinks=True)
    make(tmp_path / "copy.zarr", overwrite=True)
    assert check(tmp_path / "far.zarr")["fingerprint"] == near["fingerprint"], (
        "what its copy linked to is its own"
    )
    shutil.move(tmp_path / "far.zarr", tmp_path / "moved.zarr")
    assert bytes(zarr.open_group(tmp_path / "moved.zarr")["jpeg"][:3]) == IMAGES[0][:3]
    make(tmp_path / "moved.zarr", overwrite=True)
    assert not [path for disk in disks for path in disk.iterdir()]


def test_an_import_that_ends_leaves_nothing_on_disks(tmp_path, disks):
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "new/far.zarr", disks=disks, stop=KeyboardInterrupt)
    assert not [path for folder in (*disks, tmp_path / "new") for path in folder.iterdir()]
    make(tmp_path / "far.zarr", disks=disks)
    shutil.rmtree(disks[1])
    with pytest.raises(UserError, match="disk2: no such folder; make it, or see whether its disk is mounted"):
        make(tmp_path / "other.zarr", disks=disks)
    with pytest.raises(UserError, match="is missing or torn"):
        open_store(tmp_path / "far.zarr")
