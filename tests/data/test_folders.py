"""Image folders and .zip files: layout, order, sizes, colours, and all that must be refused."""

import csv
import io
import os
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facenas.data import open_image_set, prepare
from facenas.data.config import DataConfig
from facenas.data.parts import arrange
from facenas.errors import SearchStoppedError, UserError

REAL_ZIP = Path(__file__).parents[2].parent / "shared/data/images/cifar10_jpeg.zip"


def picture(seed, size=(12, 12), mode="RGB"):
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], len(mode))
    noise = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    return Image.fromarray(noise, mode)


def encoded(image, ending="png"):
    stream = io.BytesIO()
    image.save(stream, {"jpg": "jpeg", "pgm": "ppm"}.get(ending, ending))
    return stream.getvalue()


def write(root, files):
    """`files` (name -> bytes or image) as a folder, or as a .zip when `root` ends so."""
    contents = {n: v if isinstance(v, bytes) else encoded(v) for n, v in files.items()}
    if root.suffix == ".zip":
        with zipfile.ZipFile(root, "w") as archive:
            for name, content in contents.items():
                archive.writestr(name, content)
        return root
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def load(path, image_size=None):
    cache = path.parent / "cache"
    return open_image_set(prepare(DataConfig(name=str(path), image_size=image_size), cache))


def pets(per_class=5, **kwargs):
    return {
        f"{part}{name}/{i}.png": picture(100 * label + i, **kwargs)
        for part in ("train/", "test/")
        for label, name in enumerate(("cat", "dog"))
        for i in range(per_class)
    }


@pytest.fixture(params=["pets", "pets.zip"])
def target(request, tmp_path):
    """A path to write a set at: once a folder, once a .zip."""
    return tmp_path / request.param


def test_train_and_test_folders(target):
    found = load(write(target, pets()))
    assert found.name == "pets"
    assert found.classes == ("cat", "dog")
    assert found.train_images.shape == found.test_images.shape == (10, 12, 12, 3)
    assert found.train_labels.tolist() == [0] * 5 + [1] * 5
    for index, seed in enumerate([*range(5), *range(100, 105)]):
        np.testing.assert_array_equal(found.train_images[index], np.asarray(picture(seed)))
    assert (found.flip, found.crop_size, found.in_channels) == (True, 12, 3)
    pixels = found.train_images.reshape(-1, 3) / 255
    np.testing.assert_allclose(found.mean, pixels.mean(axis=0), atol=1e-9)
    np.testing.assert_allclose(found.std, pixels.std(axis=0), atol=1e-9)


def test_folder_and_zip_give_the_same_set(tmp_path):
    folder, archive = write(tmp_path / "pets", pets()), write(tmp_path / "pets.zip", pets())
    assert load(folder).fingerprint == load(archive).fingerprint


@pytest.mark.parametrize(
    ("train", "test"),
    [("train", "val"), ("train", "valid"), ("Train", "Test"), ("training", "testing")],
)
def test_other_names_of_the_parts(train, test, target):
    names = {"train": train, "test": test}
    files = {"/".join((names[k.split("/")[0]], *k.split("/")[1:])): v for k, v in pets().items()}
    found = load(write(target, files))
    assert found.classes == ("cat", "dog")
    assert (len(found.train_labels), len(found.test_labels)) == (10, 10)


def test_test_wins_over_val(target):
    extra = {f"val/{c}/x.png": picture(7) for c in ("cat", "dog")}
    assert len(load(write(target, pets() | extra)).test_labels) == 10


@pytest.mark.parametrize("top", ["", "train/", "wrapped/", "wrapped/train/"])
def test_a_fixed_stratified_fifth_is_held_out(top, target):
    files = {f"{top}{c}/{i}.png": picture(10 * i + ord(c)) for c in "ab" for i in range(10)}
    found = load(write(target, files))
    assert np.bincount(found.train_labels).tolist() == [8, 8]
    assert np.bincount(found.test_labels).tolist() == [2, 2]
    train = {image.tobytes() for image in found.train_images}
    assert not train & {image.tobytes() for image in found.test_images}


def test_a_wrapping_folder_and_what_lies_around_is_ignored(target):
    files = {f"top/{name}": image for name, image in pets().items()}
    files |= {
        "__MACOSX/top/train/cat/._0.png": b"resource fork",
        "top/.hidden/cat/0.png": b"",
        "top/train/cat/.0.png": b"",
        "top/train/cat/Thumbs.db": b"",
        "top/train/readme.png": b"",
        "top/labels.csv": b"",
        "top/unlabelled/0.png": b"",
    }
    assert len(load(write(target, files)).train_labels) == 10


def test_windows_backslashes_in_a_zip(tmp_path):
    path = tmp_path / "pets.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, image in pets().items():
            archive.writestr(name.replace("/", "\\"), encoded(image))
    assert load(path).classes == ("cat", "dog")


def test_order_does_not_depend_on_the_listing():
    names = [f"train/{c}/{i}.png" for c in ("ab", "a", "b") for i in range(9)]
    names += [f"test/{c}/0.png" for c in ("ab", "a", "b")]
    shuffled = random.Random(0).sample(names, len(names))
    plan = arrange(shuffled, Path("x"))
    assert plan == arrange(names, Path("x"))
    assert plan.classes == ("a", "ab", "b")
    assert [name for name, _ in plan.train] == sorted(names[:27], key=lambda n: n.split("/"))


@pytest.mark.parametrize("ending", ["jpg", "JPEG", "png", "bmp", "ppm", "webp", "tiff"])
def test_every_known_ending(ending, target):
    kind = ending.lower()
    image = Image.new("RGB", (8, 8), (200, 100, 50))
    files = {f"{c}/{i}.{ending}": encoded(image, kind) for c in "ab" for i in range(2)}
    found = load(write(target, files))
    assert np.abs(found.train_images[0, 4, 4].astype(int) - (200, 100, 50)).max() <= 3


def test_grey_only_when_all_are_grey(tmp_path):
    deep = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1024
    files = {
        "a/0.png": Image.fromarray(deep),
        "a/1.png": Image.fromarray((deep >> 8).astype(np.uint8)).convert("LA"),
        "b/0.pgm": encoded(Image.fromarray(deep), "pgm"),
        "b/1.png": Image.fromarray((deep >> 8).astype(np.uint8) > 127),
    }
    grey = load(write(tmp_path / "grey", files))
    assert grey.train_images.shape[3] == grey.test_images.shape[3] == 1
    images = [*grey.train_images[..., 0], *grey.test_images[..., 0]]
    expected = (deep >> 8).astype(np.uint8)
    assert sum(np.array_equal(image, expected) for image in images) == 3
    files["c/0.png"] = files["c/1.png"] = Image.new("RGB", (8, 8), (1, 2, 3))
    colour = load(write(tmp_path / "colour", files))
    assert colour.in_channels == 3
    first = colour.train_images[0]
    np.testing.assert_array_equal(first, np.repeat(first[..., :1], 3, axis=2))


def test_what_is_transparent_is_white_and_palettes_are_colour(target):
    see_through = picture(1, mode="RGBA")
    files = {f"{c}/{i}.png": see_through for c in "ab" for i in range(2)}
    files["a/0.png"] = picture(2).quantize(16)
    found = load(write(target, files))
    images = [*found.train_images, *found.test_images]
    rgb = np.asarray(Image.alpha_composite(Image.new("RGBA", (12, 12), "white"), see_through))[..., :3]
    assert sum(np.array_equal(image, rgb) for image in images) == 3


def test_resizing_is_pillows(target):
    files = {f"{c}/{i}.png": picture(i, size=(20, 14 + i)) for c in "ab" for i in range(3)}
    found = load(write(target, files), image_size=10)
    assert (found.image_size, found.crop_size) == (10, 10)
    expected = picture(0, size=(20, 14)).resize((10, 10), Image.Resampling.BILINEAR)
    images = [*found.train_images, *found.test_images]
    assert sum(np.array_equal(image, np.asarray(expected)) for image in images) == 2


def test_other_sizes_need_image_size(target):
    files = pets() | {"train/dog/4.png": picture(1, size=(12, 13))}
    with pytest.raises(UserError, match=r"dog/4.png is 12x13 .* others are 12x12; give data.image_size"):
        load(write(target, files))


def test_oblong_images_need_image_size(target):
    with pytest.raises(UserError, match=r"0.png is 12x9 pixels and not square; give data.image_size"):
        load(write(target, pets(size=(12, 9))))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "0 class"),
        ({"a/0.txt": b""}, "0 class"),
        ({"0.png": b"", "1.png": b""}, "0 class"),
        ({"a/0.png": b"", "a/1.png": b""}, "1 class.* where two or more are needed"),
        ({"a/0.png": b"", "b/0.png": b""}, "one image a class"),
        (
            {"train/a/0.png": b"", "train/b/0.png": b"", "test/c/0.png": b""},
            "class 'c' has test images but no training images",
        ),
        (
            {"train/a/0.png": b"", "train/b/0.png": b"", "test/0.png": b""},
            "test/ has images but no class folders",
        ),
    ],
)
def test_layouts_that_are_refused(files, message, target):
    if target.suffix != ".zip":
        target.mkdir()
    with pytest.raises(UserError, match=message) as caught:
        load(write(target, files))
    assert str(caught.value).startswith(f"{target}: ")
    assert "\n" not in str(caught.value)
    assert not [*(target.parent / "cache").glob("*"), *(target.parent / "cache").glob(".*")]


WHOLE = encoded(picture(3, size=(64, 64)), "jpg")
FLOATS = encoded(Image.fromarray(np.zeros((12, 12), np.float32)), "tiff")


BROKEN = {
    "empty": (b"", "it is no image"),
    "text": (b"hello", "it is no image"),
    "truncated": (WHOLE[: len(WHOLE) // 2], "truncated"),
    "floats": (FLOATS, "floating-point"),
}


def test_what_cannot_be_read_is_left_out_and_listed(target, caplog):
    broken = {f"train/dog/{i}.png": content for i, (content, _) in enumerate(BROKEN.values())}
    broken |= {"test/cat/1.png": b"no", "val/cat/0.png": b"no", "val/dog/0.png": picture(9, (64, 64))}
    config = DataConfig(name=str(write(target, pets(size=(64, 64)) | broken)))
    entry = prepare(config, target.parent / "cache")
    found = open_image_set(entry)
    assert found.train_labels.tolist() == [0] * 5 + [1, 1]
    assert (found.validation_images, found.test_labels.tolist()) == (1, [0] * 4 + [1] * 5)
    np.testing.assert_array_equal(found.train_images[5], np.asarray(picture(104, (64, 64))))
    np.testing.assert_array_equal(found.train_images[6], np.asarray(picture(9, (64, 64))))
    with (entry / "skipped.csv").open(encoding="utf-8", newline="") as file:
        listed = dict(csv.reader(file))
    assert listed.pop("source") == "reason"
    assert listed.keys() == {name for name, content in broken.items() if isinstance(content, bytes)}
    for i, (_, reason) in enumerate(BROKEN.values()):
        assert reason in listed[f"train/dog/{i}.png"]
    assert f"pets: 6 image(s) cannot be read and are left out; {entry / 'skipped.csv'} says why" in caplog.text
    with pytest.raises(SearchStoppedError, match=r"6 image\(s\) are left out"):
        prepare(config.model_copy(update={"strict": True}), target.parent / "cache")


def test_a_class_that_loses_all_its_images_is_an_error(tmp_path):
    root = write(tmp_path / "pets", pets() | {f"train/dog/{i}.png": b"no" for i in range(5)})
    fault = (
        r"none of the 5 training image\(s\) of class 'dog' can be read \(the first, train/dog/0.png: it is no"
    )
    with pytest.raises(UserError, match=fault):
        load(root)


def test_what_looks_wrong_is_told(tmp_path, caplog):
    caplog.set_level("INFO")
    files = {f"{c}/{i}.png": Image.new("RGB", (8, 8), (ord(c), i, 0)) for c in "ab" for i in range(4)}
    files |= {"test/a/0.png": files["a/1.png"]}
    files = {n if n.startswith("test") else f"train/{n}": image for n, image in files.items()}
    load(write(tmp_path / "odd", files | {"train/c/0.png": picture(1, (8, 8), "L"), "more/0.png": picture(2)}))
    assert caplog.messages == [
        "odd: 3 classes; 9 training and 1 test images (test/); smallest class c with 1",
        "odd: ignored: more/ with 1 image(s)",
        "odd: 1 test image(s) are training images too; what the test says flatters",
        "odd: 1 class(es) have one training image (c)",
        "odd: 2 class(es) have no test images (b, c)",
    ]
    caplog.clear()
    load(write(tmp_path / "plain", {name: image for name, image in files.items() if name.startswith("train")}))
    assert caplog.messages[0].endswith(
        "test images (a fixed fifth of the training images); smallest class a with 3"
    )
    assert "plain: every training image is of one color, so there is nothing to learn from" in caplog.messages


@pytest.mark.parametrize(
    "name", ["../evil.png", "train/../../evil.png", "/etc/evil.png", "..\\evil.png", "C:\\evil.png"]
)
def test_zip_members_that_climb_out_are_refused(name, tmp_path):
    path = write(tmp_path / "pets.zip", pets() | {name: picture(0)})
    with pytest.raises(UserError, match="points outside the archive; refused"):
        load(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "pets.zip"]


def test_a_corrupt_zip_member_is_named(tmp_path):
    path = write(tmp_path / "pets.zip", pets())
    content = path.read_bytes()
    image = encoded(picture(3))
    assert content.count(image) == 2
    path.write_bytes(content.replace(image, image[:60] + b"\xaa\xbb" + image[62:], 1))
    entry = prepare(DataConfig(name=str(path)), tmp_path / "cache")
    assert "train/cat/3.png,it is damaged in the archive" in (entry / "skipped.csv").read_text()


def test_what_is_no_zip_and_what_is_not_there(tmp_path):
    path = tmp_path / "pets.zip"
    path.write_bytes(b"PK\x03\x04 but no more")
    with pytest.raises(UserError, match=r"neither a folder nor a readable \.zip"):
        load(path)
    for name in ("no/such/folder", "gone.zip", str(tmp_path / "gone")):
        with pytest.raises(UserError, match="no such file or folder"):
            prepare(DataConfig(name=name), tmp_path / "cache")


def test_a_changed_folder_is_decoded_anew(tmp_path):
    root = write(tmp_path / "pets", pets())
    before = load(root)
    first = root / "train/cat/0.png"
    times = first.stat()
    first.write_bytes(encoded(picture(999)))
    os.utime(first, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    after = load(root)
    np.testing.assert_array_equal(after.train_images[0], np.asarray(picture(999)))
    assert before.fingerprint != after.fingerprint
    (root / "train/cat/1.png").unlink()
    assert len(load(root).train_labels) == 9


def test_a_part_of_the_real_cifar10_zip(tmp_path):
    if not REAL_ZIP.is_file():
        pytest.skip("needs the real images in ../shared/data/images/cifar10_jpeg.zip")
    few = tmp_path / "few.zip"
    with zipfile.ZipFile(REAL_ZIP) as whole, zipfile.ZipFile(few, "w") as archive:
        for name in whole.namelist():
            if name.endswith(("0000.jpg", "0001.jpg", "0002.jpg")):
                archive.writestr(name, whole.read(name))
    found = load(few)
    assert found.train_images.shape == found.test_images.shape == (30, 32, 32, 3)
    assert found.classes[:3] == ("airplane", "automobile", "bird")
    with zipfile.ZipFile(few) as archive:
        ship = np.asarray(Image.open(archive.open("test/ship/0001.jpg")))
    np.testing.assert_array_equal(found.test_images[8 * 3 + 1], ship)
