"""Which images train and which judge: held-out identities, stratified subsets, verification pairs.

All depend on the labels and a seed alone. labels: (n,) identities of all images of a store.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from facenas.data.splits import Indices, by_label, split_indices
from facenas.errors import UserError

Labels = NDArray[np.integer]


def hold_out_identities(labels: Labels, held: float, seed: int) -> tuple[Indices, Indices]:
    """Sorted indices (train, held out), int64: an identity's images are all in one of them.

    held: how many identities to hold out, or, as a float, the fraction of all in [0, 1). Only those
    with two or more images are held out, since one image makes no pair. Of one seed, fewer
    identities lie within more. Raises UserError when there are not enough, or none would be left.
    """
    counts = np.bincount(labels)  # to sort 42 million labels would take ten times as long, and a gigabyte
    identities, able = np.flatnonzero(counts), np.flatnonzero(counts >= 2)
    wanted = held if isinstance(held, int) else round(held * len(identities))
    if wanted > min(len(able), len(identities) - 1):
        raise UserError(
            f"{wanted} identities cannot be held out: of {len(identities)}, {len(able)} have two or "
            "more images, and at least one must be left to train on; hold out fewer"
        )
    chosen = np.random.default_rng(seed).permutation(able)[:wanted]
    is_held = np.isin(np.arange(len(counts)), chosen)[labels]
    return np.flatnonzero(~is_held), np.flatnonzero(is_held)


def least_held_out(labels: Labels, seed: int, folds: int = 10) -> int | None:
    """How many identities `hold_out_identities` has to hold out for `draw_pairs`; None: there are too few."""
    counts = np.bincount(labels)
    able = np.random.default_rng(seed).permutation(np.flatnonzero(counts >= 2))
    each = counts[able]
    genuine, impostor = (each * (each - 1) // 2).cumsum(), (each * (each.cumsum() - each)).cumsum()
    enough = np.flatnonzero((genuine >= folds) & (impostor >= folds))
    return int(enough[0]) + 1 if len(enough) and enough[0] + 1 < np.count_nonzero(counts) else None


def stratified_subset(labels: Labels, indices: Indices, fraction: float, seed: int) -> Indices:
    """Sorted part of `indices`: `fraction` in (0, 1] of every identity's images, rounded, at least one.

    Of one seed, a smaller fraction lies within a larger one.
    """
    return indices[split_indices(labels[indices].astype(np.int64), 0, fraction, seed)[0]]


def subset_of_identities(labels: Labels, indices: Indices, fraction: float, seed: int) -> Indices:
    """Sorted part of `indices`: all images of `fraction` in (0, 1] of the identities, rounded, at least two.

    Of one seed, a smaller fraction lies within a larger one.
    """
    identities = np.flatnonzero(np.bincount(labels[indices]))
    kept = min(len(identities), max(2, round(fraction * len(identities))))
    chosen = np.random.default_rng(seed).permutation(identities)[:kept]
    return indices[np.isin(labels[indices], chosen)]


def relabelled(labels: Labels) -> NDArray[np.int64]:
    """(n,) int64: the same identities numbered 0, 1, 2, ... without gaps, in the same order."""
    numbers = np.cumsum(np.bincount(labels) > 0) - 1
    return numbers[labels].astype(np.int64)


def draw_pairs(
    labels: Labels, indices: Indices, count: int, seed: int, folds: int = 10
) -> tuple[Indices, NDArray[np.bool_]]:
    """Verification pairs among `indices`: pairs (m, 2) int64 image numbers, and same (m,) bool.

    As in LFW, every fold is m / folds rows, half of them genuine, then half impostors; no pair comes
    twice; m is the largest number up to `count` that there is. Folds share no identities, unless
    they could only have fewer pairs so. Genuine pairs are spread evenly over the identities.
    Raises UserError when there is not one pair of each kind for every fold.
    """
    rng = np.random.default_rng(seed)
    members = [indices[group] for group in by_label(labels[indices])]
    everyone = _Pool(members)
    half = min(count // 2, everyone.genuine, everyone.impostor) // folds
    if half < 1:
        raise UserError(
            f"{len(indices)} images of {len(members)} identities cannot make {folds} folds of pairs "
            f"({count} wanted): each needs a genuine and an impostor pair; hold out more identities"
        )
    pools = [_Pool(dealt) for dealt in _deal(members, folds, rng)]
    if min(min(pool.genuine, pool.impostor) for pool in pools) < half:
        pools = [everyone]
    share = half * folds // len(pools)
    genuine = [rng.permutation(pool.draw_genuine(share, rng)) for pool in pools]
    impostor = [pool.draw_impostor(share, rng) for pool in pools]
    kinds = [np.concatenate(kind).reshape(folds, half, 2) for kind in (genuine, impostor)]
    same = np.tile(np.repeat([True, False], half), folds)
    return np.concatenate(kinds, axis=1).reshape(-1, 2), same


def draw_spread_pairs(
    labels: Labels, indices: Indices, genuine: int, impostors: int, seed: int
) -> tuple[Indices, Indices]:
    """Up to so many genuine pairs (m, 2) and impostor pairs (k, 2), image numbers among `indices`, each once.

    Every identity gives equally many genuine pairs, every two identities equally many impostor pairs, or all
    that there are. Raises UserError when there is not one of a kind that is wanted.
    """
    rng = np.random.default_rng(seed)
    pool = _Pool([indices[group] for group in by_label(labels[indices])])
    for wanted, there, kind in (
        (genuine, pool.genuine, "one person"),
        (impostors, pool.impostor, "two people"),
    ):
        if wanted and not there:
            raise UserError(f"{len(indices)} images make no pair of {kind}")
    found = pool.draw_genuine(min(genuine, pool.genuine), rng) if genuine else np.empty((0, 2), np.int64)
    return found, pool.draw_spread_impostor(min(impostors, pool.impostor), rng)


class _Pool:
    """Identities to draw pairs from. Pairs are numbered, so that draws without repetition are cheap."""

    def __init__(self, members: Sequence[Indices]) -> None:
        sizes = np.array([len(images) for images in members], np.int64)
        self._sizes = sizes
        self._images = np.concatenate([np.empty(0, np.int64), *members])
        self._first = np.repeat(sizes.cumsum() - sizes, sizes)  # where its identity begins
        self._each = sizes * (sizes - 1) // 2  # genuine pairs of each identity
        self.genuine, self.impostor = int(self._each.sum()), int(self._first.sum())

    def draw_genuine(self, count: int, rng: np.random.Generator) -> Indices:
        """(count, 2) different pairs: every identity gives equally many, or all that it has."""
        given = _level(self._each, count, rng)
        start = self._each.cumsum() - self._each  # number of each identity's first pair
        drawn = [start[i] + rng.choice(self._each[i], given[i], replace=False) for i in np.flatnonzero(given)]
        before = np.arange(len(self._first)) - self._first
        return self._pairs(np.concatenate(drawn), before, self._first)

    def draw_impostor(self, count: int, rng: np.random.Generator) -> Indices:
        """(count, 2) different pairs, uniformly of all."""
        drawn = rng.choice(self.impostor, count, replace=False)
        return self._pairs(drawn, self._first, np.zeros_like(self._first))

    def draw_spread_impostor(self, count: int, rng: np.random.Generator) -> Indices:
        """(count, 2) different pairs: every two identities give equally many, or all that they have."""
        ends = np.arange(len(self._sizes)).cumsum()  # two identities are numbered by the later one
        of_two = np.sort(rng.choice(ends[-1], min(count, ends[-1]), replace=False))
        second = np.searchsorted(ends, of_two, side="right")
        first = of_two - ends[second - 1]
        sizes, starts = self._sizes, self._sizes.cumsum() - self._sizes
        each = sizes[first] * sizes[second]
        given = _level(each, count, rng)
        if given.max(initial=0) < 2:
            drawn = rng.integers(each)[given > 0]
        else:
            drawn = np.concatenate(
                [rng.choice(of, n, replace=False) for of, n in zip(each, given, strict=True)]
            )
        first, second = np.repeat(first, given), np.repeat(second, given)
        left, right = starts[first] + drawn // sizes[second], starts[second] + drawn % sizes[second]
        return np.stack([self._images[left], self._images[right]], axis=1)

    def _pairs(self, numbers: Indices, partners: Indices, since: Indices) -> Indices:
        """Image p makes pairs with the `partners[p]` images from place `since[p]` on; all are numbered by p."""
        ends = partners.cumsum()
        second = np.searchsorted(ends, numbers, side="right")
        first = since[second] + numbers - (ends - partners)[second]
        return np.stack([self._images[first], self._images[second]], axis=1)


def _level(each: Indices, count: int, rng: np.random.Generator) -> Indices:
    """How many each gives of what it has, `count` in all: equally many, or all; chance decides on the rest."""
    level = bisect_left(range(count), count, key=lambda most: each.clip(max=most).sum())
    given = each.clip(max=level - 1)
    more = rng.permutation(np.flatnonzero(each >= level))[: count - given.sum()]
    given[more] += 1
    return given


def _deal(members: list[Indices], folds: int, rng: np.random.Generator) -> list[list[Indices]]:
    """Identities to folds, those of most images first and back and forth, so that all get about as many."""
    dealt: list[list[Indices]] = [[] for _ in range(folds)]
    turns = [*range(folds), *reversed(range(folds))]
    shuffled = [members[i] for i in rng.permutation(len(members))]
    for number, images in enumerate(sorted(shuffled, key=len, reverse=True)):
        dealt[turns[number % len(turns)]].append(images)
    return dealt
