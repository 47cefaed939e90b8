"""Searches for a Pareto front on a space whose best members are known, without training anything."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

from facenas.spaces import Architecture, ImageFacts, SearchSpace
from facenas.strategies import NSGA2, STRATEGIES, TrialResult
from facenas.strategies.pareto import hypervolume, non_dominated, points_of

GENES, HIGHEST = 12, 7


def result(accuracy: float, train_accuracy: float = 0.0, **values: float) -> TrialResult:
    return TrialResult(accuracy=accuracy, train_accuracy=train_accuracy, values=values)


@dataclass(frozen=True)
class Row(Architecture):
    """Twelve genes of 0..7; the last one means nothing, so that two rows are one architecture."""

    genes: tuple[int, ...]

    def to_json(self) -> dict:
        return {"genes": list(self.genes)}

    def cost(self) -> int:
        return 1 + sum(self.genes)

    def count_parameters(self) -> int:
        return self.cost()

    def accuracy(self) -> float:
        """Later genes are worth more for the same cost: the front spends there first."""
        worth = sum(gene * place for place, gene in enumerate(self.genes)) / 66
        return 100 * (1 - 2 ** (-worth / 2))


class Rows(SearchSpace[Row]):
    """The space."""

    Architecture = Row

    def bounds(self) -> tuple[list[int], list[int]]:
        return [0] * (GENES + 1), [HIGHEST] * (GENES + 1)

    def encode(self, row: Row) -> list[int]:
        return [*row.genes, 0]

    def decode(self, genes: list[int]) -> Row:
        return Row(tuple(genes[:GENES]))

    def sample(self, rng: random.Random) -> Row:
        return Row(tuple(rng.randint(0, HIGHEST) for _ in range(GENES)))

    def mutate(self, row: Row, rng: random.Random) -> Row:
        place = rng.randrange(GENES)
        return Row(
            (*row.genes[:place], rng.randint(0, HIGHEST), *row.genes[place + 1 :]),
        )

    def crossover(self, first: Row, second: Row, rng: random.Random) -> Row:
        return Row(tuple(rng.choice(pair) for pair in zip(first.genes, second.genes, strict=True)))


SPACE = Rows().bind(ImageFacts(1, 10, 8))
KINDS = ("nsga2", "weighted_sum", "random")


def build(strategy: str = "nsga2", seed: int = 1, limit: float = 70.0, **more: object):
    weights = (1.0, 0.5) if strategy == "weighted_sum" else ()
    chosen = {"population": 20, "generations": 12, "limits": {"parameters": limit}, **more}
    return STRATEGIES.get(strategy)(weights=weights, **chosen).bind(SPACE, seed)


def run(search, stop: int = 10**6):
    asked = []
    while (wanted := search.ask()) and len(asked) < stop:
        asked.append(wanted[0])
        search.tell(result(wanted[0].architecture.accuracy()))
    return asked


@pytest.mark.parametrize("kind", KINDS)
def test_no_architecture_is_asked_for_twice_and_none_above_the_limit(kind):
    rows = [candidate.architecture for candidate in run(build(kind))]
    assert len(rows) == len(set(rows)) == 240
    assert max(row.cost() for row in rows) <= 70


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_asks_for_the_same_and_another_for_others(kind):
    assert run(build(kind)) == run(build(kind))
    assert run(build(kind)) != run(build(kind, seed=2))


@pytest.mark.parametrize("kind", KINDS)
def test_told_the_same_results_a_new_strategy_goes_on_alike(kind):
    """What resuming rests on: in the middle of a generation as well."""
    whole, resumed = build(kind), build(kind)
    first = run(whole, stop=50)
    for candidate in first:
        assert resumed.ask()[0] == candidate
        resumed.tell(result(candidate.architecture.accuracy()))
    assert run(whole) == run(resumed)
    assert whole.result() == resumed.result()


def test_a_generation_is_asked_for_as_a_whole():
    search = build()
    asked = search.ask()
    assert len(asked) == 20
    search.tell(result(50.0))
    assert search.ask() == asked[1:]
    assert {candidate.phase for candidate in asked} == {"generation 1"}


def test_evolution_beats_random_search_and_its_hypervolume_never_shrinks():
    volumes = {}
    for kind in ("nsga2", "random"):
        finals = []
        for seed in range(3):
            search = build(kind, seed)
            run(search)
            points = points_of(search.judged, search.objectives)
            course = [hypervolume(points[: 20 * n], (100, 85)) for n in range(1, 13)]
            assert course == sorted(course)
            finals.append(course[-1])
        volumes[kind] = finals
    assert min(volumes["nsga2"]) > max(volumes["random"])


def test_the_weighted_sum_finds_its_own_optimum():
    search = build("weighted_sum", generations=30)
    run(search)
    sums = points_of(search.judged, search.objectives) / (100, 70) @ (1.0, 0.5)
    every = random.Random(0)
    drawn = [SPACE.sample(every) for _ in range(5_000)]
    by_chance = min((100 - r.accuracy()) / 100 + 0.5 * r.cost() / 70 for r in drawn if r.cost() <= 70)
    assert sums.min() < by_chance


def test_a_limit_that_only_training_can_tell_keeps_the_front():
    search = NSGA2(
        population=20, generations=8, objectives=("parameters", "latency"), limits={"latency": 5.0}
    ).bind(SPACE, 0)
    while wanted := search.ask():
        row = wanted[0].architecture
        search.tell(result(row.accuracy(), latency=row.genes[0] + 1.0))
    front = search.result()["front"]
    assert front
    assert max(member["latency"] for member in front) <= 5.0
    last = [row.genes[0] for row, _ in search.judged[-20:]]
    first = [row.genes[0] for row, _ in search.judged[:20]]
    assert np.mean(last) < np.mean(first)  # it breeds from those within


def test_the_front_of_nothing_allowed_is_empty():
    search = build(limit=0.0, generations=1)
    assert search.ask() == []
    assert search.result()["front"] == []


def test_the_result_tells_the_front_by_trial_number():
    search = build()
    asked = run(search)
    result = search.result()
    for member in result["front"]:
        row = asked[member["id"]].architecture
        assert member["architecture"] == row.to_json()
        assert (member["parameters"], member["accuracy"]) == (row.cost(), row.accuracy())
    errors = [member["error"] for member in result["front"]]
    costs = [member["parameters"] for member in result["front"]]
    assert errors == sorted(errors)
    assert costs == sorted(costs, reverse=True)
    assert result["architecture"] == result["front"][0]["architecture"]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 30), st.integers(1, 4), st.booleans())
def test_non_dominated_equals_pymoo(seed, count, width, ties):
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 4, (count, width)).astype(float) if ties else rng.random((count, width))
    theirs = NonDominatedSorting().do(points, only_non_dominated_front=True)
    ours = non_dominated(points)
    assert {tuple(p) for p in points[ours]} == {tuple(p) for p in points[theirs]}
    assert len({tuple(p) for p in points[ours]}) == len(ours)


def test_the_hypervolume_of_boxes_that_can_be_added_up():
    points = np.array([[20.0, 40.0], [60.0, 10.0], [90.0, 90.0], [200.0, 0.0]])
    # 80 x 60 and, below it, 40 x 30 of 100 x 100; the third is beaten, the fourth lies outside.
    assert hypervolume(points, (100, 100)) == pytest.approx(0.8 * 0.6 + 0.4 * 0.3)
    assert hypervolume(points[3:], (100, 100)) == 0.0
