"""Budgets in words, and the recommendation, against plain arithmetic."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_front_folders import finish_front_search, make_front_run
from report_run_folders import make_run, small_search

from facenas.errors import UserError
from facenas.report.front import Member, parse_budget, recommend, recommendation
from facenas.report.records import Trial
from facenas.spaces import PlainArchitecture

NAMES = {"params": "parameters", "parameters": "parameters", "macs": "macs", "memory": "memory"}
UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}


@given(
    st.dictionaries(
        st.sampled_from(["params", "macs", "memory"]),
        st.tuples(st.integers(1, 10**6), st.sampled_from(sorted(UNITS)), st.booleans()),
        min_size=1,
    ),
    st.sampled_from(["", " "]),
)
def test_every_unit_is_read(limits: dict[str, tuple[int, str, bool]], space: str) -> None:
    parts = [
        f"{name}{space}={space}{number / 100}{unit}{'B' if in_bytes and name == 'memory' else ''}"
        for name, (number, unit, in_bytes) in limits.items()
    ]
    found = parse_budget(f",{space}".join(parts))
    assert found == {
        NAMES[name]: pytest.approx(number / 100 * UNITS[unit])
        for name, (number, unit, _) in limits.items()
    }


def test_the_documented_example() -> None:
    budget = parse_budget("params=1M,macs=80M,memory=4MB, latency=2.5ms")
    assert budget == {"parameters": 1e6, "macs": 80e6, "memory": 4e6, "latency": 2.5}


@given(
    st.text(max_size=30) | st.from_regex(r"(params|macs|memory)=[\d.kMGBe-]{0,6}", fullmatch=True)
)
def test_anything_else_gets_one_sentence(text: str) -> None:
    try:
        budget, fault = parse_budget(text), ""
    except UserError as error:
        budget, fault = {}, str(error)
    assert bool(budget) != fault.startswith("--budget: ")
    assert "\n" not in fault
    assert set(budget) <= {*NAMES.values(), "latency"}
    assert all(0 < most < float("inf") for most in budget.values())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "'' is no limit; write it as params=1M"),
        ("params", "'params' is no limit"),
        ("params=1M,", "'' is no limit"),
        ("flops=1M", "'flops' is no cost; there are params, parameters, macs, memory, latency"),
        ("params=1M,parameters=2M", "parameters is limited twice"),
        ("params=1MB", "'1MB' is not a limit of parameters"),
        ("memory=4ms", "'4ms' is not a limit of memory"),
        ("macs=0", "'0' is not a limit of macs; write a number above 0"),
        ("macs=-3", "'-3' is not a limit"),
        ("macs=1T", "'1T' is not a limit"),
        ("macs=" + "9" * 400, "is not a limit"),
    ],
)
def test_faults_are_told(text: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_budget(text)
    assert words in str(caught.value)


def _member(number: int, error: float, parameters: float, macs: float) -> Member:
    costs = {"parameters": parameters, "macs": macs}
    arch = PlainArchitecture.uniform(5, 8, 3, 10)
    trial = Trial.model_construct(trial=number)
    return Member(number, 100 - error, {"error": error, **costs}, costs, arch, trial)


VALUES = st.integers(0, 5).map(float)


@given(
    st.lists(st.tuples(VALUES, VALUES, VALUES), max_size=8),
    st.dictionaries(st.sampled_from(["parameters", "macs"]), VALUES, min_size=1),
)
def test_the_most_accurate_within_all_limits(
    rows: list[tuple[float, float, float]], budget: dict[str, float]
) -> None:
    front = [_member(number, *row) for number, row in enumerate(rows)]
    found = recommend(front, budget)
    allowed = [m for m in front if all(m.costs[n] <= most for n, most in budget.items())]
    assert (found is None) == (not allowed)
    for other in allowed:
        assert found is not None
        assert found.accuracy >= other.accuracy
        if other.accuracy == found.accuracy:
            assert tuple(found.values.values()) <= tuple(other.values.values())


def test_the_sentence_and_the_json(tmp_path: Path) -> None:
    run = make_front_run(tmp_path / "run")
    best = finish_front_search(run)
    allowed = [m for m in best["front"] if m["parameters"] <= 3000]
    found = recommendation(run, parse_budget("params=3k"))
    assert found.member is not None
    assert found.member.id == allowed[0]["id"]
    assert found.sentence.startswith("The most accurate within 3\u00a0k parameters: trial ")
    recommended = found.to_json()["recommended"]
    assert recommended == {key: allowed[0][key] for key in recommended}
    none = recommendation(run, parse_budget("params=1"))
    assert (none.member, none.sentence) == (None, "No network of the front keeps 1 parameters.")
    assert none.to_json() == {"budget": {"parameters": 1.0}, "recommended": None}


def test_a_cost_that_nobody_weighed(tmp_path: Path) -> None:
    run = make_front_run(tmp_path / "run")
    with pytest.raises(UserError, match="did not weigh memory; leave it out, or search with it"):
        recommendation(run, {"memory": 1e6})
    assert recommendation(run, {"macs": 1e9}).member is not None  # counted for every network


def test_a_run_without_a_front(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no search for a Pareto front"):
        recommendation(make_run(tmp_path / "run", small_search()), {"parameters": 1.0})
