"""What every embedder is: images in, raw embeddings out; and which output of somebody's network they are."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facenas.data.faces.store import SIDE
from facenas.errors import UserError, first_line

Pixels = NDArray[np.uint8]
Rows = NDArray[np.float32]
Outputs = Mapping[str, Any]  # arrays by name
Mirrored = Sequence[bool]  # what to embed, in this order: images (False), their mirror images (True)
Later = Callable[[], list[Rows]]  # gives the rows of each of these; a GPU may compute until it is called

# On a CPU so few at a time: what one layer hands to the next stays in the cache (1.2 times faster than 64).
CPU_PIECE = 8
# What a thread reads at once. Of a GPU each has 1,024 computed, with the mirror images: less does not fill it.
BATCH, GPU_BATCH = 64, 512


@dataclass(frozen=True, eq=False)
class Embedder:
    """A network of faces, ready to run, a few images at a time.

    name: of its file or run; fingerprint: sha256 over weights, preprocessing and precision; size: numbers of
    an embedding; facts: what is known of it (parameters, macs, color, mean, std, ...), as JSON has it.
    run: (k, 112, 112, 3) and what to embed of them -> what gives their rows (k, size), each (`at_once` makes it
    of a function); piece: the largest k, None for any; fixed: k must be `piece`, so the last image is repeated;
    alone: one thread at a time, as on a GPU, whose memory may hold one batch only; batch: images at a time
    that pay; cacheable: whether the fingerprint stands for all that decides the embeddings, so that they can
    be kept.
    """

    name: str
    fingerprint: str
    size: int
    facts: dict[str, Any]
    run: Callable[[Pixels, Mirrored], Later]
    piece: int | None = CPU_PIECE
    fixed: bool = False
    alone: bool = False
    batch: int = BATCH
    cacheable: bool = True
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, images: Pixels) -> Rows:
        """(m, 112, 112, 3) uint8 RGB -> (m, size) float32, not normalized. Several threads may call at once."""
        return self.begin(images)()[0]

    def begin(self, images: Pixels, mirrored: Mirrored = (False,)) -> Later:
        """Has a GPU begin, a CPU do it; what is given waits for the rows (m, size) float32, not normalized.

        images: (m, 112, 112, 3) uint8 RGB; mirrored: False for their own rows, True for their mirror images'.
        """
        step = self.piece or max(1, len(images))
        turn: AbstractContextManager[Any] = self._lock if self.alone else nullcontext()
        parts = []
        for start in range(0, len(images), step):
            part = images[start : start + step]
            if self.fixed and len(part) < step:
                part = np.concatenate([part, np.repeat(part[-1:], step - len(part), axis=0)])
            with turn:
                parts.append(self.run(part, mirrored))

        def rows() -> list[Rows]:
            found = np.empty((len(mirrored), len(images), self.size), np.float32)
            for number, part in enumerate(parts):
                places = found[:, number * step : (number + 1) * step]
                for place, own in zip(places, part(), strict=True):
                    place[:] = own[: len(place)]
            return list(found)

        return rows

    def embed(self, images: Any) -> Rows:
        """Unit embeddings of image and mirror image together: see `Network.embed`."""
        from facenas.evaluation.network import unit_embeddings

        return unit_embeddings(images, self)


def at_once(function: Callable[[Pixels], Rows]) -> Callable[[Pixels, Mirrored], Later]:
    """`Embedder.run` of a function (k, 112, 112, 3) -> (k, size), which is called for each side."""

    def run(images: Pixels, mirrored: Mirrored) -> Later:
        sides = (np.ascontiguousarray(images[:, :, ::-1]) if turned else images for turned in mirrored)
        rows = [function(side) for side in sides]
        return lambda: rows

    return run


@dataclass(frozen=True)
class Selection:
    """The output `embedding`; AdaFace's networks give a unit vector, and its length as a second output.

    Takes arrays or tensors, float32 if they are floats (`floats`).
    """

    embedding: str
    length: str | None
    size: int

    def __call__(self, outputs: Mapping[str, Any]) -> Any:
        """(m, size) float32, not normalized."""
        rows = outputs[self.embedding]
        rows = rows.reshape(len(rows), -1)
        return rows if self.length is None else rows * outputs[self.length].reshape(-1, 1)


def floats(value: Any) -> NDArray[Any]:
    """An output as an array, of float32 if it is one of numbers."""
    found = np.asarray(value)
    return np.asarray(found, np.float32) if found.dtype.kind in "fiub" else found


def probe(
    name: object, run: Callable[[Pixels], Outputs], wanted: str | None, batch: int | None
) -> tuple[Selection, int | None]:
    """(the embedding among the outputs of `run`, how many images it takes at once if it takes no other number).

    name: of the network, for messages; wanted: of the output to use; batch: how many images it takes, when its
    file says so. Tries two images, else one, for it may take no more and not say so. Raises UserError when it
    gives no embeddings.
    """
    rng, reason = np.random.default_rng(0), ""
    for count in dict.fromkeys((batch or 2, 1)):
        images = rng.integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)
        try:
            outputs = run(images)
        except Exception as error:  # of onnxruntime, torch, or a function of somebody's
            reason = reason or first_line(error)
            continue
        if all(np.ndim(value) and len(value) == count for value in outputs.values()):
            fixed = batch is not None or count == 1
            return _select(name, outputs, wanted), count if fixed else None
        reason = reason or f"its output is {_shapes(outputs)} for {count}"
    raise UserError(f"{name}: does not take images of {SIDE}x{SIDE} pixels and give a row for each ({reason})")


def _select(name: object, outputs: Outputs, wanted: str | None) -> Selection:
    sizes = {key: _row_size(value) for key, value in outputs.items()}
    vectors = [key for key, size in sizes.items() if size > 1]
    if wanted is not None and wanted not in outputs:
        raise UserError(f"{name}: has no output {wanted!r} (embedding), but {_shapes(outputs)}")
    if wanted is None and len(outputs) > 1 and len(vectors) != 1:
        raise UserError(
            f"{name}: has the outputs {_shapes(outputs)}; name the embedding among them (embedding)"
        )
    chosen = wanted or (vectors[0] if len(outputs) > 1 else next(iter(outputs)))
    if sizes[chosen] < 2:
        shape = _shapes({chosen: outputs[chosen]})
        raise UserError(f"{name}: its output {shape} is no embedding, which is one row of numbers an image")
    found = Selection(chosen, None, sizes[chosen])
    lengths = [key for key, size in sizes.items() if size == 1]
    if wanted is not None or len(outputs) != 2 or not lengths:
        return found
    unit = np.allclose(np.linalg.norm(found(outputs), axis=1), 1, atol=1e-2)
    return Selection(chosen, lengths[0], found.size) if unit else found


def _row_size(value: Any) -> int:
    """Numbers of a row; 0 when there is more than one axis to it, as of (m, 512, 7, 7)."""
    axes = [length for length in np.shape(value)[1:] if length != 1]
    return 0 if len(axes) > 1 else int(np.prod(axes))


def _shapes(outputs: Outputs) -> str:
    parts = (f"{name} ({' x '.join(map(str, np.shape(value)))})" for name, value in outputs.items())
    return ", ".join(parts)


def fingerprint(content: bytes, *settings: object) -> str:
    """sha256 over a file's content and whatever else decides its embeddings, as text."""
    digest = hashlib.sha256(json.dumps([str(setting) for setting in settings]).encode())
    digest.update(content)
    return digest.hexdigest()
