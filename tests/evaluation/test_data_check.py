"""Duplicates, wrong labels and overlap: what was planted is found, and what a check lists can be left out."""

from __future__ import annotations

import csv
import doctest
import json
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from facenas.cli.data import data_app
from facenas.data.faces.importing import import_faces
from facenas.data.faces.store import decode_jpeg, encode_jpeg, open_store
from facenas.data.faces.writer import StoreWriter
from facenas.errors import UserError
from facenas.evaluation import label_errors as errors
from facenas.evaluation.data_check import check_faces, fine_pixels, open_people, pixel_correlation
from facenas.report.check_page import write_check

PEOPLE, EACH, SIZE = 300, 8, 64
SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def made_up(seed=0, people=PEOPLE, each=EACH):
    """Unit embeddings (n, 64) of people, cosine 0.7 within, and labels (n,)."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(people), each)
    return unit(rng.normal(size=(people, SIZE))[labels] + 0.65 * rng.normal(size=(len(labels), SIZE))), labels


def checked(rows, labels):
    means = errors.class_means(rows, labels, labels.max() + 1)
    nearest = errors.nearest_identities(rows, labels, means)
    return means, nearest, errors.limits_of(rows, labels, means, nearest)


def test_planted_label_errors_are_found_and_nothing_else():
    rows, labels = made_up()
    rng = np.random.default_rng(1)
    wrong = rng.choice(len(rows), 24, replace=False)  # 1 % of the images
    labels[wrong] = (labels[wrong] + 1 + rng.integers(0, PEOPLE - 1, 24)) % PEOPLE
    alone = rng.choice(np.setdiff1d(np.arange(len(rows)), wrong), 20, replace=False)
    rows[alone] = unit(rng.normal(size=(20, SIZE)))  # of people who are not there otherwise
    _, nearest, limits = checked(rows, labels)
    found = errors.mislabeled(nearest, limits)
    assert set(wrong) <= set(found)
    assert len(found) <= len(wrong) + 2
    assert set(found[:20]) <= set(wrong)  # the surest first
    odd = [number for one in errors.strangers(rows, labels, limits.unlike) for number in one.images]
    assert len(set(odd) & set(alone)) >= 18
    assert len(set(odd) - set(alone) - set(wrong)) <= 5
    assert limits.telling


def test_two_people_under_one_name_and_one_under_two():
    rows, labels = made_up()
    labels[labels == 7] = 6
    labels[labels == 8] = np.repeat([8, PEOPLE], EACH // 2)
    means, nearest, limits = checked(rows, labels)
    groups = list(errors.strangers(rows, labels, limits.unlike))
    assert [(one.identity, len(one.images), len(one.rest)) for one in groups] == [(6, EACH, EACH)]
    assert groups[0].score < limits.unlike
    assert [pair[1:] for pair in errors.same_people(rows, labels, means, limits)] == [(8, PEOPLE)]
    assert set(labels[errors.mislabeled(nearest, limits)]) <= {8, PEOPLE}


def test_shared_people_are_found_and_only_they():
    rows, labels = made_up()
    others, theirs = made_up(5, 100)
    mine = labels < 10
    fresh = unit(rows[mine] + 0.05 * np.random.default_rng(2).normal(size=(mine.sum(), SIZE)))
    others, theirs = np.concatenate([others, fresh]), np.concatenate([theirs, labels[mine] + 100])
    means, _, limits = checked(rows, labels)
    right = (others, theirs, errors.class_means(others, theirs, 110))
    pairs = errors.shared_people((rows, labels, means), right, limits)
    assert sorted(pair[1:] for pair in pairs) == [(one, one + 100) for one in range(10)]


@pytest.mark.parametrize("two_sets", [False, True])
def test_close_pairs_are_those_of_the_whole_matrix(monkeypatch, two_sets):
    monkeypatch.setattr(errors, "_ROWS", 50)
    monkeypatch.setattr(errors, "_COLUMNS", 64)
    rows, _ = made_up(people=40)
    others = made_up(3, 30)[0] if two_sets else None
    scores = rows @ (rows if others is None else others).T
    wanted = scores if two_sets else np.where(np.triu(np.ones_like(scores), 1) > 0, scores, -2)
    pairs, cosines = errors.close_pairs(rows, others, floor=0.3, most=1000)
    assert set(map(tuple, pairs.tolist())) == set(
        zip(*(at.tolist() for at in np.nonzero(wanted >= 0.3)), strict=True)
    )
    np.testing.assert_allclose(cosines, scores[tuple(pairs.T)], atol=1e-6)
    few, best = errors.close_pairs(rows, others, floor=-1, most=3)
    largest = -np.sort(-wanted, axis=1)[:, :3]
    np.testing.assert_allclose(np.sort(best), np.sort(largest[largest >= -1]), atol=1e-6)
    assert np.bincount(few[:, 0]).max() == 3


def test_examples_in_docstrings():
    assert doctest.testmod(errors).failed == 0


def test_nearest_identity_is_that_of_the_whole_matrix(monkeypatch):
    monkeypatch.setattr(errors, "_ROWS", 50)
    monkeypatch.setattr(errors, "_COLUMNS", 7)
    rows, labels = made_up(people=40)
    labels[labels == 11] = 12  # nobody is 11
    _, nearest, _ = checked(rows, labels)
    scores = (
        rows
        @ np.stack([unit(rows[labels == one].sum(0)) if one != 11 else np.zeros(SIZE) for one in range(40)]).T
    )
    scores[:, 11] = scores[np.arange(len(rows)), labels] = -1
    np.testing.assert_array_equal(nearest.who, scores.argmax(1))
    np.testing.assert_allclose(nearest.other, scores.max(1), atol=1e-6)
    others = np.flatnonzero(labels == 5)[1:]
    assert nearest.own[labels == 5][0] == pytest.approx(
        float(rows[labels == 5][0] @ unit(rows[others].sum(0))), abs=1e-6
    )


def face(person, image):
    """(112, 112, 3) uint8: a coarse pattern of the person's, and a fine one of the image's."""
    coarse = cv2.resize(np.random.default_rng(person).uniform(60, 195, (4, 4, 3)), (112, 112))
    fine = cv2.resize(np.random.default_rng(1000 * person + image + 1).normal(0, 45, (20, 20, 3)), (112, 112))
    return np.clip(coarse + fine, 0, 255).astype(np.uint8)


def means_of_cells(images):
    """A network of faces without weights: means of 4x4 cells, brightness left out."""
    cells = images.reshape(len(images), 4, 28, 4, 28, 3).mean((2, 4), dtype=np.float64).reshape(len(images), -1)
    return (cells - cells.mean(1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A store of 30 people with 5 images each, with the faults of `FAULTS`."""
    path = tmp_path_factory.mktemp("planted") / "p.zarr"
    with StoreWriter(path, "generated") as writer:
        for person in range(30):
            for image in range(5):
                writer.add(f"p{person}", encode_jpeg(face(person, image)))
        small = cv2.resize(cv2.resize(face(3, 0), (56, 56)), (112, 112))
        writer.add("p3", encode_jpeg(face(3, 0)))  # 150: the same bytes as 15
        writer.add("p3", encode_jpeg(np.roll(small, 3, 1)))  # 151: smaller and moved
        writer.add("p4", encode_jpeg(np.ascontiguousarray(face(5, 1)[:, ::-1])))  # 152: mirrored, of p5: 26
        writer.add("p6", encode_jpeg(face(7, 99)))  # 153: of p7
        writer.add("p8", encode_jpeg(face(99, 0)))  # 154: of nobody
    return path


def by_kind(found):
    return {
        kind: sorted(n for one in found.findings if one.kind == kind for n in one.images)
        for kind in found.counts()
    }


def test_planted_faults_of_a_store(planted):
    found = check_faces(means_of_cells, planted, duplicates=True, labels=True)
    assert by_kind(found) == {
        "duplicate": [150, 151],
        "one_photograph": [152],
        "mislabeled": [152, 153],
        "unlike": [154],
    }
    assert {one.with_ for one in found.findings if one.kind == "mislabeled"} == {"p5", "p7"}
    assert {one.action for one in found.findings} == {"drop"}
    assert found.to_json()["drop"] == 5


def test_overlap_with_a_folder_and_a_store(planted, tmp_path):
    for person, image in ((2, 4), (2, 77), (2, 78), (50, 0)):
        folder = tmp_path / "bench" / f"Person_{person}"
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{image}.png"), face(person, image)[..., ::-1])
    import_faces(tmp_path / "bench", tmp_path / "bench.zarr")
    for other in ("bench", "bench.zarr"):
        found = check_faces(means_of_cells, planted, overlap=tmp_path / other)
        assert by_kind(found) == {"shared_image": [14], "shared_person": [10, 11, 12, 13, 14]}
        assert {one.with_.partition("/")[0] for one in found.findings} == {"Person_2"}


def test_people_of_the_other_set_are_folders_at_the_top(tmp_path):
    for name in ("ann/1.png", "ann/old/2.png", "Jose\u0301/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / name), face(0, 0))
    found = open_people(tmp_path)
    assert (found.names, found.labels.tolist()) == (["Jos\u00e9", "ann"], [0, 1, 1])
    (tmp_path / "bob" / "old").mkdir(parents=True)
    (tmp_path / "ann" / "old" / "2.png").rename(tmp_path / "bob" / "old" / "2.png")
    with pytest.raises(UserError, match="bob/ holds no image itself but the folder"):
        open_people(tmp_path)


def test_one_photograph_whatever_was_done_to_it():
    one = face(1, 0)
    darker = (one * 0.7 + 10).astype(np.uint8)
    again = decode_jpeg(cv2.imencode(".jpg", one[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 20])[1].tobytes())
    for other in (darker, again, np.ascontiguousarray(one[:, ::-1]), np.roll(one, 5, 0)):
        assert pixel_correlation(fine_pixels(one), fine_pixels(other)) > 0.9
    assert pixel_correlation(fine_pixels(one), fine_pixels(face(1, 1))) < 0.6


app = typer.Typer()
app.add_typer(data_app, name="data")
onnx = pytest.importorskip("onnx")
INPUT = ("--model", "net.onnx", "--input-color", "rgb", "--mean", "0", "--std", "1")


def run(*arguments, code=0):
    done = CliRunner().invoke(app, ["data", *map(str, arguments), "--json"])
    if isinstance(done.exception, UserError):
        return str(done.exception)
    assert done.exit_code == code, done.output
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def here(tmp_path, monkeypatch, planted):
    """A folder with `net.onnx`, the network above, and the store `p.zarr`."""
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    parts = [
        onnx.helper.make_node("AveragePool", ["x"], ["p"], kernel_shape=[28, 28], strides=[28, 28]),
        onnx.helper.make_node("Flatten", ["p"], ["f"]),
        onnx.helper.make_node("ReduceMean", ["f"], ["m"], axes=[1]),
        onnx.helper.make_node("Sub", ["f", "m"], ["y"]),
    ]
    shapes = [
        onnx.helper.make_tensor_value_info(*one) for one in (("x", 1, ["n", 3, 112, 112]), ("y", 1, ["n", 48]))
    ]
    graph = onnx.helper.make_graph(parts, "means", shapes[:1], shapes[1:])
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "net.onnx")
    (tmp_path / "p.zarr").symlink_to(planted)
    return tmp_path


def test_from_a_check_to_a_clean_store(here):
    started = time.perf_counter()
    told = run("check", "p.zarr", "--duplicates", "--labels", *INPUT)
    assert told["seconds"] > (time.perf_counter() - started) / 2  # decoding alone takes a hundredth
    assert told["found"] == {"duplicate": 2, "one_photograph": 1, "mislabeled": 2, "unlike": 1}
    rows = list(csv.DictReader((here / told["findings"]).open()))
    assert {row["image"] for row in rows if row["finding"] == "duplicate"} == {"p3/150", "p3/151"}
    page = (here / told["report"]).read_text()
    assert page.count("data:image/jpeg") >= 12
    assert "p8/154" in page
    assert "is there already; overwrite (--overwrite) replaces it" in run("check", "p.zarr", "--labels", *INPUT)

    keep = (here / told["findings"]).read_text().replace("unlike,p8/40,", "unlike,,")
    lines = [line.replace(",drop,", ",keep,") if "p8/154" in line else line for line in keep.splitlines()]
    excel = "\ufeff" + "\r\n".join(line.replace(",", ";") for line in lines) + "\r\n"  # saved by a German one
    (here / told["findings"]).write_text(excel, encoding="utf-8", newline="")
    made = run("import", "p.zarr", "clean.zarr", "--drop", told["findings"])
    assert (made["images"], made["dropped"]) == (151, 4)
    before, after = open_store(here / "p.zarr"), open_store(here / "clean.zarr")
    kept = [*range(150), 154]
    assert [after.names[label] for label in after.labels] == [before.names[before.labels[n]] for n in kept]
    assert all((after.encoded(i) == before.encoded(n)).all() for i, n in enumerate(kept))
    assert "is of another store than clean.zarr" in run(
        "import", "clean.zarr", "c.zarr", "--drop", told["findings"]
    )

    nothing = run("check", "clean.zarr", "--duplicates", *INPUT)
    assert (nothing["found"], nothing["drop"]) == ({}, 0)
    assert (here / nothing["findings"]).read_text().count("\n") == 1
    assert (here / nothing["report"]).read_text().count("Nothing was found.") == 2


def test_findings_lead_back_to_files(tmp_path):
    for name, person in (("ann/beach.jpg", 1), ("ann/copy.jpg", 1), ("bob/1.jpg", 2), ("bob/2.jpg", 2)):
        (tmp_path / "people" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "people" / name).write_bytes(encode_jpeg(face(person, 0)))
    import_faces(tmp_path / "people", tmp_path / "p.zarr")
    found = check_faces(means_of_cells, tmp_path / "p.zarr", duplicates=True, cache=tmp_path / "cache")
    rows = list(csv.DictReader(found.csv().splitlines()))
    assert [(row["image"], row["file"], row["with"]) for row in rows] == [
        ("ann/1", "ann/copy.jpg", "ann/0 (ann/beach.jpg)"),
        ("bob/3", "bob/2.jpg", "bob/2 (bob/1.jpg)"),
    ]
    write_check(tmp_path / "checks", found)
    assert 'title="ann/1 (ann/copy.jpg)"' in (tmp_path / "checks/check.html").read_text()
    findings = tmp_path / "checks/findings.csv"
    import_faces(tmp_path / "p.zarr", tmp_path / "clean.zarr", drop=findings)
    assert list(open_store(tmp_path / "clean.zarr").files) == ["ann/beach.jpg", "bob/1.jpg"]


def test_faults_are_told_and_leave_nothing(here):
    (here / "empty").mkdir()
    with StoreWriter(here / "one.zarr", "generated") as writer:
        writer.add("ann", encode_jpeg(face(1, 0)))
        writer.add("ann", encode_jpeg(face(1, 1)))
    head = "image,identity,finding,with,score,action,store\n"
    of = open_store(here / "p.zarr").fingerprint
    lists = {
        "no column action": "image,store\n",
        "line 2 has the action 'delete'; write drop or keep": f"{head}p0/0,p0,unlike,,1,delete,{of}\n",
        "line 2 names the image 'p1/0', which p.zarr has not": f"{head}p1/0,p1,unlike,,1,drop,{of}\n",
        "line 2 is of another store than p.zarr (fingerprint missing": f"{head}p0/0,p0,unlike,,1,drop\n",
    }
    for number, (message, text) in enumerate(lists.items()):
        (here / f"{number}.csv").write_text(text)
        assert message in run("import", "p.zarr", "out.zarr", "--drop", f"{number}.csv")
    (here / "all.csv").write_text(
        head + "".join(f"ann/{i},,,,,drop,{open_store(here / 'one.zarr').fingerprint}\n" for i in (0, 1))
    )
    assert "would lose all its images by all.csv" in run("import", "one.zarr", "out.zarr", "--drop", "all.csv")
    assert "lists images of a store" in run("import", "empty", "out.zarr", "--drop", "0.csv")
    assert "--labels: needs a network" in run("check", "p.zarr", "--labels")
    assert "nothing to look for" in run("check", "p.zarr", *INPUT)
    assert "has one identity" in run("check", "one.zarr", "--labels", *INPUT)
    assert "has no images of <identity>/<image>" in run("check", "p.zarr", "--overlap", "empty", *INPUT)
    assert not list(here.glob("out.zarr*"))
    assert not (here / "checks").exists()


def test_a_raw_store_stays_as_it_was(planted, tmp_path):
    import_faces(planted, tmp_path / "raw.zarr", "raw")
    import_faces(tmp_path / "raw.zarr", tmp_path / "again.zarr")
    first, second = open_store(tmp_path / "raw.zarr"), open_store(tmp_path / "again.zarr")
    assert first.fingerprint == second.fingerprint
    found = check_faces(means_of_cells, first, duplicates=True)
    assert by_kind(found)["duplicate"] == [150, 151]
