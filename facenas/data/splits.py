"""Stratified splits that depend on the labels and a seed, and on nothing else."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]

_TEST_FRACTION = 0.2


def split_indices(
    labels: NDArray[np.int64],
    validation_fraction: float,
    data_fraction: float,
    seed: int,
    validation_images: int = 0,
) -> tuple[Indices, Indices]:
    """Stratified indices (train, validation) into `labels`: sorted, disjoint, int64.

    labels: (n,) int64; validation_fraction in [0, 1), 0 = no validation; data_fraction in (0, 1].
    Each class gives its share, rounded, to validation; `data_fraction` then thins what is left, so
    validation does not depend on it, and of one seed a smaller fraction lies within a larger one.
    A class of two or more images keeps at least one in each part; a single image goes to training.
    validation_images: of a set with validation images of its own, which come last; nothing is then drawn.
    """
    if validation_images and validation_fraction:
        rest = len(labels) - validation_images
        train, _ = split_indices(labels[:rest], 0.0, data_fraction, seed)
        return train, np.arange(rest, len(labels), dtype=np.int64)
    generator = np.random.default_rng(seed)
    training: list[Indices] = []
    validation: list[Indices] = []
    for group in by_label(labels):
        # Shuffled once per class: both parts are cut from the same order, which makes them nested.
        members = generator.permutation(group)
        held_out = 0
        if len(members) > 1 and validation_fraction:
            held_out = min(max(round(len(members) * validation_fraction), 1), len(members) - 1)
        kept = max(1, round((len(members) - held_out) * data_fraction))
        validation.append(members[:held_out])
        training.append(members[held_out : held_out + kept])
    return _joined(training), _joined(validation)


def by_label(labels: NDArray[np.integer]) -> list[Indices]:
    """The indices of each label, labels and indices in ascending order."""
    # One sort groups two million identities; a search for each would go through all labels as often.
    order = np.argsort(labels, kind="stable").astype(np.int64)
    starts = np.flatnonzero(np.diff(labels[order])) + 1
    return np.split(order, starts) if len(labels) else []


def hold_out_test(labels: NDArray[np.int64]) -> tuple[Indices, Indices]:
    """(train, test) of a set that comes without test images: the same stratified fifth on every call."""
    return split_indices(labels, _TEST_FRACTION, 1.0, seed=0)


def _joined(pieces: list[Indices]) -> Indices:
    return np.sort(np.concatenate([np.empty(0, np.int64), *pieces]))
