"""The study of rankings: its correlations against scipy, and the whole command on digits."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from facenas.errors import UserError
from facenas.report.plots import chart_plot
from facenas.report.study_page import write_study
from facenas.spaces import PlainArchitecture
from facenas.strategies import TrialResult
from facenas.studies.findings import (
    Chart,
    Findings,
    Interval,
    Table,
    bootstrap,
    kendall,
    mean_interval,
    spearman,
)
from facenas.studies.ranking import Trained, correlation, dynamic_ranking, findings, read_trained

ABOUT = {"name": "s", "study": {"kind": "ranking"}, "config": {"data": {"name": "digits"}}}
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
    assert (Interval(0.7).ends, Interval(0.7, -0.1, 0.0).ends) == ((0.7, 0.7), (-0.1, 0.0))


def test_the_bootstrap_covers_a_known_mean():
    rng = np.random.default_rng(0)
    inside = 0
    for seed in range(60):
        values = rng.normal(3.0, 1.0, 40)
        found = bootstrap(lambda some, v=values: float(v[some].mean()), 40, seed, 200)
        inside += found.low <= 3.0 <= found.high
    assert inside >= 51  # of 57 expected


def made_up(n=20, epochs=6, noise=1.5):
    """Networks whose accuracy follows from their size, later epochs and a little noise."""
    rng = np.random.default_rng(0)
    parameters = rng.permutation(np.geomspace(1e4, 1e6, n))
    grown = 10 * np.log10(parameters)[:, None] + 5 * np.log(np.arange(1, epochs + 1))
    return Trained(grown + rng.normal(0, noise, (n, epochs)), parameters, parameters * 7.0)


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


def test_agreement_with_a_teacher_is_ranked_beside_the_accuracy(tmp_path):
    """Also where candidates are judged by agreement: pairs tell how accurate they are."""
    rng = np.random.default_rng(1)
    lines, history = [], []
    for n in range(8):
        network = PlainArchitecture.uniform(3, 4 + n, 1, 10)
        about = {"parameters": 1000 + n, "macs": 100 + n, "trial": n, "decision": "kept", "search_seconds": 0}
        lines.append(network.to_json() | asdict(TrialResult(key=f"{n}")) | about)
        for epoch in (1, 2):
            told = {"agreement": 10.0 * n, "accuracy": 10.0 * n, "verification": 50 + n + rng.normal()}
            history.append({"trial": n, "key": f"{n}", "epoch": epoch, **told})
    for name, rows in (("trials.jsonl", lines), ("metrics.jsonl", history)):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    trained = read_trained(SimpleNamespace(folder=tmp_path))
    told = findings(trained, 20, 0)
    finals = [row["verification"] for row in history if row["epoch"] == 2]
    expected = stats.spearmanr(range(8), finals).statistic
    assert [pair["spearman"][0] for pair in told.values["agreement"]] == pytest.approx([expected] * 2)
    assert "Of the agreement with the teacher after 1 epoch" in told.summary[-1]
    names = [row[0] for row in told.tables[0].rows]
    assert names[:3] == ["accuracy after epoch 1", "agreement after epoch 1", "agreement after epoch 2"]
    assert told.charts[0].series[2].name == "Spearman, agreement"


def test_the_intervals_of_the_dynamic_ranking_are_about_its_value_and_shrink_with_more_networks():
    trained = (made_up(n, 12, noise=5) for n in (40, 640))
    few, many = (dynamic_ranking(one, 60, 0)["dynamic"][0] for one in trained)
    assert few.low < few.value < few.high
    assert many.low < many.value < many.high
    assert many.high - many.low < 0.5 * (few.high - few.low)


def test_rankings_that_are_not_defined_are_missing_on_the_page_and_leave_its_charts_whole(tmp_path):
    trained = made_up()
    trained.accuracies[:, 0] = 10.0  # a guess, as in early epochs
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        told = findings(trained, 20, 0)
    assert "after one epoch - (paper 0.65)" in told.summary[1]
    assert told.values["static"][0] == {"spearman": [None] * 3, "kendall": [None] * 3}
    drawn = chart_plot(told.charts[0])
    json.dumps(drawn, allow_nan=False)
    band, curve = drawn["data"][:2]
    assert (curve["y"][0], band["x"][0]) == (None, 2)  # the band begins where there is a value


def test_findings_that_are_not_finite_are_written_as_missing(tmp_path):
    table = Table("odd", "Odd", ("a", "b", "c"), ((math.nan, math.inf, np.float64(1.5)),))
    write_study(tmp_path, "t", Findings((), (table,), (), {"x": [math.nan, (1, -math.inf)]}), ABOUT)
    kept = json.loads((tmp_path / "study.json").read_text())
    assert (kept["tables"][0]["rows"], kept["values"]) == ([[None, None, 1.5]], {"x": [None, [1, None]]})
    assert (tmp_path / "tables/odd.csv").read_text() == "a,b,c\n,,1.5\n"
    assert "| - | - | 1.50 |" in (tmp_path / "tables/odd.md").read_text()


@pytest.mark.parametrize("name", ["a b/../c", "../c", "A", ""])
def test_names_that_no_file_can_have_are_refused(name):
    with pytest.raises(UserError, match="the name should be of small letters"):
        Table(name, "title", (), ())
    with pytest.raises(UserError, match="the name should be of small letters"):
        Chart(name, "title", "x", "y", ())
