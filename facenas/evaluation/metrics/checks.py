"""What all metrics ask of their arrays: one value for each pair, finite numbers, unit rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]

_UNIT = 1e-3  # norms this near to 1 are left alone: normalizing twice would change the last digit


def checked_pairs(values: ArrayLike, same: ArrayLike, what: str) -> tuple[Floats, Bools]:
    """(n,) finite floats and (n,) bool, with pairs of both kinds; `what` the values are, for messages.

    Raises ValueError otherwise.

    >>> checked_pairs([0.5, 0.1], [1, 0], "scores")
    (array([0.5, 0.1]), array([ True, False]))
    """
    found, kinds = as_floats(values), np.asarray(same).astype(bool)
    if found.ndim != 1 or found.shape != kinds.shape:
        raise ValueError(
            f"{what} of shape {found.shape} and labels of shape {kinds.shape}: one of each a pair is needed"
        )
    if not np.isfinite(found).all():
        pair = int(np.flatnonzero(~np.isfinite(found))[0])
        raise ValueError(f"{what} are not finite, first that of pair {pair}")
    if not len(kinds):
        raise ValueError("there are no pairs")
    if kinds.all() or not kinds.any():
        kind = "genuine" if kinds.all() else "impostor"
        raise ValueError(
            f"all {len(kinds)} pairs are {kind}: accuracy and error rates need pairs of both kinds"
        )
    return found, kinds


def unit_rows(embeddings: ArrayLike, what: str) -> Floats:
    """(n, E) embeddings with rows of unit length, in their own dtype; a row of zeros stays so.

    As they are when every norm is within 1e-3 of 1. `what` they are, for messages.
    Raises ValueError when they are not a matrix or not finite.

    >>> unit_rows([[3, 4], [0, 0]], "embeddings").tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    found = as_floats(embeddings)
    if found.ndim != 2:
        raise ValueError(f"{what} have shape {found.shape}: (images, numbers of an embedding) is needed")
    # A product of each row with itself: several times faster than a sum of squares.
    with np.errstate(over="ignore"):
        norms = np.sqrt(np.matmul(found[:, None, :], found[:, :, None])[:, 0, 0])
    if not np.isfinite(norms).all():
        row = int(np.flatnonzero(~np.isfinite(norms))[0])
        raise ValueError(f"{what} are not finite, first in row {row}")
    if np.all(np.abs(norms - 1) <= _UNIT):
        return found
    return np.asarray(found / np.where(norms > 0, norms, 1)[:, None], found.dtype)


def check_embeddings(embeddings: Floats, what: str) -> None:
    """Raises ValueError when a row of (n, E) embeddings is zero, or all rows are the same.

    Cosines with zero are 0, and of equal rows 1, whatever the images show.

    >>> check_embeddings(np.array([[1.0, 0.0], [0.0, 0.0]]), "embeddings")
    Traceback (most recent call last):
    ValueError: embeddings are zero, first in row 1: the network tells nothing of that image
    """
    if embeddings.ndim != 2 or not embeddings.size:
        return
    empty = np.flatnonzero(~embeddings.any(axis=1))
    if len(empty):
        raise ValueError(f"{what} are zero, first in row {empty[0]}: the network tells nothing of that image")
    if len(embeddings) > 2 and (embeddings == embeddings[0]).all():
        raise ValueError(f"{what} of all {len(embeddings):,} images are the same: the network tells nothing")


def as_floats(values: ArrayLike) -> Floats:
    """Float32 and float64 as they are, any other number as float64."""
    found = np.asarray(values)
    if found.dtype in (np.float32, np.float64):
        return found
    return found.astype(np.float64)
