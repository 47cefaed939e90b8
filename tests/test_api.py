"""The front door: what a notebook calls, with objects of its own, and what it leaves behind."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import facenas
from facenas.config import Config
from facenas.errors import CandidateError, SearchStoppedError, UserError
from facenas.spaces import Architecture, SearchSpace
from facenas.strategies import Budget, Candidate, Decision, Strategy

BRIEF = {"min_epochs": 1, "width_epoch_step": 0, "micro": False}
TINY = {"min_depth": 3, "max_depth": 4, "min_width": 4, "max_width": 6}


def colors(count: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Reddish, greenish and bluish noise."""
    rng, labels = np.random.default_rng(0), np.arange(count) % 3
    images = rng.integers(0, 80, (count, 12, 12, 3), dtype=np.uint8)
    images[np.arange(count), :, :, labels] += 120
    return images, labels


@dataclass(frozen=True)
class Number(Architecture):
    value: int

    def build(self, seed):
        raise AssertionError("nothing is built for one's own measure")

    def count_parameters(self):
        return self.value

    def count_macs(self, image_size):
        return self.value


class Numbers(SearchSpace[Number]):
    Architecture = Number

    def sample(self, rng):
        return Number(rng.randint(1, 1000))


class Draws(Strategy):
    class Settings(Config):
        count: int = 5

    needs = ("sample",)

    def begin(self):
        self.rng, self.told = random.Random(self.seed), []
        self.next = self.space.sample(self.rng)

    def ask(self):
        if len(self.told) == self.settings.count:
            return []
        return [Candidate(self.next, Budget(1), "draw", "drawn")]

    def tell(self, result):
        self.told.append((result.accuracy, self.next))
        self.next = self.space.sample(self.rng)
        return Decision.KEPT if max(self.told, key=lambda t: t[0])[0] == result.accuracy else Decision.REJECTED

    def result(self):
        accuracy, best = max(self.told, key=lambda told: told[0])
        return {"architecture": best.to_json(), "accuracy": accuracy}


def measure(candidate, on_epoch):
    on_epoch({"train_loss": 1.0})
    return {"accuracy": candidate.architecture.value / 10, "energy": 2.0}


def test_importing_is_quick_and_brings_nothing_heavy():
    code = (
        "import facenas, sys; heavy = {'torch', 'numpy', 'pydantic', 'yaml', 'pymoo'} & set(sys.modules)\n"
        "assert not heavy, heavy; assert 'search' in dir(facenas)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_every_name_of_the_front_door_is_there():
    for name in facenas.__all__:
        assert getattr(facenas, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        facenas.nonsense  # noqa: B018


def test_arrays_a_space_and_a_strategy_of_ours(tmp_path):
    found = facenas.search(
        space=facenas.spaces.Plain(**TINY),
        strategy=facenas.strategies.MacroMicro(**BRIEF),
        data=colors(),
        executor="serial",
        settings={"recipe.batch_size": 8, "recipe.lr": 0.05, "recipe.cutout": 0},
        run=tmp_path / "colors",
    )
    assert found.run == tmp_path / "colors"
    assert found.architecture.num_classes == 3
    assert found.accuracy > 60
    assert found.report == tmp_path / "colors" / "report.html"
    assert facenas.resume(tmp_path / "colors").architecture == found.architecture

    trained = facenas.train(found, epochs=6)
    assert trained.epochs == 6
    assert trained.test_accuracy > 60
    net = facenas.load(trained)
    images, labels = colors(30)
    named, probabilities = net.predict(images)
    assert np.mean([int(name) for name in named] == labels) > 0.6
    assert probabilities.shape == (30, 3)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    with pytest.raises(UserError, match="call predict"):
        net.embed(images)
    with pytest.raises(UserError, match=r"should be uint8 of shape \(n, 12, 12, 3\)"):
        net.predict(images[:, :8])


def test_a_space_a_strategy_and_a_measure_of_ones_own(tmp_path):
    found = facenas.search(space=Numbers(), strategy=Draws(count=6), evaluate=measure, run=tmp_path / "own")
    assert found.trials == 6
    assert found.accuracy == found.architecture.value / 10
    again = facenas.search(space=Numbers, strategy=Draws(count=6), evaluate=measure, run=tmp_path / "again")
    assert again.architecture == found.architecture
    other = facenas.search(
        space=Numbers, strategy=Draws(count=6), evaluate=measure, seed=1, run=tmp_path / "other"
    )
    assert other.architecture != found.architecture


def test_workers_take_what_a_module_defines(tmp_path):
    one, two = (
        facenas.search(space=Numbers(), strategy=Draws(), evaluate=measure, workers=n, run=tmp_path / f"{n}")
        for n in (1, 2)
    )
    assert one.architecture == two.architecture


def test_what_a_measure_tells_can_be_an_objective(tmp_path):
    strategy = facenas.strategies.RandomSearch(population=4, generations=2, objectives=("energy",))
    found = facenas.search(space=Numbers(), strategy=strategy, evaluate=measure, run=tmp_path / "e")
    assert found.front[0]["energy"] == 2.0


@pytest.mark.parametrize("objectives", [["coost"], ["energy", "coost"]])
def test_an_objective_that_no_trial_measures_is_no_zero(tmp_path, objectives):
    strategy = facenas.strategies.RandomSearch(population=4, generations=1, objectives=objectives)
    with pytest.raises(UserError, match=r"no trial measures coost; what is counted or measured is .*energy"):
        facenas.search(space=Numbers(), strategy=strategy, evaluate=measure, run=tmp_path / "r")
    with pytest.raises(UserError, match="is neither counted nor measured"):
        facenas.search("cells-demo", settings={"search.objectives": objectives}, run=tmp_path / "r")
    with pytest.raises(UserError, match="error is always the first"):
        facenas.strategies.RandomSearch(objectives=["error"])


def test_a_strategy_that_gives_no_decision_stops_at_once(tmp_path):
    class Silent(Draws):
        def tell(self, result):
            super().tell(result)

    with pytest.raises(TypeError, match=r"Silent\.tell gave None, not a Decision"):
        facenas.search(space=Numbers(), strategy=Silent(), evaluate=measure, run=tmp_path / "r")
    assert not (tmp_path / "r" / "trials.jsonl").exists()


def test_a_wrong_key_of_a_strategy_is_told_as_on_the_command_line():
    with pytest.raises(UserError, match="strategy Draws: cuont: is not a known setting"):
        Draws(cuont=3)


HEAD = """
from facenas.models.heads.base import MarginHead


class Gentle(MarginHead):
    class Settings(MarginHead.Settings):
        margin: float = 0.1

    def apply_margin(self, cosines, norms):
        return cosines - self.settings.margin
"""


def test_a_head_of_ones_own_is_known_in_worker_processes(tmp_path, faces, monkeypatch):
    from conftest import SMALL_FACES

    (tmp_path / "gentle.py").write_text(HEAD)
    monkeypatch.syspath_prepend(tmp_path)
    from gentle import Gentle

    settings = dict(pair.split("=", 1) for pair in SMALL_FACES)
    settings = {key: float(value) if "." in value else int(value) for key, value in settings.items()}
    more = {"space.max_depth": 10, "search.micro": False, "recipe.head": Gentle}
    found = facenas.search("small", data=faces, settings=settings | more, workers=1, run=tmp_path / "r")
    assert found.trials > 1
    assert "kind: gentle:Gentle" in (found.run / "run.yaml").read_text()


def test_a_mistake_in_ones_own_code_keeps_its_traceback_and_is_no_result(tmp_path):
    def broken(candidate):
        return candidate.architecture.valeu

    with pytest.raises(AttributeError, match="valeu"):
        facenas.search(space=Numbers(), strategy=Draws(), evaluate=broken, run=tmp_path / "r")
    assert not (tmp_path / "r" / "trials.jsonl").exists()


def test_a_fault_of_the_candidate_is_a_result(tmp_path):
    def picky(candidate):
        if candidate.architecture.value % 3 == 0:
            raise CandidateError("a multiple of three")
        return 50.0

    found = facenas.search(space=Numbers(), strategy=Draws(), evaluate=picky, run=tmp_path / "r")
    assert found.accuracy == 50.0
    assert found.details["failed_trials"] > 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"preset": "nonsense"}, "preset nonsense: no such preset"),
        ({"space": 5}, "space: 5 is no search space"),
        ({"strategy": "nsga2"}, "is no strategy"),
        ({"strategy": facenas.strategies.NSGA2(), "data": "digits"}, "it has no "),
        ({"evaluate": "nosuch:function"}, "there is no module nosuch"),
        ({"evaluate": lambda architecture: 1.0}, "asks for 'architecture'"),
        ({"evaluate": lambda: "good"}, "gave 'good' as accuracy, which is no number"),
        ({"evaluate": lambda: {"loss": 1.0}}, "gave no accuracy"),
        ({"evaluate": lambda: 1234.5}, "gave 1234.5 as accuracy, which is no percentage"),
        ({"evaluate": lambda: True}, "which is no percentage"),
        ({"evaluate": measure, "settings": {"search.strategy": "test_api:Numbers"}}, "derive it from facenas"),
    ],
)
def test_a_wrong_argument_is_told_in_one_sentence(tmp_path, arguments, sentence):
    space = {} if "strategy" in arguments or "preset" in arguments else {"space": Numbers()}
    with pytest.raises(UserError) as told:
        facenas.search(**{"strategy": Draws(), "run": tmp_path / "r", **space, **arguments})
    assert sentence in str(told.value)
    assert "\n" not in str(told.value)
    assert "--" not in str(told.value)


def test_the_process_is_left_as_it_was(tmp_path):
    import torch

    before = dict(os.environ), torch.get_num_threads(), random.getstate(), list(sys.path)
    facenas.search(
        space=facenas.spaces.Plain(**TINY),
        strategy=facenas.strategies.MacroMicro(**BRIEF),
        data=colors(60),
        executor="serial",
        run=tmp_path / "r",
    )
    after = dict(os.environ), torch.get_num_threads(), random.getstate(), list(sys.path)
    assert after[:3] == before[:3]


def test_a_report_that_fails_fails_alone(tmp_path, monkeypatch, caplog):
    import facenas.report

    def broken(*_, **__):
        raise KeyError("climb")

    monkeypatch.setattr(facenas.report, "write_search_page", broken)
    found = facenas.search(space=Numbers(), strategy=Draws(), evaluate=measure, run=tmp_path / "r")
    assert found.report is None
    assert found.to_json()["report"] is None
    assert "the report could not be written (KeyError: 'climb')" in caplog.text


SCRIPT = """
import facenas
from facenas.strategies import RandomSearch
from facenas.spaces import Cells

{function}
print(facenas.search(space=Cells(max_cells=2), strategy=RandomSearch(population=4, generations=1),
                     evaluate={name}, run="runs/r", workers=2).trials)
"""


def run_script(folder: Path, text: str) -> subprocess.CompletedProcess:
    (folder / "script.py").write_text(text)
    return subprocess.run(
        [sys.executable, "script.py"], cwd=folder, capture_output=True, text=True, timeout=120
    )


def test_a_script_needs_no_guard_where_workers_need_nothing_of_it(tmp_path):
    (tmp_path / "mine.py").write_text("def size(candidate):\n    return 50.0\n")
    done = run_script(tmp_path, SCRIPT.format(function="", name="'mine:size'"))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "4\n"


def test_a_script_whose_functions_workers_need_is_told_of_the_guard(tmp_path):
    function = "def size(candidate):\n    return 50.0\n"
    done = run_script(tmp_path, SCRIPT.format(function=function, name="size"))
    assert done.returncode == 1
    assert "put the call under if __name__ == '__main__':" in done.stderr.splitlines()[-1]


def test_what_comes_by_standard_input_is_no_module_for_workers(tmp_path):
    function = "def size(candidate):\n    return 50.0\n"
    done = subprocess.run(
        [sys.executable, "-"], input=SCRIPT.format(function=function, name="size"),
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "worker processes cannot see what a notebook defines" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "runs").exists()  # told before a run is made


def test_a_search_that_cannot_go_on_says_so(tmp_path):
    def hopeless(candidate):
        raise CandidateError("never")

    with pytest.raises(SearchStoppedError, match="3 trials in a row failed, the last one with"):
        facenas.search(space=Numbers(), strategy=Draws(), evaluate=hopeless, run=tmp_path / "r")
