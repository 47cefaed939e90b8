"""Pair verification: ten folds, one threshold grid, as all published LFW-like figures are made.

Source: `mk-minchul/AdaFace:evaluate_utils.py` and
`deepinsight/insightface:recognition/arcface_torch/eval/verification.py`.
Pure functions of arrays; same results as theirs, by counting each distance once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

THRESHOLDS = np.arange(0, 4, 0.01)  # squared Euclidean distances of unit vectors: 2 - 2 cos


@dataclass(frozen=True)
class Verification:
    """Accuracies of the folds (0..1), their thresholds, and (n,) bool: which pairs were judged rightly."""

    accuracies: NDArray[np.float64]
    thresholds: NDArray[np.float64]
    right: NDArray[np.bool_]

    @property
    def accuracy(self) -> float:
        """Mean over the folds, 0..1."""
        return float(self.accuracies.mean())

    @property
    def std(self) -> float:
        """Standard deviation over the folds (ddof 0), 0..1."""
        return float(self.accuracies.std())


def verify(
    distances: NDArray[np.float64], same: NDArray[np.bool_], folds: int = 10
) -> Verification:
    """Ten-fold verification: a pair counts as same below the threshold that is best on the other folds.

    distances: (n,) squared distances in [0, 4]; same: (n,) True for genuine pairs; folds: contiguous, the
    first n % folds one longer (scikit-learn's KFold). Of equally good thresholds the lowest is taken; a
    distance equal to the threshold counts as different. Raises ValueError for fewer pairs than folds, for
    distances that are not finite, and when either class is missing.
    """
    _check(distances, same)
    if len(same) < folds:
        raise ValueError(f"{len(same)} pairs are fewer than {folds} folds")
    # The lowest threshold that accepts a pair; a genuine pair is right from there on, an impostor before.
    accepted_from = np.searchsorted(THRESHOLDS, distances, side="right")
    fold_of = np.repeat(np.arange(folds), _fold_sizes(len(same), folds))
    right = np.stack(
        [_right_counts(accepted_from[fold_of == f], same[fold_of == f]) for f in range(folds)]
    )
    chosen = (right.sum(0) - right).argmax(1)  # on the nine other folds
    sizes = np.bincount(fold_of, minlength=folds)
    accuracies = right[np.arange(folds), chosen] / sizes
    predicted = accepted_from <= chosen[fold_of]
    return Verification(accuracies, THRESHOLDS[chosen], predicted == same)


def tar_at_far(scores: NDArray[np.float64], same: NDArray[np.bool_], far: float) -> float:
    """True accept rate at the largest threshold whose false accept rate does not exceed `far`.

    scores: (n,) similarities, higher = more alike; same: (n,) True for genuine pairs; far in (0, 1).
    Ties are accepted together. Raises ValueError when either class is missing.
    """
    _check(scores, same)
    genuine, impostors = scores[same], np.sort(scores[~same])[::-1]
    allowed = int(np.floor(far * len(impostors) + 1e-9))
    if allowed >= len(impostors):
        return 1.0
    # One impostor too many: everything above its score is accepted, it and its ties are not.
    return float((genuine > impostors[allowed]).mean())


def roc_points(
    scores: NDArray[np.float64], same: NDArray[np.bool_], count: int = 200
) -> tuple[list[float], list[float]]:
    """(false accept rates, true accept rates) of up to `count` points of the ROC, both rising.

    For a picture with a logarithmic axis: half the points evenly spaced in the rate, half in its logarithm.
    """
    from sklearn.metrics import roc_curve

    _check(scores, same)
    far, tar, _ = roc_curve(same, scores)
    smallest = 1 / (~same).sum()
    grid = np.concatenate(
        [np.linspace(0, 1, count // 2), np.geomspace(smallest, 1, count // 2 - 2)]
    )
    # The last point up to each rate: the largest true accept rate that it allows.
    kept = np.unique([0, *(np.searchsorted(far, grid * (1 + 1e-12), side="right") - 1)])
    return far[kept].round(6).tolist(), tar[kept].round(6).tolist()


def _right_counts(accepted_from: NDArray[np.int64], same: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(thresholds,) how many pairs each threshold judges rightly."""
    size = len(THRESHOLDS) + 1
    genuine = np.bincount(accepted_from[same], minlength=size).cumsum()[:-1]
    impostors = np.bincount(accepted_from[~same], minlength=size).cumsum()[:-1]
    return np.asarray(genuine + (~same).sum() - impostors)


def _fold_sizes(count: int, folds: int) -> NDArray[np.int64]:
    return np.full(folds, count // folds) + (np.arange(folds) < count % folds)


def _check(values: NDArray[np.float64], same: NDArray[np.bool_]) -> None:
    if not np.isfinite(values).all():
        raise ValueError("some distances or scores are not finite")
    if same.all() or not same.any():
        kind = "genuine" if same.any() else "impostor"
        raise ValueError(f"all pairs are {kind}: verification needs both kinds")
