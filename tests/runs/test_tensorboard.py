"""TensorBoard's own reader reads what a search and a training wrote, interrupted or not."""

from __future__ import annotations

import json

import pytest

import facenas
from facenas.errors import SearchStoppedError
from facenas.strategies import TrialResult

pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
CALLBACK = {"callbacks": "tensorboard"}  # as `--set callbacks=tensorboard`


class Stop(facenas.Callback):
    """As a kill: at a trial, or after an epoch."""

    def on_trial(self, trial, candidate, key):
        if trial == 3:
            raise SearchStoppedError("stopped")

    def on_epoch(self, key, metrics):
        if key == "final":
            raise SearchStoppedError("stopped")


def measure(candidate):
    parameters = candidate.architecture.count_parameters()
    if parameters % 3 == 0:
        raise facenas.CandidateError("a round number")
    history = [{"epoch": n, "train_loss": 1 / n, "accuracy": parameters % 97 / n} for n in (1, 2)]
    return TrialResult(accuracy=parameters % 97, history=history, values={"energy": 2.5})


def scalars(folder):
    """{tag: [(step, value)]}"""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_search_that_was_stopped_and_resumed(tmp_path):
    space = facenas.spaces.Plain(min_depth=3, max_depth=5, min_width=4, max_width=9)
    strategy = facenas.strategies.RandomSearch(population=5, generations=2, epochs=2)
    run = tmp_path / "r"
    with pytest.raises(SearchStoppedError):
        facenas.search(
            space=space, strategy=strategy, evaluate=measure, executor="serial", run=run,
            settings=CALLBACK | {"data.name": "digits"}, callbacks=[Stop()],
        )  # fmt: skip
    assert len(scalars(run / "tensorboard" / "search")["search/accuracy"]) <= 3
    facenas.resume(run)
    trials, written = lines(run / "trials.jsonl"), scalars(run / "tensorboard" / "search")
    ok = [trial for trial in trials if trial["status"] == "ok"]
    assert 3 < len(ok) < len(trials)
    for name in ("accuracy", "parameters", "macs"):
        assert written[f"search/{name}"] == [(trial["trial"], trial[name]) for trial in ok]
    assert written["search/energy"] == [(trial["trial"], 2.5) for trial in ok]
    best = [max(other["accuracy"] for other in ok[: n + 1]) for n in range(len(ok))]
    assert [value for _, value in written["search/best_accuracy"]] == best

    metrics = lines(run / "metrics.jsonl")
    for trial in ok:
        written = scalars(run / "tensorboard" / "trials" / f"{trial['trial']:04}")
        epochs = [line for line in metrics if line["trial"] == trial["trial"]]
        assert written["accuracy"] == [(e["epoch"], pytest.approx(e["accuracy"])) for e in epochs]
        assert written["result/accuracy"][0][1] == trial["accuracy"]


def test_a_full_training_that_was_stopped_and_goes_on(tmp_path):
    network, run = facenas.spaces.PlainArchitecture.uniform(3, 4, 1, 10), tmp_path / "t"
    with pytest.raises(SearchStoppedError):
        facenas.train(
            network, preset="demo-digits", epochs=2, run=run, callbacks=[Stop()],
            settings=CALLBACK | {"data.data_fraction": 0.1},
        )  # fmt: skip
    trained = facenas.train(run, epochs=2)
    written = scalars(run / "tensorboard" / "final")
    for name in ("lr", "train_loss", "train_accuracy"):
        expected = [(line["epoch"], pytest.approx(line[name])) for line in lines(run / "metrics.jsonl")]
        assert len(expected) == 2
        assert written[name] == expected
    assert written["test_accuracy"] == [(2, pytest.approx(trained.test_accuracy))]


def test_who_lacks_the_package_is_told_before_a_run_is_made(tmp_path, monkeypatch):
    import facenas.runs.tensorboard as module

    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(facenas.UserError, match=r"pip install 'facenas\[tensorboard\]'"):
        facenas.search("demo-digits", callbacks=["tensorboard"], run=tmp_path / "r")
    assert not (tmp_path / "r").exists()
