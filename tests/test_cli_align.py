"""`facenas align`: crops, what is skipped, going on, and faults; with YuNet on LFW when they are at hand."""

import csv
import errno
import io
import json
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from facenas.cli.faces import register
from facenas.data.faces import align as align_module
from facenas.data.faces.align import REFERENCE, crop_names
from facenas.data.faces.detection import Face
from facenas.data.faces.importing import import_faces
from facenas.data.faces.store import decode_jpeg, encode_jpeg
from facenas.data.images import FolderFiles
from facenas.errors import UserError

SHARED = Path(__file__).parents[1].parent / "shared/data"
YUNET = SHARED / "models/face_detection_yunet_2023mar.onnx"
NETWORK = SHARED / "models/mobilefacenet_y1.onnx"
LFW = SHARED / "faces/lfw_112x112.zip"
needs_data = pytest.mark.skipif(
    not all(path.exists() for path in (YUNET, NETWORK, LFW)),
    reason="YuNet, MobileFaceNet or the LFW crops are missing",
)
app = typer.Typer()
register(app)


class GreyDetector:
    """Finds as many faces as the image's first red value says, the largest first, at places of its own."""

    fingerprint = "grey"

    def __init__(self, _):
        pass

    def is_upright(self, crop):
        return True

    def __call__(self, image):
        count = int(image[0, 0, 0]) // 10
        return [Face(np.array([0, 0, 9 - i, 9 - i]), REFERENCE + 3.0 * i, 1.0) for i in range(count)]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def grey(here, monkeypatch):
    """Photographs in folders with none, one, one and three faces, and two files that are no images."""
    (here / "yunet.onnx").write_bytes(b"stand-in")
    monkeypatch.setattr(align_module, "Detector", GreyDetector)
    for name, count in (("a.png", 0), ("b/one.png", 1), ("b/one.jpeg", 1), ("b/c/three.png", 3)):
        path = here / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = np.random.default_rng(count).integers(0, 256, (160, 140, 3), np.uint8)
        image[:16, :16] = 10 * count + 2
        Image.fromarray(image).save(path, **({"quality": 100} if name.endswith("jpeg") else {}))
    (here / "photos/text.jpg").write_text("text")
    (here / "photos/b/cut.png").write_bytes((here / "photos/b/one.png").read_bytes()[:999])
    (here / "photos/notes.txt").write_text("no image by name")
    return here


def run(*arguments):
    """What a command prints as JSON; UserError passes through."""
    done = CliRunner().invoke(app, ["align", *arguments, "--json"])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout.splitlines()[-1])


def crops(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg"))


def skipped(folder):
    with (folder / "skipped.csv").open(encoding="utf-8", newline="") as file:
        return dict(csv.reader(file))


def test_the_tree_is_kept_and_nothing_is_lost(grey):
    told = run("photos", "out", "--detector", "yunet.onnx")
    assert told.keys() == {"out", "images", "faces", "skipped", "several", "gone", "kept", "seconds"}
    assert [told[key] for key in ("images", "faces", "skipped", "gone", "kept")] == [6, 3, 3, 0, 0]
    assert crops(grey / "out") == ["b/c/three.jpg", "b/one.jpeg.jpg", "b/one.png.jpg"]
    found = skipped(grey / "out")
    assert found.pop("b/cut.png")
    assert found == {
        "file": "reason",
        "a.png": "no face was found in it",
        "text.jpg": "it is no image",
    }


def test_all_faces(grey):
    told = run("photos", "out", "--faces", "all", "--detector", "yunet.onnx", "--workers", "2")
    assert (told["faces"], told["skipped"]) == (5, 3)
    three = [f"b/c/three_{number}.jpg" for number in (1, 2, 3)]
    assert crops(grey / "out") == [*three, "b/one.jpeg_1.jpg", "b/one.png_1.jpg"]
    image = np.asarray(Image.open(grey / "photos/b/c/three.png"))
    for number, name in enumerate(three):  # landmarks 3 pixels on: the picture itself, 3 pixels on
        crop = decode_jpeg((grey / "out" / name).read_bytes()).astype(int)
        part = image[3 * number : 3 * number + 112, 3 * number : 3 * number + 112]
        assert np.abs(crop - part).mean() < 5  # of noise, in JPEG


def test_a_zip_gives_the_same_crops(grey):
    with zipfile.ZipFile("photos.zip", "w") as archive:
        for path in (grey / "photos").rglob("*.*"):
            archive.write(path, path.relative_to(grey / "photos"))
    run("photos", "a", "--detector", "yunet.onnx")
    run("photos.zip", "b", "--detector", "yunet.onnx")
    assert crops(grey / "a") == crops(grey / "b")
    for name in crops(grey / "a"):
        assert (grey / "a" / name).read_bytes() == (grey / "b" / name).read_bytes()


def test_it_goes_on_where_it_was_stopped(grey, monkeypatch):
    write, written = align_module._write, []

    def full(path, data):
        if len(written) == 2:
            raise UserError(f"{path}: cannot be written (No space left on device)")
        written.append(path)
        write(path, data)

    command = ("photos", "out", "--faces", "all", "--detector", "yunet.onnx", "--workers", "1")
    monkeypatch.setattr(align_module, "_write", full)
    with pytest.raises(UserError, match="No space left"):
        run(*command)
    assert crops(grey / "out") == ["b/c/three_1.jpg", "b/c/three_2.jpg"]
    monkeypatch.setattr(align_module, "_write", write)
    told = run(*command)
    assert (told["faces"], told["kept"]) == (5, 0)
    (grey / "out/b/c/three_1.jpg").write_bytes(b"")  # as a power failure leaves it
    (grey / "photos/text.jpg").unlink()
    told = run(*command)
    assert (told["images"], told["faces"], told["kept"], told["skipped"]) == (5, 5, 2, 2)
    assert "text.jpg" not in skipped(grey / "out")
    assert decode_jpeg((grey / "out/b/c/three_1.jpg").read_bytes()).shape == (112, 112, 3)


def test_what_has_changed_is_aligned_anew_and_crops_of_what_is_gone_are_told(grey, caplog):
    command = ("photos", "out", "--faces", "all", "--detector", "yunet.onnx")
    run(*command)
    image = np.array(Image.open(grey / "photos/b/one.png"))
    Image.fromarray(np.ascontiguousarray(image[::-1])).save(grey / "faceless.png")
    Image.fromarray(image).save(grey / "photos/a.png")  # for one without a face
    (grey / "photos/b/one.jpeg").unlink()  # so the other needs no ending any more to be told from it
    with (grey / "out/align.jsonl").open("a") as file:
        file.write('{"file": "b/c/three.png", "stamp": [1')  # as a kill leaves it
    told = run(*command)
    assert [told[key] for key in ("images", "faces", "gone", "kept")] == [5, 5, 2, 1]
    words = "2 crops that no photograph of photos gives any more (the first, b/one.jpeg_1.jpg); delete such"
    assert words in caplog.text
    before = (grey / "out/b/c/three_1.jpg").read_bytes()
    (grey / "photos/b/c/three.png").write_bytes((grey / "photos/a.png").read_bytes())
    run(*command)
    assert crops(grey / "out/b/c") == ["three_1.jpg"]  # not the other faces of the picture before
    assert (grey / "out/b/c/three_1.jpg").read_bytes() != before
    (grey / "photos/b/c/three.png").write_bytes((grey / "faceless.png").read_bytes())
    run(*command)
    assert crops(grey / "out/b/c") == []


def test_photographs_of_several_faces_are_listed(grey, caplog):
    command = ("photos", "out", "--detector", "yunet.onnx")
    for _ in range(2):  # kept ones too
        caplog.clear()
        assert run(*command)["several"] == 1
        assert (grey / "out/several.csv").read_text().splitlines() == ["file,second", "b/c/three.png,0.889"]
        words = (
            "several faces in 1 photograph: the largest is taken (the first, b/c/three.png); out/several.csv"
        )
        assert words in caplog.text
    assert run("photos", "all", "--faces", "all", "--detector", "yunet.onnx")["several"] == 0


def test_a_machine_that_fails_ends_it_and_it_goes_on(grey, monkeypatch):
    read = FolderFiles.read

    def failing(self, name):
        if name == "b/one.png":
            raise OSError(errno.EMFILE, "Too many open files", name)
        return read(self, name)

    command = ("photos", "out", "--detector", "yunet.onnx", "--workers", "1")
    monkeypatch.setattr(FolderFiles, "read", failing)
    with pytest.raises(UserError, match=r"one\.png: cannot be read \(Too many open files\); this machine"):
        run(*command)
    monkeypatch.setattr(FolderFiles, "read", read)
    told = run(*command)
    assert (told["faces"], told["kept"], told["skipped"]) == (3, 2, 3)


def test_a_list_of_skipped_images_goes_when_there_are_none(grey):
    for name in ("a.png", "b/cut.png"):
        (grey / "photos" / name).unlink()
    run("photos", "out", "--detector", "yunet.onnx")
    assert (grey / "out/skipped.csv").exists()
    (grey / "photos/text.jpg").unlink()
    assert run("photos", "out", "--detector", "yunet.onnx")["skipped"] == 0
    assert not (grey / "out/skipped.csv").exists()


def test_names_of_crops_stay_apart():
    names = ["a.jpg", "A.png", "b.jpg", "c.d.jpg", "x/a.jpg"]
    assert crop_names(names) == ["a.jpg", "A.png", "b", "c.d", "x/a"]


def test_faults_are_one_sentence(grey):
    (grey / "empty").mkdir()
    (grey / "file").write_text("")
    (grey / "foreign").mkdir()
    (grey / "foreign/mine.doc").write_text("mine")
    (grey / "faceless").mkdir()
    (grey / "faceless/a.png").write_bytes((grey / "photos/a.png").read_bytes())
    run("photos", "done", "--detector", "yunet.onnx")
    faults = {
        ("nobody", "out"): "nobody: no such file or folder",
        ("empty", "out"): "empty: holds no images",
        ("file", "out"): "file: it is no image",
        ("photos", "out", "--faces", "two"): "faces 'two': should be largest or all",
        ("photos", "foreign"): "foreign: is not empty and not made by `facenas align`",
        ("photos", "file"): "file: cannot be written",
        ("photos", "photos/crops"): "photos/crops: lies in photos; choose a folder beside it",
        ("photos", "photos"): "photos: lies in photos",
        ("photos", "done", "--faces", "all"): "done: was made with faces largest, not all; choose",
        ("photos/b", "done"): "done: was made with source",
        (
            "faceless",
            "out2",
        ): "faceless: holds 1 image but none that gives a face (the first, a.png: no face",
        ("photos", "out", "--detector", "gone.onnx"): "gone.onnx: there is no such file",
    }
    for command, words in faults.items():
        more = () if "--detector" in command else ("--detector", "yunet.onnx")
        with pytest.raises(UserError) as error:
            run(*command, *more)
        assert words in str(error.value), command
        assert "\n" not in str(error.value)


# With the real detector


def scene(crop, side=170, size=(420, 300)):
    """A grey picture of `size` (width, height) with the crop in it, `side` pixels wide."""
    picture = np.full((size[1], size[0], 3), 120, np.uint8)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    picture[top : top + side, left : left + side] = cv2.resize(
        crop, (side, side), interpolation=cv2.INTER_CUBIC
    )
    return picture


def embeddings(faces):
    import onnxruntime

    session = onnxruntime.InferenceSession(NETWORK, providers=["CPUExecutionProvider"])
    values = np.stack(faces).transpose(0, 3, 1, 2).astype(np.float32)
    rows = session.run(None, {session.get_inputs()[0].name: values})[0]
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@needs_data
def test_lfw_faces_come_back_out_of_photographs(here):
    with zipfile.ZipFile(LFW) as archive:
        names = [name for name in archive.namelist() if name.endswith("_0001.jpg")][::500]
        originals = [decode_jpeg(archive.read(name)) for name in names]
    for number, crop in enumerate(originals):
        path = here / f"photos/{number % 3}/{number:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        exif[0x0112] = 6 if number % 2 else 1  # the camera was held on its side
        stored = np.rot90(scene(crop)) if number % 2 else scene(crop)
        Image.fromarray(np.ascontiguousarray(stored)).save(path, quality=95, exif=exif)
    told = run("photos", "crops", "--detector", str(YUNET))
    assert (told["images"], told["faces"], told["skipped"]) == (len(names), len(names), 0)
    paths = sorted((here / "crops").rglob("*.jpg"), key=lambda path: path.name)
    found = [decode_jpeg(path.read_bytes()) for path in paths]
    cosines = (embeddings(originals) * embeddings(found)).sum(1)
    assert cosines.mean() > 0.9
    assert cosines.min() > 0.7
    imported = import_faces(here / "crops", here / "faces.zarr")
    assert (imported["images"], imported["skipped"], imported["encoded"]) == (len(names), 0, 0)


@needs_data
def test_photographs_are_aligned_by_the_other_commands_too(here, caplog):
    with zipfile.ZipFile(LFW) as archive:
        names = [f"Abdullah_Gul/Abdullah_Gul_000{number}.jpg" for number in (1, 2)]
        inside = {name.split("/")[-1]: name for name in archive.namelist()}
        originals = [decode_jpeg(archive.read(inside[name.split("/")[-1]])) for name in names]
    for number, crop in enumerate(originals):
        stream = io.BytesIO()
        Image.fromarray(scene(crop)).save(stream, "png")
        (here / f"{number}.png").write_bytes(stream.getvalue())
        (here / f"{number}.jpg").write_bytes(encode_jpeg(crop))
    model = ("--model", str(NETWORK), "--detector", str(YUNET), "--threshold", "0.3", "--json")
    told = []
    for ending in ("jpg", "png"):
        done = CliRunner().invoke(app, ["verify", f"0.{ending}", f"1.{ending}", *model])
        told.append(json.loads(done.stdout.splitlines()[-1]))
    assert told[0]["same"] is told[1]["same"] is True
    assert abs(told[0]["similarity"] - told[1]["similarity"]) < 0.15
    for side, sentences in ((60, 0), (130, 1)):  # a bystander, and somebody who may be meant
        both = np.concatenate([scene(originals[0]), scene(originals[1], side)], axis=1)
        Image.fromarray(both).save(here / "both.png")
        caplog.clear()
        assert CliRunner().invoke(app, ["verify", "both.png", "both.png", *model]).exit_code == 0
        assert caplog.text.count("several faces in 1 photograph") == sentences


@needs_data
def test_a_gallery_with_one_photograph_under_two_names_knows_its_people(here):
    """100 people; another photograph of the one who is there twice is recognized all the same."""
    with zipfile.ZipFile(LFW) as archive:
        firsts = {name.split("/")[-2]: name for name in archive.namelist() if name.endswith("_0001.jpg")}
        twice = next(name for name in archive.namelist() if name.endswith("Abdullah_Gul_0002.jpg"))
        people = ["Abdullah_Gul", *sorted(set(firsts) - {"Abdullah_Gul"})[::58][:98]]
        crops = {who: archive.read(firsts[who]) for who in people}
        (here / "probe.jpg").write_bytes(archive.read(twice))
    crops["Somebody"] = encode_jpeg(decode_jpeg(crops["Abdullah_Gul"]))
    for who, data in crops.items():
        (here / "people" / who).mkdir(parents=True)
        (here / "people" / who / "1.jpg").write_bytes(data)
    model = ("--model", str(NETWORK), "--json")
    done = CliRunner().invoke(app, ["enroll", "people", "g", *model])
    told = json.loads(done.stdout.splitlines()[-1])
    assert 0.2 < told["threshold"] < 0.7
    assert len(told["warnings"]) == 1
    assert "Abdullah_Gul/1.jpg and Somebody/1.jpg (0.9" in told["warnings"][0]
    assert told["warnings"][0] in done.stderr
    done = CliRunner().invoke(app, ["identify", "probe.jpg", "--gallery", "g", *model])
    (result,) = json.loads(done.stdout.splitlines()[-1])["results"]
    assert result["identity"] in ("Abdullah_Gul", "Somebody")


@needs_data
def test_faces_that_are_not_upright_are_refused_or_turned(here):
    with zipfile.ZipFile(LFW) as archive:
        names = [name for name in archive.namelist() if name.endswith("_0001.jpg")][::3000]
        originals = [decode_jpeg(archive.read(name)) for name in names]
    (here / "photos").mkdir()
    for number, crop in enumerate(originals):
        for turn in range(4):
            image = Image.fromarray(np.ascontiguousarray(np.rot90(scene(crop), turn)))
            image.save(here / f"photos/{number}_{turn}.png")
    told = run("photos", "crops", "--detector", str(YUNET))
    assert crops(here / "crops") == [f"{number}_0.jpg" for number in range(len(names))]
    assert "0_0.png" not in skipped(here / "crops")
    assert "upside down or on its side; turn the photograph" in skipped(here / "crops")["0_2.png"]
    told = run("photos", "turned", "--detector", str(YUNET), "--any-rotation")
    assert (told["faces"], told["skipped"]) == (4 * len(names), 0)
    paths = sorted((here / "turned").iterdir())
    found = embeddings([decode_jpeg(path.read_bytes()) for path in paths if path.suffix == ".jpg"])
    cosines = (np.repeat(embeddings(originals), 4, axis=0) * found).sum(1)
    assert cosines.min() > 0.7
    with pytest.raises(UserError, match=r"was made with rotation any, not none"):
        run("photos", "turned", "--detector", str(YUNET))
    asked = ("--model", str(NETWORK), "--detector", str(YUNET))
    done = CliRunner().invoke(app, ["verify", "photos/0_0.png", "photos/0_2.png", *asked])
    assert "0_2.png: its face is upside down or on its side" in str(done.exception)
