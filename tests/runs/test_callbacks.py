"""Callbacks of real searches and a training: what they are told, when, and what their own faults do."""

from __future__ import annotations

import json
import logging

import pytest
import yaml

import facenas
from facenas.errors import SearchStoppedError, UserError

SPACE = {"min_depth": 3, "max_depth": 5, "min_width": 4, "max_width": 6}
STRATEGY = {"population": 4, "generations": 2, "epochs": 2}


def measure(candidate, on_epoch):
    """Nothing is trained: wider is better."""
    accuracy = float(candidate.architecture.count_parameters() % 97)
    for epoch in (1, 2):
        on_epoch({"epoch": epoch, "accuracy": accuracy})
    return accuracy


def search(folder, *callbacks, **more):
    space, strategy = facenas.spaces.Plain(**SPACE), facenas.strategies.RandomSearch(**STRATEGY)
    return facenas.search(
        space=space, strategy=strategy, evaluate=measure, executor="serial", run=folder,
        callbacks=callbacks, settings={"data.name": "digits"}, **more,
    )  # fmt: skip


class Notebook(facenas.Callback):
    """Writes all down that it is told; stops the search at a trial, if asked to."""

    def __init__(self, stop_at=None):
        self.told, self.stop_at = [], stop_at

    def on_begin(self, run, work):
        self.told.append(("begin", run.name, work))

    def on_search(self, strategy, slots):
        self.told.append(("search", type(strategy).__name__, slots))

    def on_replay(self, trial, candidate, result, decision, note):
        self.told.append(("replay", trial, result.accuracy))

    def on_trial(self, trial, candidate, key):
        if trial == self.stop_at:
            raise SearchStoppedError("enough")
        self.told.append(("trial", trial, key))

    def on_epoch(self, key, metrics):
        self.told.append(("epoch", key, metrics["epoch"]))

    def on_decision(self, trial, candidate, result, decision, note):
        self.told.append(("decision", trial, result.accuracy))

    def on_end(self, result):
        self.told.append(("end", result))

    def of(self, *kinds):
        return [entry for entry in self.told if entry[0] in kinds]


class Broken(facenas.Callback):
    """As a tracker whose server is down, and that has a typing error besides."""

    def on_epoch(self, key, metrics):
        raise ConnectionError("no route to host")

    def on_decision(self, trial, candidate, result, decision, note):
        result.acuracy  # noqa: B018


class Needy(facenas.Callback):
    def __init__(self, address):
        self.address = address


def journal(run):
    return [json.loads(line) for line in (run / "trials.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    notes = Notebook()
    return search(tmp_path_factory.mktemp("runs") / "plain", notes), notes.told


def test_a_search_tells_its_course(plain):
    found, told = plain
    expected = [("begin", "plain", "search"), ("search", "RandomSearch", 1)]
    for line in journal(found.run):
        number, key = line["trial"], line["key"]
        expected += [("trial", number, key), ("epoch", key, 1), ("epoch", key, 2)]
        expected.append(("decision", number, line["accuracy"]))
    assert len(expected) == 2 + 4 * found.trials
    assert told == [*expected, ("end", found)]
    assert found.report.exists()


def test_a_callback_stops_a_search_and_a_resume_tells_nothing_twice(plain, tmp_path):
    reference, told = plain
    first, second, third = Notebook(stop_at=3), Notebook(), Notebook()
    with pytest.raises(SearchStoppedError, match="enough"):
        search(tmp_path / "plain", first)
    assert first.told[-1] == ("end", None)
    found = facenas.resume(tmp_path / "plain", callbacks=[second])
    decided = first.of("decision") + second.of("decision")
    assert decided == [entry for entry in told if entry[0] == "decision"]
    assert second.of("replay") == [("replay", *entry[1:]) for entry in first.of("decision")]
    assert second.told[1:5] == [("search", "RandomSearch", 1), *second.of("replay")]
    assert [line["key"] for line in journal(found.run)] == [line["key"] for line in journal(reference.run)]
    facenas.resume(found.run, callbacks=third)  # done already
    assert third.told == []


def test_a_fault_of_a_callback_is_told_once_and_stops_nothing(plain, tmp_path, caplog):
    notes = Notebook()
    with caplog.at_level(logging.DEBUG, "facenas"):
        found = search(tmp_path / "plain", Broken(), notes)
    assert found.accuracy == plain[0].accuracy
    assert notes.of("decision") == [entry for entry in plain[1] if entry[0] == "decision"]
    warned = [record.message for record in caplog.records if record.levelname == "WARNING"]
    goes_on = "the work goes on without it (--debug shows the traceback)"
    fault = "AttributeError: 'TrialResult' object has no attribute 'acuracy'"
    assert warned == [
        f"callback Broken: on_epoch failed (ConnectionError: no route to host); {goes_on}",
        f"callback Broken: on_decision failed ({fault}); {goes_on}",
        f"callback Broken: on_epoch failed {2 * found.trials} times (ConnectionError)",
        f"callback Broken: on_decision failed {found.trials} times (AttributeError)",
    ]
    traced = [record for record in caplog.records if record.levelname == "DEBUG" and record.exc_info]
    assert len(traced) == 3 * found.trials


class Clumsy(facenas.Callback):
    """Changes whatever it is given."""

    def on_epoch(self, key, metrics):
        metrics.clear()

    def on_decision(self, trial, candidate, result, decision, note):
        result.history[0].clear()
        result.history.clear()
        result.values["energy"] = 1.0


def test_what_a_callback_changes_is_its_own(plain, tmp_path):
    found, notes = search(tmp_path / "plain", Clumsy(), later := Notebook(), max_trials=6), later
    assert notes.of("epoch") == [entry for entry in plain[1] if entry[0] == "epoch"][:12]
    found = facenas.resume(found.run)
    for name in ("metrics.jsonl", "right.jsonl"):
        assert (found.run / name).read_text() == (plain[0].run / name).read_text()
    assert not any("values" in line for line in journal(found.run))


def test_the_run_keeps_names_and_not_objects(plain, tmp_path, monkeypatch):
    (tmp_path / "trackers.py").write_text(
        "import pathlib, facenas\n"
        "class Lines(facenas.Callback):\n"
        "    def on_decision(self, trial, candidate, result, decision, note):\n"
        "        with pathlib.Path('lines').open('a') as file:\n"
        "            file.write(f'{trial} ')\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SearchStoppedError):
        search(tmp_path / "r", "trackers:Lines", Notebook(stop_at=2))
    assert yaml.safe_load((tmp_path / "r" / "run.yaml").read_text())["config"]["callbacks"] == [
        "trackers:Lines"
    ]
    found = facenas.resume("r", runs_dir=tmp_path)
    assert (tmp_path / "lines").read_text().split() == [str(line["trial"]) for line in journal(found.run)]
    # What watches decides nothing.
    assert [line["key"] for line in journal(found.run)] == [line["key"] for line in journal(plain[0].run)]


@pytest.mark.parametrize(
    ("callback", "fault"),
    [
        ("tensorbord", "callback 'tensorbord' is unknown"),
        ("nowhere_at_all:Tracker", "there is no module nowhere_at_all here"),
        ("json:JSONDecoder", "is no object of a class derived from facenas.Callback"),
        (Notebook, "is no object of a class derived from facenas.Callback"),
        (f"{__name__}:Needy", "cannot be made without arguments .*address"),
    ],
)
def test_what_is_no_callback_is_refused_before_a_run_is_made(tmp_path, callback, fault):
    with pytest.raises(UserError, match=fault):
        search(tmp_path / "r", callback)
    assert not (tmp_path / "r").exists()


def test_a_training_tells_its_epochs(tmp_path):
    notes, network = Notebook(), facenas.spaces.PlainArchitecture.uniform(3, 4, 1, 10)
    brief = {"epochs": 2, "settings": {"data.data_fraction": 0.1}}
    trained = facenas.train(network, preset="demo-digits", callbacks=[notes], run=tmp_path / "t", **brief)
    told = [("begin", "t", "training"), ("epoch", "final", 1), ("epoch", "final", 2), ("end", trained)]
    assert notes.told == told
    facenas.train(tmp_path / "t", callbacks=[notes])  # done already
    assert notes.told == told
    with pytest.raises(UserError, match="there is no module nowhere_at_all here"):
        facenas.train(network, preset="demo-digits", callbacks=["nowhere_at_all:T"], run=tmp_path / "u")
    assert not (tmp_path / "u").exists()
