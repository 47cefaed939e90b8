"""Folders and .zip files read alike, by threads too; one image file -> pixels; what is refused."""

import io
import os
import struct
import sys
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from facenas.data import images
from facenas.data.images import (
    FolderFiles,
    ZipFiles,
    decode_image,
    find_images,
    list_files,
    open_files,
    open_image,
    reason_of,
    upright_size,
)
from facenas.errors import UserError

CONTENTS = {f"{c}/{i}.png": bytes([i]) * (100 + 1000 * i) for c in "ba" for i in range(12)}


@pytest.fixture(params=["in", "stored.zip", "deflated.zip"])
def files(request, tmp_path):
    """CONTENTS as a folder, or in a .zip of either kind."""
    path = tmp_path / request.param
    if path.suffix == ".zip":
        method = zipfile.ZIP_STORED if "stored" in path.name else zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(path, "w", method) as archive:
            for name, content in CONTENTS.items():
                archive.writestr(name, content)
    else:
        for name, content in CONTENTS.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
    return open_files(path)


def test_names_are_sorted_and_files_read_as_they_are(files):
    assert files.names() == sorted(CONTENTS)
    assert {name: files.read(name) for name in files.names()} == CONTENTS
    assert [files.stamp(name)[0] for name in CONTENTS] == [len(c) for c in CONTENTS.values()]
    assert files.stamp("a/1.png") != files.stamp("a/2.png")


def test_threads_read_what_one_reads(files):
    names = list(CONTENTS) * 40
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(files.read, names))
    assert found == [CONTENTS[name] for name in names]
    assert files.read("a/0.png") == CONTENTS["a/0.png"]  # the handle is still open


def test_a_missing_file_and_one_that_is_too_large(files, monkeypatch):
    with pytest.raises((OSError, ValueError), match=r"No such file|not in the archive"):
        files.read("a/99.png")
    monkeypatch.setattr(images, "MAX_BYTES", 500)
    assert len(files.read("a/0.png")) == 100
    with pytest.raises(ValueError, match="more bytes than any image"):
        files.read("a/1.png")


def zipped(path, content, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a.png", content)
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_a_changed_byte_in_an_archive_is_found(method, tmp_path):
    content = np.random.default_rng(0).bytes(3000)
    path = zipped(tmp_path / "x.zip", content, method)
    assert ZipFiles(path).read("a.png") == content
    data = bytearray(path.read_bytes())
    data[1500] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="it is damaged in the archive"):
        ZipFiles(path).read("a.png")


@pytest.mark.parametrize(
    ("offset", "value", "reason"),
    [(8, 1, "it is encrypted"), (10, 99, "it is compressed by an unknown method")],
)
def test_members_of_other_kinds_are_named(offset, value, reason, tmp_path):
    path = zipped(tmp_path / "x.zip", bytes(100))
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + offset] = value
    path.write_bytes(data)
    with pytest.raises(ValueError, match=reason):
        ZipFiles(path).read("a.png")


def test_a_member_that_unpacks_to_more_than_it_tells_is_cut_off(tmp_path):
    path = zipped(tmp_path / "x.zip", bytes(1_000_000))
    data = path.read_bytes()
    size = struct.pack("<I", 1_000_000)
    assert data.count(size) == 2
    path.write_bytes(data.replace(size, struct.pack("<I", 1000)))
    with pytest.raises(ValueError, match="it is damaged in the archive"):
        ZipFiles(path).read("a.png")


def test_images_are_found_at_a_path(files, tmp_path):
    assert find_images(files.root)[1] == sorted(CONTENTS)
    (tmp_path / "one.jpg").write_bytes(b"x")
    found, names = find_images(tmp_path / "one.jpg")
    assert [found.read(name) for name in names] == [b"x"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: holds no images"):
        find_images(tmp_path / "empty")
    with pytest.raises(UserError, match="gone: no such file or folder"):
        find_images(tmp_path / "gone")


def test_linked_folders_are_followed_and_hidden_ones_are_not(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/0.png").write_bytes(b"x")
    (tmp_path / "in/.hidden").mkdir(parents=True)
    (tmp_path / "in/.hidden/0.png").write_bytes(b"x")
    (tmp_path / "in/linked").symlink_to(tmp_path / "elsewhere")
    assert FolderFiles(tmp_path / "in").names() == ["linked/0.png"]


def encoded(array, form="png", **options):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, form, **options)
    return stream.getvalue()


GREY = np.arange(48, dtype=np.uint8).reshape(6, 8)
COLORS = np.random.default_rng(0).integers(0, 256, (6, 8, 4), np.uint8)
SHARE = COLORS[..., 3:] / 255
ON_WHITE = np.rint(COLORS[..., :3] * SHARE + 255 * (1 - SHARE)).astype(np.uint8)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (COLORS[..., :3], COLORS[..., :3]),
        (COLORS, ON_WHITE),
        (GREY, np.dstack([GREY] * 3)),
        (GREY.astype(np.uint16) << 8 | 255, np.dstack([GREY] * 3)),
        (GREY > 20, np.dstack([(GREY > 20) * np.uint8(255)] * 3)),
    ],
    ids=["rgb", "rgba", "grey", "16 bits", "1 bit"],
)
def test_every_kind_of_pixel_becomes_rgb(array, expected):
    found = decode_image(encoded(array))
    np.testing.assert_array_equal(found, expected)
    assert (found.dtype, found.flags.writeable) == (np.uint8, True)


def png_that_claims(width, height):
    """A PNG whose header promises width x height pixels; Pillow warns from 89 million on."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + encoded(GREY)[33:]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is no image"),
        (b"<svg/>", "it is no image"),
        (png_that_claims(10_000, 5_001), "it has more than 50 megapixels"),
        (png_that_claims(10_000, 10_000), "it has more than 50 megapixels"),
        (png_that_claims(100_000, 100_000), "it has more than 50 megapixels"),
        (encoded(np.zeros((4, 4), np.float32), "tiff"), "floating-point numbers"),
        (encoded(COLORS[..., :3], "jpeg")[:-200], "Truncated File Read"),
    ],
)
def test_what_cannot_be_decoded_has_its_reason_in_words(data, reason):
    with pytest.raises(Exception) as caught:  # noqa: PT011 - Pillow raises many kinds
        decode_image(data)
    assert reason in reason_of(caught.value)
    assert "\n" not in reason_of(caught.value)


@pytest.mark.parametrize(
    ("array", "form", "options", "expected"),
    [
        (GREY.astype(np.uint16) * 16, "png", {}, "16-bit pixels reach 752 of 65535"),
        (GREY.astype(np.int32), "tiff", {}, "32-bit numbers of unknown range"),
        (COLORS[..., :3], "png", {"orientation": 6}, COLORS[::-1, :, :3].transpose(1, 0, 2)),
        (COLORS[..., :3], "tiff", {"orientation": 8}, COLORS[:, ::-1, :3].transpose(1, 0, 2)),
        (np.dstack([GREY * 0, GREY]), "png", {}, np.dstack([255 - GREY] * 3)),
    ],
    ids=["12 in 16 bits", "32 bits", "turned", "turned TIFF", "drawn in alpha alone"],
)
def test_what_the_file_says_of_its_pixels_counts(array, form, options, expected):
    if "orientation" in options:
        exif = Image.Exif()
        exif[0x0112] = options.pop("orientation")
        options["exif"] = exif
    data = encoded(array, form, **options)
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected):
            decode_image(data)
        return
    np.testing.assert_array_equal(decode_image(data), expected)
    with open_image(data) as image:
        assert upright_size(image) == expected.shape[1::-1]


def test_images_are_told_by_their_content_and_the_rest_is_counted(tmp_path):
    picture = encoded(GREY)
    heic = bytes(4) + b"ftypheic" + bytes(40)
    found = {"a.jfif": picture, "b.gif": encoded(GREY, "gif"), "c": picture, "d.JP2": picture, "e.heic": heic}
    others = {"notes.txt": b"P1 is a picture", "Thumbs.db": b"x", ".DS_Store": b"x", "empty": b""}
    for name, data in (found | others).items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "gone.jpg").symlink_to("nowhere")
    listing = list_files(FolderFiles(tmp_path))
    assert listing.names == sorted(found)
    assert listing.left_out == [("gone.jpg", "is a link to nothing")]
    assert listing.others == 2
    with pytest.raises(ValueError, match="HEIC"):
        decode_image(heic)


def test_names_of_macos_are_read_and_a_member_twice_is_named(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("Zo__/0.png", b"x")
    path.write_bytes(path.read_bytes().replace(b"Zo__", "Zo\u00eb".encode()))
    assert ZipFiles(path).names() == ["Zo\u00eb/0.png"]
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("a.png", b"x")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.png", b"y")
    with pytest.raises(UserError, match=r"member 'a\.png' is in it twice"):
        ZipFiles(path)


def test_an_archive_that_zipfile_cannot_read(tmp_path):
    """Of version 9.0, and with names that are not the UTF-8 that their flag promises."""
    whole = zipped(tmp_path / "x.zip", b"image").read_bytes()
    directory = whole.rindex(b"PK\x01\x02")
    for place, value in ((directory + 6, b"\x5a"), (directory + 9, b"\x08")):
        data = bytearray(whole)
        data[place : place + 1] = value
        (tmp_path / "x.zip").write_bytes(
            bytes(data[:directory]) + data[directory:].replace(b"a.png", b"\xff.png")
        )
        with pytest.raises(UserError, match=r"x\.zip: is neither a folder nor a readable \.zip file"):
            ZipFiles(tmp_path / "x.zip")
    if sys.platform != "win32":
        os.mkfifo(tmp_path / "pipe.zip")
        with pytest.raises(UserError, match=r"pipe\.zip: is neither"):
            find_images(tmp_path / "pipe.zip")
