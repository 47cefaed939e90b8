"""Replay: recorded searches match; whatever is changed in one is found at its trial, in a sentence."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from facenas.errors import UserError
from facenas.runs import replay
from facenas.spaces import ImageFacts, Plain
from facenas.strategies import MacroMicro, TrialResult

Log = dict[str, Any]
Change = Callable[[Log], object]

LOGS = Path(__file__).parents[1] / "recorded_searches"
RECORDED = {
    "cifar10-tiny": 86,
    "cifar100-tiny": 65,
    "emnist-tiny": 57,
    "fashionmnist-tiny": 58,
    "kmnist-tiny": 62,
}
SPACE = {"min_depth": 2, "max_depth": 9, "min_width": 4, "max_width": 8, "width_step": 2}
SEARCH = {"min_epochs": 5, "param_slack": 50}
# Growth to depth 3 and three drops; pruning to width 6, then W_min; a baseline; one plain layer, one 5x5.
GROWTH, PRUNING = [50.0, 60.0, 59.0, 59.0, 59.0], [60.0, 59.0]
REPLACE, UPDATE = [40.0, 39.0, 41.0, 41.0], [40.0, 40.0, 42.0]
ACCURACIES = GROWTH + PRUNING + REPLACE + UPDATE
FIRST_PRUNED, BASELINE, LAST = 5, 7, 13


def result(accuracy: float, train_accuracy: float = 0.0, **values: float) -> TrialResult:
    return TrialResult(accuracy=accuracy, train_accuracy=train_accuracy, values=values)


def made_up_log() -> Log:
    """A log as the authors' are, of a search that our engine was driven through."""
    strategy = MacroMicro(**SEARCH).bind(Plain(**SPACE).bind(ImageFacts(1, 10, 32)), seed=0)
    trials = []
    for accuracy in ACCURACIES:
        [wanted] = strategy.ask()
        arch = wanted.architecture
        described = {"phase": wanted.phase, "depth": arch.depth, "width": arch.width}
        described |= {
            "ops": [*arch.operations],
            "kernels": [*arch.kernels],
            "epochs": wanted.budget.epochs,
        }
        measured = {
            "train_accuracy": 30.0,
            "accuracy": accuracy,
            "finished": "2025-01-01 00:00:00,000",
        }
        trials.append(described | {"params_millions": arch.count_parameters() / 1e6} | measured)
        strategy.tell(result(accuracy, 30.0))
    assert strategy.ask() == []
    found, best = strategy.result(), strategy.best
    final = {
        "depth": best.depth,
        "width": best.width,
        "ops": [*best.operations],
        "kernels": [*best.kernels],
    }
    final |= {key: found[key] for key in ("macro_width", "macro_epochs")}
    final |= {"params_millions": best.count_parameters() / 1e6, "search_seconds": 100}
    head = {"name": "made-up", "num_classes": 10, "input_channels": 1}
    return {
        **head,
        "settings": {**SPACE, **SEARCH, "batch_size": 64},
        "trials": trials,
        "final": final,
    }


@pytest.fixture(scope="module")
def made_up() -> Log:
    return made_up_log()


@pytest.fixture
def log(made_up: Log) -> Log:
    """The test's own copy."""
    return copy.deepcopy(made_up)


def write(folder: Path, log: object) -> Path:
    path = folder / "log.json"
    path.write_text(json.dumps(log))
    return path


def published(name: str) -> Path:
    return LOGS / f"{name}.json"


@pytest.mark.parametrize("name", RECORDED)
def test_the_authors_searches_match(name):
    path = published(name)
    count = RECORDED[name]
    assert replay(path).to_json() == {
        "log": str(path),
        "trials": count,
        "matched": count,
        "final_matches": True,
        "first_difference": None,
    }
    assert replay(path).same


def test_the_made_up_search_has_every_phase_and_matches(tmp_path, log):
    phases = [trial["phase"] for trial in log["trials"]]
    assert phases == ["depth"] * 5 + ["width"] * 2 + ["ops"] * 4 + ["kernels"] * 3
    assert (log["final"]["depth"], log["final"]["macro_width"]) == (3, 6)
    assert (log["final"]["ops"], log["final"]["kernels"]) == ([0, 1, 0], [3, 3, 5])
    comparison = replay(write(tmp_path, log))
    assert (comparison.matched, comparison.trials, comparison.first_difference) == (14, 14, None)
    assert comparison.same


def setting(number: int, field: str, value: Any) -> Change:
    """`value` may be a function of the old value."""

    def change(log: Log) -> None:
        trial = log["trials"][number]
        trial[field] = value(trial[field]) if callable(value) else value

    return change


def first_plain(ops: list[int]) -> list[int]:
    return [1 - ops[0], *ops[1:]]


# (what is changed, trials that still match, words of the sentence)
TAMPERED: dict[str, tuple[Change, int, list[str]]] = {
    "phase": (setting(3, "phase", "width"), 3, ["trial 3", "phase", "depth", "width"]),
    "depth": (setting(2, "depth", 5), 2, ["trial 2", "depth", "asks for 4", "has 5"]),
    "width": (setting(5, "width", 8), 5, ["trial 5", "width", "asks for 6", "has 8"]),
    "ops": (setting(8, "ops", first_plain), 8, ["trial 8", "ops", "[1, 0, 0]", "[0, 0, 0]"]),
    "kernels": (setting(11, "kernels", [3, 3, 3]), 11, ["trial 11", "kernels", "[5, 3, 3]"]),
    "epochs": (setting(0, "epochs", 6), 0, ["trial 0", "epochs", "asks for 5", "has 6"]),
    "millions up": (setting(4, "params_millions", lambda m: m + 2e-6), 4, ["trial 4", "params_millions"]),
    "millions down": (setting(13, "params_millions", lambda m: m - 2e-6), 13, ["trial 13", "params_millions"]),
    "parameters gone": (lambda log: log["trials"][6].pop("params_millions"), 6, ["trial 6", "params_millions"]),
    "field gone": (lambda log: log["trials"][6].pop("width"), 6, ["trial 6", "width", "None"]),
    # The second network did not gain: the third, still compared with the first, is a drop, and so on.
    "a gain": (setting(1, "accuracy", 50.0), 5, ["trial 5", "phase", "asks for depth", "has width"]),
    "a drop": (setting(4, "accuracy", 59.96), 5, ["trial 5", "phase", "asks for depth", "has width"]),
    "training accuracy": (setting(1, "train_accuracy", 100.0), 2, ["trial 2", "phase", "has depth"]),
    "a loss in pruning": (setting(5, "accuracy", 59.99), 7, ["trial 7", "width", "asks for 8", "has 6"]),
    "a kept layer": (setting(9, "accuracy", 39.0), 10, ["trial 10", "ops", "[0, 0, 1]", "[0, 1, 1]"]),
    "a layer undone": (setting(8, "accuracy", 40.5), 9, ["trial 9", "ops", "[1, 1, 0]", "[0, 1, 0]"]),
    "removed at the start": (lambda log: log["trials"].pop(0), 0, ["trial 0", "depth"]),
    "removed in growth": (lambda log: log["trials"].pop(2), 2, ["trial 2", "depth", "asks for 4", "has 5"]),
    "removed baseline": (lambda log: log["trials"].pop(BASELINE), BASELINE, ["trial 7", "width", "asks for 6"]),
    "removed at the end": (lambda log: log["trials"].pop(), 13, ["log ends", "layer 3", "kernels"]),
    "all removed": (lambda log: log["trials"].clear(), 0, ["log ends", "start", "depth"]),
    "doubled": (lambda log: log["trials"].insert(6, log["trials"][5]), 6, ["trial 6", "width"]),
    "appended": (lambda log: log["trials"].append(log["trials"][-1]), 14, ["trial 14", "has ended", "kernels"]),
    "other classes": (lambda log: log.update(num_classes=11), 0, ["trial 0", "params_millions"]),
    "other channels": (lambda log: log.update(input_channels=3), 0, ["trial 0", "params_millions"]),
    "other settings": (lambda log: log["settings"].update(min_width=6), 6, ["trial 6", "phase"]),
    "final depth": (lambda log: log["final"].update(depth=4), 14, ["final", "depth", "has 3", "has 4"]),
    "final width": (lambda log: log["final"].update(width=9), 14, ["final", "width", "has 9"]),
    "final ops": (lambda log: log["final"].update(ops=[0, 0, 0]), 14, ["final", "ops", "[0, 1, 0]"]),
    "final kernels": (lambda log: log["final"].update(kernels=[5, 3, 5]), 14, ["final", "kernels"]),
    "final macro width": (lambda log: log["final"].update(macro_width=8), 14, ["final", "macro_width"]),
    "final macro epochs": (lambda log: log["final"].update(macro_epochs=1), 14, ["final", "macro_epochs"]),
    "final parameters": (lambda log: log["final"].update(params_millions=1), 14, ["final", "params_millions"]),
    "final empty": (lambda log: log["final"].clear(), 14, ["final"]),
    "final missing": (lambda log: log.pop("final"), 14, ["final architecture"]),
    "final null": (lambda log: log.update(final=None), 14, ["final architecture"]),
    # The last decision changes only what is found.
    "last accuracy": (setting(LAST, "accuracy", 41.0), 14, ["final", "width", "engine has 4"]),
}  # fmt: skip


@pytest.mark.parametrize("name", TAMPERED)
def test_tampering_is_found_at_its_trial(tmp_path, log, name):
    change, matched, words = TAMPERED[name]
    change(log)
    comparison = replay(write(tmp_path, log))
    assert comparison.matched == matched
    assert comparison.trials == len(log["trials"])
    assert comparison.final_matches is False
    assert not comparison.same
    for word in words:
        assert word in comparison.first_difference
    assert "\n" not in comparison.first_difference


@pytest.mark.parametrize(
    "change",
    [
        setting(0, "params_millions", lambda m: m + 4e-7),  # the rounding of six decimals
        setting(1, "accuracy", 60.000004),  # float32
        setting(5, "accuracy", 59.999996),
        setting(2, "finished", "whenever"),
        lambda log: log["settings"].pop("batch_size"),
        lambda log: log["final"].pop("macro_width"),
        lambda log: log.pop("name"),
    ],
)
def test_what_decides_nothing_still_matches(tmp_path, log, change):
    change(log)
    assert replay(write(tmp_path, log)).same


@pytest.mark.parametrize("name", ["phase", "depth", "width", "ops", "kernels", "epochs", "params_millions"])
@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
def test_tampering_with_a_published_log_is_found_at_its_trial(tmp_path, name, place):
    log = json.loads(published("kmnist-tiny").read_text())
    number = round(place * (len(log["trials"]) - 1))
    trial = log["trials"][number]
    old = trial[name]
    changed = {
        str: lambda: "start",
        int: lambda: old + 1,
        float: lambda: old - 2e-6,
        list: lambda: old[:-1],
    }
    trial[name] = changed[type(old)]()
    comparison = replay(write(tmp_path, log))
    assert (comparison.matched, comparison.final_matches) == (number, False)
    assert comparison.first_difference.startswith(f"trial {number}: {name}: ")


# Logs that are none.


@pytest.mark.parametrize("text", ["", "{", "not json", '{"trials": [}', "\x00"])
def test_what_is_not_json_is_told(tmp_path, text):
    path = tmp_path / "log.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"log\.json: is not valid JSON"):
        replay(path)


def test_bytes_that_are_no_text_and_missing_files_are_told(tmp_path):
    path = tmp_path / "log.json"
    path.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(UserError, match="is not valid JSON"):
        replay(path)
    with pytest.raises(UserError, match="cannot be read"):
        replay(tmp_path / "nowhere.json")


MALFORMED: dict[str, tuple[Change, str]] = {
    "no settings": (lambda log: log.pop("settings"), "settings"),
    "no trials": (lambda log: log.pop("trials"), "trials"),
    "no classes": (lambda log: log.pop("num_classes"), "num_classes"),
    "no channels": (lambda log: log.pop("input_channels"), "input_channels"),
    "classes as text": (lambda log: log.update(num_classes="10"), "num_classes"),
    "no classes at all": (lambda log: log.update(num_classes=0), "num_classes"),
    "trials as object": (lambda log: log.update(trials={"0": log["trials"][0]}), "trials"),
    "trials as number": (lambda log: log.update(trials=14), "trials"),
    "a trial as number": (lambda log: log["trials"].insert(3, 7), "trial"),
    "settings as list": (lambda log: log.update(settings=[]), "settings"),
    "a setting as text": (lambda log: log["settings"].update(max_depth="deep"), "max_depth"),
    "bounds crossed": (lambda log: log["settings"].update(max_depth=1), "minimum"),
    "no accuracy": (lambda log: log["trials"][4].pop("accuracy"), "trial 4"),
    "no training accuracy": (lambda log: log["trials"][4].pop("train_accuracy"), "trial 4"),
    "accuracy as text": (lambda log: log["trials"][4].update(accuracy="high"), "trial 4"),
    "accuracy as list": (lambda log: log["trials"][4].update(accuracy=[50]), "trial 4"),
    "accuracy null": (lambda log: log["trials"][4].update(accuracy=None), "trial 4"),
    "the last one's accuracy null": (lambda log: log["trials"][LAST].update(accuracy=None), "trial 13"),
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED)
def test_a_log_that_is_none_is_told_in_a_sentence(tmp_path, log, name):
    change, word = MALFORMED[name]
    change(log)
    with pytest.raises(UserError, match=word) as told:
        replay(write(tmp_path, log))
    if name != "no classes at all":
        assert "log.json" in str(told.value)


@pytest.mark.parametrize("tree", [None, [], 3, "log", {}])
def test_json_of_another_shape_is_told_in_a_sentence(tmp_path, tree):
    with pytest.raises(UserError, match=r"should hold a JSON object|is not a recorded search"):
        replay(write(tmp_path, tree))


UNSEEN: dict[str, Change] = {
    "accuracy NaN": setting(12, "accuracy", float("nan")),
    "training accuracy NaN": setting(12, "train_accuracy", float("nan")),
    "accuracy infinite": setting(0, "accuracy", float("inf")),
    "accuracy a number as text": setting(12, "accuracy", "40.0"),
    "accuracy a truth value": setting(12, "accuracy", True),
    "final a list": lambda log: log.update(final=[]),
    "final a text": lambda log: log.update(final="depth"),
}


@pytest.mark.parametrize("name", UNSEEN)
def test_a_log_with_other_kinds_of_values_is_told_in_a_sentence(tmp_path, log, name):
    UNSEEN[name](log)
    with pytest.raises(UserError):
        replay(write(tmp_path, log))


@pytest.mark.parametrize("where", ["trial", "final"])
def test_parameters_that_are_not_a_number_do_not_match(tmp_path, log, where):
    told = log["final"] if where == "final" else log["trials"][4]
    told["params_millions"] = "a million"
    assert not replay(write(tmp_path, log)).same
    told["params_millions"] = float("nan")
    with pytest.raises(UserError, match="NaN is no number of JSON"):
        replay(write(tmp_path, log))


@pytest.mark.parametrize("field", ["depth", "width", "ops", "kernels"])
def test_a_final_that_does_not_tell_its_architecture_does_not_match(tmp_path, log, field):
    del log["final"][field]
    assert not replay(write(tmp_path, log)).final_matches


# The command line.


def facenas_replay(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "facenas.cli", "replay", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("name", ["made-up", *RECORDED])
def test_the_command_tells_a_match_in_json_and_exits_with_0(tmp_path, log, name):
    path = write(tmp_path, log) if name == "made-up" else published(name)
    done = facenas_replay(str(path), "--json")
    assert done.returncode == 0
    count = RECORDED.get(name, 14)
    expected = {"log": str(path), "trials": count, "matched": count, "final_matches": True}
    assert json.loads(done.stdout.splitlines()[-1]) == {**expected, "first_difference": None}
    assert done.stderr == ""


def test_the_command_tells_a_difference_in_json_and_exits_with_1(tmp_path, log):
    setting(5, "width", 8)(log)
    path = write(tmp_path, log)
    done = facenas_replay(str(path), "--json")
    assert done.returncode == 1
    told = json.loads(done.stdout.splitlines()[-1])
    sentence = told.pop("first_difference")
    assert told == {"log": str(path), "trials": 14, "matched": 5, "final_matches": False}
    assert sentence.startswith("trial 5: width")
    assert "Traceback" not in done.stderr


def test_the_command_tells_bad_input_in_a_sentence_and_exits_with_2(tmp_path):
    path = tmp_path / "log.json"
    path.write_text("no log")
    done = facenas_replay(str(path), "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert str(path) in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_command_speaks_to_people_too(tmp_path, log):
    done = facenas_replay(str(write(tmp_path, log)))
    assert done.returncode == 0
    assert "14 of 14 trials match" in done.stdout
    log["final"]["width"] = 99
    done = facenas_replay(str(write(tmp_path, log)))
    assert done.returncode == 1
    assert "14 of 14 trials match" in done.stdout
    assert "final: width" in done.stdout
