"""A search's record: side files follow the journal, early results survive, another story is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facenas.errors import UserError
from facenas.execution import TrialSpec
from facenas.runs import SearchLog, right_images
from facenas.runs.journal import read_journal
from facenas.spaces import PlainArchitecture
from facenas.strategies import Budget, Candidate, Decision, TrialResult

IMAGES = 13  # not a whole number of bytes
FILES = ("trials.jsonl", "metrics.jsonl", "right.jsonl")


def candidate(number: int) -> Candidate:
    return Candidate(PlainArchitecture.uniform(2 + number, 4, 1, 10), Budget(2), "depth", f"reason {number}")


def spec_of(wanted: Candidate) -> TrialSpec:
    return TrialSpec(wanted, {"data": {"data_fraction": 1.0, "fingerprint": "images"}, "seed": 0})


def right_of(number: int) -> np.ndarray:
    return np.random.default_rng(number).random(IMAGES) < 0.5


def result_of(number: int) -> TrialResult:
    right = right_of(number)
    history = [{"epoch": epoch, "accuracy": 10.0 * number + epoch} for epoch in (1, 2)]
    return TrialResult(
        key=spec_of(candidate(number)).key,
        accuracy=100 * right.mean(),
        train_accuracy=50.0,
        correct=int(right.sum()),
        validated=IMAGES,
        images=2,
        seconds=1.5,
        history=history,
        right_bits=np.packbits(right).tobytes().hex(),
    )


def decide(record: SearchLog, number: int, decision: Decision = Decision.REJECTED) -> None:
    """As the driver does: the result is looked up by its key, then written down."""
    spec = spec_of(candidate(number))
    if spec.key not in record.known:
        record.finished(result_of(number), early=False)
    record.decided(spec, record.known[spec.key], decision, f"note {number}")


def searched(folder: Path, trials: int) -> SearchLog:
    folder.mkdir(exist_ok=True)
    record = SearchLog(folder, image_size=8)
    for number in range(trials):
        decide(record, number)
    return record


def contents(folder: Path) -> dict[str, Any]:
    """The three files without what the clock decides."""
    found = {name: read_journal(folder / name) for name in FILES}
    clock = ("finished", "search_seconds")
    lines = [{k: v for k, v in line.items() if k not in clock} for line in found["trials.jsonl"]]
    return {**found, "trials.jsonl": lines}


def keep_lines(path: Path, count: int) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:count]))


def test_a_decided_trial_is_one_line_with_all_that_is_known(tmp_path):
    record = searched(tmp_path, 1)
    [line] = read_journal(tmp_path / "trials.jsonl")
    assert {
        "phase": "depth",
        "reason_proposed": "reason 0",
        "depth": 2,
        "width": 4,
        "epochs": 2,
    }.items() <= line.items()
    assert (line["ops"], line["kernels"]) == ([0, 0], [3, 3])
    arch = candidate(0).architecture
    assert (line["parameters"], line["macs"]) == (arch.count_parameters(), arch.count_macs(8))
    assert line["params_millions"] == line["parameters"] / 1e6
    assert (line["key"], line["decision"], line["status"]) == (
        spec_of(candidate(0)).key,
        "rejected",
        "ok",
    )
    assert line["accuracy"] == result_of(0).accuracy
    assert not {"history", "right_bits"} & line.keys(), "these lie in the side files"
    assert not line["speculative"]
    assert record.trials.records == [line]
    metrics = read_journal(tmp_path / "metrics.jsonl")
    assert [(m["trial"], m["epoch"], m["accuracy"]) for m in metrics] == [(0, 1, 1.0), (0, 2, 2.0)]


def test_a_reopened_search_goes_on_as_if_it_had_never_stopped(tmp_path):
    searched(tmp_path / "straight", 4)
    searched(tmp_path / "stopped", 2)
    searched(tmp_path / "stopped", 4)  # tells the first two again, as a resume does
    assert contents(tmp_path / "stopped") == contents(tmp_path / "straight")


@pytest.mark.parametrize("journaled", [0, 1, 2])
def test_side_files_are_cut_back_to_the_journal(tmp_path, journaled):
    """Side lines are written first: a crash before the journal's line leaves them one trial ahead."""
    searched(tmp_path / "straight", 3)
    searched(tmp_path / "crashed", 3)
    keep_lines(tmp_path / "crashed" / "trials.jsonl", journaled)
    record = SearchLog(tmp_path / "crashed", 8)
    assert record.journaled == journaled
    for name in FILES[1:]:
        left = read_journal(tmp_path / "crashed" / name)
        assert {line["trial"] for line in left} == set(range(journaled))
    searched(tmp_path / "crashed", 3)
    assert contents(tmp_path / "crashed") == contents(tmp_path / "straight")


def test_a_crash_between_epochs_of_one_trial_leaves_none_of_them(tmp_path):
    searched(tmp_path, 2)
    keep_lines(tmp_path / "trials.jsonl", 1)
    keep_lines(tmp_path / "metrics.jsonl", 3)  # both epochs of trial 0, one of trial 1
    keep_lines(tmp_path / "right.jsonl", 1)
    searched(tmp_path, 2)
    assert [(m["trial"], m["epoch"]) for m in read_journal(tmp_path / "metrics.jsonl")] == [
        (0, 1), (0, 2), (1, 1), (1, 2),
    ]  # fmt: skip


def test_lines_of_the_final_training_stay(tmp_path):
    searched(tmp_path, 2)
    final = {"trial": "final", "epoch": 1}
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(final) + "\n")
    keep_lines(tmp_path / "trials.jsonl", 1)
    SearchLog(tmp_path, 8)
    assert [m["trial"] for m in read_journal(tmp_path / "metrics.jsonl")] == [0, 0, "final"]


def test_early_results_survive_reopening_and_are_not_doubled(tmp_path):
    record = searched(tmp_path, 1)
    record.finished(result_of(1), early=True)
    record.finished(result_of(2), early=True)
    assert record.early_results == 2
    for _ in range(2):
        record = SearchLog(tmp_path, 8)
        assert record.early_results == 2
        assert record.known[result_of(1).key] == result_of(1)  # with its history and bits
        assert len(read_journal(tmp_path / "ahead.jsonl")) == 2
    record = searched(tmp_path, 2)
    assert record.early_results == 1
    assert SearchLog(tmp_path, 8).early_results == 1, "one has had its turn, before a second crash"
    searched(tmp_path, 3)
    lines = read_journal(tmp_path / "trials.jsonl")
    assert [line["speculative"] for line in lines] == [False, True, True]
    assert [line["trial"] for line in read_journal(tmp_path / "right.jsonl")] == [0, 1, 2]
    np.testing.assert_array_equal(right_images(tmp_path, 1), right_of(1))
    searched(tmp_path / "straight", 3)
    for name in FILES[1:]:
        assert contents(tmp_path)[name] == contents(tmp_path / "straight")[name]


def test_a_torn_early_result_is_dropped(tmp_path):
    record = searched(tmp_path, 1)
    record.finished(result_of(1), early=True)
    record.finished(result_of(2), early=True)
    ahead = tmp_path / "ahead.jsonl"
    ahead.write_bytes(ahead.read_bytes()[:-9])
    record = SearchLog(tmp_path, 8)
    assert record.early_results == 1
    assert result_of(2).key not in record.known


def test_the_end_of_the_search_takes_the_early_results_away(tmp_path):
    record = searched(tmp_path, 1)
    record.finished(result_of(5), early=True)
    record.done()
    record.done()
    assert not (tmp_path / "ahead.jsonl").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(FILES)


def test_the_searchs_clock_goes_on_after_reopening(tmp_path):
    searched(tmp_path, 2)
    lines = read_journal(tmp_path / "trials.jsonl")
    lines[1]["search_seconds"] = 1000.0
    (tmp_path / "trials.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    searched(tmp_path, 3)
    assert 1000.0 <= read_journal(tmp_path / "trials.jsonl")[2]["search_seconds"] < 1060.0


def test_known_results_are_those_of_the_journal(tmp_path):
    searched(tmp_path, 2)
    known = SearchLog(tmp_path, 8).known
    assert known.keys() == {result_of(0).key, result_of(1).key}
    for number in (0, 1):
        result = known[result_of(number).key]
        assert (result.accuracy, result.correct) == (
            result_of(number).accuracy,
            result_of(number).correct,
        )
        assert (result.status, result.seconds, result.images) == ("ok", 1.5, 2)


@settings(deadline=None, max_examples=30)
@given(right=st.lists(st.booleans(), min_size=1, max_size=40))
def test_right_images_are_the_bits_of_that_trial(tmp_path_factory, right):
    folder = tmp_path_factory.mktemp("run")
    record, key = SearchLog(folder, 8), spec_of(candidate(0)).key
    bits = np.packbits(np.array(right)).tobytes().hex()
    result = TrialResult(key, validated=len(right), correct=sum(right), right_bits=bits)
    decide(record, 1)
    record.finished(result, early=False)
    record.decided(spec_of(candidate(0)), result, Decision.KEPT, "best")
    found = right_images(folder, 1)
    assert found.dtype == np.bool_
    np.testing.assert_array_equal(found, right)
    np.testing.assert_array_equal(right_images(folder, 0), right_of(1))


@pytest.mark.parametrize("number", [-1, 1])
def test_a_trial_that_is_not_there_is_told(tmp_path, number):
    searched(tmp_path, 1)
    with pytest.raises(UserError, match=rf"right\.jsonl: has no trial {number}"):
        right_images(tmp_path, number)
    with pytest.raises(UserError, match="has no trial 0"):
        right_images(tmp_path / "nowhere", 0)


def swap(lines: list[dict]) -> list[dict]:
    return [lines[1], lines[0], *lines[2:]]


@pytest.mark.parametrize(
    ("edit", "number"),
    [
        (lambda lines: [{**lines[0], "decision": "kept"}, *lines[1:]], 1),
        (lambda lines: [*lines[:2], {**lines[2], "key": "0" * 64}], 3),
        (lambda lines: [lines[0], lines[2]], 2),
        (swap, 1),
    ],
    ids=["decision", "key", "removed", "swapped"],
)
def test_a_journal_that_does_not_follow_is_refused(tmp_path, edit, number):
    searched(tmp_path, 3)
    path = tmp_path / "trials.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in edit(read_journal(path))))
    before = path.read_bytes()
    with pytest.raises(UserError, match=rf"trials\.jsonl: line {number} does not follow"):
        searched(tmp_path, 3)
    assert path.read_bytes() == before


@pytest.mark.parametrize("words", [{"note": "worded anew"}, {"decision": "drop 1 of 3"}])
def test_prose_is_not_compared(tmp_path, words):
    """A later version may word a note anew; an earlier one had prose in place of the decision."""
    searched(tmp_path, 3)
    path = tmp_path / "trials.jsonl"
    path.write_text("".join(json.dumps({**line, **words}) + "\n" for line in read_journal(path)))
    searched(tmp_path, 4)
    assert len(read_journal(path)) == 4


def test_a_trial_wanted_twice_keeps_its_side_lines_after_a_resume(tmp_path):
    """With equal epochs the micro baseline is the macro network's trial: one key, two journal lines."""
    searched(tmp_path, 1)
    record = searched(tmp_path, 1)
    decide(record, 0, Decision.BASELINE)
    np.testing.assert_array_equal(right_images(tmp_path, 0), right_of(0))
    np.testing.assert_array_equal(right_images(tmp_path, 1), right_of(0))
    assert [m["trial"] for m in read_journal(tmp_path / "metrics.jsonl")] == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("trials.jsonl", {}),
        ("trials.jsonl", {"key": "0", "trial": 0, "search_seconds": 0}),
        ("ahead.jsonl", {}),
        ("ahead.jsonl", {"key": "0", "surprise": 1}),
        ("metrics.jsonl", {}),
        ("right.jsonl", {"trial": None}),
    ],
)
def test_a_line_with_other_fields_is_told_in_a_sentence(tmp_path, name, line):
    (tmp_path / name).write_text(json.dumps(line) + "\n")
    with pytest.raises(UserError, match=name):
        SearchLog(tmp_path, 8)
