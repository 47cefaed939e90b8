"""What a search's accuracy is worth: the largest of many noisy figures is too large.

Two networks are compared on the images that exactly one of them gets right, as McNemar's test does: b only the
first, c only the second, of n. If they were equally good, their accuracies would differ by sqrt(b + c) / n (one
standard deviation, of other trainings and of other images together). That each network's best epoch was chosen
on these images too is not accounted for; nor that pairs of faces share people.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facenas.report.read import RunFolder, Trial
from facenas.runs.journal import read_journal
from facenas.runs.search_log import unpacked
from facenas.spaces.base import fingerprint

NEAR = 5.0  # standard deviations of their difference within which a network is as good as the winner may be
_NORMAL = NormalDist()
_TWO_SIDED = _NORMAL.inv_cdf(0.975)

# By what power of the epochs, and of the images, the error falls from a search's longest trial to the full
# training: (mean, standard deviation). Epochs: the networks that the macro-micro authors published against
# their searches (`tests/recorded_searches`), without EMNIST's, which trained for as long as its search. Images:
# searches on a part of Fashion-MNIST, CIFAR-10 and MNIST (docs/results/searches.md).
EPOCHS_POWER = (0.14, 0.09)
IMAGES_POWER = (0.4, 0.2)


@dataclass(frozen=True)
class Interval:
    """A percentage with the ends of its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Expected:
    """How good the winner is. Accuracies in percent.

    again: when it is trained again as in the search, and judged on other images of the same kind. near: how
    many networks are within noise of it, itself included; runner_up: of all others the most probably better,
    with that probability (0..1). final: after the full training; None where nothing tells.
    """

    winner: Trial
    again: Interval
    near: int
    runner_up: Trial | None
    probability: float
    final: Interval | None


def expected(run: RunFolder) -> Expected | None:
    """Of a search with its journal; None before it has a winner, by a supernet, or without right images."""
    winner = _winner(run)
    if winner is None or not winner.epochs:
        return None
    bits = {line["trial"]: line for line in read_journal(run.path / "right.jsonl")}
    rivals = _one_each([trial for trial in run.trials if _comparable(trial, winner)])
    rights = [_right(bits.get(trial.trial)) for trial in (winner, *rivals)]
    if rights[0] is None:
        return None
    kept = [
        (t, r) for t, r in zip(rivals, rights[1:], strict=True) if r is not None and len(r) == len(rights[0])
    ]
    again, near, chances = judge_again(rights[0], [right for _, right in kept], winner.accuracy)
    best = max(range(len(kept)), key=chances.__getitem__, default=None)
    runner_up, chance = (None, 0.0) if best is None else (kept[best][0], chances[best])
    return Expected(winner, again, near, runner_up, chance, _final(run, winner, again))


def judge_again(
    winner: NDArray[np.bool_], rivals: Sequence[NDArray[np.bool_]], accuracy: float | None = None
) -> tuple[Interval, int, list[float]]:
    """What to expect of a winner chosen among rivals, from who of them got which of the same n images right.

    winner: (n,) bool; rivals: each (n,); accuracy: the winner's, in percent, if it is not the share of its
    right images. Returns the accuracy to expect of it (empirical Bayes: shrunk towards the mean of those within
    noise, by how much more they differ than noise alone would make them), how many those are, and how probable
    it is of each rival that it is truly better.
    """
    n, share = len(winner), 100 * float(winner.mean())
    value = share if accuracy is None else accuracy
    losses = np.array([share - 100 * float(rival.mean()) for rival in rivals])
    spreads = np.array([100 * math.sqrt(max(1, int((winner ^ rival).sum()))) / n for rival in rivals])
    near = losses <= NEAR * spreads
    if not near.any():
        return _interval(value, 0.0, 0.0, n), 1, [_NORMAL.cdf(-x) for x in losses / spreads]
    noise = float(np.median(spreads[near] ** 2)) / 2  # of one network's accuracy
    shown = np.array([0.0, *-losses[near]])
    kept, weights = _shrinkage(shown, noise)
    shifts = (1 - kept) * shown.mean()
    variances = kept * noise + (1 - kept) ** 2 * noise / len(shown)
    shift = float(weights @ shifts)
    variance = float(weights @ (variances + (shifts - shift) ** 2))
    chances = [float(weights @ _cdf(-np.sqrt(kept) * x)) for x in losses / spreads]
    return _interval(value + shift, variance, noise, n), len(shown), chances


def _shrinkage(shown: NDArray[np.float64], noise: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What part of a difference between networks is truth, by the posterior of how much they truly differ.

    shown: (k,) accuracies, each of variance `noise`; the truths are normal around a mean of which nothing is
    known, by a standard deviation of which all values up to three times what is shown are as likely. Returns
    (values,) parts and their weights, whose sum is 1.
    """
    most = 3 * max(float(shown.std()), math.sqrt(noise))
    truth = np.linspace(0, most, 61) ** 2
    total, k = truth + noise, len(shown)
    likelihood = -((k - 1) * np.log(total) + k * float(shown.var()) / total) / 2
    weights = np.exp(likelihood - likelihood.max())
    return truth / total, weights / weights.sum()


def _cdf(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([_NORMAL.cdf(value) for value in values.tolist()])


def _interval(value: float, variance: float, noise: float, n: int) -> Interval:
    """variance: of the value on these n images, of which `noise` is that of one network.

    What all networks share, how hard these images are, comes on top: as of n images with two errors and two
    right answers more (Agresti and Coull 1998), since few errors are not normal.
    """
    wrong = 100 * ((100 - value) * n / 100 + 2) / (n + 4)
    shared = max(0.0, wrong * (100 - wrong) / (n + 4) - noise)
    half = _TWO_SIDED * math.sqrt(variance + shared)
    return Interval(value, max(0.0, 100 - wrong - half), min(100.0, max(value, 100 - wrong + half)))


def _winner(run: RunFolder) -> Trial | None:
    """The longest training of the network found; of several that which the search tells, else the first."""
    ok = [trial for trial in run.trials if not trial.failed]
    if run.best and run.best.architecture:
        found = fingerprint(run.best.architecture.tree), run.best.protocol
        ok = [t for t in ok if (fingerprint(t.network.tree), t.protocol) == found]
    else:
        ok = [trial for trial in ok if trial.decision == "kept"][-1:]
    told = run.best.accuracy if run.best else None
    return max(ok, key=lambda trial: (_images(trial), trial.accuracy == told), default=None)


def _comparable(trial: Trial, winner: Trial) -> bool:
    """Another network or protocol, trained on as much of the images, for half to twice as long."""
    same_images = trial.values.get("data_fraction") == winner.values.get("data_fraction")
    close = winner.epochs <= 2 * trial.epochs and trial.epochs <= 2 * winner.epochs
    other = (trial.network.tree, trial.protocol) != (winner.network.tree, winner.protocol)
    return same_images and close and not trial.failed and other


def _one_each(trials: Sequence[Trial]) -> list[Trial]:
    """Of every network and protocol its longest training, of several the first."""
    found: dict[str, Trial] = {}
    for trial in trials:
        key = fingerprint([trial.network.tree, trial.protocol])
        found[key] = max(found.get(key, trial), trial, key=_images)
    return list(found.values())


def _images(trial: Trial) -> float:
    """Images trained on, or what grows with them."""
    return trial.values.get("images") or trial.epochs


def _right(line: dict[str, Any] | None) -> NDArray[np.bool_] | None:
    return unpacked(line) if line and line["bits"] else None


def _final(run: RunFolder, winner: Trial, again: Interval) -> Interval | None:
    """By powers of epochs and images; nothing is known of faces, or of a training without its numbers."""
    epochs, all_images = run.about.group("recipe").get("final_epochs"), run.about.data.get("train_images")
    images = winner.values.get("images")
    if run.faces or not (epochs and all_images and images):
        return None
    longer = math.log(epochs / winner.epochs)
    more = math.log(all_images * winner.epochs / images)
    drop = EPOCHS_POWER[0] * longer + IMAGES_POWER[0] * more
    spread = _TWO_SIDED * math.hypot(EPOCHS_POWER[1] * longer, IMAGES_POWER[1] * more)
    error = max(100 - again.value, 1e-9)
    ends = [
        100 - (100 - end) * math.exp(-drop + sign * spread) for end, sign in ((again.low, 1), (again.high, -1))
    ]
    return Interval(100 - error * math.exp(-drop), max(0.0, ends[0]), ends[1])
