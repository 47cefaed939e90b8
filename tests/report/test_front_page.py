"""The page of a search for a front, read back with html.parser at every stage; the CSV beside it."""

from __future__ import annotations

import base64
import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from report_front_folders import finish_front_search, make_front_run
from report_page_reader import Page, json_scripts, read_page
from report_run_folders import finish_training, make_run, small_search

from facenas.errors import UserError
from facenas.report import write_report
from facenas.spaces import CellArchitecture, from_json

TWO = {"objectives": ["parameters", "macs"]}


def _figures(page: Page) -> list[dict[str, Any]]:
    return [json.loads(text) for text in json_scripts(page)]


def _trace(figure: dict[str, Any], name: str) -> dict[str, Any]:
    (trace,) = (trace for trace in figure["data"] if trace.get("name") == name)
    return trace


def _members(page: Page) -> list[int]:
    return [int(a["data-member"] or "") for t, a in page.tags if t == "tr" and "data-member" in a]


def test_finished_search(tmp_path: Path) -> None:
    run = make_front_run(tmp_path / "run", **TWO)
    best = finish_front_search(run, **TWO)
    page = read_page(run)
    text = page.text()
    ids = [member["id"] for member in best["front"]]
    assert (
        "NSGA-II on digits (1,295 training images, 10 classes, 28×28 pixels): 3 generations of 6"
        in text
    )
    assert "error, parameters and MACs are to be small" in text
    assert _members(page) == ids
    assert [a["id"] for a in page.find("div", class_="member")] == [f"member-{i}" for i in ids]
    assert [i for i, a in enumerate(page.find("div", class_="member")) if "hidden" not in a] == [0]
    assert len([a for t, a in page.tags if t == "tr" and "data-trial" in a]) == 18
    assert len(page.find("svg")) == len(ids)
    for_parameters, for_macs, growth, clock = _figures(page)
    for figure, cost in ((for_parameters, "parameters"), (for_macs, "macs")):
        front = _trace(figure, "the front")
        assert front["customdata"] == ids
        assert front["x"] == [member[cost] for member in best["front"]]
        assert front["y"] == pytest.approx([100 - member["accuracy"] for member in best["front"]])
    others = _trace(for_macs, "other candidates, fainter when earlier")
    assert len(others["x"]) == 18 - len(ids)  # none of them failed
    assert len(growth["data"]) == 1
    assert len(clock["data"][0]["y"]) == 3
    assert "Save as CSV" in text
    assert [a["value"] for a in page.find("option")][:2] == [
        "figure-front-parameters",
        "figure-front-macs",
    ]


def test_csv_is_the_front(tmp_path: Path) -> None:
    run = make_front_run(tmp_path / "run", **TWO)
    best = finish_front_search(run, **TWO)
    page = read_page(run)
    text = (run / "front.csv").read_text(encoding="utf-8")
    (link,) = page.find("a", class_="download")
    assert base64.b64decode((link["href"] or "").split(",")[1]).decode() == text
    rows = list(csv.DictReader(text.splitlines()))
    assert [list(row) for row in rows[:1]] == [
        ["id", "accuracy", "error", "parameters", "macs", "words", "architecture"]
    ]
    for row, member in zip(rows, best["front"], strict=True):
        assert {k: float(row[k]) for k in ("id", "accuracy", "error", "parameters", "macs")} == {
            k: member[k] for k in ("id", "accuracy", "error", "parameters", "macs")
        }
        assert json.loads(row["architecture"]) == member["architecture"]
        assert row["words"] == from_json(member["architecture"]).summary()


def test_page_loads_nothing(tmp_path: Path) -> None:
    page = read_page(make_front_run(tmp_path / "run", **TWO))
    for tag, attrs in page.tags:
        assert tag not in ("link", "img", "iframe"), tag
        assert "src" not in attrs
        assert (attrs.get("href") or "#").startswith(("#", "data:text/csv"))
    (policy,) = page.find("meta", http_equiv="Content-Security-Policy")
    assert (policy["content"] or "").startswith("default-src 'none'")


def test_search_under_way(tmp_path: Path) -> None:
    page = read_page(make_front_run(tmp_path / "run", told=7))
    text = page.text()
    assert "searching" in text
    assert "The Pareto front so far" in text
    assert "Search time so far" in text
    assert 0 < len(_members(page)) <= 7
    assert not page.find("select", id="front-axis")  # one cost alone


def test_search_just_begun(tmp_path: Path) -> None:
    run = make_front_run(tmp_path / "run", told=0)
    page = read_page(run)
    assert "No trial has finished yet." in page.text()
    assert not page.find("svg")
    assert not json_scripts(page)
    assert (run / "front.csv").read_text() == "id,accuracy,error,parameters,words,architecture\n"


def test_budget_is_answered_and_its_network_shown(tmp_path: Path) -> None:
    run = make_front_run(tmp_path / "run")
    best = finish_front_search(run)
    wanted = next(m for m in best["front"] if m["parameters"] <= 3000)
    page = Page(write_report(run, budget={"parameters": 3000}).read_text())
    assert f"within 3\u00a0k parameters: trial {wanted['id']}, accuracy" in page.html
    (shown,) = (a for a in page.find("div", class_="member") if "hidden" not in a)
    assert shown["id"] == f"member-{wanted['id']}"
    assert page.find("tr", aria_current="true")[0]["data-member"] == str(wanted["id"])
    page = Page(write_report(run, budget={"parameters": 1}).read_text())
    assert "No network of the front keeps 1 parameters." in page.text()


def test_limits_are_told_and_kept(tmp_path: Path) -> None:
    limited = {**TWO, "limits": {"macs": 2e6}}
    page = read_page(make_front_run(tmp_path / "run", **limited))
    assert "Limits: 2,000,000 MACs." in page.text()
    for_parameters, for_macs, *_ = _figures(page)
    assert for_macs["layout"]["shapes"][0]["x0"] == 2e6
    assert "shapes" not in for_parameters["layout"]
    assert max(_trace(for_macs, "the front")["x"]) <= 2e6


def test_trained_network_is_marked(tmp_path: Path) -> None:
    run = make_front_run(tmp_path / "run")
    best = finish_front_search(run)
    second = CellArchitecture.from_json(best["front"][1]["architecture"])
    finish_training(run, second)  # type: ignore[arg-type]
    text = read_page(run).text()
    assert f"Trial {best['front'][1]['id']} trained: 71.25 %" in text
    assert f"{second.summary()}. Test accuracy 71.25 %" in text


def test_networks_picked_into_runs_beside_are_marked(tmp_path: Path) -> None:
    """When they are of the same images; a damaged run beside does not matter."""
    search = make_front_run(tmp_path / "search")
    first, second = finish_front_search(search)["front"][:2]
    for name, member in (("a", first), ("b", first), ("c", second)):
        picked = make_front_run(tmp_path / name, 0)
        finish_training(picked, CellArchitecture.from_json(member["architecture"]))  # type: ignore[arg-type]
    other = tmp_path / "b" / "run.yaml"
    other.write_text(other.read_text().replace("f00d", "beef"))
    (tmp_path / "c" / "run.yaml").write_text("torn: [")
    text = read_page(search).text()
    assert f"Trial {first['id']} most accurate trained as a: 71.25 %" in text
    assert "trained as b" not in text
    assert "trained as c" not in text


def test_training_of_a_given_cell_network(tmp_path: Path) -> None:
    best = finish_front_search(make_front_run(tmp_path / "search"))
    run = make_run(
        tmp_path / "run", [], {"space": {"kind": "cells"}, "search": {"strategy": "nsga2"}}
    )
    tree = {"architecture": best["architecture"], "parameters": best["parameters"], "macs": 12345}
    (run / "best.json").write_text(json.dumps(tree))
    page = read_page(run)
    assert "Training of a given network on cifar10" in page.text()
    assert len(page.find("svg", class_="network framed")) == 1
    assert not (run / "front.csv").exists()


def test_hostile_words_stay_words(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script>"
    run = make_front_run(tmp_path / "run")
    lines = [json.loads(line) for line in (run / "trials.jsonl").read_text().splitlines()]
    lines[0] |= {"decision": evil, "status": "failed", "reason": evil}
    lines.append(lines[1] | {"trial": len(lines), "phase": evil})
    (run / "trials.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    other = make_front_run(tmp_path / "other", strategy="random")
    about = yaml.safe_load((other / "run.yaml").read_text()) | {"name": evil}
    (other / "run.yaml").write_text(yaml.safe_dump(about))
    page = read_page(run)
    assert evil in page.text()
    assert "<script>alert" not in page.html


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"front": []}, "best.json: has no front"),
        ({"front": [{"id": 0}]}, "best.json: front.0.accuracy: Field required"),
        ({"front": "all"}, "best.json: front: "),
        ({0: {"id": 99}}, "best.json: front: trials.jsonl has no candidate 99"),
        ({0: {"parameters": None}}, "best.json: front.0.values.parameters: "),
        ({0: {"error": "much"}}, "best.json: front.0.values.error: "),
        ({1: {"id": 0}}, "best.json: front: trial 0 has another architecture in trials.jsonl"),
    ],
)
def test_damage_of_best_is_told(tmp_path: Path, change: dict[Any, Any], words: str) -> None:
    run = make_front_run(tmp_path / "run")
    best = finish_front_search(run)
    for key, value in change.items():
        if isinstance(key, str):
            best[key] = value
        else:
            best = best | {"front": [dict(member) for member in best["front"]]}
            best["front"][key] |= value
    (run / "best.json").write_text(json.dumps(best))
    with pytest.raises(UserError) as caught:
        write_report(run)
    assert words in str(caught.value)
    assert "restore the file" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(run.glob("*.html")) + list(run.glob("*.csv"))


def test_other_damage_is_told(tmp_path: Path) -> None:
    run = make_front_run(tmp_path / "run")
    about = yaml.safe_load((run / "run.yaml").read_text())
    del about["data"]["image_size"]
    (run / "run.yaml").write_text(yaml.safe_dump(about))
    with pytest.raises(UserError, match=r"run.yaml: data.image_size is missing; restore the file"):
        write_report(run)
    lines = (run / "trials.jsonl").read_text().replace('"stem"', '"stalk"', 1)
    (run / "trials.jsonl").write_text(lines)
    with pytest.raises(UserError, match=r"line 1: architecture: .* needs the field 'stem'"):
        write_report(run)


def test_unknown_phase_of_macro_micro_search(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [small_search()[0] | {"phase": "generation 1"}])
    with pytest.raises(UserError, match="line 1: phase: 'generation 1' is none of macro-micro"):
        write_report(run)
