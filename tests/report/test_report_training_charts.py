"""The charts of a final training: scales, the best epoch, and a ROC that its table's marks lie on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from facenas.evaluation.metrics.roc import roc_points, tar_at_far
from facenas.report.records import Epoch, Roc, Verification
from facenas.report.training_charts import roc_chart, training_course

RATES = (0.1, 0.01, 0.001)


def epochs(accuracies: list[float | None]) -> list[Epoch]:
    return [
        Epoch(epoch=number, train_loss=9.0 / number, train_accuracy=number, accuracy=accuracy)
        for number, accuracy in enumerate(accuracies, start=1)
    ]


def verification(pairs: int, seed: int = 0) -> Verification:
    """Of random scores, genuine pairs a little more alike."""
    rng = np.random.default_rng(seed)
    same = np.arange(pairs) % 2 == 0
    scores = rng.normal(size=pairs) + 1.5 * same
    far, tar = roc_points(scores, same)
    told = {rate: 100 * tar_at_far(scores, same, rate) for rate in RATES}
    roc = Roc(far=tuple(far), tar=tuple(tar))
    return Verification(
        identities="test", pairs=pairs, accuracy=75, std=1, tar_at_far=told, roc=roc
    )


def _trace(figure: dict[str, Any], name: str) -> dict[str, Any]:
    (trace,) = (trace for trace in figure["data"] if trace["name"] == name)
    return trace


def test_classification_has_two_scales_and_no_mark() -> None:
    figure = training_course(epochs([None, None]), None)
    assert [trace["name"] for trace in figure["data"]] == ["training accuracy", "training loss"]
    assert "yaxis2" not in figure["layout"]


@pytest.mark.parametrize("best", [0, 1, 3])
def test_faces_mark_the_best_epoch_on_a_scale_of_its_own(best: int) -> None:
    accuracies: list[float | None] = [60.0, 60.0, 61.0, 60.5]
    accuracies[best] = 70.0
    course = epochs(accuracies)
    figure = training_course(course, course[best])
    assert _trace(figure, "verification accuracy")["y"] == accuracies
    star = _trace(figure, "best epoch")
    assert (star["x"], star["y"]) == ([best + 1], [70.0])
    assert "70.00" in star["text"][0]
    assert figure["layout"]["yaxis"]["range"][1] > 71
    axes = [_trace(figure, f"training {what}")["yaxis"] for what in ("accuracy", "loss")]
    assert axes == ["y2", "y3"]
    domains = [figure["layout"][name]["domain"] for name in ("yaxis3", "yaxis2", "yaxis")]
    edges = [edge for domain in domains for edge in domain]
    assert edges == sorted(set(edges))


@pytest.mark.parametrize("pairs", [20, 300, 6000, 40_000])
def test_marks_of_the_table_lie_on_the_curve(pairs: int) -> None:
    figure = roc_chart(verification(pairs))
    curve, marks = _trace(figure, "ROC"), _trace(figure, "in the table")
    assert curve["line"]["shape"] == "hv"
    assert curve["x"] == sorted(curve["x"])
    assert np.diff(curve["y"]).min() > -1e-4  # points are rounded, those of the table are not
    for far, tar in zip(marks["x"], marks["y"], strict=True):
        step = max(i for i, x in enumerate(curve["x"]) if x <= far)
        assert curve["y"][step] == pytest.approx(tar, abs=1e-4)


@pytest.mark.parametrize(
    ("pairs", "lowest"), [(20, 0.001), (300, 0.001), (6000, 0.0001), (400_000, 0.0001)]
)
def test_axis_begins_where_pairs_have_something_to_tell(pairs: int, lowest: float) -> None:
    figure = roc_chart(verification(pairs))
    axis = figure["layout"]["xaxis"]
    assert axis["type"] == "log"
    assert axis["tickvals"][0] == pytest.approx(lowest)
    assert axis["range"] == [round(np.log10(lowest)), 0]
    assert min(_trace(figure, "ROC")["x"]) >= lowest
    assert min(_trace(figure, "chance")["x"]) == pytest.approx(lowest)


def test_accepted_without_a_false_accept_from_the_left_end_on() -> None:
    curve = _trace(roc_chart(verification(300)), "ROC")
    assert curve["x"][0] == 0.001
    assert curve["y"][0] == pytest.approx(verification(300).tar_at_far[0.001], abs=1e-4)


def test_a_perfect_network_has_a_flat_curve() -> None:
    roc = Roc(far=(0.0, 0.0, 1.0), tar=(0.0, 1.0, 1.0))
    perfect = Verification(
        identities="test", pairs=300, accuracy=100, std=0, tar_at_far={0.01: 100.0}, roc=roc
    )
    assert set(_trace(roc_chart(perfect), "ROC")["y"]) == {100.0}
