"""Pair verification in ten folds, as all published figures of LFW, CFP-FP, AgeDB-30, CALFW and CPLFW are made.

Source: `mk-minchul/AdaFace:evaluate_utils.py` and
`deepinsight/insightface:recognition/arcface_torch/eval/verification.py` (`calculate_roc`). Pure functions of
arrays; the same accuracies and thresholds to the last bit, by counting each distance once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facenas.evaluation.metrics.checks import Bools, Floats, checked_pairs, unit_rows
from facenas.evaluation.metrics.roc import tar_at_fars

THRESHOLDS = np.arange(0, 4, 0.01)  # squared Euclidean distances of unit vectors: 2 - 2 cos
FARS = (1e-3, 1e-4)

_ROWS = 64  # of 512 numbers: two blocks stay in the processor's cache
_BEYOND = 1e-3  # squared distances out of [0, 4] by more are no rounding


@dataclass(frozen=True, eq=False)
class TenFold:
    """What ten-fold verification found; rates are fractions.

    accuracies, thresholds: (folds,) float64, thresholds as squared distances; right: (n,) bool, which pairs
    were judged rightly; tar_at_far: over all pairs, strict, by false accept rate.
    """

    accuracies: NDArray[np.float64]
    thresholds: NDArray[np.float64]
    right: NDArray[np.bool_]
    tar_at_far: dict[float, float]

    @property
    def accuracy(self) -> float:
        """Mean over the folds."""
        return float(self.accuracies.mean())

    @property
    def std(self) -> float:
        """Standard deviation over the folds (ddof 0)."""
        return float(self.accuracies.std())

    @property
    def threshold_squared(self) -> float:
        """Mean over the folds, as a squared distance: a pair is accepted below it."""
        return float(self.thresholds.mean())

    @property
    def threshold_cosine(self) -> float:
        """The same as a cosine: a pair is accepted above it."""
        return 1 - self.threshold_squared / 2


def ten_fold(a: Floats, b: Floats, same: Bools, folds: int = 10) -> TenFold:
    """Ten-fold verification of pairs of embeddings `a` and `b`, (n, E) each; see `ten_fold_of`.

    Rows are brought to unit length, unless all of them are within 1e-3 of it already. Distances are computed
    in the dtype given, float32 or float64: of the peers, AdaFace does so in float32, insightface in float64.
    Raises ValueError, in one sentence, as `ten_fold_of` does, and for shapes that do not fit together.

    >>> first = np.array([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    >>> second = np.array([[1.0, 0], [0, 1], [0.6, 0.8], [1, 0]])
    >>> found = ten_fold(first, second, np.array([True, False, True, False]), folds=2)
    >>> found.accuracies.tolist(), found.accuracy, found.right.tolist()
    ([1.0, 0.5], 0.75, [True, True, False, True])
    """
    if np.shape(a) != np.shape(b):
        raise ValueError(f"embeddings of shapes {np.shape(a)} and {np.shape(b)} are no pairs")
    distances = squared_distances(unit_rows(a, "embeddings"), unit_rows(b, "embeddings"))
    return ten_fold_of(distances, same, folds)


def ten_fold_of(distances: Floats, same: Bools, folds: int = 10) -> TenFold:
    """Ten-fold verification: a pair counts as same below the threshold that is best on the other folds.

    distances: (n,) squared distances of unit vectors, in [0, 4]; same: (n,) True for genuine pairs; folds:
    contiguous, the first n % folds one longer (scikit-learn's KFold). Of equally good thresholds the lowest
    is taken; a distance equal to the threshold counts as different. A float32 distance is compared with the
    float64 threshold in float64, as the peers do since NumPy 2.
    Raises ValueError, in one sentence, for fewer pairs than folds, shapes that differ, distances that are not
    finite or not in [0, 4], and when either kind of pairs is missing: the best threshold then tells nothing.

    >>> found = ten_fold_of(np.array([0.5, 1.5, 0.7, 1.6]), np.array([True, False, True, False]), folds=2)
    >>> found.accuracy, round(found.threshold_squared, 3), round(found.threshold_cosine, 4)
    (0.75, 0.605, 0.6975)
    """
    distances, same = _checked(distances, same, folds)
    # The lowest threshold that accepts a pair; a genuine pair is right from there on, an impostor before.
    accepted_from = np.searchsorted(THRESHOLDS, distances, side="right")
    sizes = np.full(folds, len(same) // folds) + (np.arange(folds) < len(same) % folds)
    fold_of = np.repeat(np.arange(folds), sizes)
    right = np.stack([_right_counts(accepted_from[fold_of == f], same[fold_of == f]) for f in range(folds)])
    chosen = (right.sum(0) - right).argmax(1)  # on the other folds
    return TenFold(
        accuracies=right[np.arange(folds), chosen] / sizes,
        thresholds=THRESHOLDS[chosen],
        right=(accepted_from <= chosen[fold_of]) == same,
        tar_at_far=tar_at_fars(-distances, same, FARS),
    )


def squared_distances(a: Floats, b: Floats) -> Floats:
    """(n,) squared Euclidean distances of the rows of `a` and `b`, (n, E) each, in their dtype.

    To the last bit `np.sum(np.square(a - b), 1)`, in blocks that stay in the cache.

    >>> squared_distances(np.array([[1.0, 0]]), np.array([[0.0, 1]])).tolist()
    [2.0]
    """
    found = np.empty(len(a), np.result_type(a, b))
    room = np.empty((_ROWS, a.shape[1]), found.dtype)
    for start in range(0, len(a), _ROWS):
        block = slice(start, start + _ROWS)
        difference = np.subtract(a[block], b[block], out=room[: len(a) - start])
        np.sum(np.square(difference, out=difference), axis=1, out=found[block])
    return found


def _checked(distances: Floats, same: Bools, folds: int) -> tuple[Floats, Bools]:
    found, kinds = checked_pairs(distances, same, "distances")
    if not 2 <= folds <= len(kinds):
        raise ValueError(f"{len(kinds)} pairs cannot be parted into {folds} folds")
    if found.min() < -_BEYOND or found.max() > 4 + _BEYOND:
        raise ValueError(
            f"distances from {found.min():.4g} to {found.max():.4g} are not squared distances of unit vectors, "
            "which lie from 0 to 4"
        )
    return found, kinds


def _right_counts(accepted_from: NDArray[np.int64], same: Bools) -> NDArray[np.int64]:
    """(thresholds,) how many pairs each threshold judges rightly."""
    size = len(THRESHOLDS) + 1
    genuine = np.bincount(accepted_from[same], minlength=size).cumsum()[:-1]
    impostors = np.bincount(accepted_from[~same], minlength=size).cumsum()[:-1]
    return np.asarray(genuine + (~same).sum() - impostors)
