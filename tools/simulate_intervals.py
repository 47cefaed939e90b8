"""Do intervals over people hold what they promise? Simulated benches, whose true error rates are known.

    python tools/simulate_intervals.py --benches 300

People have a center and a spread of their own in 16 dimensions, some are harder than others; each has four
images. All genuine pairs and one pair of every two people are scored. Truth is that of 3,000 people.
Printed are, of 95 % intervals, shares that held the truth: of pairs as if they were independent (Wilson),
of the bootstrap over people, of "double or nothing" (each person is there twice or not at all), and of
facenas; and how often groups that are all alike are said to differ, by facenas and by a chi-square test of
the pairs.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from facenas.evaluation import compare_groups, error_rate, operating_points
from facenas.evaluation.metrics.people import person_weights, wilson

SHOTS, DRAWS = 4, 200
Scored = tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.int64]]
METHODS = ("pairs", "bootstrap", "double or nothing", "facenas")


def people_of(count: int, rng: np.random.Generator) -> Scored:
    """(scores, same, people) of all genuine pairs, and of one impostor pair of every two: some are harder."""
    centers = rng.normal(size=(count, 1, 16))
    spread = np.exp(rng.normal(0, 0.5, (count, 1, 1))) * 0.5
    images = centers + spread * rng.normal(size=(count, SHOTS, 16))
    images /= np.linalg.norm(images, axis=2, keepdims=True)
    i, j = np.triu_indices(SHOTS, 1)
    genuine = (images[:, i] * images[:, j]).sum(2).ravel()
    a, b = np.triu_indices(count, 1)
    k, m = rng.integers(SHOTS, size=(2, len(a)))
    own = np.arange(count).repeat(len(i))
    people = np.concatenate([np.stack([own, own], 1), np.stack([a, b], 1)])
    scores = np.append(genuine, (images[a, k] * images[b, m]).sum(1))
    return scores, np.arange(len(people)) < len(genuine), people


def ends(wrong: NDArray[np.bool_], people: NDArray[np.int64], seed: int) -> Iterator[tuple[float, float]]:
    """The interval by each of METHODS."""
    yield wilson(float(wrong.mean()), len(wrong))
    names, places = np.unique(people, return_inverse=True)
    first, second = places.reshape(-1, 2).T
    flips = 2.0 * np.random.default_rng(seed).integers(2, size=(DRAWS, len(names)))
    for weights in (person_weights(len(names), DRAWS, seed), flips):
        of_pairs = weights[:, first] * np.where(first == second, 1, weights[:, second])
        able = of_pairs[of_pairs.any(axis=1)]
        low, high = np.percentile(able @ wrong / able.sum(axis=1), [2.5, 97.5])
        yield float(low), float(high)
    found = error_rate(wrong, people)
    yield found.low, found.high


def coverage(count: int, fmr: float, truth: Scored, benches: int) -> None:
    """Prints what the intervals of benches of so many people held, in percent, and their relative widths."""
    scores, same, _ = truth
    threshold = np.quantile(scores[~same], 1 - fmr)
    rates = {kind: np.mean((scores > threshold) != same, where=same == kind) for kind in (True, False)}
    held, width = np.zeros((2, len(METHODS))), np.zeros((2, len(METHODS)))
    errors, chosen = np.zeros(2), 0
    for seed in range(benches):
        scores, same, people = people_of(count, np.random.default_rng([3, count, seed]))
        wrong = (scores > threshold) != same
        for row, kind in enumerate((True, False)):
            errors[row] += wrong[same == kind].sum() / benches
            for column, (low, high) in enumerate(ends(wrong[same == kind], people[same == kind], seed)):
                held[row, column] += 100 * (low <= rates[kind] <= high) / benches
                width[row, column] += (high - low) / rates[kind] / benches
        (point,) = operating_points(scores, same, people, [fmr], draws=DRAWS)
        chosen += point.fnmr.low <= rates[True] <= point.fnmr.high
    for row, name in enumerate(("FNMR", "FMR")):
        told = ", ".join(
            f"{method} {share:.0f} % (width {size:.2f})"
            for method, share, size in zip(METHODS, held[row], width[row], strict=True)
        )
        print(
            f"{count} people, {name} {100 * rates[row == 0]:.2f} %, {errors[row]:.1f} errors: {told}",
            flush=True,
        )
    print(f"  FNMR at a threshold chosen on the same people: {100 * chosen / benches:.0f} %", flush=True)


def false_alarms(count: int, groups: int, truth: Scored, benches: int) -> None:
    """Prints how often one of some groups is said to differ, where all are alike."""
    from scipy.stats import chi2_contingency

    scores, same, _ = truth
    threshold = np.quantile(scores[~same], 0.99)
    ours, naive = np.zeros(2), 0
    for seed in range(benches):
        scores, same, people = people_of(count, np.random.default_rng([6, count, seed]))
        wrong, group = (scores > threshold) != same, people % groups
        for row, kind in enumerate((same, ~same)):
            of = kind & (group[:, 0] == group[:, 1])
            rates, _ = compare_groups(wrong[of], people[of], group[of][:, 0].astype(str).tolist())
            ours[row] += any(one.differs for one in rates)
            if row == 0:
                table = np.array([[one.rate.errors, one.rate.pairs - one.rate.errors] for one in rates])
                naive += table[:, 0].any() and chi2_contingency(table).pvalue < 0.05
    fnmr, fmr = 100 * ours / benches
    print(
        f"{groups} groups of {count // groups} people, all alike: false alarms in FNMR {fnmr:.1f} %, in FMR "
        f"{fmr:.1f} %; by chi-square of pairs {100 * naive / benches:.1f} %",
        flush=True,
    )


def main() -> None:
    """See the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--benches", type=int, default=300)
    benches = parser.parse_args().benches
    truth = people_of(3000, np.random.default_rng(2))
    for count, fmr in ((40, 0.01), (40, 0.001), (150, 0.01), (150, 0.001)):
        coverage(count, fmr, truth, benches)
    for count, groups in ((40, 2), (60, 4), (200, 6)):
        false_alarms(count, groups, truth, benches)


if __name__ == "__main__":
    main()
