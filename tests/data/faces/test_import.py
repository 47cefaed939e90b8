"""Importing folders, .zip files and lists: what is kept, what is changed, what is skipped and told."""

import csv
import errno
import os
import struct
import zlib

import numpy as np
import pytest
from face_files import decoded, encoded, jpeg, picture, write
from PIL import Image

from facenas.data.faces.importing import import_faces
from facenas.data.faces.store import check, open_store
from facenas.data.images import FolderFiles
from facenas.errors import UserError


@pytest.fixture(params=["people", "people.zip"])
def source(request, tmp_path):
    """A path to write faces at: once a folder, once a .zip."""
    return tmp_path / request.param


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out.zarr"


def people(top=""):
    return {
        f"{top}{name}/{i}.jpg": jpeg(10 * n + i) for n, name in enumerate(("b", "a", "a-b")) for i in (0, 1)
    }


def skipped(out):
    with (out / "skipped.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["source", "reason"]
    return dict(rows[1:])


def refused(source, out, *options):
    with pytest.raises(UserError) as caught:
        import_faces(source, out, *options)
    assert "\n" not in str(caught.value)
    assert not [p for p in out.parent.iterdir() if "out.zarr" in p.name]
    return str(caught.value)


def test_identities_and_images_by_name(source, out):
    files = people()
    result = import_faces(write(source, files), out)
    counts = {"images": 6, "identities": 3, "skipped": 0, "encoded": 0, "resized": 0}
    assert result.pop("seconds") > 0
    assert result == {"store": str(out), **counts}
    store = open_store(out)
    assert list(store.names) == ["a", "a-b", "b"]
    assert store.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert list(store.files) == sorted(files, key=lambda name: name.split("/"))
    shard = out / "files/c/0"
    whole = shard.read_bytes()
    shard.write_bytes(whole.replace(b"a-b/0", b"a-b/7"))
    with pytest.raises(UserError, match="contents do not match"):
        check(out)
    shard.write_bytes(whole)
    order = ["a/0", "a/1", "a-b/0", "a-b/1", "b/0", "b/1"]
    assert [bytes(store.encoded(i)) for i in range(6)] == [files[f"{name}.jpg"] for name in order]
    assert store.source in ("folder people", "zip people.zip")
    assert not (out / "skipped.csv").exists()
    assert check(out)["fingerprint"] == store.fingerprint


def test_a_folder_around_and_what_lies_beside(source, out):
    files = people("top/") | {
        "top/notes.txt": b"x",
        "top/.hidden/0.jpg": jpeg(0),
        "__MACOSX/top/a/._0.jpg": b"x",
        "top/a/.0.jpg": b"x",
        "top/a/more/2.JPG": jpeg(5),
    }
    assert import_faces(write(source, files), out)["images"] == 7
    assert list(open_store(out).names) == ["a", "a-b", "b"]


@pytest.mark.parametrize("layout", ["jpeg", "raw"])
def test_other_formats_are_encoded(layout, source, out):
    files = {f"a/{kind}.{kind}": encoded(picture(1), kind) for kind in ("png", "bmp", "webp")}
    files |= {"b/grey.png": encoded(picture(2, mode="L"), "png")}
    files |= {"c/cmyk.jpg": encoded(picture(3, mode="CMYK"), quality=95)}
    result = import_faces(write(source, files), out, layout)
    assert (result["images"], result["encoded"]) == (5, 5 if layout == "jpeg" else 0)
    store = open_store(out)
    order = ["a/bmp.bmp", "a/png.png", "a/webp.webp", "b/grey.png", "c/cmyk.jpg"]
    expected = np.stack([decoded(files[name]) for name in order]).astype(int)
    difference = np.abs(store.read(np.arange(5)) - expected)
    assert difference.max() == 0 if layout == "raw" else difference.mean() < 2


def png_that_claims(width, height):
    """A PNG whose header promises width x height pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + encoded(picture(0), "png")[33:]


def test_what_cannot_be_used_is_skipped_and_listed(source, out, caplog):
    whole = jpeg(0)
    bad = {
        "bad/text.jpg": b"this is text",
        "bad/empty.png": b"",
        "bad/cut.jpg": whole[: len(whole) // 2],
        "bad/end.jpg": whole[:-2],
        "bad/cut.png": encoded(picture(0), "png")[:3000],
        "bad/large.jpg": jpeg(0, size=(113, 112)),
        "bad/bomb.png": png_that_claims(10_000, 5_001),
        "stray.jpg": whole,
    }
    result = import_faces(write(source, people() | bad), out)
    assert (result["images"], result["identities"], result["skipped"]) == (6, 3, 8)
    assert list(open_store(out).names) == ["a", "a-b", "b"]
    reasons = skipped(out)
    assert reasons.keys() == bad.keys()
    assert reasons["bad/text.jpg"] == reasons["bad/empty.png"] == "it is no image"
    assert reasons["bad/end.jpg"] == "Premature end of JPEG file"
    assert reasons["bad/large.jpg"] == "it is 113x112 pixels, not 112x112"
    assert reasons["bad/bomb.png"] == "it has more than 50 megapixels"
    assert reasons["stray.jpg"] == "it lies in no identity's folder"
    assert f"8 images skipped; {out / 'skipped.csv'} says why" in caplog.text


def test_what_is_ignored_is_told(source, out, caplog):
    files = people() | {"zoe/notes.txt": b"x", "readme.txt": b"x", "a/Thumbs.db": b"x", "skipped.csv": b"x"}
    import_faces(write(source, files), out)
    assert "out: ignored: 2 files without an image" in caplog.messages
    assert ("out: ignored: 1 person without an image (the first, zoe)" in caplog.messages) is source.is_dir()


def test_resizing_on_wish_only(source, out):
    files = {"a/0.jpg": jpeg(0), "a/1.png": encoded(picture(1, (224, 150)), "png")}
    files |= {"b/0.jpg": jpeg(2, size=(56, 56)), "b/bomb.png": png_that_claims(10_000, 5_001)}
    result = import_faces(write(source, files), out, "raw", True)
    assert (result["images"], result["resized"], result["skipped"]) == (3, 2, 1)
    read = open_store(out).read(np.arange(3)).astype(int)
    np.testing.assert_array_equal(read[0], decoded(files["a/0.jpg"]))
    half = np.asarray(picture(1, (224, 150)).resize((112, 112), 4)).astype(int)  # box
    assert np.abs(read[1] - half).mean() < 4
    np.testing.assert_allclose(read[2][::2, ::2], decoded(files["b/0.jpg"]), atol=60)


@pytest.mark.parametrize("files", [{}, {"a/0.txt": b"x"}, {"a/0.jpg": b"text"}, {"0.jpg": jpeg(0)}])
def test_nothing_that_can_be_used(files, source, out):
    if source.suffix != ".zip":
        source.mkdir()
    told = refused(write(source, files), out)
    if any(name.endswith("jpg") for name in files):
        reason = "it is no image" if "a/0.jpg" in files else "it lies in no identity's folder"
        assert (
            told
            == f"{source}: holds 1 image but none that can be used (the first, {next(iter(files))}: {reason})"
        )
    else:
        assert told.startswith(f"{source}: holds no images; ")


def test_photographs_are_sent_to_align(source, out):
    told = refused(write(source, {"a/0.jpg": jpeg(0, size=(64, 48)), "b/0.jpg": jpeg(1, size=(64, 48))}), out)
    assert told.startswith(
        f"{source}: holds 2 images but none that can be used (the first, a/0.jpg: it is 64x48"
    )
    assert told.endswith("; photographs become crops by `facenas align PHOTOS CROPS`")


def test_zip_members_that_climb_out(tmp_path, out):
    path = write(tmp_path / "people.zip", people() | {"../evil.jpg": jpeg(0)})
    assert "points outside the archive; refused" in refused(path, out)


def test_sources_that_are_none(tmp_path, out):
    (tmp_path / "broken.zip").write_bytes(b"PK\3\4 no more")
    (tmp_path / "faces.tar").write_bytes(b"")
    assert "no such file or folder" in refused(tmp_path / "gone", out)
    assert "nothing to import" in refused(tmp_path / "faces.tar", out)
    assert "readable .zip" in refused(tmp_path / "broken.zip", out)


def listed(tmp_path, text, encoding="utf-8"):
    write(tmp_path / "in", {f"{i}.jpg": jpeg(i) for i in range(3)})
    (tmp_path / "in/faces.csv").write_text(text, encoding=encoding)
    return tmp_path / "in/faces.csv"


@pytest.mark.parametrize("header", ["", "path,identity\n", "\ufeffPath, Identity\n"])
def test_a_list(header, tmp_path, out):
    os.link(write(tmp_path / "else", {"9.jpg": jpeg(9)}) / "9.jpg", tmp_path / "9.jpg")
    path = listed(tmp_path, f'{header}2.jpg,Zoë\n"0.jpg","Smith, J."\n\ngone.jpg,x\n../9.jpg,Zoë\n')
    result = import_faces(path, out)
    assert (result["images"], result["skipped"]) == (3, 1)
    store = open_store(out)
    assert (list(store.names), store.labels.tolist()) == (["Zoë", "Smith, J."], [0, 1, 0])
    assert bytes(store.encoded(2)) == jpeg(9)
    assert skipped(out) == {"gone.jpg": "No such file or directory"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.jpg,a\n1.jpg\n", "line 2 is not `path,identity`"),
        ("0.jpg,a,b\n", "line 1 is not"),
        ("0.jpg,\n", "line 1 is not"),
        ("", "faces.csv: holds no images"),
    ],
)
def test_wrong_lists(text, message, tmp_path, out):
    assert message in refused(listed(tmp_path, text), out)


def test_a_list_that_is_no_text(tmp_path, out):
    assert "is not UTF-8 CSV" in refused(listed(tmp_path, "é,é\n", "latin-1"), out)


def test_file_names_that_are_no_unicode(tmp_path, out):
    folder = os.fsencode(tmp_path / "people") + b"/caf\xe9"
    os.makedirs(folder)
    for name, content in ((b"0.jpg", jpeg(0)), (b"\xff.jpg", b"text")):
        with open(folder + b"/" + name, "wb") as file:
            file.write(content)
    assert import_faces(tmp_path / "people", out)["images"] == 1
    assert list(open_store(out).names) == [r"caf\udce9"]
    assert list(skipped(out)) == [r"caf\udce9/\udcff.jpg"]


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), MemoryError()], ids=repr)
def test_a_machine_that_fails_makes_no_smaller_store(tmp_path, out, error, monkeypatch):
    source, read = write(tmp_path / "people", people()), FolderFiles.read
    import_faces(source, out)

    def failing(self, name):
        if name == "a-b/1.jpg":
            raise error
        return read(self, name)

    monkeypatch.setattr(FolderFiles, "read", failing)
    for overwrite in (False, True):
        target = out if overwrite else tmp_path / "new.zarr"
        with pytest.raises(UserError, match=r"read \((Input/output error|out of memory)\); this machine"):
            import_faces(source, target, overwrite=overwrite)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.zarr", "people"]
    assert check(out)["images"] == 6


def test_what_exif_turns_is_turned_and_encoded(source, out):
    upright = picture(1)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    files = {f"a/{kind}.{kind}": encoded(turned, kind, exif=exif, **options) for kind, options in TURNED}
    result = import_faces(write(source, files | {"b/0.jpg": jpeg(0)}), out)
    assert (result["images"], result["encoded"]) == (3, 2)
    for image in open_store(out).read(np.arange(2)).astype(int):
        assert np.abs(image - np.asarray(upright)).mean() < 3


TURNED = (("jpeg", {"quality": 95, "subsampling": 0}), ("png", {}))


def contents(store):
    """All files of a store but its zarr.json, which names the source."""
    return {
        p.relative_to(store): p.read_bytes() for p in store.rglob("*") if p.is_file() and p.name != "zarr.json"
    }


def test_two_workers_write_the_same_store(source, tmp_path):
    bad = {"a/text.jpg": b"text", "b/large.png": encoded(picture(8, (150, 200)), "png"), "stray.jpg": jpeg(0)}
    more = {f"d/{i}.png": encoded(picture(i), "png") for i in range(70)}  # more than one batch
    write(source, people() | bad | more)
    one = import_faces(source, tmp_path / "one.zarr", workers=1)
    two = import_faces(source, tmp_path / "two.zarr", workers=2)
    assert {**one, "store": 0, "seconds": 0} == {**two, "store": 0, "seconds": 0}
    assert (one["images"], one["skipped"], one["encoded"]) == (76, 3, 70)
    assert contents(tmp_path / "one.zarr") == contents(tmp_path / "two.zarr")
    assert open_store(tmp_path / "two.zarr").fingerprint == open_store(tmp_path / "one.zarr").fingerprint


def test_people_that_lose_all_their_images_and_links_are_told(tmp_path, out, caplog):
    root = write(tmp_path / "people", people() | {"zoe/0.jpg": b"text"})
    (root / "again").symlink_to("a")
    assert import_faces(root, out)["skipped"] == 2
    assert skipped(out) == {"again": "it is a link to a, which is read", "zoe/0.jpg": "it is no image"}
    assert "out: 1 identity lost all images (zoe the first)" in caplog.messages


def test_crops_of_nobody_known_are_of_one_identity_however_they_lie(source, out):
    files = {"a.jpg": jpeg(1), "video/b.jpg": jpeg(2), "video/more/c.png": b"no image"}
    told = import_faces(write(source, files), out, unlabeled=True)
    assert (told["images"], told["identities"], told["skipped"]) == (2, 1, 1)
    (out.parent / "list.csv").write_text("a.jpg,x")
    with pytest.raises(UserError, match="tells identities of its own"):
        import_faces(out.parent / "list.csv", out, unlabeled=True)
