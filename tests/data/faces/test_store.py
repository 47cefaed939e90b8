"""The store: what was written is read back, whatever the layout, the chunks, the process."""

import json
import multiprocessing
import pickle
import subprocess
import sys

import numpy as np
import pytest
import zarr
from face_files import decoded, encoded, jpeg, picture

from facenas.data.faces.store import FIELDS, check, describe, open_store
from facenas.data.faces.writer import StoreWriter
from facenas.errors import UserError


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks of 1 kB (of one image): stores of a few images have many chunks and shards."""
    for layout, fields in list(FIELDS.items()):
        small = tuple(field._replace(chunk_bytes=1024) for field in fields)
        monkeypatch.setitem(FIELDS, layout, small)


def write_store(path, layout="jpeg", count=40, **options):
    """`count` JPEGs of three identities; returns the bytes written."""
    images = [jpeg(seed) for seed in range(count)]
    with StoreWriter(path, "made by a test", layout, **options) as writer:
        for index, image in enumerate(images):
            writer.add(f"person {index % 3}", image)
    return images


def test_jpeg_bytes_are_kept(tmp_path):
    images = write_store(tmp_path / "a.zarr")
    store = open_store(tmp_path / "a.zarr")
    assert [bytes(store.encoded(i)) for i in range(len(store))] == images
    assert (len(store), store.identities, store.layout) == (40, 3, "jpeg")
    assert store.source == "made by a test"
    assert list(store.names) == ["person 0", "person 1", "person 2"]
    assert (store.labels.dtype, store.labels.tolist()) == (np.int32, [i % 3 for i in range(40)])
    with pytest.raises(IndexError):
        store.encoded(40)


@pytest.mark.parametrize("layout", ["jpeg", "raw"])
@pytest.mark.parametrize("small", [True, False])
def test_pixels_are_pillows(layout, small, tmp_path, request):
    if small:
        request.getfixturevalue("small_chunks")
    images = write_store(tmp_path / "a.zarr", layout)
    store = open_store(tmp_path / "a.zarr")
    indices = np.random.default_rng(0).integers(0, 40, 64)
    expected = np.stack([decoded(images[index]) for index in indices])
    out = np.empty_like(expected)
    assert store.read(indices, out) is out
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(store.read(indices), expected)
    assert store.read(np.array([], np.int64)).shape == (0, 112, 112, 3)
    for wrong in ([40], [-1]):
        with pytest.raises(IndexError, match="of 40 images"):
            store.read(np.array(wrong))


@pytest.mark.parametrize("layout", ["jpeg", "raw"])
def test_any_zarr_reader_reads_the_same(layout, tmp_path, small_chunks):
    images = write_store(tmp_path / "a.zarr", layout)
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")
    assert group["labels"][:].tolist() == [i % 3 for i in range(40)]
    if layout == "jpeg":
        assert group["jpeg"][:].tobytes() == b"".join(images)
        assert np.diff(group["offsets"][:]).tolist() == [len(image) for image in images]
    else:
        np.testing.assert_array_equal(group["pixels"][:], [decoded(image) for image in images])
    assert sum(1 for _ in (tmp_path / "a.zarr").rglob("c/*")) > 4


def test_pixels_are_encoded_well_in_the_jpeg_layout(tmp_path):
    pixels = np.asarray(picture(1))
    with StoreWriter(tmp_path / "a.zarr", "x") as writer:
        writer.add("a", pixels)
    read = open_store(tmp_path / "a.zarr").read(np.array([0]))[0]
    assert np.abs(read.astype(int) - pixels).mean() < 2
    with StoreWriter(tmp_path / "b.zarr", "x", "raw") as writer:
        writer.add("a", pixels)
    np.testing.assert_array_equal(open_store(tmp_path / "b.zarr").read(np.array([0]))[0], pixels)


@pytest.mark.parametrize("mode", ["L", "progressive"])
def test_grey_and_progressive_jpeg_are_kept(mode, tmp_path):
    image = jpeg(1, mode="L") if mode == "L" else encoded(picture(1), progressive=True)
    with StoreWriter(tmp_path / "a.zarr", "x") as writer:
        writer.add("a", image)
    store = open_store(tmp_path / "a.zarr")
    assert bytes(store.encoded(0)) == image
    np.testing.assert_array_equal(store.read(np.array([0]))[0], decoded(image))


@pytest.mark.parametrize("layout", ["jpeg", "raw"])
def test_what_is_no_whole_face_is_not_added(layout, tmp_path):
    whole = jpeg(0)
    wrong = [b"", b"text", whole[:-2], whole[: len(whole) // 2], jpeg(1, size=(112, 111))]
    wrong += [np.zeros((112, 112), np.uint8), np.zeros((112, 112, 3), np.float32)]
    with StoreWriter(tmp_path / "a.zarr", "x", layout) as writer:
        for image in wrong:
            with pytest.raises(ValueError, match=r"."):
                writer.add("nobody", image)
        writer.add("somebody", whole)
    assert list(open_store(tmp_path / "a.zarr").names) == ["somebody"]


def test_the_fingerprint_tells_contents_apart(tmp_path):
    def fingerprint(name, images, layout="jpeg", source="x"):
        with StoreWriter(tmp_path / name, source, layout) as writer:
            for identity, image in images:
                writer.add(identity, image)
        check(tmp_path / name)
        return open_store(tmp_path / name).fingerprint

    pairs = [("a", jpeg(0)), ("b", jpeg(1))]
    first = fingerprint("1", pairs)
    assert first == fingerprint("2", pairs, source="elsewhere")
    others = [pairs[::-1], [("a", jpeg(0)), ("c", jpeg(1))], [("a", jpeg(0)), ("a", jpeg(1))]]
    found = {fingerprint(f"o{i}", other) for i, other in enumerate(others)}
    assert len(found | {first, fingerprint("3", pairs, "raw")}) == 5


def test_it_does_not_depend_on_the_chunks(tmp_path, monkeypatch, request):
    write_store(tmp_path / "a.zarr")
    request.getfixturevalue("small_chunks")
    write_store(tmp_path / "b.zarr")
    assert open_store(tmp_path / "a.zarr").fingerprint == open_store(tmp_path / "b.zarr").fingerprint
    assert check(tmp_path / "b.zarr")["images"] == 40


def test_numbered_identities_may_lack_images(tmp_path):
    with StoreWriter(tmp_path / "a.zarr", "x", numbered=5000) as writer:
        for label in (4999, 0, 7):
            writer.add(str(label), jpeg(label))
        with pytest.raises(UserError, match="label 5000 is out of range"):
            writer.add("5000", jpeg(1))
    store = open_store(tmp_path / "a.zarr")
    assert (store.identities, store.labels.tolist()) == (5000, [4999, 0, 7])
    assert (store.names[4999], store.names[-1], store.names[3]) == ("4999", "4999", "3")
    told = describe(tmp_path / "a.zarr")
    assert [told[f"images_per_identity_{k}"] for k in ("min", "median", "max")] == [0, 0, 1]


def test_names_may_be_anything(tmp_path):
    names = ["", "Zoë", "名前", "a/b\n", "undecodable \udcff"]
    with StoreWriter(tmp_path / "a.zarr", "x") as writer:
        for name in names:
            writer.add(name, jpeg(0))
    assert list(open_store(tmp_path / "a.zarr").names) == [*names[:4], r"undecodable \udcff"]


def test_reading_needs_no_zarr(tmp_path):
    """Zarr's Python objects differ from release to release; the store's own zarr.json does not."""
    images = write_store(tmp_path / "a.zarr")
    program = (
        "import sys; sys.modules['zarr'] = None\n"
        "from pathlib import Path\n"
        "import numpy as np\n"
        "from facenas.data.faces.store import check\n"
        "from facenas.data.faces.store import open_store\n"
        "check(Path('a.zarr'))\n"
        "print(open_store(Path('a.zarr')).read(np.array([7])).sum())"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, cwd=tmp_path)
    assert int(out.stdout) == decoded(images[7]).sum(), out.stderr


def test_other_spellings_of_the_same_layout(tmp_path):
    """The specification lets a writer leave out what is the default, and name codecs by a string."""
    images = write_store(tmp_path / "a.zarr")
    path = tmp_path / "a.zarr/jpeg/zarr.json"
    tree = json.loads(path.read_text())
    tree["chunk_key_encoding"] = "default"
    del tree["storage_transformers"]
    sharding = tree["codecs"][0]["configuration"]
    del sharding["index_location"]
    sharding["codecs"], sharding["index_codecs"][1] = ["bytes"], "crc32c"
    path.write_text(json.dumps(tree))
    assert bytes(open_store(tmp_path / "a.zarr").encoded(7)) == images[7]


def test_other_processes_get_it_by_pickle(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = write_store(tmp_path / "a.zarr")
    content = pickle.dumps(open_store((tmp_path / "a.zarr").relative_to(tmp_path)))
    assert len(content) < 1000
    program = "import pickle, sys; print(pickle.load(sys.stdin.buffer).read([7]).sum())"
    out = subprocess.run([sys.executable, "-c", program], input=content, capture_output=True, cwd="/")
    assert int(out.stdout) == decoded(images[7]).sum()


def test_forked_readers_see_the_same(tmp_path):
    images = write_store(tmp_path / "a.zarr")
    store = open_store(tmp_path / "a.zarr")
    store.read(np.arange(40))
    with multiprocessing.get_context("fork").Pool(2) as pool:
        found = pool.map(store.read, [np.array([i]) for i in (3, 30)])
    np.testing.assert_array_equal(found[1][0], decoded(images[30]))
