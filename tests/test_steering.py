"""Searches that are stopped, extended, retried, and that take results of others: nothing is measured twice."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

import facenas
from facenas.api import searching
from facenas.errors import CandidateError, SearchStoppedError, UserError
from facenas.report import write_search_page
from facenas.runs import Run, list_runs, open_run
from facenas.spaces import fingerprint
from facenas.strategies import NSGA2, MacroMicro

SPACE = {"min_depth": 3, "max_depth": 6, "min_width": 4, "max_width": 8, "width_step": 2}
CLOCKS = ("seconds", "finished", "search_seconds", "speculative")

MEASURED: list[str] = []  # fingerprints of what was judged in this test
BROKEN: set[int] = set()  # depths whose trials fail


@pytest.fixture(autouse=True)
def _afresh(monkeypatch):
    monkeypatch.setattr(searching, "write_report", lambda _: None)  # the page is tested elsewhere
    MEASURED.clear()
    BROKEN.clear()


def measure(candidate, on_epoch):
    """Deeper is better, up to any bound, and a width of 2 less costs half a point; of cells, the dice tell."""
    arch = candidate.architecture
    MEASURED.append(fingerprint([arch.to_json(), candidate.budget.epochs]))
    on_epoch({"train_loss": 1.0})
    drawn = int(fingerprint(arch.to_json())[:4], 16) / 2**16
    if not hasattr(arch, "depth"):
        return {"accuracy": 50 + drawn, "energy": 1 + 2 * drawn}
    if arch.depth in BROKEN:
        raise CandidateError("a passing fault of its own")
    return {"accuracy": 50 + arch.depth - (8 - arch.width) / 4 + drawn / 100}


def search(folder: Path, name: str, strategy=None, depth: int = 6, **options):
    options = {"evaluate": measure, "executor": "serial"} | options
    space = facenas.spaces.Plain(**SPACE | {"max_depth": depth})
    if isinstance(strategy, NSGA2):
        space = facenas.spaces.Cells(max_cells=2)
    strategy = strategy or MacroMicro(min_epochs=2, micro_epochs=1, micro=False)
    return facenas.search(space=space, strategy=strategy, run=folder / name, **options)


def evolution(**settings):
    return NSGA2(**{"population": 6, "generations": 2, "epochs": 1, "objectives": ("parameters",)} | settings)


def journal(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in CLOCKS} for line in lines]


def found(folder: Path) -> dict:
    best = json.loads((folder / "best.json").read_text())
    return {key: value for key, value in best.items() if "seconds" not in key}


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("[!.]*") if path.is_file()}


def same(one: Path, other: Path) -> None:
    assert journal(one) == journal(other)
    assert found(one) == found(other)
    for name in ("metrics.jsonl", "right.jsonl"):
        assert (one / name).read_text() == (other / name).read_text()


def test_stopped_after_every_second_trial_it_takes_the_same_course(tmp_path):
    whole = search(tmp_path, "whole")
    MEASURED.clear()
    part, calls = search(tmp_path, "parts", max_trials=2), 1
    assert (part.finished, part.trials, part.to_json()["finished"]) == (False, 2, False)
    assert ("macro_accuracy" in part.details, "macro_accuracy" in whole.details) == (False, True)
    assert part.architecture.depth == 4, "the deeper of two"
    assert not (tmp_path / "parts/best.json").exists()
    while not part.finished:
        part, calls = facenas.resume(tmp_path / "parts", max_trials=2), calls + 1
    assert calls == -(-whole.trials // 2)
    same(tmp_path / "whole", tmp_path / "parts")
    assert len(MEASURED) == len(set(MEASURED)) == whole.trials


@pytest.mark.parametrize("limit", [{"until": datetime.now() - timedelta(days=1)}, {"max_hours": 1e-9}])
def test_a_time_that_is_over_allows_one_trial_more(tmp_path, limit):
    assert search(tmp_path, "run", **limit).trials == 1
    assert facenas.resume(tmp_path / "run", **limit).trials == 2


def test_a_time_of_day_is_the_next_one():
    now = datetime.now()
    for hours in (1, 13, 23):
        then = now + timedelta(hours=hours)
        assert searching._next(f"{then:%H:%M}") == then.replace(second=0, microsecond=0)
    assert searching._next(f"{now:%H:%M}") == (now + timedelta(days=1)).replace(second=0, microsecond=0)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"max_trials": 0}, "max_trials 0: should be 1 or more"),
        ({"max_hours": -1.0}, "max_hours -1.0: should be above 0"),
        ({"max_hours": float("nan")}, "max_hours nan: should be above 0"),
        ({"until": "8"}, "until 8: should be a time of day such as 07:30"),
        ({"reuse": "nobody"}, "nobody: no such run"),
    ],
)
def test_a_wrong_limit_leaves_nothing_behind(tmp_path, options, sentence):
    with pytest.raises(UserError, match=sentence):
        search(tmp_path, "run", **options)
    assert not list(tmp_path.iterdir())


def test_the_best_so_far_is_told_and_taken(tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (60, 12, 12, 3), np.uint8)
    data = (images, np.arange(60) % 3)
    search(tmp_path, "run", evaluate=None, data=data, max_trials=1, settings={"recipe.cutout": 0})
    with pytest.raises(UserError, match=r"not ended; .*--so-far` trains the best until now \(depth 3, width 8"):
        facenas.train(tmp_path / "run")
    assert "facenas train run --so-far" in write_search_page(tmp_path / "run").read_text()
    trained = facenas.train(tmp_path / "run", so_far=True, epochs=1, run=tmp_path / "best")
    assert (trained.architecture.depth, trained.run) == (3, tmp_path / "best")
    rows = {row["run"]: row for row in list_runs(tmp_path)}
    assert (rows["run"]["state"], rows["run"]["parameters"]) == ("searching", trained.parameters)


def test_nothing_is_found_before_the_first_trial(tmp_path):
    search(tmp_path, "run", max_trials=1)
    (tmp_path / "run/trials.jsonl").unlink()
    with pytest.raises(UserError, match=r"has not ended; .* nothing is found until now"):
        facenas.train(tmp_path / "run", so_far=True)


PART = {"fraction": 0.5}


@pytest.mark.parametrize("kill_between", [False, True])
@pytest.mark.parametrize(
    ("before", "after", "settings"),
    [
        ({"strategy": evolution()}, {"strategy": evolution(generations=4)}, {"search.generations": 4}),
        ({}, {"depth": 9}, {"space.max_depth": 9}),
        (
            {},
            {"strategy": MacroMicro(min_epochs=2, micro_epochs=1, micro=True)},
            {"micro": True},
        ),
        (
            {"strategy": evolution(objectives=("energy",), limits={"energy": 2.0})},
            {"strategy": evolution(objectives=("energy",), limits={"energy": 2.5})},
            {"search.limits.energy": 2.5},
        ),
        (
            {"strategy": evolution(limits={"parameters": 1000})},
            {"strategy": evolution(limits={"parameters": 1500})},
            {"search.limits.parameters": 1500},
        ),
        (
            {"strategy": evolution(fidelity=PART)},
            {"strategy": evolution(fidelity=PART, generations=4)},
            {"search.generations": 4},
        ),
        (
            {"strategy": MacroMicro(min_epochs=2, micro_epochs=1, micro=False, fidelity=PART)},
            {"strategy": MacroMicro(min_epochs=2, micro_epochs=1, micro=True, fidelity=PART)},
            {"micro": True},
        ),
    ],
)
def test_an_extended_search_finds_what_a_new_one_would(
    tmp_path, monkeypatch, before, after, settings, kill_between
):
    new = search(tmp_path, "new", **after)
    MEASURED.clear()
    search(tmp_path, "old", **before)
    first = set(MEASURED)
    MEASURED.clear()
    if kill_between:  # decisions have gone, the new settings are not there yet: it is the old run still
        with monkeypatch.context() as patch:
            patch.setattr(Run, "changed", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                facenas.resume(tmp_path / "old", settings=settings)
        facenas.resume(tmp_path / "old")
        assert not MEASURED
    clock = json.loads((tmp_path / "old/trials.jsonl").read_text().splitlines()[-1])["search_seconds"]
    extended = facenas.resume(tmp_path / "old", settings=settings)
    assert extended.details["search_seconds"] >= clock
    same(tmp_path / "new", tmp_path / "old")
    assert extended.architecture == new.architecture
    assert not first & set(MEASURED), "what was measured is measured again"
    assert facenas.resume(tmp_path / "old").finished


@pytest.mark.parametrize(
    ("strategy", "settings", "sentence"),
    [
        (None, {"depth_gain": 5}, r"trial 1 \(depth, depth 3 \+ 1\) was kept and would be rejected"),
        (None, {"search.min_epochs": 3}, "trial 0 .* would be another one .*depth 3, width 8, 3 epochs"),
        (None, {"space.max_width": 10}, "trial 0 .* would be another one .*depth 3, width 10"),
        (None, {"space.max_depth": 5}, r"trial 3 .* would be another one \(width"),
        (None, {"seed": 1}, "trial 0 .* would be another one"),
        (evolution(), {"search.generations": 1}, "trial 6 .* would not be asked for"),
        # One setting that may turn decisions lets no other one do so.
        (evolution(), {"seed": 5, "search.limits": {"parameters": 1e9}}, "trial 0 .* would be another one"),
        (evolution(), {"search.mutation": 0.1}, "trial [6-9] .* would be another one"),
    ],
)
def test_what_was_decided_stays(tmp_path, strategy, settings, sentence):
    search(tmp_path, "run", strategy)
    before = files(tmp_path / "run")
    with pytest.raises(UserError, match=sentence):
        facenas.resume(tmp_path / "run", settings=settings)
    assert files(tmp_path / "run") == before


def test_where_it_runs_may_change_at_any_time(tmp_path):
    search(tmp_path, "run")
    before = found(tmp_path / "run")
    facenas.resume(tmp_path / "run", settings={"execution.workers": 3})
    assert found(tmp_path / "run") == before
    assert open_run(tmp_path, "run").config.execution.workers == 3


@pytest.mark.parametrize("settings", [{"search.generations": 3}, {"recipe.final_epochs": 3}])
def test_a_network_that_is_trained_stays_the_run_s(tmp_path, settings):
    search(tmp_path, "run", evolution())
    (tmp_path / "run/train.json").write_text("{}")
    before = files(tmp_path / "run")
    with pytest.raises(UserError, match=r"train\.json: .* is trained already; .*--reuse run"):
        facenas.resume(tmp_path / "run", settings=settings)
    assert files(tmp_path / "run") == before


def test_a_given_network_is_no_search_to_go_on_with(tmp_path):
    search(tmp_path, "run")
    (tmp_path / "run/trials.jsonl").unlink()
    with pytest.raises(UserError, match="run: trains a given network"):
        facenas.resume(tmp_path / "run", settings={"space.max_depth": 9})
    assert (tmp_path / "run/best.json").exists()


def test_what_a_result_says_may_change_without_a_decision(tmp_path):
    counted = {"population": 4, "generations": 1, "epochs": 1, "objectives": ("energy",)}
    search(tmp_path, "run", NSGA2(**counted))
    MEASURED.clear()
    more = facenas.resume(tmp_path / "run", settings={"search.weights": [1, 2]})
    assert more.finished
    assert not MEASURED
    assert found(tmp_path / "run")["objectives"] == ["error", "energy"]


def test_a_limit_that_nobody_keeps_is_loosened(tmp_path):
    strict = evolution(objectives=("energy",), limits={"energy": 0.1})
    with pytest.raises(SearchStoppedError, match=r"no candidate of 12 kept all limits; .*looser"):
        search(tmp_path, "run", strict)
    first = set(MEASURED)
    MEASURED.clear()
    loose = facenas.resume(tmp_path / "run", settings={"search.limits": {"energy": 3}})
    assert all(member["energy"] <= 3 for member in loose.front)
    assert not first & set(MEASURED)
    facenas.resume(tmp_path / "run", settings={"search.limits": {"energy": 1.5}})
    MEASURED.clear()
    again = facenas.resume(tmp_path / "run", settings={"search.limits": {"energy": 3}})
    assert not MEASURED, "known from before the limit was tightened"
    assert again.front == loose.front


def test_stopped_before_anybody_kept_the_limits_it_can_go_on(tmp_path):
    part = search(tmp_path, "run", evolution(objectives=("energy",), limits={"energy": 0.1}), max_trials=2)
    assert (part.finished, part.architecture, part.parameters, part.trials) == (False, None, None, 2)
    assert facenas.resume(tmp_path / "run", max_trials=1).trials == 3


def test_failed_trials_are_made_again_on_request(tmp_path):
    search(tmp_path, "whole")
    BROKEN.add(4)
    search(tmp_path, "run")
    assert [line["status"] for line in journal(tmp_path / "run")].count("failed") == 1
    facenas.resume(tmp_path / "run")
    assert [line["status"] for line in journal(tmp_path / "run")].count("failed") == 1
    BROKEN.clear()
    MEASURED.clear()
    facenas.resume(tmp_path / "run", retry_failed=True)
    assert len(MEASURED) == 1, "the failed one alone"
    same(tmp_path / "whole", tmp_path / "run")


def test_so_many_failures_in_a_row_stop_a_search(tmp_path):
    BROKEN.update({4, 5})
    few = MacroMicro(min_epochs=2, micro=False, max_failures=2)
    with pytest.raises(SearchStoppedError, match=r"2 trials in a row failed, .*raise search\.max_failures"):
        search(tmp_path, "run", few)
    MEASURED.clear()
    done = facenas.resume(tmp_path / "run", settings={"search.max_failures": 3})
    assert done.finished
    assert len(MEASURED) == done.trials - 3, "those that had failed are known; the settings say that they may"
    assert done.details["failed_trials"] == 2
    fewer = facenas.resume(tmp_path / "run", settings={"search.max_failures": 2})
    assert fewer.finished, "what was decided is not counted once more"


def test_results_of_other_runs_are_taken_by_their_keys(tmp_path, caplog):
    search(tmp_path, "one", max_trials=3)
    whole = search(tmp_path, "whole", depth=7)
    MEASURED.clear()
    again = search(tmp_path, "again", depth=7, reuse=[tmp_path / "whole"])
    assert not MEASURED
    assert again.architecture == whole.architecture
    lines = journal(tmp_path / "again")
    assert {line.pop("reused") for line in lines} == {"whole"}
    assert lines == journal(tmp_path / "whole")
    assert again.details["trial_seconds"] == 0
    assert "by its name alone" in caplog.text
    assert facenas.resume(tmp_path / "again").finished, "no other run is needed any more"
    assert "first trial" not in caplog.text
    search(tmp_path, "elsewhere", MacroMicro(min_epochs=5, micro=False), max_trials=1, reuse=tmp_path / "whole")
    assert "elsewhere: its first trial is none of those to reuse (whole): a trial is" in caplog.text
    MEASURED.clear()

    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/run.yaml").write_text("config: {}")
    deeper = search(tmp_path, "deeper", depth=8, reuse=tmp_path)
    assert "damaged: its results are not taken" in caplog.text
    assert len(MEASURED) == sum("reused" not in line for line in journal(tmp_path / "deeper")) > 0
    assert deeper.architecture.depth == 8


def test_a_run_that_cannot_be_read_is_told_before_another_is_made(tmp_path):
    search(tmp_path, "one", max_trials=1)
    (tmp_path / "one/trials.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match="line 1 is not one of this version's lines"):
        search(tmp_path, "two", reuse=tmp_path / "one")
    assert not (tmp_path / "two").exists()


def test_whose_result_it_is_stays_known_when_decisions_are_taken_anew(tmp_path):
    search(tmp_path, "one", evolution(objectives=("energy",), generations=1))
    strict = evolution(objectives=("energy",), limits={"energy": 2.0})
    search(tmp_path, "two", strict, reuse=tmp_path / "one")
    taken = {line["key"] for line in journal(tmp_path / "two") if "reused" in line}
    facenas.resume(tmp_path / "two", settings={"search.limits.energy": 2.5})
    assert {line["key"] for line in journal(tmp_path / "two") if "reused" in line} == taken
    assert len(taken) == 6


def test_a_failure_is_not_taken_from_another_run(tmp_path):
    BROKEN.add(4)
    search(tmp_path, "broken")
    BROKEN.clear()
    MEASURED.clear()
    search(tmp_path, "whole", reuse=tmp_path / "broken")
    assert all(line["status"] == "ok" for line in journal(tmp_path / "whole"))
    assert len(MEASURED) == 1
