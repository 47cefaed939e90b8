"""Images of a bench out of folders and .zip files: pixels, fingerprints, threads, and what is refused."""

from __future__ import annotations

import os
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from bench_files import encoded, face, faces, write

from facenas.data.images import open_files
from facenas.data.lists import locate
from facenas.errors import UserError
from facenas.evaluation.benches.images import EncodedImages, file_images
from facenas.evaluation.benches.pair_lists import plain_path

NAMES = [f"person {i % 5}/{i}.{('jpg', 'png', 'bmp')[i % 3]}" for i in range(30)]


@pytest.fixture(params=["folder", "stored.zip", "deflated.zip"])
def target(request, tmp_path):
    """Writes files as a folder or .zip and opens them."""

    def write_and_open(contents):
        how = zipfile.ZIP_DEFLATED if "deflated" in request.param else zipfile.ZIP_STORED
        return open_files(write(tmp_path / request.param, contents, how))

    return write_and_open


def read(images, *numbers):
    return images.read(np.array(numbers or range(len(images)), np.int64))


def test_pixels_are_rgb_in_the_order_asked_for(target):
    images = file_images(target(faces(NAMES)), NAMES)
    found = read(images, 7, 0, 29)
    assert found.shape == (3, 112, 112, 3)
    assert (found.dtype, found.flags.c_contiguous, len(images)) == (np.uint8, True, 30)
    for row, number in enumerate((7, 0, 29)):
        exact = not NAMES[number].endswith("jpg")
        np.testing.assert_allclose(found[row].astype(int), face(number).astype(int), atol=0 if exact else 12)


def test_threads_read_what_one_reads(target):
    images = file_images(target(faces(NAMES)), NAMES)
    alone = read(images)
    orders = [np.random.default_rng(seed).permutation(30) for seed in range(12)]
    with ThreadPoolExecutor(8) as pool:
        for order, found in zip(orders, pool.map(images.read, orders), strict=True):
            np.testing.assert_array_equal(found, alone[order])


def test_grey_and_transparent_images_become_rgb(target):
    grey = face(0)[..., 0]
    alpha = np.dstack([face(1), grey])
    images = file_images(
        target({"a.jpg": encoded(grey), "b.png": encoded(grey, "png"), "c.png": encoded(alpha, "png")}),
        ["a.jpg", "b.png", "c.png"],
    )  # fmt: skip
    found = read(images)
    np.testing.assert_array_equal(found[1], np.dstack([grey] * 3))
    on_white = np.rint(face(1) * (grey[..., None] / 255) + 255.0 - grey[..., None])
    np.testing.assert_array_equal(found[2], on_white)
    assert (found[0] == found[0][..., :1]).all()


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (encoded(face(0, 250)), "it is 250x250 pixels, not 112x112; align .* `facenas align`"),
        (encoded(face(0, 64), "png"), "it is 64x64 pixels, not 112x112"),
        (encoded(face(0))[:900], "damaged"),
        (encoded(face(0), "png")[:900], "damaged"),
        (b"", "it is no image"),
        (b"GIF89a" + bytes(50), "it is no image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "it is no image"),
    ],
)
def test_what_is_no_aligned_face_is_named(target, content, fault):
    images = file_images(target({"a/1.jpg": encoded(face(1)), "a/2.jpg": content}), ["a/1.jpg", "a/2.jpg"])
    read(images, 0)
    with pytest.raises(UserError, match=rf"a/2\.jpg: .*{fault}") as raised:
        read(images, 0, 1)
    assert "\n" not in str(raised.value)


def test_a_file_gone_since_is_named(tmp_path):
    write(tmp_path / "in", faces(["a/1.jpg"]))
    images = file_images(open_files(tmp_path / "in"), ["a/1.jpg"])
    (tmp_path / "in" / "a" / "1.jpg").unlink()
    with pytest.raises(UserError, match=r"a/1\.jpg: it cannot be read \(No such file"):
        read(images)
    with pytest.raises(UserError, match=r"a/1\.jpg: cannot be read"):
        file_images(open_files(tmp_path / "in"), ["a/1.jpg"])


def test_the_fingerprint_follows_the_files(tmp_path):
    names = NAMES[:3]
    contents = faces(names)
    folder, archive = (write(tmp_path / name, contents) for name in ("in", "in.zip"))
    prints = {path: file_images(open_files(path), names).fingerprint for path in (folder, archive)}
    for path in (folder, archive):
        assert file_images(open_files(path), names).fingerprint == prints[path]
        assert file_images(open_files(path), names[::-1]).fingerprint != prints[path]
    os.utime(folder / names[0], ns=(1, 1))
    assert file_images(open_files(folder), names).fingerprint != prints[folder]
    write(archive, contents | {names[1]: encoded(face(99), "png")})
    assert file_images(open_files(archive), names).fingerprint != prints[archive]


def test_images_in_memory(tmp_path):
    items = [encoded(face(i)) for i in range(3)]
    images = EncodedImages("abcd", [*items, b"no"].__getitem__, tmp_path / "x.bin", "f")
    tree = file_images(open_files(write(tmp_path / "in", dict(zip("abc", items, strict=True)))), "abc")
    np.testing.assert_array_equal(read(images, 2, 0), read(tree, 2, 0))
    with pytest.raises(UserError, match=r"x\.bin: d: it is no image"):
        read(images)


def test_listed_images_are_found_however_deep_they_lie(target):
    files = target(faces(["a/b/p/1.jpg", "a/b/q/1.png", "a/b/q/2.jpg", "other/9.jpg"]))
    assert locate(files, ["p/1.jpg", "q/1.jpg"]) == ["a/b/p/1.jpg", "a/b/q/1.png"]
    assert locate(files, ["Data/Images/p/1.jpg", "Data/Images/q/2.jpg"]) == [
        "a/b/p/1.jpg",
        "a/b/q/2.jpg",
    ]
    assert locate(files, ["a/b/p/1.jpg", "a/b/q/7.jpg"]) == ["a/b/p/1.jpg", None]
    assert locate(files, ["x/1.jpg", "y/1.jpg"]) == [None, None]


def test_an_exact_name_goes_before_another_ending(target):
    files = target(faces(["p/1.png", "p/1.jpg", "p/2.png"]))
    assert locate(files, ["p/1.jpg", "p/2.jpg"]) == ["p/1.jpg", "p/2.png"]
    assert locate(files, ["p/1.png"]) == ["p/1.png"]


def test_two_folders_that_fit_are_named(target):
    files = target(faces(["raw/p/1.jpg", "crops/p/1.jpg"]))
    with pytest.raises(UserError, match=r"holds the listed images twice, in .*crops/.*raw/"):
        locate(files, ["p/1.jpg"])
    assert locate(files, ["crops/p/1.jpg"]) == ["crops/p/1.jpg"]


def test_the_folder_given_goes_before_one_within_it(target):
    files = target(faces(["p/1.jpg", "more/p/1.jpg", "more/p/2.jpg"]))
    assert locate(files, ["p/1.jpg"]) == ["p/1.jpg"]
    assert locate(files, ["p/1.jpg", "p/2.jpg"]) == ["more/p/1.jpg", "more/p/2.jpg"]


def test_listed_paths_are_made_plain():
    assert plain_path("..\\Data/./Images//001/frontal/01.jpg") == "Data/Images/001/frontal/01.jpg"
