"""The page of a classification run, read back with html.parser at every stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from report_page_reader import json_scripts, read_page
from report_run_folders import (
    FOUND,
    LOG,
    finish_search,
    finish_training,
    make_run,
    recorded_search,
    small_search,
)

from facenas.spaces.plain import PlainArchitecture


def test_finished_run_tells_everything(tmp_path: Path) -> None:
    run = make_run(tmp_path / "finished", small_search())
    finish_search(run, FOUND)
    finish_training(run, FOUND)
    page = read_page(run)
    text = page.text()
    assert len(page.find("tr", data_trial="0")) == 1
    assert len([a for tag, a in page.tags if tag == "tr" and "data-trial" in a]) == 8
    assert len(page.find("g", class_="block")) == FOUND.depth + 2
    assert "71.25 % 7,125 of 10,000 right" in text
    assert "5 h 49 min with 8 workers" in text
    assert "plain convolutions at layer 2; 5×5 kernels at layer 5" in text
    assert "facenas search --preset tiny --run finished" in text
    assert "Selected on the test set" not in text
    assert "speculative" in text


def test_page_loads_nothing(tmp_path: Path) -> None:
    page = read_page(make_run(tmp_path / "run", small_search()))
    for tag, attrs in page.tags:
        assert tag not in ("link", "img", "iframe"), tag
        assert "src" not in attrs
        assert (attrs.get("href") or "#").startswith("#")
    style = "".join(data for tag, data in page.texts if tag == "style")
    assert "url(" not in style
    assert "@import" not in style
    (policy,) = page.find("meta", http_equiv="Content-Security-Policy")
    assert (policy["content"] or "").startswith("default-src 'none'")


def test_figures_are_valid_and_complete(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", small_search())
    finish_training(run, FOUND)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"trial": "final", "epoch": 4, "train_loss": NaN, "train_accuracy": 10.0}\n')
    course, training = (json.loads(text) for text in json_scripts(read_page(run)))
    hovers = [hover for trace in course["data"] for hover in trace.get("text", [])]
    for t in small_search():
        assert any(hover.startswith(f"<b>trial {t['trial']}</b>") for hover in hovers)
    assert any("loss is NaN &lt;at&gt; epoch 3" in hover for hover in hovers)
    steps = [trace["y"] for trace in course["data"] if trace["mode"] == "lines"]
    assert steps == [[60.0, 64.5, 65.0], [30.0, 33.0, 35.25, 35.25]]
    assert training["data"][1]["y"] == [2.0, 1.5, 1.25, None]


def test_resumed_training_goes_on_from_its_last_start(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", small_search())
    epochs = [(1, 5.0), (2, 4.0), (3, 3.0), (2, 2.5)]
    lines = [json.dumps({"trial": "final", "epoch": e, "train_loss": loss}) for e, loss in epochs]
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    _, training = (json.loads(text) for text in json_scripts(read_page(run)))
    assert training["data"][1]["x"] == [1, 2]
    assert training["data"][1]["y"] == [5.0, 2.5]


def test_search_under_way(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", small_search()[:3])
    with (run / "trials.jsonl").open("a") as file:
        file.write('{"trial": 3, "phase": "wid')
    page = read_page(run)
    assert "searching" in page.text()
    assert "The best architecture so far" in page.text()
    assert "Search time so far 3 min 0 s" in page.text()
    assert len(page.find("g", class_="block")) == 6 + 2
    assert "failed: loss is NaN <at> epoch 3" in page.text()


def test_network_so_far_is_the_one_the_search_holds(tmp_path: Path) -> None:
    trials = small_search()[:2]
    trials.append(trials[1] | {"trial": 2, "width": 12, "accuracy": 64.55, "decision": "go on"})
    page = read_page(make_run(tmp_path / "run", trials))
    assert "6 layers, width 10" in page.text()


@pytest.mark.parametrize("trials", [[], small_search()[2:3]], ids=["no trial", "only a failed one"])
def test_search_just_begun(tmp_path: Path, trials: list[dict[str, Any]]) -> None:
    run = make_run(tmp_path / "run", trials)
    if not trials:
        (run / "trials.jsonl").unlink()
    page = read_page(run)
    assert not page.find("svg")
    assert ("No trial has finished yet." in page.text()) == (not trials)


def test_only_the_settings_must_be_there(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", small_search())
    (run / "run.yaml").write_text("config: {}\n")
    assert "run" in [data for tag, data in read_page(run).texts if tag == "h1"]


def test_training_of_a_given_network_has_no_search(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [], {"data": {"select_on": "test"}})
    tree = {"architecture": FOUND.to_json(), "parameters": FOUND.count_parameters(), "macs": 12345}
    (run / "best.json").write_text(json.dumps(tree))
    finish_training(run, FOUND)
    text = read_page(run).text()
    assert "Training of a given network on cifar10" in text
    assert "The architecture trained" in text
    assert "7,125 of 10,000 right" in text
    for of_a_search in ("Selected on the test set", "optimistic", "Selection accuracy", "course"):
        assert of_a_search not in text


def test_hostile_words_stay_words(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script>"
    trials = small_search()
    trials[0]["decision"] = evil
    trials[2]["reason"] = evil
    run = make_run(tmp_path / "run", trials)
    tree = yaml.safe_load((run / "run.yaml").read_text())
    tree |= {"name": evil, "command": evil, "versions": {evil: evil}, "data": {"name": evil}}
    (run / "run.yaml").write_text(yaml.safe_dump(tree))
    page = read_page(run)
    assert evil in [data for tag, data in page.texts if tag == "h1"]
    assert "<script>alert" not in page.html
    assert len(page.find("script")) == 3  # the course's figure, plotly, our own


def test_selection_on_the_test_set_is_told(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", small_search(), {"data": {"select_on": "test"}})
    finish_training(run, FOUND)
    page = read_page(run)
    assert len(page.find("div", class_="warning")) == 1
    assert "Selected on the test set" in page.text()
    assert "the test accuracy is optimistic" in page.text()


def test_recorded_search(tmp_path: Path) -> None:
    trials = recorded_search()
    run = make_run(tmp_path / "cifar10", trials)
    final = json.loads(LOG.read_text())["final"] | {"in_channels": 3, "num_classes": 10}
    finish_search(run, PlainArchitecture.from_json(final))
    page = read_page(run)
    assert len([a for tag, a in page.tags if tag == "tr" and "data-trial" in a]) == 86
    assert len(page.find("g", class_="block")) == 28
    assert "5×5 kernels at layers 14, 18" in page.text()
