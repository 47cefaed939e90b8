"""What the page says of a supernet: tau and pairs against brute force, at every stage of the search."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from report_front_folders import finish_front_search, make_front_run
from report_page_reader import Page, json_scripts, read_page
from report_supernet_folders import EPOCHS, NETWORKS, make_supernet_run
from scipy.stats import kendalltau

from facenas.report.front.beside import set_beside
from facenas.report.front.costs import told
from facenas.report.front.members import weighed
from facenas.report.front.picking import pick_command
from facenas.report.front.trust import Trust, read_trust
from facenas.report.reading import read_run
from facenas.strategies.rank_check import WEAK, rank_warning


def _figure(page: Page, heading: str) -> dict[str, Any]:
    """The chart with this title on its first scale."""
    figures = [json.loads(text) for text in json_scripts(page)]
    (found,) = (f for f in figures if f["layout"]["annotations"][0]["text"] == heading)
    return dict(found)


def _trust(run: Path) -> Trust:
    found = read_trust(read_run(run))
    assert found is not None
    return found


@pytest.mark.parametrize("doubt", [0.0, 0.3, 1.0])
def test_tau_is_that_of_the_search(tmp_path: Path, doubt: float) -> None:
    best = make_supernet_run(tmp_path / "run", doubt=doubt)
    assert best is not None
    trust = _trust(tmp_path / "run")
    assert trust.complete
    assert trust.tau == best["tau"]
    pairs = [(one["accuracy_shared"], one["accuracy_alone"]) for one in best["ranked"]]
    assert [(one.shared.accuracy, one.alone.accuracy) for one in trust.ranked] == pairs
    assert trust.tau == pytest.approx(kendalltau(*zip(*pairs, strict=True)).statistic)
    signs = [(a[0] - b[0]) * (a[1] - b[1]) for a, b in combinations(pairs, 2)]
    alike, opposite = sum(s > 0 for s in signs), sum(s < 0 for s in signs)
    assert f"Of 15 pairs of networks it ranks {alike} alike and {opposite} the other" in (
        trust.meaning
    )
    for column, rank in enumerate(("rank_shared", "rank_alone")):
        order = sorted((pair[column] for pair in pairs), reverse=True)
        ranks = [order.index(pair[column]) + 1 for pair in pairs]
        assert [getattr(one, rank) for one in trust.ranked] == ranks


def test_page_of_a_supernet_that_agrees(tmp_path: Path) -> None:
    best = make_supernet_run(tmp_path / "run")
    assert best is not None
    assert best["tau"] > 0.9
    page = read_page(tmp_path / "run")
    text = page.text()
    assert "How far the supernet can be trusted" in text
    assert f"Kendall’s tau is {best['tau']:.2f}." in text
    assert "chance, and the front rests on it" not in text
    assert "judged by a supernet of 3 epochs; error, MACs and memory are to be small" in text
    points = _figure(page, "accuracy by the supernet’s weights, %")["data"][0]
    assert points["x"] == [one["accuracy_alone"] for one in best["ranked"]]
    assert points["y"] == [one["accuracy_shared"] for one in best["ranked"]]
    assert " wide" in points["hovertext"][0]
    loss = _figure(page, "training loss of the supernet")["data"][0]
    assert loss["y"] == [2.0, 1.0, pytest.approx(2 / 3)]
    most = best["front"][0]["accuracy"]
    assert f"Accuracy by the supernet’s weights {most:.2f}\u00a0%" in page.html
    assert "Best accuracy by the supernet’s weights" in text
    assert "trained for 0 epochs" not in text
    assert len(page.find("svg", class_="network framed")) == len(best["front"])


@pytest.mark.parametrize(
    ("tau", "words"),
    [
        (
            None,
            "Kendall's tau is not defined, as all networks were equally accurate: the supernet's",
        ),
        (-0.5, "Kendall's tau is -0.5, below 0.3: the supernet's ranking of networks is hardly"),
        (0.2987, "Kendall's tau is 0.299, below 0.3"),
        (WEAK, None),
        (1.0, None),
    ],
)
def test_warning(tau: float | None, words: str | None) -> None:
    found = rank_warning(tau)
    if words is None:
        assert found is None
    else:
        assert found is not None
        assert found.startswith(words)
        assert "\n" not in found


def test_weak_supernet_is_warned_of(tmp_path: Path) -> None:
    make_supernet_run(tmp_path / "run")
    lines = [json.loads(s) for s in (tmp_path / "run" / "trials.jsonl").read_text().splitlines()]
    for number, line in enumerate(lines[NETWORKS : 2 * NETWORKS]):
        line["accuracy"] = -lines[number]["accuracy"] + 100
    _write(tmp_path / "run", lines)
    page = read_page(tmp_path / "run")
    assert "A weak judge. Kendall's tau is -1, below 0.3" in page.text()
    assert "Kendall’s tau is −1.00." in page.text()
    for line in lines[NETWORKS : 2 * NETWORKS]:
        line["accuracy"] = 50.0
    _write(tmp_path / "run", lines)
    text = read_page(tmp_path / "run").text()
    assert "A weak judge. Kendall's tau is not defined" in text
    assert "Kendall’s tau is not defined." in text


def _write(run: Path, lines: list[dict[str, Any]]) -> None:
    (run / "trials.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize(
    ("trained", "trials", "ranked"),
    [(0, 0, 0), (2, 0, 0), (EPOCHS, NETWORKS, 0), (EPOCHS, NETWORKS + 4, 4)],
)
def test_under_way(tmp_path: Path, trained: int, trials: int, ranked: int) -> None:
    make_supernet_run(tmp_path / "run", trials, trained=trained)
    page = read_page(tmp_path / "run")
    text = page.text()
    assert f"{trained} of 3 epochs of the supernet, {ranked} of 6 networks trained" in text
    assert "No trial has finished yet." in text
    assert "A weak judge" not in text
    assert "--pick" not in text
    assert len(json_scripts(page)) == (trained > 0) + (ranked > 0)


def test_every_member_has_its_command(tmp_path: Path) -> None:
    best = make_supernet_run(tmp_path / "run")
    assert best is not None
    text = read_page(tmp_path / "run").text()
    for member in best["front"]:
        assert f"facenas train run --pick {member['id']} --run run-{member['id']}" in text
    assert "--pick" not in read_page(make_front_run(tmp_path / "begun")).text()
    finish_front_search(tmp_path / "begun")
    assert "facenas train begun --pick " in read_page(tmp_path / "begun").text()


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("facenas search --preset pareto --run x", ""),
        ("facenas search --runs-dir /tmp/a --preset pareto", " --runs-dir /tmp/a"),
        ("facenas search '--runs-dir=my runs'", " --runs-dir 'my runs'"),
        ("facenas search --runs-dir", ""),
        ("facenas search --run 'unbalanced", ""),
    ],
)
def test_command_knows_the_folder_of_runs(tmp_path: Path, command: str, option: str) -> None:
    make_supernet_run(tmp_path / "run", 0)
    read = read_run(tmp_path / "run")
    read = type(read)(**{**vars(read), "about": read.about.model_copy(update={"command": command})})
    assert pick_command(read, 7) == f"facenas train run --pick 7 --run run-7{option}"


def test_random_search_is_beside_only_when_judged_alike(tmp_path: Path) -> None:
    make_supernet_run(tmp_path / "run")
    make_supernet_run(tmp_path / "alone", strategy="random", supernet=None)
    run = read_run(tmp_path / "run")
    assert set_beside(run, None, weighed(run)) is None
    given = set_beside(run, tmp_path / "alone", weighed(run))
    assert given is not None
    assert given.label.endswith(", 5 epochs each")
    fewer = {"epochs": EPOCHS, "rank_networks": 2, "rank_epochs": 1}  # ranked less, judged alike
    make_supernet_run(tmp_path / "other", strategy="random", supernet=fewer)
    found = set_beside(run, None, weighed(run))
    assert found is not None
    assert found.label == "random search “other”"
    alone = read_run(tmp_path / "alone")
    assert getattr(set_beside(alone, tmp_path / "run", weighed(alone)), "label", "").endswith(
        ", by a supernet"
    )


def test_costs_have_units_everywhere(tmp_path: Path) -> None:
    objectives = ["memory", "parameters", "macs"]
    best = make_supernet_run(tmp_path / "run", objectives=objectives)
    assert best is not None
    page = read_page(tmp_path / "run")
    text, member = page.text(), best["front"][0]
    assert "Accuracy, % Memory Parameters MACs" in text  # the order of the settings
    assert (
        (tmp_path / "run" / "front.csv")
        .read_text()
        .startswith("id,accuracy,error,memory,parameters,macs,")
    )
    kilobytes = f"{member['memory'] / 1000:.3g}\u00a0kB"
    assert page.html.count(kilobytes) >= 4  # tile, table of the front, sentence, table of trials
    axes = [json.loads(s)["layout"]["xaxis"] for s in json_scripts(page)]
    (memory,) = (a for a in axes if a["title"]["text"] == "memory")
    assert memory.get("ticksuffix") == "B" or all(t.endswith("B") for t in memory["ticktext"])
    assert [told("latency", 2.5), told("memory", 512), told("memory", 4.2e6)] == [
        "2.5\u00a0ms",
        "512\u00a0B",
        "4.2\u00a0MB",
    ]
