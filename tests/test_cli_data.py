"""`facenas data import|info|check` as a user runs them."""

import io
import json
import os
import shutil
import subprocess
import sys

import pytest
from PIL import Image


@pytest.fixture
def people(tmp_path):
    """Three faces of two identities, and a text that is called .jpg."""
    for name in ("ann/0.jpg", "ann/1.jpg", "bob/0.jpg"):
        stream = io.BytesIO()
        Image.new("RGB", (112, 112), (9 * len(name), 50, 90)).save(stream, "jpeg")
        (tmp_path / "people" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "people" / name).write_bytes(stream.getvalue())
    (tmp_path / "people/bob/1.jpg").write_text("text")
    return tmp_path / "people"


def test_import_info_check(facenas, people, tmp_path):
    done = facenas("data", "import", "people", "out.zarr", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told.keys() == {
        "store",
        "images",
        "identities",
        "skipped",
        "encoded",
        "resized",
        "seconds",
    }
    assert (told["images"], told["identities"], told["skipped"]) == (3, 2, 1)
    assert "out: 2 identities, 3 images, of one identity 1 to 2" in done.stderr
    assert "out: 1 identity has one image, which makes no genuine pair" in done.stderr
    strict = facenas("data", "import", "people", "out.zarr", "--overwrite", "--strict")
    assert strict.returncode == 1
    assert "people: 1 image(s) are left out; out.zarr/skipped.csv says why" in strict.stderr
    assert "1 image skipped; out.zarr/skipped.csv says why" in done.stderr
    info = json.loads(facenas("data", "info", "out.zarr", "--json").stdout)
    assert (info["layout"], info["color"], info["source"]) == ("jpeg", "RGB", "folder people")
    assert (info["images_per_identity_min"], info["images_per_identity_max"]) == (1, 2)
    files = (path for path in (tmp_path / "out.zarr").rglob("*") if path.is_file())
    assert info["bytes"] == sum(path.stat().st_size for path in files)
    checked = facenas("data", "check", "out.zarr", "--json")
    assert json.loads(checked.stdout)["fingerprint"] == info["fingerprint"]
    assert "identities: 2\n" in facenas("data", "info", "out.zarr").stdout
    shutil.copy(people / "ann/0.jpg", people / "bob/2.jpg")
    classes = facenas("data", "info", "people", "--json")  # as classes
    assert json.loads(classes.stdout)["classes"] == 2, classes.stderr
    assert facenas("data", "info", "people", "--strict").returncode == 1


def test_faults_are_one_sentence_and_code_2(facenas, people, tmp_path):
    assert facenas("data", "import", "people", "out.zarr", "--layout", "raw").returncode == 0
    shard = tmp_path / "out.zarr/pixels/c/0/0/0/0"
    with shard.open("r+b") as file:
        file.write(b"\1")
    commands = {
        ("import", "people", "out.zarr"): "is there already; overwrite (--overwrite) replaces it",
        ("import", "people", "b.zarr", "--layout", "png"): "--layout png: should be jpeg or raw",
        ("import", "nobody", "b.zarr"): "nobody: no such file or folder",
        ("check", "out.zarr"): "contents do not match its fingerprint",
        ("info", "nobody"): "unknown data set; there are",
    }
    for command, message in commands.items():
        done = facenas("data", *command)
        assert done.returncode == 2
        assert message in done.stderr
        assert done.stderr.startswith("facenas: ")
        assert done.stderr.count("\n") == 1
    assert sorted(os.listdir(tmp_path)) == ["out.zarr", "people"]
    assert facenas("data", "import", "people", "out.zarr", "--overwrite").returncode == 0
    assert facenas("data", "check", "out.zarr").returncode == 0


def test_stores_and_help_need_no_torch(people, tmp_path):
    """Importing torch takes seconds; a machine that only keeps stores can do without it."""
    shutil.copy(people / "ann/0.jpg", people / "bob/2.jpg")
    program = (
        "import sys; sys.modules['torch'] = sys.modules['torchvision'] = None\n"
        "import facenas.data\n"
        "from facenas.cli import main\n"
        "main()"
    )
    for words in (
        ["--help"],
        ["data", "--help"],
        ["data", "demo", "demo.zarr", "--identities", "2", "--images", "2"],
        ["data", "import", "people", "out.zarr"],
        ["data", "info", "out.zarr"],
        ["data", "import", "people", "classes.zarr", "--classes"],
        ["data", "check", "out.zarr"],
    ):
        command = [sys.executable, "-c", program, *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_stores_of_images_by_class(facenas, people, tmp_path):
    Image.new("RGB", (40, 30)).save(people / "bob/2.png")
    done = facenas("data", "import", "people", "out.zarr", "--classes", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["training_images"], told["validation_images"], told["test_images"]) == (2, 0, 2)
    assert (told["classes"], told["skipped"], told["encoded"]) == (2, 1, 1)
    assert "test images (a fixed fifth of the training images)" in done.stderr
    info = json.loads(facenas("data", "info", "out.zarr", "--json").stdout)
    assert (info["classes"], info["image_size"]) == (2, 224)
    checked = facenas("data", "check", "out.zarr", "--json")
    assert json.loads(checked.stdout)["fingerprint"] == info["fingerprint"]
    assert (
        facenas("data", "import", "people", "out.zarr", "--classes", "--overwrite", "--strict").returncode == 1
    )
    raw = facenas("data", "import", "people", "raw.zarr", "--classes", "--layout", "raw")
    assert (raw.returncode, raw.stderr.count("\n")) == (2, 1)
