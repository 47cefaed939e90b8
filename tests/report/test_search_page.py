"""The page of a run: it loads nothing, escapes everything, sorts by numbers, and shows every stage of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from report_extract import Page
from report_runs import (
    FRONT,
    GRAPH,
    finish_search,
    finish_training,
    line,
    macro_micro,
    make_run,
    plain,
    with_supernet,
)

from facenas.report import write_search_page
from facenas.report.read import read_run
from facenas.report.search_page import read_confusion

EVIL = "</script><script>alert(1)</script>"


def page_of(run: Path) -> Page:
    return Page(write_search_page(run).read_text(encoding="utf-8"))


@pytest.mark.parametrize("front", [True, False])
def test_page_loads_nothing(tmp_path: Path, front: bool) -> None:
    trials = with_supernet() if front else macro_micro()
    page = page_of(make_run(tmp_path / "run", trials, space=GRAPH, search=FRONT if front else {}))
    for tag, attrs in page.tags:
        assert tag not in ("link", "img", "iframe"), tag
        assert "src" not in attrs
        assert (attrs.get("href") or "#").startswith(("#", "data:text/csv"))
    style = page.html[page.html.index("<style>") : page.html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    (policy,) = page.find("meta", http_equiv="Content-Security-Policy")
    assert (policy["content"] or "").startswith("default-src 'none'")


@pytest.mark.parametrize("front", [True, False])
def test_every_link_and_chart_has_what_it_names(tmp_path: Path, front: bool) -> None:
    trials = with_supernet() if front else macro_micro()
    page = page_of(make_run(tmp_path / "run", trials, space=GRAPH, search=FRONT if front else {}))
    ids = {str(attrs["id"]) for _, attrs in page.tags if "id" in attrs}
    links = [str(attrs["href"]) for _, attrs in page.tags if "href" in attrs]
    assert {link[1:] for link in links if link.startswith("#")} <= ids
    charts = {str(attrs["data-figure"]) for _, attrs in page.tags if "data-figure" in attrs}
    charts |= {str(a["value"]) for a in page.find("option") if str(a["value"]).startswith("figure-")}
    assert charts == {f"figure-{name}" for name in page.figures}


@pytest.mark.parametrize("front", [True, False])
def test_hostile_words_stay_words(tmp_path: Path, front: bool) -> None:
    trials = with_supernet() if front else macro_micro()
    trials[-1] |= {"note": EVIL, "status": "failed", "reason": EVIL, "reason_proposed": EVIL}
    trials.append(trials[0] | {"trial": len(trials), "phase": EVIL})
    run = make_run(tmp_path / "run", trials, space=GRAPH, search=FRONT if front else {EVIL: EVIL})
    finish_training(run, plain(5, 8), confusion=[[1, 1], [1, 1]], classes=[EVIL, "b"], device=EVIL)
    about = yaml.safe_load((run / "run.yaml").read_text()) | {"name": EVIL, "command": EVIL}
    (run / "run.yaml").write_text(yaml.safe_dump(about))
    page = page_of(run)
    assert EVIL in page.lines
    assert "<script>alert" not in page.html
    hovers = json.dumps([trace.get("text", "") for f in page.figures.values() for trace in f["data"]])
    assert "<script>" not in hovers


def test_columns_of_numbers_sort_by_them(tmp_path: Path) -> None:
    trials = [line(n, "p", plain(9 + n, 8), 99.9 + n / 100, latency=float(n)) for n in range(3)]
    page = page_of(make_run(tmp_path / "run", trials))
    body = page.html[page.html.index('aria-label="All trials"') :]
    (head, *rows) = [line for line in page.lines if line.startswith("| ")][-len(page.lines) :][2:6]
    assert head == (
        "| Trial | Phase | Selection, % | Decision | Depth | Network | Parameters | MACs | Latency | Epochs "
        "| Train, % | Time"
    )
    assert [row.split(" | ")[5 - 1] for row in rows] == ["9", "10", "11"]
    for trial in trials:
        for name in ("parameters", "macs", "latency", "accuracy", "seconds"):
            assert f'data-key="{trial[name]}' in body  # what page.js compares, not the words shown


@pytest.mark.parametrize("trials", [0, 2, 3])
def test_search_under_way(tmp_path: Path, trials: int) -> None:
    page = page_of(make_run(tmp_path / "run", macro_micro()[:trials]))
    assert "searching" in page.html
    assert ("No trial has finished yet." in page.lines) == (trials == 0)
    assert ("The architecture found so far" in page.lines) == (trials > 0)
    blocks = [line for line in page.lines if line.startswith("[separable] ")]
    assert len(blocks) == (6 if trials else 0)  # of the last trial that was kept


def test_training_of_a_given_network(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [])
    finish_search(run, plain(5, 8))
    page = page_of(run)
    assert "Training of a given network on digits" in page.text()
    assert "The architecture trained" in page.lines
    assert not (run / "front.csv").exists()


def test_selection_on_test_images_is_told(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", macro_micro(), data_={})
    assert "Selected on the test set." not in page_of(run).text()
    run = make_run(tmp_path / "theirs", macro_micro(), **{"data": {"name": "digits", "image_size": 16}})
    about = yaml.safe_load((run / "run.yaml").read_text())
    about["config"]["data"] = {"select_on": "test"}
    (run / "run.yaml").write_text(yaml.safe_dump(about))
    assert "Selected on the test set." in page_of(run).text()


def test_generated_faces_are_told(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [], {"identities": 5, "source": "generated faces, seed 0"})
    assert "Generated faces. All faces of this run are drawn by facenas" in page_of(run).text()


def test_balanced_accuracy(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [])
    table = [[90, 10, 0], [1, 1, 0], [0, 0, 0]]
    finish_training(run, plain(5, 8), confusion=table)
    final = read_run(run).final
    assert final is not None
    found = read_confusion(final)
    assert found.balanced == pytest.approx((90 + 50) / 2)  # the third class has no image
    assert found.recalls == [("0", 100, 90.0), ("1", 2, 50.0)]
    assert found.worst == [("0", "1", 10), ("1", "0", 1)]
    figure = page_of(run).figures["confusion"]["data"][0]
    assert figure["customdata"] == table
    assert figure["z"][0] == [90.0, 10.0, 0.0]


def test_a_protocol_that_was_searched_is_shown_beside_the_recipe(tmp_path: Path) -> None:
    tree, recipe = plain(5, 8), {"lr": 0.025, "head": {"margin": 0.4}}
    trials = [line(0, "macro", tree, 60.0)]
    trials += [line(n, "protocol", tree, 60.0 + n, protocol={"head.margin": n / 10}) for n in (1, 2)]
    run = make_run(tmp_path / "run", trials, recipe=recipe)
    finish_search(run, tree, protocol={"head.margin": 0.2})
    page = page_of(run)
    shown = page.html[page.html.index("The training protocol found") :]
    row = shown[shown.index("head.margin") : shown.index("</tr>", shown.index("head.margin"))]
    assert row.index("0.4") < row.index("<strong>0.2</strong>")
    assert "lr" not in shown[: shown.index("</table>")], "only what was searched"
    assert shown.count("head.margin\N{NO-BREAK SPACE}") + shown.count("head.margin&nbsp;") == 2
