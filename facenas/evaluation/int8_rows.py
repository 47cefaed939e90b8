"""Unit rows in a quarter of the bytes, and the fast search of them."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_MOST = 127  # of int8, so that both signs reach as far


class Int8Rows(NamedTuple):
    """Row i is steps[i] * values[i], of unit length: values (n, E) int8, steps (n,) float32."""

    values: NDArray[np.int8]
    steps: Floats

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, E)."""
        return self.values.shape

    def floats(self, numbers: Any) -> Floats:
        """The rows of these numbers, in float32 and of unit length."""
        return np.asarray(self.values[numbers] * self.steps[numbers][..., None], np.float32)

    def scores(self, probes: NDArray[np.int8], start: int, stop: int) -> Floats:
        """(m, stop - start) cosines of int8 probes (m, E) to rows start..stop-1, each times a factor of its
        probe's.

        torch's product of int8 matrices is oneDNN's, with sums in int32; numpy has none. Where it would be
        wrong or slow (`_exact`), the rows are multiplied as floats, at float's speed.
        """
        import torch

        rows, steps = torch.from_numpy(self.values[start:stop]), torch.from_numpy(self.steps[start:stop])
        asked = torch.from_numpy(probes)
        sums = torch._int_mm(asked, rows.t()) if _exact() else asked.float() @ rows.float().t()
        found: Floats = (sums * steps).numpy()
        return found


@cache
def _exact() -> bool:
    """Whether torch's product of int8 matrices is oneDNN's, and right, on this processor.

    Without oneDNN it is a plain loop. On x86 without VNNI, oneDNN adds two products in 16 bits, which overflow:
    (127 + 128) * 127 * 2 > 32,767. As floats, sums up to 2^24 are exact: 1,040 numbers of a row.
    """
    import torch

    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    rows = torch.full((2, 64), _MOST, dtype=torch.int8)
    return bool((torch._int_mm(rows, rows.t()) == 64 * _MOST**2).all())


def int8_rows(rows: Floats) -> Int8Rows:
    """Rows (n, E), none of them zero, each divided so that its largest number becomes 127, and rounded.

    The step is 1 / |values|, not the one divided by: it makes the row one of unit length again. A cosine to it
    is off by some 0.0004 at 512 numbers, without bias.
    """
    values = as_int8(rows)
    lengths = np.sqrt((values.astype(np.int32) ** 2).sum(1, dtype=np.int64))
    return Int8Rows(values, np.asarray(1 / lengths, np.float32))


def as_int8(rows: Floats) -> NDArray[np.int8]:
    """Directions of rows (n, E) in int8: their lengths are lost."""
    peaks = np.abs(rows).max(axis=1, keepdims=True)
    return np.rint(rows * (_MOST / np.where(peaks > 0, peaks, 1))).astype(np.int8)
