"""The page of an evaluation: what the golden page does not show."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from report_evaluations import MODEL, pair_outcome, ranking_outcome, spread, template_outcome
from report_extract import Page

from facenas.errors import UserError
from facenas.evaluation.benches import HQ, Pairs, find_bench
from facenas.evaluation.benches.result import BenchResult
from facenas.report import write_evaluation_page


def page_of(folder: Path, outcomes: list[BenchResult], model: dict[str, Any] = MODEL) -> Page:
    path = write_evaluation_page(folder, model, outcomes)
    assert [entry.name for entry in folder.iterdir()] == ["evaluation.html"]
    return Page(path.read_text(encoding="utf-8"))


def test_model_of_which_only_the_name_is_known(tmp_path: Path) -> None:
    page = page_of(tmp_path, [pair_outcome()], {"name": "m", "macs": None})
    assert not page.find("dl", class_="tiles")
    assert not page.find("section", id="model")


def test_channels_scaled_differently(tmp_path: Path) -> None:
    page = page_of(tmp_path, [pair_outcome()], MODEL | {"mean": [1.0, 2.0, 3.0]})
    assert "(x − (1, 2, 3)) / 128 of pixel values x, 0 to 255" in page.lines


def test_results_stand_beside_published_ones(tmp_path: Path) -> None:
    text = page_of(tmp_path, [pair_outcome(accuracy=0.9945, std=0.0031)]).text()
    assert "Labeled Faces in the Wild, accuracy | 99.45 ± 0.31" in text
    best = max(row.values["accuracy"] for row in find_bench("lfw").published)
    assert f"{100 * best:.2f} | −{100 * best - 99.45:.2f}" in text
    assert "nearest published: R50 ArcFace, CASIA-WebFace | 99.45 | +0.00" in text
    listed = text[text.index("published figures") :]
    assert all(row.name in listed for row in find_bench("lfw").published)
    assert listed.index("| 99.47") < listed.index("This model") < listed.index("| 99.42")


def test_average_of_the_five_only_when_all_are_there(tmp_path: Path) -> None:
    outcomes = [pair_outcome(name, accuracy=0.9 + 0.01 * i) for i, name in enumerate(HQ)]
    assert "five pair benches | 92.00" in page_of(tmp_path, outcomes).text()
    assert "five pair benches" not in page_of(tmp_path, outcomes[1:]).text()


def test_page_loads_nothing_and_holds_what_it_names(tmp_path: Path) -> None:
    page = page_of(tmp_path, [pair_outcome(), template_outcome(2000), ranking_outcome()])
    ids = {str(attrs["id"]) for _, attrs in page.tags if "id" in attrs}
    for tag, attrs in page.tags:
        assert tag not in ("link", "iframe"), tag
        assert (attrs.get("src") or "data:image/jpeg;base64,").startswith("data:image/jpeg;base64,")
        link = attrs.get("href") or "#results"
        assert link[0] == "#"
        assert link[1:] in ids
    charts = [attrs for _, attrs in page.tags if "data-figure" in attrs]
    assert {str(attrs["data-figure"]) for attrs in charts} == {f"figure-{name}" for name in page.figures}
    assert len(charts) == 2 + 2 + 1
    (policy,) = page.find("meta", http_equiv="Content-Security-Policy")
    assert (policy["content"] or "").startswith("default-src 'none'")


def test_mistakes_are_shown_as_pairs(tmp_path: Path) -> None:
    outcome = pair_outcome()
    page = page_of(tmp_path, [outcome])
    images, first = page.find("img"), outcome.mistakes[0]
    assert len(images) == 2 * len(outcome.mistakes) == 20
    data = base64.b64decode((images[0]["src"] or "").split(",")[1])
    assert simplejpeg.decode_jpeg(data).shape == (112, 112, 3)
    assert images[0]["alt"] == f"Face image {first.names[0]}"
    said = "rejected, but it is one person" if first.same else "accepted, but these are two people"
    assert f"score {first.score:.3f}{said}".replace("-", "−") in page.text()


@pytest.mark.parametrize("genuine", [True, False])
def test_pairs_of_one_kind_have_no_roc(tmp_path: Path, genuine: bool) -> None:
    kind = np.full(30, genuine)
    outcome = pair_outcome(threshold_cosine=0.3, scores=spread(30)[0], same=kind, mistakes=())
    page = page_of(tmp_path, [outcome])
    missing = "impostor" if genuine else "genuine"
    assert f"There are no {missing} pairs, so there is no ROC." in page.lines
    (figure,) = page.figures.values()
    assert len(figure["data"]) == 2  # one kind, the threshold


def test_nothing_to_draw(tmp_path: Path) -> None:
    none = np.empty(0)
    outcomes = [
        BenchResult(bench=Pairs("own", "pairs.txt"), accuracy=1.0),
        BenchResult(bench=find_bench("calfw"), scores=none, same=none.astype(bool)),
    ]
    page = page_of(tmp_path, outcomes)
    assert not page.figures
    assert "Plotly.newPlot" not in page.html
    assert page_of(tmp_path, []).lines.count("No bench was evaluated.") == 1


def test_hostile_words_stay_words(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script>"
    outcome = pair_outcome(warnings=(evil,))
    mistakes = (replace(outcome.mistakes[0], names=(evil, '" onerror="x')),)
    page = page_of(tmp_path, [replace(outcome, mistakes=mistakes)], {"name": evil, evil: 1})
    assert page.lines.count(evil) == 3  # title, warning, picture
    assert "<script>alert" not in page.html
    assert not [attrs for _, attrs in page.tags if "onerror" in attrs]


def test_page_stays_small(tmp_path: Path) -> None:
    outcomes = [pair_outcome(name) for name in HQ] + [template_outcome(200_000)]
    page = write_evaluation_page(tmp_path, MODEL, outcomes)
    assert page.stat().st_size < 7_000_000  # of noise: photographs take a third of it


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "evaluation.html").mkdir()
    with pytest.raises(UserError, match=r"evaluation\.html: cannot be written"):
        write_evaluation_page(tmp_path, MODEL, [pair_outcome()])
    assert [entry.name for entry in tmp_path.iterdir()] == ["evaluation.html"]
