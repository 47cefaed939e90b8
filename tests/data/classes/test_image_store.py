"""Stores of images by class: what goes in comes out, in the parts and classes of the same folder in memory."""

from __future__ import annotations

import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from facenas.data import DataConfig, open_data, open_image_set, prepare
from facenas.data.classes.crops import as_jpeg, decode_jpeg
from facenas.data.classes.importing import import_classes
from facenas.data.classes.store import ImageStore, check_images, describe_store, open_image_store
from facenas.errors import UserError

ORIENTATION = 0x0112


def picture(seed: int, height: int, width: int, grey: bool = False) -> Image.Image:
    """A smooth pattern on a color of its own."""
    rng = np.random.default_rng(seed)
    pattern = rng.integers(40, 180, 3) + rng.integers(-40, 40, (5, 5, 3))
    small = Image.fromarray(pattern.astype(np.uint8)).convert("L" if grey else "RGB")
    return small.resize((width, height), Image.Resampling.BICUBIC)


def file_of(image: Image.Image, kind: str = "jpeg", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def write(root, files: dict[str, bytes]):
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def plain_set(parts=("train", "val", "test"), each=3, grey=False) -> dict[str, bytes]:
    """<part>/<class>/<number>.jpg of many sizes; without parts, <class>/<number>.jpg."""
    names = [f"{part}/{c}/{i}.jpg" for part in parts or [""] for c in ("cat", "dog") for i in range(each)]
    sizes = np.random.default_rng(0).integers(20, 70, (len(names), 2)).tolist()
    made = zip(names, sizes, strict=True)
    return {name.lstrip("/"): file_of(picture(i, *size, grey)) for i, (name, size) in enumerate(made)}


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "photos", plain_set())


def sentence(function, *arguments) -> str:
    with pytest.raises(UserError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_jpeg_is_kept_and_all_else_is_encoded_upright(tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    turned, cmyk = picture(1, 30, 50), picture(2, 30, 50).convert("CMYK")
    files = {"plain.jpg": file_of(picture(0, 30, 50)), "turned.jpg": file_of(turned, exif=exif, quality=98)}
    files |= {"cmyk.jpg": file_of(cmyk, quality=98), "color.png": file_of(picture(3, 30, 50), "png")}
    files |= {"grey.png": file_of(picture(4, 30, 50, grey=True), "png")}
    root = write(tmp_path / "set", {f"a/{name}": data for name, data in files.items()} | plain_set(()))
    told = import_classes(root, tmp_path / "a.zarr")
    assert (told["encoded"], told["skipped"]) == (4, 0)
    store = open_image_store(tmp_path / "a.zarr")
    stored = [bytes(data) for data in store.encoded(np.arange(sum(store.about.images)))]
    assert files["plain.jpg"] in stored
    assert stored.count(files["turned.jpg"]) == 0
    assert (store.sizes == [50, 30]).all(axis=1).sum() == 1, "the one that stood on its side"
    upright = as_jpeg(files["turned.jpg"])
    shown = np.asarray(turned.transpose(Image.Transpose.ROTATE_270)).astype(int)
    assert np.abs(decode_jpeg(upright.data, upright.size) - shown).mean() < 4
    grey = as_jpeg(files["grey.png"])
    assert grey.grey
    assert grey.size == (30, 50)


@pytest.mark.parametrize("parts", [("train", "val", "test"), ("train", "test"), ()])
def test_parts_classes_and_order_are_those_of_the_folder_in_memory(tmp_path, parts):
    root = write(tmp_path / "set", plain_set(parts, each=6))
    import_classes(root, tmp_path / "a.zarr")
    store = open_data(prepare(DataConfig(name=str(tmp_path / "a.zarr"))), 16)
    known = open_image_set(prepare(DataConfig(name=str(root), image_size=16), tmp_path / "cache"))
    assert isinstance(store, ImageStore)
    for name in ("classes", "validation_images", "in_channels", "image_size", "flip"):
        assert getattr(store, name) == getattr(known, name)
    assert (store.train_labels == known.train_labels).all()
    assert (store.test_labels == known.test_labels).all()
    # The same images at the same places: each has a color of its own.
    middles = store.read_centers(np.arange(sum(store.about.images)), 1.0)
    squeezed = np.concatenate([known.train_images, known.test_images])
    assert np.abs(middles.mean((1, 2)) - squeezed.mean((1, 2))).max() < 20
    assert np.allclose(store.mean, known.mean, atol=0.05)
    assert np.allclose(store.std, known.std, atol=0.05)


def test_folder_zip_and_list_give_the_same_store(tmp_path, folder):
    shutil.make_archive(str(tmp_path / "photos"), "zip", folder)
    rows = [(path.relative_to(tmp_path), path.parts[-2], path.parts[-3]) for path in folder.rglob("*.jpg")]
    lines = [f"{name},{label},{part}" for name, label, part in sorted(rows)]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,split", *lines]))
    fingerprints = set()
    for source, workers in (("photos", 1), ("photos.zip", 2), ("list.csv", 1)):
        told = import_classes(tmp_path / source, tmp_path / "a.zarr", True, workers)
        assert (told["training_images"], told["validation_images"], told["test_images"]) == (6, 6, 6)
        fingerprints.add(check_images(tmp_path / "a.zarr")["fingerprint"])
    assert len(fingerprints) == 1
    # In memory, the list says the same.
    known = open_image_set(prepare(DataConfig(name=str(tmp_path / "list.csv"), image_size=16), tmp_path / "c"))
    assert (len(known.train_labels), known.validation_images, len(known.test_labels)) == (12, 6, 6)


def test_grey_sets_have_one_channel(tmp_path):
    import_classes(write(tmp_path / "set", plain_set(grey=True)), tmp_path / "a.zarr")
    store = open_image_store(tmp_path / "a.zarr", 16)
    assert (store.in_channels, len(store.mean)) == (1, 1)
    assert store.read_centers(np.arange(4), 0.875).shape == (4, 16, 16, 1)


def test_squares_of_one_size_are_seen_at_it(tmp_path):
    squares = {name: file_of(picture(i, 32, 32)) for i, name in enumerate(plain_set())}
    import_classes(write(tmp_path / "set", squares), tmp_path / "a.zarr")
    store = open_image_store(tmp_path / "a.zarr")
    assert store.image_size == 32
    assert describe_store(tmp_path / "a.zarr")["image_size"] == 32
    whole = decode_jpeg(store.encoded(np.arange(1))[0], (32, 32))
    assert (store.read_centers(np.arange(1), 1.0)[0] == whole).all()
    other = open_image_store(tmp_path / "a.zarr", 24)
    assert other.fingerprint != store.fingerprint, "a trial on images of another size is another trial"


def test_what_cannot_be_read_is_left_out_and_named(tmp_path, folder, caplog):
    whole = (folder / "train/cat/0.jpg").read_bytes()
    write(folder, {"train/cat/half.jpg": whole[: len(whole) // 2], "test/dog/text.jpg": b"text"})
    shutil.copy(folder / "train/cat/1.jpg", folder / "test/dog/again.jpg")
    with caplog.at_level("INFO", "facenas"):
        told = import_classes(folder, tmp_path / "a.zarr")
    assert told["skipped"] == 2
    skipped = (tmp_path / "a.zarr/skipped.csv").read_text()
    assert "train/cat/half.jpg,Truncated File Read" in skipped
    assert "test/dog/text.jpg,it is no image" in skipped
    assert "a: 2 classes; 6 training, 6 validation and 7 test images (test/)" in caplog.text
    assert "1 test image(s) are training images too" in caplog.text


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("train/cat", "none of the 3 training image(s) of class 'cat' can be read (the first, train/cat/0.jpg"),
        ("val", "none of its validation images can be read (the first, val/cat/0.jpg"),
        ("test", "none of its test images can be read (the first, test/cat/0.jpg"),
    ],
)
def test_a_class_or_a_part_that_loses_all_its_images_is_refused(tmp_path, folder, gone, message):
    for path in (folder / gone).rglob("*.jpg"):
        path.write_bytes(b"text")
    assert message in sentence(import_classes, folder, tmp_path / "a.zarr")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos"]


def test_sources_that_make_no_set_are_refused(tmp_path, folder, faces):
    write(tmp_path / "one", {"a/1.jpg": b"", "a/2.jpg": b""})
    (tmp_path / "words.csv").write_text("path,label,split\na.jpg,cat,training\nb.jpg,dog,maybe\n")
    (tmp_path / "lone.csv").write_text("path,label,split\na.jpg,cat,train\nb.jpg,dog,test\n")
    messages = {
        "gone": "no such file or folder",
        "one": "holds images of 1 class(es)",
        "words.csv": "line 3 tells the part 'maybe', which is not train, val or test",
        "lone.csv": "class 'dog' has test images but no training images",
    }
    for name, message in messages.items():
        assert message in sentence(import_classes, tmp_path / name, tmp_path / "a.zarr")
    assert "no store of images by class, so it is not overwritten" in sentence(
        import_classes, folder, faces, True
    )


def test_damage_is_found(tmp_path, folder):
    path = tmp_path / "a.zarr"
    import_classes(folder, path)
    store = open_image_store(path, 16)
    assert "is there already" in sentence(import_classes, folder, path)

    shard = next((path / "jpeg").rglob("0"))
    shard = shard if shard.is_file() else next(p for p in (path / "jpeg/c").rglob("*") if p.is_file())
    data = bytearray(shard.read_bytes())
    start = int(store.arrays["offsets"].span(4, 5)[0])
    data[start : start + 2] = b"no"
    shard.write_bytes(bytes(data))
    assert "image 4 is damaged" in sentence(check_images, path)
    assert "image 4 is damaged" in sentence(open_image_store(path, 16).read_centers, np.arange(5), 1.0)

    tree = json.loads((path / "zarr.json").read_text())
    for changed, message in (
        ({"version": 2}, "is an image store of format 2, but this facenas reads 1"),
        ({"images": [6, 6, 7]}, "should have 19 labels but has 18"),
        ({"std": [0.1, 0, 0.1]}, "import it anew"),
        ({"format": "other"}, "is no store of images by class"),
    ):
        attributes = tree["attributes"] | changed
        (path / "zarr.json").write_text(json.dumps(tree | {"attributes": attributes}))
        assert message in sentence(open_image_store, path)
