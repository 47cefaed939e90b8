"""`facenas embed|verify|enroll|identify`: answers against plain arithmetic, and faults in one sentence."""

import json
import re
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from facenas.cli.faces import register
from facenas.data.faces.store import decode_jpeg, encode_jpeg
from facenas.errors import UserError
from facenas.evaluation.embedders import open_embedder

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

PEOPLE = 6
app = typer.Typer()
register(app)


def face(person, image):
    """(112, 112, 3) uint8: a pattern of the person's, noise of the image's."""
    pattern = np.random.default_rng(person).uniform(30, 225, (5, 5, 3))
    noise = np.random.default_rng(1000 * person + image + 1).normal(0, 25, (112, 112, 3))
    return np.clip(cv2.resize(pattern, (112, 112)) + noise, 0, 255).astype(np.uint8)


def write_network(path, cell=14):
    """Means of cells of the picture, in a row: a network of faces without weights."""
    parts = [
        onnx.helper.make_node("AveragePool", ["x"], ["p"], kernel_shape=[cell] * 2, strides=[cell] * 2),
        onnx.helper.make_node("Flatten", ["p"], ["y"]),
    ]
    size = 3 * (112 // cell) ** 2
    image = onnx.helper.make_tensor_value_info("x", 1, ["n", 3, 112, 112])
    row = onnx.helper.make_tensor_value_info("y", 1, ["n", size])
    graph = onnx.helper.make_graph(parts, "means", [image], [row])
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), path)


INPUT = ("--input-color", "rgb", "--mean", "127.5", "--std", "127.5")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with `net.onnx`, and `people` with three images of each of six people."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FACENAS_CACHE", str(tmp_path / "cache"))
    write_network(tmp_path / "net.onnx")
    for person in range(PEOPLE):
        folder = tmp_path / f"people/person {person}"
        folder.mkdir(parents=True)
        for image in range(3):
            (folder / f"{image}.jpg").write_bytes(encode_jpeg(face(person, image)))
    return tmp_path


def run(*arguments):
    """What a command prints as JSON; UserError passes through."""
    done = CliRunner().invoke(app, [*arguments, "--json"])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout.splitlines()[-1])


def expected(path):
    """(192,) float64: the network's embedding of image and mirror image, by numpy."""
    pixels = (decode_jpeg(path.read_bytes()).astype(np.float64) - 127.5) / 127.5
    both = pixels + pixels[:, ::-1]
    row = both.reshape(8, 14, 8, 14, 3).mean((1, 3)).transpose(2, 0, 1).ravel()
    return row / np.linalg.norm(row)


def test_embed_writes_names_and_unit_embeddings(here):
    told = run("embed", "people", "--model", "net.onnx", "--out", "new/e.npz", *INPUT)
    assert (told["images"], told["size"], told["out"]) == (18, 192, "new/e.npz")
    with np.load(here / "new/e.npz", allow_pickle=False) as found:
        names, rows = found["names"], found["embeddings"]
    assert names.tolist()[:2] == ["person 0/0.jpg", "person 0/1.jpg"]
    assert rows.dtype == np.float32
    for name, row in zip(names, rows, strict=True):
        np.testing.assert_allclose(row, expected(here / "people" / name), atol=1e-5)
    assert not list((here / "cache").iterdir())  # embeddings of people do not stay behind


def test_a_zip_and_one_file_give_the_same(here):
    with zipfile.ZipFile("people.zip", "w") as archive:
        for path in sorted((here / "people").rglob("*.jpg")):
            archive.write(path, path.relative_to(here / "people"))
    for source, out in (
        ("people", "a.npz"),
        ("people.zip", "b.npz"),
        ("people/person 2/1.jpg", "c.npz"),
    ):
        run("embed", source, "--model", "net.onnx", "--out", out, *INPUT)
    rows = [np.load(here / name)["embeddings"] for name in ("a.npz", "b.npz", "c.npz")]
    np.testing.assert_array_equal(rows[0], rows[1])
    np.testing.assert_allclose(rows[0][7], rows[2][0], atol=1e-6)


def test_verify(here):
    first, second, other = (here / f"people/person {name}.jpg" for name in ("1/0", "1/2", "4/0"))
    for pair in ((first, second), (first, other)):
        told = run("verify", *map(str, pair), "--model", "net.onnx", *INPUT)
        assert told["similarity"] == pytest.approx(float(expected(pair[0]) @ expected(pair[1])), abs=1e-5)
        assert (told["threshold"], told["same"], told["threshold_from"]) == (None, None, None)
        decided = run("verify", *map(str, pair), "--model", "net.onnx", "--threshold", "0.7", *INPUT)
        assert decided["same"] is (pair[1] is second)
    plain = ["verify", str(first), str(second), "--model", "net.onnx", *INPUT]
    undecided = CliRunner().invoke(app, plain)
    assert "undecided" in undecided.stdout
    assert "no threshold is known" in undecided.stderr
    assert "one person (threshold 0.7000" in CliRunner().invoke(app, [*plain, "--threshold", "0.7"]).stdout


def write_results(path, **changes):
    from facenas.evaluation.embedders import InputOptions

    options = InputOptions("rgb", (127.5,), (127.5,))
    fingerprint = open_embedder(Path("net.onnx"), options).fingerprint
    results = {
        "bench": "lfw",
        "flip": True,
        "threshold_cosine": 0.31,
        "network": {"fingerprint": fingerprint},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results | changes))


def test_the_threshold_of_an_evaluation(here):
    pair = [
        "verify",
        "people/person 0/0.jpg",
        "people/person 0/1.jpg",
        "--model",
        "net.onnx",
        *INPUT,
    ]
    write_results(here / "mine.json")
    told = run(*pair, "--results", "mine.json")
    assert (told["threshold"], told["threshold_from"]) == (0.31, "lfw in mine.json")
    benches = {"agedb_30": {"threshold_cosine": 0.2}, "lfw": {"threshold_cosine": 0.25}}
    write_results(here / "evaluations/net-hq/results.json", benches=benches)
    write_results(here / "evaluations/net-cplfw/results.json", network={"fingerprint": "another"})
    assert run(*pair)["threshold"] == 0.25
    faults = {
        "another network": {"network": {"fingerprint": "another"}},
        "or of other input": {"flip": False},
        "says no threshold": {"threshold_cosine": None},
    }
    for words, change in faults.items():
        write_results(here / "mine.json", **change)
        with pytest.raises(UserError, match=words):
            run(*pair, "--results", "mine.json")


def enroll(*more):
    return run("enroll", "people", "people.gallery", "--model", "net.onnx", *INPUT, *more)


def test_enroll_and_identify(here):
    told = enroll()
    assert (told["identities"], told["images"], told["threshold"]) == (PEOPLE, 18, None)
    (here / "probes").mkdir()
    for person in (*range(PEOPLE), 77):
        (here / f"probes/{person:02}.jpg").write_bytes(encode_jpeg(face(person, 9)))
    asked = ("identify", "probes", "--gallery", "people.gallery", "--model", "net.onnx", *INPUT)
    told = run(*asked, "--top-k", "3", "--threshold", "0.9")
    means = np.stack([templates(here, person) for person in range(PEOPLE)])
    for person, found in zip((*range(PEOPLE), 77), told["results"], strict=True):
        scores = means @ expected(here / "probes" / found["image"])
        best = np.argsort(-scores)[:3]
        assert [c["identity"] for c in found["candidates"]] == [f"person {who}" for who in best]
        np.testing.assert_allclose([c["score"] for c in found["candidates"]], scores[best], atol=1e-5)
        assert found["known"] is (person < PEOPLE)
        assert found["identity"] == (f"person {person}" if person < PEOPLE else None)
    undecided = run(*asked)
    assert {result["known"] for result in undecided["results"]} == {None}
    assert {len(result["candidates"]) for result in undecided["results"]} == {5}
    lines = CliRunner().invoke(app, [*asked, "--threshold", "0.9"]).stdout.splitlines()
    assert lines[0].startswith("threshold: 0.9000")
    assert lines[1].startswith("00.jpg: person 0 (person 0 0.9")
    assert lines[-1].startswith("77.jpg: unknown (person ")


def templates(here, person):
    rows = [expected(path) for path in sorted((here / f"people/person {person}").iterdir())]
    mean = np.mean(rows, axis=0)
    return mean / np.linalg.norm(mean)


def test_a_large_gallery_has_a_threshold_of_its_own(here, monkeypatch):
    monkeypatch.setattr("facenas.evaluation.gallery.LEAST_PEOPLE", PEOPLE)
    threshold = enroll()["threshold"]
    means = np.stack([templates(here, person) for person in range(PEOPLE)])
    strangers = []
    for path in sorted((here / "people").rglob("*.jpg")):
        scores = means @ expected(path)
        scores[int(path.parent.name.split()[1])] = -1
        strangers.append(scores.max())
    assert threshold == pytest.approx(max(strangers), abs=1e-5)  # of 18 images, 1 % is none
    told = run(
        *(
            "identify",
            "people/person 3/1.jpg",
            "--gallery",
            "people.gallery",
            "--model",
            "net.onnx",
        ),
        *INPUT,
    )
    assert told["threshold"] == pytest.approx(threshold)
    assert told["threshold_from"] == "the gallery: 1 % of unknown people named"
    assert told["results"][0]["identity"] == "person 3"


FAULTS = {
    "embed people --model net.onnx --out e.txt": "--out e.txt: should end in .npz",
    "embed nobody --model net.onnx --out e.npz": "nobody: no such file or folder",
    "embed empty --model net.onnx --out e.npz": "empty: holds no images",
    "embed text.jpg --model net.onnx --out e.npz": "text.jpg: it is no image; remove it",
    "embed people --model nothing --out e.npz": "nothing: is neither a file nor a run",
    "embed people --model net.onnx --out net.onnx/e.npz": "net.onnx: cannot be written (Not a directory)",
    "verify people text.jpg --model net.onnx": "people: holds 18 images",
    "verify one.jpg one.jpg --model net.onnx --threshold 2": "threshold 2.0: should be a cosine",
    "verify one.jpg one.jpg --model net.onnx --threshold 0.3 --results r.json": "both are given",
    "verify one.jpg one.jpg --model net.onnx --results r.json": "r.json: cannot be read",
    "verify one.jpg large.png --model net.onnx": "the face detector is not there",
    "verify one.jpg large.png --model net.onnx --detector net.onnx": "net.onnx: is not a YuNet",
    "enroll people net.onnx --model net.onnx": "net.onnx: is there already; overwrite",
    "enroll people empty --overwrite --model net.onnx": "empty: is no gallery, so it is not",
    "enroll one.jpg g --model net.onnx": "one.jpg: one.jpg lies in no person's folder",
    "identify one.jpg --gallery empty --model net.onnx": "empty: is no gallery; make one by",
    "identify one.jpg --gallery g --model net.onnx": "embedded by another network",
}


@pytest.mark.parametrize("command", FAULTS)
def test_faults_are_one_sentence(here, command, monkeypatch):
    monkeypatch.setattr("facenas.data.faces.detection.URL", "http://127.0.0.1:9/")
    (here / "empty").mkdir()
    (here / "text.jpg").write_text("text")
    (here / "one.jpg").write_bytes(encode_jpeg(face(0, 0)))
    cv2.imwrite(str(here / "large.png"), np.zeros((200, 300, 3), np.uint8))
    if "--gallery g " in command:
        write_network(here / "other.onnx", cell=28)
        run("enroll", "people", "g", "--model", "other.onnx", *INPUT)
    words = re.split(r" (?=\S)", command)
    with pytest.raises(UserError, match=re.escape(FAULTS[command])) as error:
        run(*words, *INPUT)
    assert "\n" not in str(error.value)


def test_an_image_outside_any_persons_folder(here):
    (here / "people/stray.jpg").write_bytes(encode_jpeg(face(0, 0)))
    with pytest.raises(UserError, match=r"stray\.jpg lies in no person's folder; sort the images as"):
        enroll()
    assert not (here / "people.gallery").exists()


def test_a_folder_around_all_people_is_looked_through(here):
    (here / "people").rename(here / "wrapped")
    (here / "people").mkdir()
    (here / "wrapped").rename(here / "people/lfw")
    assert enroll()["identities"] == PEOPLE
