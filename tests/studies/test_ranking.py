"""The study of rankings: its correlations against scipy, and the whole command on digits."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from facenas.studies.findings import bootstrap, kendall, mean_interval, spearman
from facenas.studies.ranking import Trained, correlation, dynamic_ranking, findings

SCORES = st.lists(st.integers(0, 9), min_size=3, max_size=30)


@settings(deadline=None)
@given(st.data())
def test_correlations_equal_scipys_ties_included(data):
    first = data.draw(SCORES)
    second = data.draw(st.lists(st.integers(0, 9), min_size=len(first), max_size=len(first)))
    if min(np.ptp(first), np.ptp(second)) == 0:
        assert math.isnan(spearman(first, second))
        return
    assert spearman(first, second) == pytest.approx(stats.spearmanr(first, second).statistic)
    assert kendall(first, second) == pytest.approx(stats.kendalltau(first, second).statistic)


def test_intervals_of_means_are_students():
    found = mean_interval([1.0, 2.0, 4.0, 8.0])
    low, high = stats.t.interval(0.95, 3, loc=3.75, scale=stats.sem([1, 2, 4, 8]))
    assert (found.value, found.low, found.high) == pytest.approx((3.75, low, high))
    assert mean_interval([5.0]).low is None


def test_the_bootstrap_covers_a_known_mean():
    rng = np.random.default_rng(0)
    inside = 0
    for seed in range(60):
        values = rng.normal(3.0, 1.0, 40)
        found = bootstrap(lambda some, v=values: float(v[some].mean()), 40, seed, 200)
        inside += found.low <= 3.0 <= found.high
    assert inside >= 51  # of 57 expected


def made_up(n=20, epochs=6):
    """Networks whose accuracy follows from their size, later epochs and a little noise."""
    rng = np.random.default_rng(0)
    parameters = rng.permutation(np.geomspace(1e4, 1e6, n))
    grown = 10 * np.log10(parameters)[:, None] + 5 * np.log(np.arange(1, epochs + 1))
    return Trained(grown + rng.normal(0, 0.4, (n, epochs)), parameters, parameters * 7.0)


def test_what_ranks_perfectly_and_what_not_at_all():
    trained = made_up()
    rho, tau = correlation(trained, trained.final, 50, 0)
    assert (rho.value, rho.low, rho.high, tau.value) == pytest.approx((1, 1, 1, 1))
    rho, _ = correlation(trained, trained.parameters, 200, 0)
    assert rho.value == pytest.approx(stats.spearmanr(trained.parameters, trained.final).statistic)
    assert rho.low < rho.value <= rho.high
    rho, _ = correlation(trained, np.random.default_rng(5).random(20), 200, 0)
    assert rho.low < 0 < rho.high


def test_the_dynamic_ranking_of_as_many_networks_as_epochs_is_that_of_the_diagonal():
    trained = made_up(n=6, epochs=6)
    order = np.argsort(trained.parameters)
    diagonal = trained.accuracies[order, np.arange(6)]
    found = dynamic_ranking(trained, 20, 0)
    assert found["dynamic"][0].value == pytest.approx(stats.spearmanr(diagonal, trained.final[order]).statistic)
    sized = stats.kendalltau(trained.parameters[order], diagonal).statistic
    assert found["parameters and dynamic"][1].value == pytest.approx(sized)


def test_findings_are_plain_json_and_tell_each_epoch():
    told = findings(made_up(), 20, 0)
    json.dumps(told.to_json(), allow_nan=False)
    assert len(told.values["static"]) == 5
    assert told.tables[0].rows[0][-1] == 0.65
    assert [chart.name for chart in told.charts] == ["static", "parameters", "early"]
