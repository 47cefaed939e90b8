"""Error by group of the people held out, by `data.groups`: what a search can make small beside that of all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facenas.data.config import DataConfig
from facenas.data.faces.splits import draw_pairs
from facenas.data.faces.store import FaceStore
from facenas.data.parts import class_name
from facenas.errors import UserError
from facenas.evaluation.benches.people_tables import read_table
from facenas.evaluation.metrics.checks import Bools, Floats
from facenas.evaluation.metrics.groups import LEAST_PEOPLE

Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class GroupPairs:
    """pairs: (n, 2) image numbers; same: (n,) bool; groups: by column and group, which pairs are its own."""

    pairs: Indices
    same: Bools
    groups: dict[str, dict[str, slice]]

    def values(self, distances: Floats, threshold: float) -> dict[str, float]:
        """`worst_group`: the highest error of a group, in percent, at one threshold for all.

        `group_gap`: by how many points it is above the lowest of its column; of several columns the largest.
        distances: (n,) squared; a pair is accepted below the threshold. Half of a group's pairs are genuine.
        """
        wrong = (distances < threshold) != self.same
        errors = [[100 * float(wrong[own].mean()) for own in of.values()] for of in self.groups.values()]
        return {
            "worst_group": max(max(column) for column in errors),
            "group_gap": max(max(column) - min(column) for column in errors),
        }


def draw_group_pairs(store: FaceStore, held: Indices, config: DataConfig, seed: int) -> GroupPairs:
    """Pairs within each group of the people whose images are `held`, `config.pairs` for each column.

    Groups of fewer than ten people are left out. Raises UserError when the table is faulty or one of images,
    or no column has two others.
    """
    table = read_table(Path(str(config.groups)))
    if table.rows.keys().isdisjoint(class_name(store.names[i]) for i in range(store.identities)):
        raise UserError(
            f"{config.groups}: its first column names no identity of {store.path}; a search needs a table by "
            "identity, not by image"
        )
    people = np.unique(store.labels[held])
    rows = [table.rows.get(class_name(store.names[int(label)])) for label in people]
    pairs: list[Indices] = []
    same: list[Bools] = []
    groups: dict[str, dict[str, slice]] = {}
    for column, name in enumerate(table.columns):
        told = np.array([row[column] if row else "" for row in rows])
        ranked = [str(one) for one in np.unique(told) if one and (told == one).sum() >= LEAST_PEOPLE]
        for group in ranked if len(ranked) > 1 else ():
            members = held[np.isin(store.labels[held], people[told == group])]
            most = max(2, config.pairs // len(ranked))
            drawn, kinds = draw_pairs(store.labels, members, most, seed, folds=1)
            start = sum(len(before) for before in same)
            groups.setdefault(name, {})[group] = slice(start, start + len(kinds))
            pairs.append(drawn)
            same.append(kinds)
    if not groups:
        raise UserError(
            f"{config.groups}: no column has two groups of {LEAST_PEOPLE} or more of the {len(people)} people "
            "held out; hold out more by data.validation_fraction, or name groups of more people"
        )
    return GroupPairs(np.concatenate(pairs), np.concatenate(same), groups)
