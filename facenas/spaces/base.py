"""The two seams that every search stands on: an architecture, and the space it is drawn from."""

from __future__ import annotations

import hashlib
import json
import random
from typing import Any, Protocol, TypeVar

from facenas.errors import UserError

A = TypeVar("A", bound="Architecture")


class Architecture(Protocol):
    """A frozen description of a network. Equal descriptions have equal fingerprints."""

    def to_json(self) -> dict[str, Any]:
        """The description as plain JSON values, with its `kind`."""
        ...

    def words(self) -> str:
        """What it is in a few words, for a progress bar or a table."""
        ...

    def count_parameters(self) -> int:
        """Exact number of trainable parameters, by formula."""
        ...

    def count_macs(self, image_size: int) -> int:
        """Multiply-accumulates of convolutions and linear layers for one square image."""
        ...


class SearchSpace(Protocol[A]):
    """Bounds, a start, and the moves a strategy may make. Every architecture returned lies in the bounds."""

    def start(self) -> A:
        """Where a growing search begins."""
        ...

    def sample(self, rng: random.Random) -> A:
        """A random member."""
        ...

    def neighbours(self, architecture: A) -> list[A]:
        """All members one elementary change away."""
        ...

    def mutate(self, architecture: A, rng: random.Random) -> A:
        """One random neighbour."""
        ...

    def crossover(self, first: A, second: A, rng: random.Random) -> A:
        """A member that takes each gene from either parent."""
        ...


def fingerprint(tree: Any) -> str:
    """sha256 (hex) of plain JSON values in canonical form: sorted keys, no spaces."""
    text = json.dumps(tree, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def read_fields(tree: Any, what: str, types: dict[str, type]) -> dict[str, Any]:
    """`tree` itself, when it is a JSON object of exactly these fields and types; else raises UserError."""
    if not isinstance(tree, dict):
        raise UserError(f"{what} should be a JSON object, not {tree!r}")
    for name, kind in types.items():
        if name not in tree:
            raise UserError(f"{what} needs the field {name!r}")
        if type(tree[name]) is not kind:
            raise UserError(
                f"{what} has {tree[name]!r} as {name!r}, which should be a {kind.__name__}"
            )
    if strange := sorted(set(tree) - set(types), key=str):
        raise UserError(f"{what} has no field {strange[0]!r}")
    return tree


def whole(tree: dict[str, Any], name: str, several: bool = False) -> tuple[int, ...]:
    """The whole number, or the list of them, that an architecture has under `name`; else raises UserError."""
    if name not in tree:
        raise UserError(f"an architecture needs the field {name!r}")
    values = tree[name] if several else [tree[name]]
    if not isinstance(values, list) or not all(type(value) is int for value in values):
        what = "a list of whole numbers" if several else "a whole number"
        raise UserError(f"an architecture's field {name!r} is {tree[name]!r}, but should be {what}")
    return tuple(values)


def put(values: tuple[int, ...], index: int, value: int) -> tuple[int, ...]:
    """`values` with another one at `index`."""
    return (*values[:index], value, *values[index + 1 :])
