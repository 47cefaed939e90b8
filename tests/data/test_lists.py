"""Lists of images as people write them, for faces and for classes; arrays in a .npz file."""

import io

import numpy as np
import pytest
from PIL import Image

from facenas.data import DataConfig, open_image_set, prepare
from facenas.data.arrays import from_npz
from facenas.data.faces.sources import open_source
from facenas.data.lists import read_list, refuse_repeated
from facenas.errors import UserError

ROWS = [(f"im g/{i}.png", "ab"[i % 2]) for i in range(10)]


def text(separator, form="{0}{s}{1}", rows=ROWS, end="\n"):
    return "".join(form.format(*row, s=separator, k=k) + end for k, row in enumerate(rows))


@pytest.fixture
def folder(tmp_path):
    """Ten images of 8x8 pixels, each of another brightness."""
    (tmp_path / "im g").mkdir()
    for i in range(10):
        Image.new("L", (8, 8), 20 * i).save(tmp_path / f"im g/{i}.png")
    return tmp_path


FORMS = {
    "plain.csv": text(","),
    "CAPITALS.CSV": text(","),
    "semicolons.csv": text(";"),
    "spaces.csv": text(" "),
    "quoted.csv": text(",", '"{0}"{s}"{1}"'),
    "header.csv": "path,label\n" + text(","),
    "bom.csv": "\ufeffImage,Identity\r\n" + text(",", end="\r\n"),
    "windows.csv": text(",").replace("/", "\\"),
    "text.txt": text(" "),
    "tabs.tsv": text("\t"),
    "im2rec.lst": text("\t", "{k}{s}{1}{s}{0}"),
    "insightface.lst": text("\t", "1{s}{0}{s}{k}").replace("\t1\n", "\t1.000000\n"),
}


def test_every_form_of_a_list_says_the_same(folder):
    for name, content in FORMS.items():
        (folder / name).write_bytes(content.encode())
        labels = [str(i) for i in range(10)] if name == "insightface.lst" else [label for _, label in ROWS]
        source = open_source(folder / name)
        items = list(source.items())
        assert [item.identity for item in items] == labels, name
        assert source.total == 10
        brightness = [Image.open(io.BytesIO(item.load()[1])).getpixel((0, 0)) for item in items]
        assert brightness == [20 * i for i in range(10)], name


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (text(",") + "im g/3.png,a\n", "lines 4 and 11 both list im g/3.png, as 'b' and 'a'"),
        (text(",") + "./im g\\3.png,b\n", "lines 4 and 11 both list"),
        ("a.png,1,2\n", "line 1 is not"),
        ("a.png,1\nb.png\n", "line 2 is not"),
    ],
)
def test_faulty_lists_name_the_line(folder, content, fault):
    (folder / "x.csv").write_text(content)
    with pytest.raises(UserError, match=rf"x\.csv: {fault}"):
        open_source(folder / "x.csv")


def test_a_list_is_a_set_of_classes_too(folder):
    listed = text(",", rows=[(path.removeprefix("im g/"), 10 - 8 * (label == "a")) for path, label in ROWS])
    (folder / "labels.csv").write_text("file,label\n" + listed)  # the images lie one folder deeper
    config = DataConfig(name=str(folder / "labels.csv"))
    found = open_image_set(prepare(config, folder / "cache"))
    assert found.classes == ("2", "10")
    brightness = np.concatenate([found.train_images, found.test_images])[:, 0, 0, 0] // 20
    labels = np.concatenate([found.train_labels, found.test_labels])
    assert sorted(brightness) == list(range(10))
    assert (labels == brightness % 2).all()
    (folder / "im g/7.png").unlink()
    with pytest.raises(UserError, match=r"line 9 lists 7\.png, which is not there; in all 1 of 10 images"):
        prepare(config, folder / "cache")


def test_accents_of_one_letter_or_two_are_the_same(tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "Zoe\u0308.png")
    (tmp_path / "x.csv").write_text("Zo\u00eb.png,Zoe\u0308\n", encoding="utf-8")
    (item,) = open_source(tmp_path / "x.csv").items()
    assert (item.load()[1][:4], item.identity) == (b"\x89PNG", "Zo\u00eb")
    assert refuse_repeated(tmp_path / "x.csv") == len(list(read_list(tmp_path / "x.csv"))) == 1


def test_arrays_in_a_file(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "some.npz", X=images, y=np.arange(20)[:, None] % 2)
    np.savez(
        tmp_path / "four.npz", x_train=images, y_train=np.arange(20) % 2, x_test=images[:4], y_test=[0, 1, 0, 1]
    )
    np.savez(tmp_path / "other.npz", pictures=images)
    np.savez(tmp_path / "objects.npz", x=np.array([{}]), y=np.arange(1))
    (tmp_path / "torn.npz").write_bytes((tmp_path / "some.npz").read_bytes()[:200])

    def sizes(name):
        found = open_image_set(prepare(DataConfig(name=str(tmp_path / name)), tmp_path / "cache"))
        return found.name, len(found.train_labels), len(found.test_labels)

    assert sizes("some.npz") == ("some", 16, 4)
    assert sizes("four.npz") == ("four", 20, 4)
    for name, fault in (
        ("other.npz", "holds pictures, where images and labels"),
        ("objects.npz", "is no readable .npz file"),
        ("torn.npz", "is no readable .npz file"),
    ):
        with pytest.raises(UserError, match=f"{name}: {fault}"):
            sizes(name)


def test_arrays_that_unpack_to_far_more_than_the_file_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("facenas.data.arrays._PLAUSIBLE", 1000)
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((200, 16, 16, 3), np.uint8), y=np.arange(200) % 2)
    with pytest.raises(UserError, match=r"a\.npz: .* bytes are packed to a small part of that"):
        from_npz(tmp_path / "a.npz", None, tmp_path / "cache")
