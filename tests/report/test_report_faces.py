"""The page of a face run at every stage: pairs and identities, backbone and head, generated faces."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from report_face_folders import (
    FOUND,
    HEAD,
    face_search,
    finish_face_search,
    finish_face_training,
    make_face_run,
    train_faces,
)
from report_page_reader import json_scripts, read_page

from facenas.report.reading import read_run


def test_search_under_way(tmp_path: Path) -> None:
    page = read_page(make_face_run(tmp_path / "run", face_search()[:2], micro=False))
    text = page.text()
    assert "searching" in text
    assert "Macro search on celeba (6,289 images, 299 identities, 112×112 pixels)" in text
    assert "ten-fold verification accuracy on held-out identities: on 300 pairs of images" in text
    assert "5 % of identities that no candidate trains on" in text
    assert "one block more a trial" in text
    assert "12 layers (blocks 1, 1, 2, 1), width 8, embedding 64: all plain 3×3" in text
    assert any(a.get("title") == "171 of 300 pairs right" for tag, a in page.tags if tag == "td")
    for of_images in ("classes", "classifier", "test images", "layer more"):
        assert of_images not in text
    (course,) = (json.loads(script) for script in json_scripts(page))
    headings = [note["text"] for note in course["layout"]["annotations"]]
    assert headings == ["verification accuracy, %", "backbone parameters, millions"]


def test_search_finished(tmp_path: Path) -> None:
    run = make_face_run(tmp_path / "run", face_search())
    finish_face_search(run)
    page = read_page(run)
    text = page.text()
    assert "Macro-micro search on celeba" in text
    assert "separable convolutions at blocks 3, 5; 5×5 kernels at block 4" in text
    assert f"{FOUND.count_parameters():,} parameters (backbone, without a head)" in text
    assert "Special blocks: those that are not plain 3×3" in text
    assert [text for tag, text in page.texts if tag == "td"].count("separable at 3") == 1
    assert "separable convolutions for one block" in text
    assert len(page.find("g", class_="block")) == 5 + 2


def test_training_under_way(tmp_path: Path) -> None:
    run = make_face_run(tmp_path / "run", [])
    finish_face_search(run)
    assert "Training of a given network on celeba" in read_page(run).text()
    train_faces(run)
    text = read_page(run).text()
    assert "training" in text
    assert "3 epochs done; the recipe has 600. Best verification accuracy so far 62.50 %" in text


@pytest.mark.parametrize("searched", [True, False], ids=["found", "given"])
def test_verified_on_the_pairs_that_the_epoch_was_chosen_on(tmp_path: Path, searched: bool) -> None:
    run = make_face_run(tmp_path / "run", face_search() if searched else [])
    finish_face_search(run)
    finish_face_training(run, "validation")
    text = read_page(run).text()
    total = FOUND.count_parameters() + HEAD
    assert f"{HEAD:,} in the head, {total:,} in total" in text
    assert "identities 62.50 % , standard deviation over the folds 3.25 %" in text
    assert "on 300 pairs of validation identities; TAR 12.00 % at FAR 1 %" in text
    chosen = "The best epoch, like the network itself," if searched else "The best epoch"
    assert f"{chosen} was chosen on these same pairs, so the figures are optimistic" in text
    assert "the best of them number 2, whose weights are kept; 284 of 299 identities" in text
    assert "300 pairs of validation identities, half of them impostors" in text
    assert "false accept rate they can show is 0.667 %. Below it" in text
    assert "6,289 images;" not in text  # those held out were not trained on


def test_verified_on_test_identities(tmp_path: Path) -> None:
    run = make_face_run(tmp_path / "run", face_search())
    finish_face_search(run)
    finish_face_training(run, "test", pairs=6000)
    text = read_page(run).text()
    assert "on 6,000 pairs of test identities" in text
    assert "Nothing was chosen on them" in text
    assert "optimistic" not in text
    assert "Below it" not in text
    assert "10 % 40.00 % 1 % 12.00 % 0.1 % 4.00 %" in text


@pytest.mark.parametrize("source", ["generated faces, seed 0", "Generated"])
def test_generated_faces_are_called_so(tmp_path: Path, source: str) -> None:
    page = read_page(make_face_run(tmp_path / "run", face_search(), source))
    assert "6,289 generated images, 299 identities" in page.text()
    assert "Generated faces. All faces of this run are drawn by facenas" in page.text()
    assert len(page.find("div", class_="note")) == 1


def test_photographs_are_not_called_generated(tmp_path: Path) -> None:
    page = read_page(make_face_run(tmp_path / "run", face_search()))
    assert not page.find("div", class_="note")
    assert "enerated" not in page.text()


def test_records_keep_what_each_kind_has(tmp_path: Path) -> None:
    run = make_face_run(tmp_path / "run", face_search())
    finish_face_training(run, "validation")
    read = read_run(run)
    assert read.trials[4].architecture == FOUND.with_operation(4, 1).with_kernel(3, 3)
    assert read.about.data.identities == 299
    assert read.final is not None
    assert read.final.test_accuracy is None
    assert read.final.architecture == FOUND
    assert [epoch.accuracy for epoch in read.epochs] == [55.0, 62.5, 60.0]
    assert read.best_epoch == read.epochs[1]
