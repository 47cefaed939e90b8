"""Looking ahead: never changes the search, and is right whenever the outcomes are as assumed."""

from __future__ import annotations

import zlib

from hypothesis import given, settings
from hypothesis import strategies as st

from facenas.spaces import ImageFacts, Plain
from facenas.strategies import Candidate, MacroMicro, TrialResult

ACCURACIES = st.lists(st.sampled_from([0.0, 40.0, 49.97, 50.0, 50.05, 50.2, 99.95]), min_size=40, max_size=40)


def result(accuracy: float, train_accuracy: float = 0.0, **values: float) -> TrialResult:
    return TrialResult(accuracy=accuracy, train_accuracy=train_accuracy, values=values)


def engine(depths: tuple[int, int] = (2, 6), widths: tuple[int, int] = (4, 12)) -> MacroMicro:
    bounds = dict(zip(("min_depth", "max_depth", "min_width", "max_width"), depths + widths, strict=True))
    space = Plain(**bounds).bind(ImageFacts(1, 10, 32))
    return MacroMicro(param_slack=100).bind(space, seed=0)


def nothing(_: Candidate) -> None:
    return None


def places(candidates: list[Candidate]) -> list[tuple[str, int, int]]:
    return [(c.phase, c.architecture.depth, c.architecture.width) for c in candidates]


def rest_of(strategy: MacroMicro, accuracy: float) -> list[Candidate]:
    """What is asked for to the end, when every candidate comes out alike."""
    asked = []
    while wanted := strategy.ask():
        asked += wanted
        strategy.tell(result(accuracy))
    return asked


@settings(deadline=None, max_examples=60)
@given(ACCURACIES, st.integers(0, 50))
def test_looking_leaves_the_search_as_it_was(accuracies, count):
    watched, plain = engine(), engine()
    for accuracy in accuracies:
        before = watched.ask(), watched.result(), watched.note
        first = watched.look_ahead(count, nothing)
        assert watched.look_ahead(count, nothing) == first
        assert (watched.ask(), watched.result(), watched.note) == before
        assert watched.ask() == plain.ask()
        if not plain.ask():
            break
        assert watched.tell(result(accuracy)) == plain.tell(result(accuracy))


@settings(deadline=None, max_examples=60)
@given(ACCURACIES, st.integers(0, 30))
def test_nothing_is_repeated_and_fewer_are_the_first_of_more(accuracies, told):
    strategy, asked = engine(), []
    for accuracy in accuracies[:told]:
        if strategy.ask():
            asked += strategy.ask()
            strategy.tell(result(accuracy))
    everything = strategy.look_ahead(10_000, nothing)
    whole = [(c.architecture, c.budget.epochs) for c in asked + strategy.ask() + everything]
    assert len(set(whole)) == len(whole)
    for count in (0, 1, 2, 5, len(everything)):
        assert strategy.look_ahead(count, nothing) == everything[:count]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**31), st.integers(0, 25))
def test_it_is_the_real_course_when_all_outcomes_are_known(seed, told):
    def known(candidate: Candidate) -> TrialResult:
        luck = zlib.crc32(repr((candidate.architecture, candidate.budget.epochs, seed)).encode())
        return result((0.0, 40.0, 50.0, 50.02, 50.2)[luck % 5], 60.0)

    strategy = engine()
    for _ in range(told):
        if strategy.ask():
            strategy.tell(known(strategy.ask()[0]))
    ahead, course = strategy.look_ahead(10_000, known), []
    while wanted := strategy.ask():
        course += wanted
        strategy.tell(known(wanted[0]))
    assert ahead == course[1:]


def test_growth_and_pruning_are_assumed_to_go_on_and_replacements_to_be_rejected():
    strategy, alike = engine(), engine()
    # Equal accuracies: growth goes on to D_max, every narrower network is kept, no replacement is.
    ahead, course = strategy.look_ahead(10_000, nothing), rest_of(alike, 50.0)
    assert ahead == course[1:]
    growth = [("depth", depth, 12) for depth in (3, 4, 5, 6)]
    assert places(ahead)[:8] == [*growth, *(("width", 2, width) for width in (10, 8, 6, 4))]


@settings(deadline=None, max_examples=40)
@given(ACCURACIES, st.integers(1, 6))
def test_growth_and_pruning_ask_for_the_same_until_they_end(accuracies, count):
    """What lies ahead within a phase is sure: speculation on it is lost only when the phase ends."""
    strategy = engine((2, 9), (4, 20))
    for accuracy in accuracies:
        if not strategy.ask() or strategy.ask()[0].phase not in ("depth", "width"):
            break
        ahead = strategy.look_ahead(count, nothing)
        phase = strategy.ask()[0].phase
        strategy.tell(result(accuracy))
        wanted = strategy.ask()
        if wanted and ahead and wanted[0].phase == ahead[0].phase == phase:
            assert wanted[0] == ahead[0]


def test_known_outcomes_are_believed():
    strategy = engine((2, 9))

    def third_drop_is_known(candidate: Candidate) -> TrialResult | None:
        depth = candidate.architecture.depth
        return result(50.0 if depth == 2 else 10.0) if candidate.phase == "depth" and depth < 6 else None

    ahead = strategy.look_ahead(5, third_drop_is_known)
    pruned = [("width", 2, 10), ("width", 2, 8)]
    assert places(ahead) == [("depth", 3, 12), ("depth", 4, 12), ("depth", 5, 12), *pruned]


def test_a_replacement_known_to_win_is_kept():
    strategy = engine((2, 2), (12, 12))
    strategy.tell(result(50.0))

    def first_layer_wins(candidate: Candidate) -> TrialResult | None:
        won = candidate.architecture.operations == (1, 0) and candidate.architecture.kernels == (
            3,
            3,
        )
        return result(90.0) if won else None

    ahead = [
        (c.architecture.operations, c.architecture.kernels) for c in strategy.look_ahead(9, first_layer_wins)
    ]
    assert ahead == [((1, 0), (3, 3)), ((1, 1), (3, 3)), ((1, 0), (5, 3)), ((1, 0), (3, 5))]


def test_after_two_narrower_networks_that_lost_the_third_is_assumed_to_lose():
    strategy = engine((2, 2), (4, 20))
    for accuracy in (50.0, 49.0, 49.0):
        strategy.tell(result(accuracy))
    assert places(strategy.ask()) == [("width", 2, 14)]
    assert [c.reason for c in strategy.look_ahead(1, nothing)] == ["baseline"]
    assert places(strategy.look_ahead(1, nothing)) == [("ops", 2, 20)]


def test_nothing_lies_ahead_of_the_end():
    strategy = engine((2, 2), (4, 4))
    for _ in range(6):
        assert strategy.ask()
        strategy.tell(result(50.0))
    assert strategy.ask() == []
    assert strategy.look_ahead(9, nothing) == []
