"""Every member of every registry keeps the contract that `facenas.testing` publishes."""

from __future__ import annotations

import random

import numpy as np
import pytest

from facenas.execution import FunctionEvaluator
from facenas.models.heads import HEADS
from facenas.spaces import SPACES, ImageFacts
from facenas.strategies import STRATEGIES, Budget, Candidate, TrialResult
from facenas.testing import (
    check_evaluator,
    check_head,
    check_search_space,
    check_strategy,
    drawn_result,
)

CLASSES, FACES = ImageFacts(1, 10, 16), ImageFacts(3, 0, 112)
# What makes a member small enough for seconds.
NARROW = {
    "width_multipliers": (0.0625, 0.125, 0.1875, 0.25),
    "depth_multipliers": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6),
    "embedding": 8,
}
SMALL_SPACES = {
    "plain": {"min_depth": 3, "max_depth": 6, "min_width": 4, "max_width": 8},
    "ir": {"min_depth": 10, "max_depth": 14, "min_width": 4, "max_width": 8, "embedding": 16},
    "cells": {"max_cells": 2, "base_widths": (4, 8)},
    "graph": {"widths": (4, 8), "max_blocks": 2},
    "mobilefacenet": NARROW,
    "edgeface": NARROW,
    "ghostfacenet": {"width_multipliers": [part / 100 for part in range(2, 40)], "embedding": 8},
}
SMALL_STRATEGIES = {
    "macro_micro": {"min_epochs": 1, "micro_epochs": 1, "param_slack": 50},
    "trend": {"min_epochs": 1, "micro_epochs": 1, "param_slack": 50},
    "nsga2": {"population": 6, "generations": 3},
    "weighted_sum": {"population": 6, "generations": 3, "weights": (1.0, 1.0)},
    "random": {"population": 6, "generations": 3},
}


def spaces():
    for name in SPACES.names():
        cls = SPACES.get(name)
        for images in (CLASSES, FACES):
            if images.task in cls.tasks:
                yield pytest.param(name, images, id=f"{name}-{images.task}")


def bound(name: str, images: ImageFacts):
    return SPACES.get(name)(**SMALL_SPACES.get(name, {})).bind(images)


@pytest.mark.parametrize(("name", "images"), spaces())
def test_every_space(name, images):
    check_search_space(bound(name, images))


def pairs():
    """Every strategy over every space that has what it needs."""
    for strategy in STRATEGIES.names():
        for space in spaces():
            if all(hasattr(bound(*space.values), need) for need in STRATEGIES.get(strategy).needs):
                yield pytest.param(strategy, *space.values, id=f"{strategy}-{space.id}")


@pytest.mark.parametrize(("strategy", "name", "images"), pairs())
def test_every_strategy_over_every_space_that_fits(strategy, name, images):
    settings = SMALL_STRATEGIES.get(strategy, {})
    check_strategy(STRATEGIES.get(strategy)(**settings), bound(name, images))


def test_a_strategy_with_a_supernet():
    settings = {"epochs": 1, "rank_networks": 3, "rank_epochs": 1}
    strategy = STRATEGIES.get("random")(population=4, generations=2, supernet=settings)

    def judge(candidate: Candidate) -> TrialResult:
        assert (candidate.budget.epochs == 0) == (candidate.phase != "ranked by training")
        return drawn_result(candidate)

    check_strategy(strategy, bound("graph", CLASSES), judge)


@pytest.mark.parametrize("name", HEADS.names())
def test_every_head(name):
    check_head(HEADS.get(name))


def candidate(epochs: int = 2) -> Candidate:
    arch = bound("plain", ImageFacts(1, 10, 8)).sample(random.Random(0))
    return Candidate(arch, Budget(epochs), "check", "drawn")


def test_training_alone(make_evaluator):
    check_evaluator(make_evaluator(), candidate())


def measured(candidate, seed):
    return {"accuracy": 50 + np.random.default_rng(seed).random(), "energy": 1.0}


def test_ones_own_function():
    check_evaluator(FunctionEvaluator(measured), candidate())
