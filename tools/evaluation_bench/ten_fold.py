"""Ten-fold verification of 6,000 pairs of 512 numbers, beside AdaFace's and insightface's `calculate_roc`.

    python -m tools.evaluation_bench.ten_fold

Theirs: squared distances, then for every fold 400 thresholds on the training part and 400 on the test part,
four counts and three rates each (`calculate_accuracy`). AdaFace runs it on float32, insightface on float64.
Both get the same two arrays. Ours, as it is called, also checks them and finds TAR at two FARs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import KFold

from facenas.evaluation import ten_fold

from . import Row, show, timed

PAIRS, SIZE = 6000, 512


def rows() -> list[Row]:
    """One row for each of the peers' dtypes; raises AssertionError when a number differs."""
    found = []
    for peer, dtype in (("AdaFace, float32", np.float32), ("insightface, float64", np.float64)):
        arrays = draw(dtype)
        ours, result = timed(lambda of=arrays: ten_fold(*of), rounds=9)
        theirs, (accuracies, thresholds) = timed(lambda of=arrays: calculate_roc(*of), 3)
        np.testing.assert_array_equal(result.accuracies, accuracies)
        np.testing.assert_array_equal(result.thresholds, thresholds)
        remark = f"accuracies and thresholds equal to the last bit ({100 * result.accuracy:.2f} %)"
        found.append((f"ten-fold, {PAIRS:,} pairs ({peer})", ours, theirs, remark))
    return found


def draw(dtype: type) -> tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.bool_]]:
    """(6000, 512) unit embeddings of either image of each pair, about 97 % told apart; (6000,) labels."""
    rng = np.random.default_rng(0)
    same = np.tile(np.repeat([True, False], PAIRS // 20), 10)  # LFW's order
    embeddings = rng.normal(size=(2, PAIRS, SIZE))
    likeness = rng.uniform(0.05, 1.2, (PAIRS, 1)) * same[:, None]
    embeddings[1] += likeness * embeddings[0]
    embeddings /= np.linalg.norm(embeddings, axis=2, keepdims=True)
    return *embeddings.astype(dtype), same


def calculate_roc(
    a: NDArray[np.floating], b: NDArray[np.floating], same: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The peers' procedure: (accuracies of the folds, their thresholds)."""
    thresholds = np.arange(0, 4, 0.01)
    difference = np.subtract(a, b)
    distances = np.sum(np.square(difference), 1)
    tprs, fprs = np.zeros((10, len(thresholds))), np.zeros((10, len(thresholds)))
    accuracies, best = np.zeros(10), np.zeros(10)
    for fold, (train, test) in enumerate(KFold(10, shuffle=False).split(np.arange(len(same)))):
        tried = np.zeros(len(thresholds))
        for place, threshold in enumerate(thresholds):
            _, _, tried[place] = rates(threshold, distances[train], same[train])
        best[fold] = thresholds[np.argmax(tried)]
        for place, threshold in enumerate(thresholds):
            found = rates(threshold, distances[test], same[test])
            tprs[fold, place], fprs[fold, place], _ = found
        _, _, accuracies[fold] = rates(best[fold], distances[test], same[test])
    return accuracies, best


def rates(
    threshold: float, distances: NDArray[np.floating], same: NDArray[np.bool_]
) -> tuple[float, float, float]:
    """(true accept rate, false accept rate, accuracy) at one threshold."""
    accepted = np.less(distances, threshold)
    tp = np.sum(np.logical_and(accepted, same))
    fp = np.sum(np.logical_and(accepted, np.logical_not(same)))
    tn = np.sum(np.logical_and(np.logical_not(accepted), np.logical_not(same)))
    fn = np.sum(np.logical_and(np.logical_not(accepted), same))
    tpr = 0 if tp + fn == 0 else float(tp) / float(tp + fn)
    fpr = 0 if fp + tn == 0 else float(fp) / float(fp + tn)
    return tpr, fpr, float(tp + tn) / distances.size


if __name__ == "__main__":
    show(rows())
