"""The authors' ten recorded searches: fed with their accuracies, the engine asks for their trials."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from facenas.spaces import ImageFacts, Plain
from facenas.strategies import MacroMicro, TrialResult

LOGS = Path(__file__).parents[1] / "recorded_searches"
TRIALS = {
    "cifar10-tiny": 86,
    "cifar100-tiny": 65,
    "emnist-tiny": 57,
    "fashionmnist-tiny": 58,
    "kmnist-tiny": 62,
    "cifar10-mobile": 75,
    "cifar100-mobile": 66,
    "emnist-mobile": 74,
    "fashionmnist-mobile": 50,
    "kmnist-mobile": 76,
}
FIELDS = ("phase", "depth", "width", "ops", "kernels", "epochs")


def result(accuracy: float, train_accuracy: float = 0.0, **values: float) -> TrialResult:
    return TrialResult(accuracy=accuracy, train_accuracy=train_accuracy, values=values)


def load(name: str) -> dict[str, Any]:
    return json.loads((LOGS / f"{name}.json").read_text())


def strategy_of(log: dict[str, Any]) -> MacroMicro:
    s = log["settings"]
    space = Plain(**{key: s[key] for key in Plain.Settings.model_fields if key in s})
    search = MacroMicro(**{key: s[key] for key in MacroMicro.Settings.model_fields if key in s})
    images = ImageFacts(log["input_channels"], log["num_classes"], 32)
    return search.bind(space.bind(images), seed=0)


def test_there_are_669_trials():
    assert sum(TRIALS.values()) == 328 + 341


@pytest.mark.parametrize("name", TRIALS)
def test_the_engine_asks_for_exactly_the_recorded_trials(name):
    log = load(name)
    strategy = strategy_of(log)
    assert len(log["trials"]) == TRIALS[name]
    for number, trial in enumerate(log["trials"]):
        [wanted] = strategy.ask()
        tree = {
            **wanted.architecture.to_json(),
            "phase": wanted.phase,
            "epochs": wanted.budget.epochs,
        }
        assert {f: tree[f] for f in FIELDS} == {f: trial[f] for f in FIELDS}, f"trial {number}"
        assert wanted.architecture.count_parameters() == round(trial["params_millions"] * 1e6)
        strategy.tell(result(trial["accuracy"], trial["train_accuracy"]))
    assert strategy.ask() == []


@pytest.mark.parametrize("name", TRIALS)
def test_the_engine_ends_with_the_recorded_network(name):
    log = load(name)
    strategy, final = strategy_of(log), log["final"]
    for trial in log["trials"]:
        strategy.tell(result(trial["accuracy"], trial["train_accuracy"]))
    told = strategy.result()
    found = told["architecture"]
    assert [found[f] for f in FIELDS[1:5]] == [final[f] for f in FIELDS[1:5]]
    assert told["macro_width"] == final["macro_width"]
    assert told["macro_epochs"] == final["macro_epochs"]
    assert strategy.best.count_parameters() == round(final["params_millions"] * 1e6)
