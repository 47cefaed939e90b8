"""What an import reads: images one after the other, each with its identity."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol


class Item(NamedTuple):
    """One image: its name in the source, its identity, and its bytes, read when asked for.

    `load` may raise anything; the image is then skipped, with the reason.
    """

    name: str
    identity: str
    load: Callable[[], bytes]


class FaceSource(Protocol):
    """Images in a fixed order, listed anew by every call; reading may raise UserError for all of it.

    title: what it is, in words.
    """

    title: str

    @property
    def numbered(self) -> int | None:
        """The number of identities when they are the numbers from 0 on, as text."""
        ...

    def total(self) -> int:
        """Number of images."""
        ...

    def items(self) -> Iterator[Item]:
        """The images."""
        ...
