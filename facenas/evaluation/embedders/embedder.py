"""What every opened network is: images in, raw embeddings out."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Rows = NDArray[np.float32]

# On a CPU so few at a time: what one layer hands to the next stays in the cache (1.2 times faster than 64).
CPU_PIECE = 8


@runtime_checkable
class Embedder(Protocol):
    """A network of faces, ready to run.

    name: of its file or run; fingerprint: sha256 over weights, preprocessing and precision; size: numbers of
    an embedding; facts: what is known of it (parameters, macs, color, mean, std, ...), as JSON has it.
    """

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def size(self) -> int: ...

    @property
    def facts(self) -> dict[str, Any]: ...

    def __call__(self, images: Pixels) -> Rows:
        """(m, 112, 112, 3) uint8 RGB -> (m, size) float32, not normalised. Several threads may call at once."""
        ...


@dataclass(frozen=True, eq=False)
class PieceEmbedder:
    """Runs a network on a few images at a time.

    run: (k, 112, 112, 3) -> (k, size); piece: the largest k, None for any; fixed: k must be `piece`, so the
    last image is repeated; alone: one thread at a time, as on a GPU, whose memory may hold one batch only;
    cacheable: whether the fingerprint stands for all that decides the embeddings, so that they can be kept.
    """

    name: str
    fingerprint: str
    size: int
    facts: dict[str, Any]
    run: Callable[[Pixels], Rows]
    piece: int | None = CPU_PIECE
    fixed: bool = False
    alone: bool = False
    cacheable: bool = True
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, images: Pixels) -> Rows:
        """See `Embedder`."""
        found = np.empty((len(images), self.size), np.float32)
        step = self.piece or max(1, len(images))
        turn: AbstractContextManager[Any] = self._lock if self.alone else nullcontext()
        for start in range(0, len(images), step):
            part = images[start : start + step]
            count = len(part)
            if self.fixed and count < step:
                part = np.concatenate([part, np.repeat(part[-1:], step - count, axis=0)])
            with turn:
                found[start : start + count] = self.run(part)[:count]
        return found


def fingerprint(content: bytes, *settings: object) -> str:
    """sha256 over a file's content and whatever else decides its embeddings, as text."""
    digest = hashlib.sha256(json.dumps([str(setting) for setting in settings]).encode())
    digest.update(content)
    return digest.hexdigest()


def first_line(error: Exception) -> str:
    """What an error of a library says, for a sentence of ours."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(". ")
