"""Which output of a network is the embedding, and how many images it takes: found by running it once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from facenas.data.faces.jpeg import SIDE
from facenas.errors import UserError
from facenas.evaluation.embedders.embedder import Pixels, Rows, first_line

Outputs = Mapping[str, Any]  # arrays by name


@dataclass(frozen=True)
class Selection:
    """The output `embedding`; AdaFace's networks give a unit vector, and its length as a second output."""

    embedding: str
    length: str | None
    size: int

    def __call__(self, outputs: Outputs) -> Rows:
        """(m, size) float32, not normalised."""
        rows = np.asarray(outputs[self.embedding], np.float32)
        rows = rows.reshape(len(rows), -1)
        if self.length is not None:
            rows = rows * np.asarray(outputs[self.length], np.float32).reshape(-1, 1)
        return rows


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
        except (
            Exception
        ) as error:  # onnxruntime, torch and a function of somebody's raise many kinds
            reason = reason or first_line(error)
            continue
        if all(np.ndim(value) and len(value) == count for value in outputs.values()):
            fixed = batch is not None or count == 1
            return _select(name, outputs, wanted), count if fixed else None
        reason = reason or f"its output is {_shapes(outputs)} for {count}"
    raise UserError(
        f"{name}: does not take images of {SIDE}x{SIDE} pixels and give a row for each ({reason})"
    )


def _select(name: object, outputs: Outputs, wanted: str | None) -> Selection:
    if wanted is not None and wanted not in outputs:
        raise UserError(f"{name}: has no output {wanted!r} (embedding), but {_shapes(outputs)}")
    if wanted is not None or len(outputs) == 1:
        chosen = wanted if wanted is not None else next(iter(outputs))
        size = _size(outputs[chosen])
        if size < 2:
            raise UserError(
                f"{name}: its output {_shapes({chosen: outputs[chosen]})} is no embedding, which is one row of "
                "numbers an image"
            )
        return Selection(chosen, None, size)
    sizes = {key: _size(value) for key, value in outputs.items()}
    vectors = [key for key, size in sizes.items() if size > 1]
    if len(vectors) != 1:
        raise UserError(
            f"{name}: has the outputs {_shapes(outputs)}; name the embedding among them (embedding)"
        )
    single = Selection(vectors[0], None, sizes[vectors[0]])
    lengths = [key for key, size in sizes.items() if size == 1]
    unit = np.allclose(np.linalg.norm(single(outputs), axis=1), 1, atol=1e-2)
    if len(outputs) == 2 and len(lengths) == 1 and unit:
        return Selection(vectors[0], lengths[0], single.size)
    return single


def _size(value: Any) -> int:
    """Numbers of a row; 0 when there is more than one axis to it, as of (m, 512, 7, 7)."""
    axes = [length for length in np.shape(value)[1:] if length != 1]
    return 0 if len(axes) > 1 else int(np.prod(axes))


def _shapes(outputs: Outputs) -> str:
    parts = (f"{name} ({' x '.join(map(str, np.shape(value)))})" for name, value in outputs.items())
    return ", ".join(parts)
