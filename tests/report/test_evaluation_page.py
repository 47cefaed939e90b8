"""The page of an evaluation, read back with html.parser."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from evaluation_outcomes import (
    MODEL,
    pair_outcome,
    ranking_outcome,
    read_evaluation,
    spread,
    template_outcome,
)
from report_page_reader import json_scripts

from facenas.errors import SearchStoppedError
from facenas.evaluation.benches import HQ, find_bench
from facenas.evaluation.benches.result import BenchResult
from facenas.report.evaluation import write_evaluation


def test_page_tells_the_model(tmp_path: Path) -> None:
    page = read_evaluation(tmp_path, [pair_outcome()])
    assert "some_network.onnx" in [data for tag, data in page.texts if tag == "h1"]
    text = page.text()
    assert "Parameters 1.2 M 1,200,512" in text
    assert "Input assumed RGB (x − 127.5) / 128 of pixel values x, 0 to 255" in text
    assert "format ONNX" in text


def test_model_of_which_only_the_name_is_known(tmp_path: Path) -> None:
    page = read_evaluation(tmp_path, [pair_outcome()], {"name": "m", "macs": None})
    assert not page.find("dl", class_="tiles")
    assert not page.find("section", id="model")


def test_channels_scaled_differently(tmp_path: Path) -> None:
    page = read_evaluation(tmp_path, [pair_outcome()], MODEL | {"mean": [1.0, 2.0, 3.0]})
    assert "(x − (1, 2, 3)) / 128" in page.text()


def test_results_stand_beside_published_ones(tmp_path: Path) -> None:
    outcome = pair_outcome(accuracy=0.9945, std=0.0031)
    text = read_evaluation(tmp_path, [outcome]).text()
    assert "Labeled Faces in the Wild , accuracy 99.45 ± 0.31" in text
    best = max(row.values["accuracy"] for row in find_bench("lfw").published)
    assert f"{100 * best:.2f} −{100 * best - 99.45:.2f}" in text
    assert "nearest published: R50 ArcFace, CASIA-WebFace 99.45 +0.00" in text
    for row in find_bench("lfw").published:
        assert row.model in text
    listed = text[text.index("published figures") :]
    assert listed.index("99.47") < listed.index("This model") < listed.index("99.42")


def test_a_bench_that_nobody_published(tmp_path: Path) -> None:
    outcome = pair_outcome()
    facts = outcome.bench.model_copy(update={"published": ()})
    text = read_evaluation(tmp_path, [replace(outcome, bench=facts)]).text()
    assert f"accuracy {100 * outcome.accuracy:.2f} ±" in text
    assert "published figures" not in text


def test_average_of_the_five_only_when_all_are_there(tmp_path: Path) -> None:
    outcomes = [pair_outcome(name, accuracy=0.9 + 0.01 * i) for i, name in enumerate(HQ)]
    assert "five pair benches 92.00" in read_evaluation(tmp_path, outcomes).text()
    assert "five pair benches" not in read_evaluation(tmp_path, outcomes[1:]).text()


def test_page_loads_nothing(tmp_path: Path) -> None:
    page = read_evaluation(tmp_path, [pair_outcome(), template_outcome(2000), ranking_outcome()])
    for tag, attrs in page.tags:
        assert tag not in ("link", "iframe"), tag
        assert (attrs.get("src") or "data:").startswith("data:image/jpeg;base64,"[:5])
        assert (attrs.get("href") or "#").startswith("#")
    style = "".join(data for tag, data in page.texts if tag == "style")
    assert "url(" not in style
    assert "@import" not in style
    (policy,) = page.find("meta", http_equiv="Content-Security-Policy")
    assert (policy["content"] or "").startswith("default-src 'none'")


def test_every_link_and_chart_has_what_it_names(tmp_path: Path) -> None:
    page = read_evaluation(tmp_path, [pair_outcome(), template_outcome(2000), ranking_outcome()])
    ids = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    links = [attrs["href"] for _, attrs in page.tags if "href" in attrs]
    assert {str(link)[1:] for link in links} <= ids
    charts = [attrs for _, attrs in page.tags if "data-figure" in attrs]
    assert {attrs["data-figure"] for attrs in charts} <= ids
    assert len(charts) == len(json_scripts(page)) == 2 + 2 + 1
    assert all(attrs["aria-label"] for attrs in charts)


def test_mistakes_are_shown_as_pairs(tmp_path: Path) -> None:
    outcome = pair_outcome()
    page = read_evaluation(tmp_path, [outcome])
    images = page.find("img")
    assert len(images) == 2 * len(outcome.mistakes) == 20
    data = base64.b64decode((images[0]["src"] or "").split(",")[1])
    assert simplejpeg.decode_jpeg(data).shape == (112, 112, 3)
    name = outcome.mistakes[0].names[0]
    assert images[0]["alt"] == f"Face image {name}"
    first = outcome.mistakes[0]
    said = "rejected, but it is one person" if first.same else "accepted, but these are two people"
    assert f"score {first.score:.3f} {said}".replace("-", "−") in page.text()


def test_folds_and_threshold(tmp_path: Path) -> None:
    outcome = pair_outcome()
    page = read_evaluation(tmp_path, [outcome])
    cells = [data for tag, data in page.texts if tag == "td"]
    for accuracy in outcome.accuracies:
        assert f"{100 * accuracy:.2f}\u00a0%" in cells
    assert f"threshold of {outcome.threshold_cosine:.3f}" in page.text()


def test_templates_and_ranking(tmp_path: Path) -> None:
    outcomes = [template_outcome(2000), ranking_outcome()]
    text = read_evaluation(tmp_path, outcomes).text()
    assert "2,000 pairs: 20 genuine, 1,980 impostors" in text
    assert "for less, TAR is told for no false accept at all" in text
    assert "rank 1 90.00 87.50 TPIR at FPIR 0.01 80.00 75.00" in text
    assert "rank 20 97.50 % mean average precision 40.00 %" in text
    assert "these crops are <others>" in text
    assert "found first, but it is another person" in text


@pytest.mark.parametrize("genuine", [True, False])
def test_pairs_of_one_kind_have_no_roc(tmp_path: Path, genuine: bool) -> None:
    scores, _ = spread(30)
    outcome = pair_outcome(
        threshold_cosine=0.3, scores=scores, same=np.full(30, genuine), mistakes=()
    )
    page = read_evaluation(tmp_path, [outcome])
    missing = "impostor" if genuine else "genuine"
    assert f"There are no {missing} pairs, so there is no ROC." in page.text()
    (figure,) = map(json.loads, json_scripts(page))
    assert len(figure["data"]) == 2  # one kind, the threshold


def test_nothing_to_draw(tmp_path: Path) -> None:
    none = np.empty(0)
    outcomes = [
        BenchResult(bench=find_bench("lfw"), accuracy=1.0),
        BenchResult(bench=find_bench("calfw"), scores=none, same=none.astype(bool)),
    ]
    page = read_evaluation(tmp_path, outcomes)
    assert not json_scripts(page)
    assert "Plotly.newPlot" not in page.html
    assert read_evaluation(tmp_path, []).text().count("No bench was evaluated.") == 1


def test_hostile_words_stay_words(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script>"
    outcome = pair_outcome(warnings=(evil,))
    mistakes = (replace(outcome.mistakes[0], names=(evil, '" onerror="x')),)
    page = read_evaluation(tmp_path, [replace(outcome, mistakes=mistakes)], {"name": evil, evil: 1})
    assert evil in [data for tag, data in page.texts if tag == "h1"]
    assert "<script>alert" not in page.html
    assert not [attrs for _, attrs in page.tags if "onerror" in attrs]


def test_page_stays_small(tmp_path: Path) -> None:
    outcomes = [pair_outcome(name) for name in HQ] + [template_outcome(200_000)]
    path = write_evaluation(tmp_path, MODEL, outcomes)
    assert path.stat().st_size < 7_000_000  # of noise: photographs take a third of it


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "evaluation.html").mkdir()
    with pytest.raises(SearchStoppedError, match=r"evaluation\.html: cannot be written"):
        write_evaluation(tmp_path, MODEL, [pair_outcome()])
    assert [entry.name for entry in tmp_path.iterdir()] == ["evaluation.html"]
