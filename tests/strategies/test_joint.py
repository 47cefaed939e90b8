"""Joint search: depth, width and the training protocol, by moves in turn."""

import json
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest

import facenas
from facenas.errors import SearchStoppedError, UserError
from facenas.runs import open_run
from facenas.runs.presets import load_run_config
from facenas.spaces import ImageFacts
from facenas.spaces.ir import IR
from facenas.spaces.plain import Plain
from facenas.strategies import Joint, TrialResult
from facenas.strategies.joint import FACES, MACRO, PROTOCOL
from facenas.testing import check_strategy
from facenas.training.recipes import FaceRecipe, Recipe

SPACE = Plain(min_depth=3, max_depth=18, min_width=4, max_width=16).bind(ImageFacts(1, 10, 28))
PROTOCOLS = {"lr": (0.1, 0.2, 0.4, 0.8), "cutout": (0, 8, 16), "label_smoothing": (0.0, 0.1)}
BEST = {"depth": 12, "width": 10, "lr": 0.4, "cutout": 8, "label_smoothing": 0.0}


RECIPE = Recipe()


def bound(recipe=RECIPE, space=SPACE, **settings):
    strategy = Joint(**settings)
    strategy.recipe = recipe.model_dump(mode="json")
    return strategy.bind(space, 0)


def judged(candidate, best=BEST, noise=0.0):
    """Of 1,000 images, one right less for each place off the best values; and noise of this training."""
    chosen = {"lr": 0.025, "cutout": 16, "label_smoothing": 0.0} | dict(candidate.protocol)
    off = abs(candidate.architecture.depth - best["depth"]) + abs(candidate.architecture.width - best["width"])
    off += 2 * abs(np.log2(chosen["lr"] / best["lr"])) + abs(chosen["cutout"] - best["cutout"])
    off += 100 * abs(chosen["label_smoothing"] - best["label_smoothing"])
    seed = hash((candidate.architecture, candidate.protocol, candidate.budget.repeat)) % 2**32
    wrong = 100 + 4 * off + noise * np.random.default_rng(seed).normal()
    right = np.arange(1000) >= wrong
    bits = np.packbits(right).tobytes().hex()
    count = int(right.sum())
    return TrialResult(accuracy=count / 10, correct=count, validated=1000, right_bits=bits)


def searched(strategy, judge=judged):
    asked = []
    while wanted := strategy.ask():
        asked.append((wanted[0], strategy.tell(judge(wanted[0]))))
    return asked


def test_it_finds_architecture_and_protocol_together():
    strategy = bound(protocol=PROTOCOLS, trials=200)
    asked, found = searched(strategy), strategy.result()
    assert (found["architecture"]["depth"], found["architecture"]["width"]) == (12, 10)
    assert found["protocol"] == {"lr": 0.4, "cutout": 8}  # label smoothing stays as in the recipe
    assert [asked[move["trial"]][0].reason for move in found["moves"]] == [
        f"{move['setting']} {move['from']} to {move['to']}" for move in found["moves"]
    ]
    phases = [candidate.phase for candidate, _ in asked[:12]]
    assert phases == [MACRO, PROTOCOL] * 6, "moves alternate"
    assert {candidate.budget.epochs for candidate, _ in asked} == {10}
    assert len(asked) < 80, "it ends by itself: the last round has kept nothing"


def test_the_start_is_the_recipe_as_it_is_though_its_values_are_not_in_the_lists():
    first = bound(recipe=Recipe(lr=0.3, cutout=3), protocol=PROTOCOLS).ask()[0]
    assert (first.architecture, first.protocol) == (SPACE.start(), ())
    strategy = bound(recipe=Recipe(lr=0.3, cutout=3), protocol={"lr": (0.1, 0.4)})
    searched(strategy)
    assert strategy.result()["protocol"] == {"lr": 0.4}


def test_a_round_that_another_training_does_not_confirm_is_undone():
    """The smaller network looks better in the first round alone."""

    def lucky(candidate):
        result = judged(candidate, BEST | {"depth": 3, "width": 16, "lr": 0.025, "cutout": 16})
        if candidate.budget.repeat == 0 and candidate.architecture.width == 14:
            return replace(result, right_bits="ff" * 125)
        return result

    strategy = bound(protocol=PROTOCOLS)
    asked = searched(strategy, lucky)
    assert [c.budget.repeat for c, _ in asked[-2:]] == [0, 1]
    assert strategy.result()["architecture"] == SPACE.start().to_json()
    assert strategy.result()["moves"] == []


def test_small_steps_down_never_add_up():
    """Each width is a little worse than the one before, within noise."""

    def judge(candidate):
        right = np.random.default_rng(candidate.architecture.width).random(1000)
        right = right < 0.8 + 0.004 * candidate.architecture.width
        return TrialResult(
            accuracy=right.sum() / 10,
            correct=int(right.sum()),
            validated=1000,
            right_bits=np.packbits(right).tobytes().hex(),
        )

    strategy = bound(protocol={})
    searched(strategy, judge)
    assert strategy.result()["accuracy"] > judge(strategy.space.start() and bound().ask()[0]).accuracy - 1.5


def test_failed_candidates_are_worse_and_nothing_ends_for_them():
    strategy = bound(protocol=PROTOCOLS, trials=200)
    searched(
        strategy,
        lambda c: TrialResult(status="failed") if dict(c.protocol).get("lr", 0) > 0.2 else judged(c),
    )
    assert strategy.result()["protocol"]["lr"] == 0.2


def test_what_lies_ahead_is_right_while_moves_lose():
    strategy = bound(protocol=PROTOCOLS)
    strategy.tell(judged(strategy.ask()[0]))
    ahead = strategy.ask() + strategy.look_ahead(5, lambda _: None)
    assert len(set(ahead)) == 6
    asked = [c for c, _ in searched(strategy, lambda _: TrialResult(status="failed"))]
    assert asked[:6] == ahead


@pytest.mark.parametrize("more", [{}, {"fidelity": {"fraction": 0.5}}, {"protocol": {}}, {"trials": 1}])
def test_keeps_the_contract(more):
    check_strategy(Joint(**{"trials": 40, **more}), SPACE, lambda candidate: judged(candidate, noise=40))


def test_faces_have_a_protocol_of_their_own():
    space = IR(min_depth=10, max_depth=14, max_width=16).bind(ImageFacts(3, 0, 112))
    strategy = bound(FaceRecipe(), space, trials=200)
    settings = {
        name for c, _ in searched(strategy, lambda _: TrialResult(accuracy=50)) for name, _ in c.protocol
    }
    assert settings == set(FACES)
    arcface = FaceRecipe(head={"kind": "arcface"})
    asked = searched(bound(arcface, space, trials=200), lambda _: TrialResult(accuracy=50))
    assert settings - {name for c, _ in asked for name, _ in c.protocol} == {"head.h"}


@pytest.mark.parametrize(
    ("protocol", "fault"),
    [
        ("{final_epochs: [3]}", "protocol: final_epochs is of the full training alone"),
        ("{head.margin: [0.4]}", "protocol: a recipe for classification has no setting head.margin"),
        ("{lr: [0.1, -1]}", "protocol: lr: Input should be greater than 0"),
        ("{batch_size: [48.5]}", "protocol: batch_size: Input should be a valid integer"),
        ("{crop: [32]}", "protocol: crop is None in the recipe; make it a number there first"),
    ],
)
def test_what_the_recipe_does_not_take_is_told_before_anything_runs(protocol, fault):
    with pytest.raises(UserError, match=fault):
        load_run_config("joint-demo", [f"search.protocol={protocol}"], {})


def test_the_full_training_follows_the_protocol(tmp_path):
    """In place and as a run of its own; a setting that is given wins."""
    one_move = {"search.trials": 2, "search.epochs": 1, "search.protocol": {"lr": [0.1]}}
    few = {"data.data_fraction": 0.1, "execution.executor": "serial"}
    found = facenas.search("joint-demo", run=tmp_path / "run", settings=one_move | few)
    best = json.loads((found.run / "best.json").read_text(encoding="utf-8"))
    (found.run / "best.json").write_text(json.dumps(best | {"protocol": {"lr": 1e9}}), encoding="utf-8")
    with pytest.raises(SearchStoppedError, match="loss became nan"):
        facenas.train(found, epochs=1)
    for settings, rate in (({}, 1e9), ({"recipe.lr": 0.3}, 0.3)):
        run = tmp_path / f"at {rate}"
        with suppress(SearchStoppedError):
            facenas.train(found, epochs=1, run=run, settings=settings)
        assert open_run(tmp_path, run.name).config.recipe.lr == rate


def test_the_last_trial_is_for_what_was_kept():
    strategy = bound(protocol=PROTOCOLS, trials=12)
    asked = searched(strategy, judged)
    assert len(asked) == 12
    assert asked[-1][0].budget.repeat == 1, "the moves of the round are tried with other draws"
