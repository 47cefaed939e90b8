"""Fronts, hypervolumes and times by generation, against brute force; a second search beside the first."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from report_front_folders import finish_front_search, make_front_run
from report_run_folders import make_run, small_search

from facenas.errors import UserError
from facenas.report import write_report
from facenas.report.front.beside import set_beside
from facenas.report.front.generations import generations
from facenas.report.front.members import front_of, generation_of, points, weighed
from facenas.report.reading import read_run

LIMITED = {"objectives": ["macs"], "limits": {"macs": 3e6}, "population": 8}


def _area(pairs: list[tuple[float, float]]) -> float:
    """Area within the unit square above and right of the pairs: slices between neighbouring first values."""
    edges = sorted({x for x, _ in pairs if x < 1} | {1.0})
    area = 0.0
    for left, right in pairwise(edges):
        lowest = min((y for x, y in pairs if x <= left), default=1.0)
        area += (right - left) * max(0.0, 1 - lowest)
    return area


@pytest.mark.parametrize("search", [{}, LIMITED], ids=["parameters", "limited MACs"])
def test_hypervolume_of_every_generation(tmp_path: Path, search: dict[str, object]) -> None:
    run = read_run(make_front_run(tmp_path / "run", **search))
    objectives = weighed(run)
    found = generations(run.trials, objectives)
    assert [one.number for one in found] == [1, 2, 3]
    scale = objectives[1].scale
    for one in found:
        so_far = run.trials[: one.trained]
        pairs = [(e / 100, c / scale) for e, c in points(so_far, objectives).tolist()]
        assert one.hypervolume == pytest.approx(_area(pairs))
        assert generation_of(so_far[-1]) == one.number
    assert sum(one.trials for one in found) == found[-1].trained == len(run.trials)
    assert all(a.hypervolume <= b.hypervolume for a, b in pairwise(found))


def test_times_and_failures(tmp_path: Path) -> None:
    path = make_front_run(tmp_path / "run", population=20)
    run = read_run(path)
    found = generations(run.trials, weighed(run))
    last = run.trials[-1].search_seconds
    assert sum(one.wall or 0 for one in found) == pytest.approx(last)
    assert sum(one.seconds for one in found) == pytest.approx(
        sum(t.seconds or 0 for t in run.trials)
    )
    assert sum(one.failed for one in found) == sum(t.failed for t in run.trials) > 0
    finished = finish_front_search(path, population=20)
    assert found[-1].front == len(finished["front"])


def test_front_so_far_is_the_final_one_once_all_are_trained(tmp_path: Path) -> None:
    path = make_front_run(tmp_path / "run", objectives=["parameters", "macs"])
    running, objectives = read_run(path), weighed(read_run(path))
    front = front_of(running, objectives)
    finish_front_search(path, objectives=["parameters", "macs"])
    assert front_of(read_run(path), objectives) == front
    rows = points(running.trials, objectives)
    kept = {member.id for member in front}
    for number, row in enumerate(rows):
        better = [o for o in rows if (o <= row).all() and (o < row).any()]
        assert (number in kept) <= (not better)
        assert number in kept or better or any((rows[i] == row).all() for i in kept)


def test_other_phases_are_no_candidates(tmp_path: Path) -> None:
    path = make_front_run(tmp_path / "run")
    lines = [json.loads(line) for line in (path / "trials.jsonl").read_text().splitlines()]
    alone = lines[0] | {"trial": len(lines), "phase": "tau 1", "accuracy": 99.9}
    (path / "trials.jsonl").write_text("".join(json.dumps(t) + "\n" for t in [*lines, alone]))
    run = read_run(path)
    found = generations(run.trials, weighed(run))
    assert found[-1].trained == len(lines)
    assert all(member.id != len(lines) for member in front_of(run, weighed(run)))
    assert "tau 1: 1" in write_report(path).read_text()


def test_random_search_in_the_same_folder_is_found(tmp_path: Path) -> None:
    run = read_run(make_front_run(tmp_path / "ours"))
    assert set_beside(run, None, weighed(run)) is None
    make_front_run(tmp_path / "random", strategy="random")
    make_front_run(tmp_path / "other-epochs", strategy="random", epochs=3)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "run.yaml").write_text("strategy: random\n  ]")
    beside = set_beside(run, None, weighed(run))
    assert beside is not None
    assert beside.label == "random search “random”"
    assert [one.trained for one in beside.generations] == [6, 12, 18]
    theirs = read_run(tmp_path / "random")
    assert beside.generations == generations(theirs.trials, weighed(run))
    assert set_beside(theirs, None, weighed(theirs)) is None


def test_what_cannot_be_set_beside(tmp_path: Path) -> None:
    run = make_front_run(tmp_path / "ours")
    macs = make_front_run(tmp_path / "macs", objectives=["macs"])
    with pytest.raises(UserError, match=r"weighs macs, but .*ours others"):
        write_report(run, beside=macs)
    other = make_front_run(tmp_path / "other")
    about = (other / "run.yaml").read_text().replace("f00d", "beef")
    (other / "run.yaml").write_text(about)
    with pytest.raises(UserError, match="searched on other data than"):
        write_report(run, beside=other)
    plain = make_run(tmp_path / "plain", small_search())
    with pytest.raises(UserError, match="has no front to set beside"):
        write_report(run, beside=plain)
    with pytest.raises(UserError, match=r"nowhere: no such run folder"):
        write_report(run, beside=tmp_path / "nowhere")
    with pytest.raises(UserError, match="leave out --beside and --budget"):
        write_report(plain, beside=run)
    longer = make_front_run(tmp_path / "longer", epochs=4, strategy="weighted_sum", weights=[1, 1])
    html = write_report(run, beside=longer).read_text()
    assert "weighted-sum search “longer”, 4 epochs each" in html
