"""How good the winner of a search really is: calibrated against networks whose truth is known."""

import numpy as np
import pytest
from scipy.stats import norm

import facenas
from facenas.report.expected import expected, judge_again
from facenas.report.read import read_run


def judged(rng, spread, count=10, images=1500, base=1.3):
    """Networks of known accuracy: (rights, accuracies in percent). Images differ in difficulty."""
    truth = base + spread * rng.standard_normal(count)
    ease = rng.standard_normal(images) * 1.5
    limits = truth[:, None] * np.hypot(1, 1.5) + ease  # so that the chance over images and draws is Phi(truth)
    rights = rng.standard_normal((count, images)) < limits
    return rights, 100 * norm.cdf(truth)


@pytest.mark.parametrize(
    ("spread", "count", "images", "base"),
    [
        (0.0, 10, 1500, 1.3),
        (0.02, 10, 1500, 1.3),
        (0.06, 10, 1500, 1.3),
        (0.2, 10, 1500, 1.3),
        (0.05, 60, 1500, 1.3),
        (0.05, 10, 300, 2.2),
        (0.05, 10, 600, 2.6),
    ],
)
def test_expectations_are_calibrated(spread, count, images, base):
    rng = np.random.default_rng(1)
    naive, found, covered, promised, kept = [], [], [], [], []
    for _ in range(200):
        rights, truth = judged(rng, spread, count, images, base)
        best = int(rights.mean(1).argmax())
        others = [i for i in range(count) if i != best]
        again, near, chances = judge_again(rights[best], [rights[i] for i in others])
        naive.append(100 * rights[best].mean() - truth[best])
        found.append(again.value - truth[best])
        covered.append(again.low <= truth[best] <= again.high)
        promised += chances
        kept += [truth[i] > truth[best] for i in others]
        assert 1 <= near <= count
    assert np.mean(covered) > 0.89
    assert abs(np.mean(found)) < max(0.12, 0.5 * np.mean(naive)), "less than half of the optimism is left"
    if spread:
        assert np.mean(promised) == pytest.approx(np.mean(kept), abs=0.15)


def test_without_rivals_the_accuracy_stands_with_the_error_of_its_images():
    right = np.arange(400) < 360
    again, near, chances = judge_again(right, [])
    assert (again.value, near, chances) == (90.0, 1, [])
    # Agresti and Coull: 42 of 404 are wrong.
    assert (again.low, again.high) == pytest.approx((86.62, 92.58), abs=0.01)


def test_a_far_worse_rival_changes_nothing_and_one_as_good_is_a_coin():
    rng = np.random.default_rng(0)
    first, worse = rng.random(2000) < 0.9, rng.random(2000) < 0.5
    again, near, chances = judge_again(first, [worse])
    assert (again.value, near) == (100 * first.mean(), 1)
    assert chances[0] < 1e-6
    twin = np.roll(first, 1)
    _, near, chances = judge_again(first, [twin])
    assert near == 2
    assert chances[0] == pytest.approx(0.5, abs=0.01)


def test_the_page_tells_it_of_a_search(tmp_path):
    found = facenas.search(
        space=facenas.spaces.Plain(min_depth=3, max_depth=6, min_width=4, max_width=6),
        strategy=facenas.strategies.MacroMicro(min_epochs=1, micro=False),
        data="digits",
        run=tmp_path / "run",
        workers=1,
    )
    told = expected(read_run(found.run))
    assert told.winner.accuracy == found.accuracy
    assert told.again.low < told.again.value <= found.accuracy + 1e-9
    assert told.final.low < told.final.value < told.final.high
    page = found.report.read_text(encoding="utf-8")
    assert f"{told.again.value:.2f}" in page
    assert "The runner-up" in page
