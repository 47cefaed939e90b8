"""A front's numbers against brute force; budgets, CSV, a second search beside, what does not fit."""

from __future__ import annotations

import base64
import csv
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_extract import Page
from report_runs import (
    FRONT,
    GRAPH,
    finish_front,
    finish_training,
    graph,
    line,
    macro_micro,
    make_run,
    with_supernet,
)
from scipy.stats import kendalltau

from facenas.errors import UserError
from facenas.report import write_search_page
from facenas.report.front import (
    Member,
    find_beside,
    parse_budget,
    pick_command,
    rank_check,
    read_front,
    recommend,
    recommendation,
)
from facenas.report.read import Network, Trial, read_run
from facenas.spaces import from_json

ACCURACIES = [40.0, 62.0, 55.5, 0.0, 71.0, 70.0, 33.0, 80.0, 12.0]


def searched() -> list[dict[str, Any]]:
    """Three generations of three networks, wider from one to the next; one fails."""
    kinds = (["conv3"], ["separable3"], ["bottleneck3"])
    trials = []
    for n, accuracy in enumerate(ACCURACIES):
        more = {"status": "failed"} if accuracy == 0 else {}
        tree = graph(3 + n // 3, ["conv3"], kinds[n % 3])
        trials.append(line(n, f"generation {n // 3 + 1}", tree, accuracy, **more))
    return trials


def front_run(run: Path, trials: list[dict[str, Any]] | None = None, **search: Any) -> Path:
    settings = {**FRONT, "objectives": ["macs"], **search}
    return make_run(run, searched() if trials is None else trials, space=GRAPH, search=settings)


def area(pairs: list[tuple[float, float]]) -> float:
    """Within the unit square, above and right of the pairs: slices between neighboring first values."""
    edges = sorted({x for x, _ in pairs if x < 1} | {1.0})
    slices = pairwise(edges)
    return sum((b - a) * max(0.0, 1 - min((y for x, y in pairs if x <= a), default=1.0)) for a, b in slices)


@pytest.mark.parametrize("search", [{}, {"limits": {"macs": 250_000}}], ids=["free", "limited"])
def test_hypervolume_of_every_phase(tmp_path: Path, search: dict[str, Any]) -> None:
    run = read_run(front_run(tmp_path / "run", **search))
    front = read_front(run)
    limit = search.get("limits", {}).get("macs", float("inf"))
    for number, one in enumerate(front.growth, start=1):
        so_far = [t for t in run.trials[: 3 * number] if not t.failed and t.values["macs"] <= limit]
        pairs = [(1 - t.accuracy / 100, t.values["macs"] / front.corner["macs"]) for t in so_far]
        assert one.hypervolume == pytest.approx(area(pairs))
        better = [[o for o in pairs if o != p and o[0] <= p[0] and o[1] <= p[1]] for p in pairs]
        assert one.members == sum(not some for some in better)
        assert one.judged == 3 * number
    assert front.corner["macs"] == search.get("limits", {}).get("macs", 3_907_904.0)


def test_front_so_far_is_that_of_the_finished_search(tmp_path: Path) -> None:
    running, trials = front_run(tmp_path / "running"), searched()
    so_far = read_front(read_run(running)).members
    finish_front(running, trials, [m.id for m in so_far], ["macs"])
    finished = read_front(read_run(running)).members
    assert finished == so_far
    assert [m.accuracy for m in so_far] == sorted((m.accuracy for m in so_far), reverse=True)


def test_a_cost_that_only_the_journal_tells(tmp_path: Path) -> None:
    trials = [t | {"values": {"energy": 10.0 - n}} for n, t in enumerate(searched())]
    front = read_front(read_run(front_run(tmp_path / "run", trials, objectives=["energy"])))
    assert [m.values["energy"] for m in front.members] == [3.0, 2.0]
    assert recommend(front.members, {"energy": 2.5}) is front.members[1]
    page = Page(write_search_page(tmp_path / "run", budget={"energy": 2.5}).read_text())
    assert "The most accurate within 2.5 energy: trial 8" in page.text()


def test_csv_is_the_front(tmp_path: Path) -> None:
    run = front_run(tmp_path / "run")
    best = finish_front(run, searched(), [7, 4, 1], ["macs"])
    page = Page(write_search_page(run).read_text())
    text = (run / "front.csv").read_text(encoding="utf-8")
    (link,) = page.find("a", class_="download")
    assert base64.b64decode((link["href"] or "").split(",")[1]).decode() == text
    rows = list(csv.DictReader(text.splitlines()))
    assert list(rows[0]) == ["id", "accuracy", "error", "macs", "words", "architecture"]
    for row, member in zip(rows, best["front"], strict=True):
        assert {k: float(row[k]) for k in ("id", "accuracy", "error", "macs")} == {
            k: member[k] for k in ("id", "accuracy", "error", "macs")
        }
        assert json.loads(row["architecture"]) == member["architecture"]


def test_trained_members_are_marked(tmp_path: Path) -> None:
    """In the run itself, or picked into one beside it on the same images; a damaged run does not matter."""
    run, trials = front_run(tmp_path / "run"), searched()
    front = finish_front(run, trials, [7, 4], ["macs"])["front"]
    finish_training(run, front[1]["architecture"])
    for name, tree in (("a", front[0]["architecture"]), ("b", front[0]["architecture"])):
        finish_training(make_run(tmp_path / name, []), tree)
    (tmp_path / "b" / "run.yaml").write_text("torn: [")
    lines = Page(write_search_page(run).read_text()).lines
    assert "Trial 7 most accurate trained as a: 71.25 %" in lines
    assert "Trial 4 trained: 71.25 %" in lines


@pytest.mark.parametrize("folder", ["--runs-dir elsewhere", "'--runs-dir=else where'", "", "--run 'torn"])
def test_pick_command(tmp_path: Path, folder: str) -> None:
    read = read_run(front_run(tmp_path / "run"))
    about = read.about.model_copy(update={"command": f"facenas search {folder}"})
    option = {"'": " --runs-dir 'else where'", "-": f" {folder}"}.get(folder[:1], "")
    option = "" if "torn" in folder else option
    command = pick_command(type(read)(**{**vars(read), "about": about}), 7)
    assert command == f"facenas train run --pick 7 --run run-7{option}"


# Budgets.


def test_the_documented_budget() -> None:
    found = parse_budget("params=1M,macs=80M,memory=4MB, latency=2.5ms, energy = .5k")
    assert found == {"parameters": 1e6, "macs": 80e6, "memory": 4e6, "latency": 2.5, "energy": 500}


@given(st.text(max_size=30) | st.from_regex(r"(params|macs|memory)=[\d.kMGBe-]{0,6}", fullmatch=True))
def test_any_other_budget_gets_one_sentence(text: str) -> None:
    try:
        budget, fault = parse_budget(text), ""
    except UserError as error:
        budget, fault = {}, str(error)
    assert bool(budget) != fault.startswith("budget: ")
    assert len(fault.splitlines()) <= 1
    assert all(0 < most < float("inf") for most in budget.values())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "'' is no limit; write it as params=1M"),
        ("params", "'params' is no limit"),
        ("params=1M,", "'' is no limit"),
        ("params=1M,parameters=2M", "parameters is limited twice"),
        ("params=1MB", "'1MB' is not a limit of parameters"),
        ("memory=4ms", "'4ms' is not a limit of memory"),
        ("macs=0", "'0' is not a limit of macs; write a number above 0"),
        ("macs=-3", "'-3' is not a limit"),
        ("macs=1T", "'1T' is not a limit"),
        ("macs=" + "9" * 400, "is not a limit"),
    ],
)
def test_faults_of_a_budget(text: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_budget(text)
    assert words in str(caught.value)


VALUES = st.integers(0, 5).map(float)


@given(
    st.lists(st.tuples(VALUES, VALUES, VALUES), max_size=8),
    st.dictionaries(st.sampled_from(["parameters", "macs"]), VALUES, min_size=1),
)
def test_the_most_accurate_within_all_limits(
    rows: list[tuple[float, float, float]], budget: dict[str, float]
) -> None:
    front = []
    for number, (error, parameters, macs) in enumerate(rows):
        costs = {"parameters": parameters, "macs": macs}
        trial = Trial.model_construct(trial=number)
        front.append(Member(number, 100 - error, {"error": error, **costs}, costs, Network({}), trial))
    found = recommend(front, budget)
    allowed = [m for m in front if all(m.costs[n] <= most for n, most in budget.items())]
    assert (found is None) == (not allowed)
    for other in allowed:
        assert found is not None
        assert found.accuracy >= other.accuracy
        if other.accuracy == found.accuracy:
            assert tuple(found.values.values()) <= tuple(other.values.values())


def test_a_recommendation(tmp_path: Path) -> None:
    run = front_run(tmp_path / "run")
    best = finish_front(run, searched(), [7, 4, 1], ["macs"])
    wanted = best["front"][1]
    found = recommendation(run, {"macs": wanted["macs"]})
    assert found.to_json()["recommended"] == wanted
    assert found.sentence.startswith("The most accurate within ")
    page = Page(write_search_page(run, budget={"macs": wanted["macs"]}).read_text())
    assert page.find("tr", aria_current="true")[0]["data-member"] == "4"
    (shown,) = (a for a in page.find("div", class_="member") if "hidden" not in a)
    assert shown["id"] == "member-4"
    none = recommendation(run, {"macs": 1.0})
    assert (none.member, none.sentence) == (None, "No network of the front keeps 1 MACs.")
    with pytest.raises(UserError, match=r"did not weigh memory; limit one of parameters, macs, or search"):
        recommendation(run, {"memory": 1e6})
    plain_run = make_run(tmp_path / "plain", macro_micro())
    with pytest.raises(UserError, match="is no search for a Pareto front"):
        recommendation(plain_run, {"macs": 1.0})
    with pytest.raises(UserError, match="give neither beside nor budget"):
        write_search_page(plain_run, beside=run)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id": 99}, "front: trial 99 has no line in trials.jsonl"),
        ({"macs": None}, "front: trial 7 has no macs"),
        ({"error": "much"}, "front: trial 7 has no error"),
    ],
)
def test_damage_of_the_front_is_told(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    run = front_run(tmp_path / "run")
    best = finish_front(run, searched(), [7, 4], ["macs"])
    best["front"][0] |= change
    (run / "best.json").write_text(json.dumps(best))
    with pytest.raises(UserError) as caught:
        write_search_page(run)
    assert words in str(caught.value)
    assert "restore the file" in str(caught.value)
    assert not list(run.glob("*.html")) + list(run.glob("*.csv"))


# Beside.


def test_random_search_in_the_same_folder_is_found(tmp_path: Path) -> None:
    front = read_front(read_run(front_run(tmp_path / "ours")))
    assert find_beside(front, None) is None
    front_run(tmp_path / "dice", strategy="random")
    front_run(tmp_path / "longer", [t | {"epochs": 5} for t in searched()], strategy="random")
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "run.yaml").write_text("strategy: random\n  ]")
    beside = find_beside(front, None)
    assert beside is not None
    assert beside.label == "random “dice”"
    assert beside.growth == front.growth  # the same candidates in the same box
    given = find_beside(front, tmp_path / "longer")
    assert given is not None
    assert given.label == "random “longer”, 5 epochs each"
    assert find_beside(read_front(read_run(tmp_path / "dice")), None) is None


def test_what_cannot_be_set_beside(tmp_path: Path) -> None:
    run = front_run(tmp_path / "ours")
    front_run(tmp_path / "memory", objectives=["memory"])
    other = front_run(tmp_path / "other")
    (other / "run.yaml").write_text((other / "run.yaml").read_text().replace("f00d", "beef"))
    make_run(tmp_path / "plain", macro_micro())
    faults = {
        "memory": r"weighs memory, but .*ours others",
        "other": "searched on other data than",
        "plain": "has no front to set beside",
        "nowhere": "no such run folder",
    }
    for name, words in faults.items():
        with pytest.raises(UserError, match=words):
            write_search_page(run, beside=tmp_path / name)


# A supernet's ranking.


def test_rank_check_against_scipy(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "run", with_supernet(), space=GRAPH, search=FRONT))
    check = rank_check(run)
    assert check is not None
    assert check.complete
    pairs = [(one.shared.accuracy, one.alone.accuracy) for one in check.ranked]
    assert pairs == [(50.0, 70.0), (60.0, 75.0), (80.0, 72.0)]
    assert check.tau == pytest.approx(kendalltau(*zip(*pairs, strict=True)).statistic)
    assert check.spread == pytest.approx((2 * 11 / (9 * 3 * 2)) ** 0.5)
    assert [(one.rank_shared, one.rank_alone) for one in check.ranked] == [(3, 3), (2, 1), (1, 2)]
    assert all(t.decision != "baseline" for t in (m.trial for m in read_front(run).members))


@pytest.mark.parametrize(("trials", "ranked"), [(0, None), (2, 0), (5, 2), (6, 3)])
def test_rank_check_under_way(tmp_path: Path, trials: int, ranked: int | None) -> None:
    search = {**FRONT, "supernet": {"epochs": 2}}
    run = make_run(tmp_path / "run", with_supernet()[:trials], space=GRAPH, search=search)
    check = rank_check(read_run(run))
    assert (check and len(check.ranked)) == ranked
    text = Page(write_search_page(run).read_text()).text()
    assert f"Under way: 0 epochs of the supernet, {ranked or 0} network" in text
    assert "A weak judge" not in text


def test_a_weak_supernet_is_warned_of(tmp_path: Path) -> None:
    trials = with_supernet()
    for trial, accuracy in zip(trials[3:6], (75.0, 72.0, 60.0), strict=True):
        trial["accuracy"] = accuracy
    text = Page(
        write_search_page(make_run(tmp_path / "run", trials, space=GRAPH, search=FRONT)).read_text()
    ).text()
    assert "A weak judge. Kendall's tau is -1, below 0.3" in text
    assert "Kendall’s tau is −1.00." in text


def test_memory_is_counted_where_no_line_tells_it(tmp_path: Path) -> None:
    front = read_front(read_run(front_run(tmp_path / "run", objectives=["memory"])))
    for member in front.members:
        assert member.values["memory"] == from_json(member.network.tree).count_memory(16)
