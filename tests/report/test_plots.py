"""The charts of an evaluation: a ROC that the metrics' rates lie on, counts that add up, exact CMC points."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from report_evaluations import spread

from facenas.evaluation import tar_at_far, tar_at_fars
from facenas.report.plots import BINS, POINTS, chart_plot, cmc_plot, roc_plot, score_plot
from facenas.studies.findings import Chart, Series


def _trace(figure: dict[str, Any], name: str) -> dict[str, Any]:
    (trace,) = (trace for trace in figure["data"] if trace["name"] == name)
    return trace


def _at(trace: dict[str, Any], far: float) -> float:
    """What the chart's steps show at a false accept rate."""
    return trace["y"][max(i for i, x in enumerate(trace["x"]) if x <= far)]


@pytest.mark.parametrize("pairs", [40, 600, 30_000, 2_000_000])
def test_every_point_of_the_roc_is_one_of_the_metric(pairs: int) -> None:
    scores, same = spread(pairs)
    curve = _trace(roc_plot(scores, same, {}), "ROC")
    assert len(curve["x"]) <= POINTS
    assert curve["x"] == sorted(curve["x"])
    impostors = np.count_nonzero(~same)
    assert curve["x"][0] == pytest.approx(min(1 / impostors, 0.1), rel=1e-5)
    assert (curve["x"][-1], curve["y"][-1]) == (1, 100)
    for far in [curve["x"][0], *curve["x"][1 :: max(1, len(curve["x"]) // 5)]]:
        expected = tar_at_far(scores, same, min(far * (1 + 1e-5), 1))  # six digits are kept
        assert _at(curve, far) == pytest.approx(100 * expected, abs=2e-3)


def test_marks_lie_on_the_roc_as_far_as_it_reaches() -> None:
    scores, same = spread(20_000)
    told = tar_at_fars(scores, same, [1e-6, 1e-3, 1e-2, 1e-1])
    figure = roc_plot(scores, same, {f"{far:g}": tar for far, tar in told.items()})
    curve, marks = _trace(figure, "ROC"), _trace(figure, "in the table")
    assert marks["x"] == [1e-3, 1e-2, 1e-1]
    for far, tar in zip(marks["x"], marks["y"], strict=True):
        assert _at(curve, far) == pytest.approx(tar, abs=1e-3)


@pytest.mark.parametrize(("pairs", "ticks"), [(4, 2), (2000, 4), (2_000_000, 7)])
def test_axis_of_the_roc_goes_down_to_one_impostor(pairs: int, ticks: int) -> None:
    axis = roc_plot(*spread(pairs), {})["layout"]["xaxis"]
    assert axis["type"] == "log"
    assert axis["range"] == [pytest.approx(math.log10(min(2 / pairs, 0.1))), 0]
    assert len(axis["tickvals"]) == len(axis["ticktext"]) == ticks


def test_a_perfect_network_has_a_flat_curve() -> None:
    same = np.arange(100) < 50
    figure = roc_plot(np.where(same, 0.9, 0.1), same, {})
    assert set(_trace(figure, "ROC")["y"]) == {100}
    assert figure["layout"]["yaxis"]["range"] == pytest.approx([98.9, 100.03])


@pytest.mark.parametrize("pairs", [2, 30, 6000, 2_000_000])
def test_histograms_count_every_pair_once(pairs: int) -> None:
    scores, same = spread(pairs)
    figure = score_plot(scores, same, 0.2)
    for kind, number in (("genuine", same.sum()), ("impostor", (~same).sum())):
        trace = _trace(figure, f"{kind} pairs")
        assert len(trace["x"]) <= BINS
        counts = [int(words.split("<br>")[1].split()[0].replace(",", "")) for words in trace["text"]]
        assert sum(counts) == number
        assert trace["y"] == pytest.approx([100 * count / number for count in counts], abs=1e-3)
        assert trace["y"][0] == trace["y"][-1] == 0  # the outline closes
    line = _trace(figure, "threshold 0.200")
    assert line["x"] == [0.2, 0.2]
    assert line["y"][1] == max(max(trace["y"]) for trace in figure["data"])
    assert len(json.dumps(figure)) < 40_000


def test_equal_scores_and_no_threshold() -> None:
    figure = score_plot(np.full(7, 1.0), np.ones(7, bool), None)
    (trace,) = figure["data"]
    assert max(trace["y"]) == 100


def test_kinds_differ_in_more_than_colour() -> None:
    data = score_plot(*spread(100), 0.2)["data"]
    assert len({trace["line"]["dash"] for trace in data}) == 3


@pytest.mark.parametrize("gallery", [1, 20, 51, 157_871])
def test_cmc_is_thinned_exactly(gallery: int) -> None:
    cmc = np.sort(np.random.default_rng(0).random(gallery))
    figure = cmc_plot(cmc)
    (trace,) = figure["data"]
    assert trace["x"][0] == 1
    assert trace["x"][-1] == gallery
    assert len(trace["x"]) <= POINTS
    assert trace["y"] == pytest.approx((100 * cmc[np.array(trace["x"]) - 1]).tolist(), abs=1e-4)
    assert (figure["layout"]["xaxis"].get("type") == "log") == (gallery > 50)


def test_a_chart_of_a_study_has_bands_and_error_bars():
    line = Series("a <b>", (1.0, 2.0), (3.0, 4.0), "line", (2.0, 3.0), (5.0, 6.0))
    marks = Series("m", (1.0,), (3.0,), low=(1.0,), high=(4.0,), text=("x < y",))
    figure = chart_plot(Chart("c", "title", "x", "y", (line, marks), log_x=True))
    band, curve, dots = figure["data"]
    assert list(zip(band["x"], band["y"], strict=True)) == [(1, 5), (2, 6), (2, 3), (1, 2)]
    assert (curve["name"], curve["mode"]) == ("a &lt;b&gt;", "lines")
    assert (dots["error_y"]["array"], dots["error_y"]["arrayminus"]) == ((1.0,), (2.0,))
    assert dots["text"] == ["x &lt; y<br>1, 3"]
    assert figure["layout"]["xaxis"]["type"] == "log"
