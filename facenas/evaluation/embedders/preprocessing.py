"""What a network wants of its pixels: order of the colors, mean and standard deviation."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facenas.errors import UserError

Values = tuple[float, ...]  # one for all channels, or one for each in the network's own order
ASSUMED, FILE, GRAPH, USER = "assumed", "the file", "how the graph begins", "options"


@dataclass(frozen=True)
class InputOptions:
    """What the user says of a network's input and output; None: what its file says, else what is usual.

    color: rgb or bgr; the network is given (pixel - mean) / std of pixels 0..255, each one number or one
    per channel; embedding: the name of the output to use; prefix: which network of a checkpoint with several.
    Raises UserError when a value cannot be.
    """

    color: str | None = None
    mean: Values | None = None
    std: Values | None = None
    embedding: str | None = None
    prefix: str | None = None

    def __post_init__(self) -> None:
        if self.color is not None and self.color.lower() not in ("rgb", "bgr"):
            raise UserError(f"color {self.color}: should be rgb or bgr")
        for name, values in (("mean", self.mean), ("std", self.std)):
            setting = f"{name} {' '.join(f'{value:g}' for value in values or ())}"
            if values is not None and len(values) not in (1, 3):
                raise UserError(f"{setting}: should be one number, or three, one per channel")
            if not all(math.isfinite(value) for value in values or ()):
                raise UserError(f"{setting}: should be finite numbers")
            if name == "std" and min(values or (1,)) < 1:
                raise UserError(
                    f"{setting}: is below 1, but counts on pixels of 0..255; multiply mean and std by 255"
                )


@dataclass(frozen=True)
class Preprocessing:
    """(pixel - mean) / std of pixels 0..255 in the order `color`; said_by: who says so, ASSUMED if nobody."""

    color: str
    mean: Values
    std: Values
    color_said_by: str
    values_said_by: str

    def changed(self, options: InputOptions) -> Preprocessing:
        """With what the user says in place of what the file says."""
        said: dict[str, Any] = {}
        if options.color is not None:
            said |= {"color": options.color.lower(), "color_said_by": USER}
        for name, values in (("mean", options.mean), ("std", options.std)):
            if values is not None:
                said |= {name: tuple(map(float, values)), "values_said_by": USER}
        return replace(self, **said)

    def turned(self) -> Preprocessing:
        """The same for weights turned to take the other order of the colors."""
        color = "rgb" if self.color == "bgr" else "bgr"
        return replace(self, color=color, mean=self.mean[::-1], std=self.std[::-1])

    @property
    def unit_range(self) -> bool:
        """Whether the network takes values in [-1, 1]."""
        return set(self.mean) == set(self.std) == {127.5}

    @property
    def identity(self) -> str:
        """What decides the values that the network is given, for its fingerprint."""
        return f"{self.color} {self.mean} {self.std}"

    def facts(self) -> dict[str, Any]:
        """For tables and `results.json`; mean and std on the 0..255 scale."""
        return {**vars(self), "mean": list(self.mean), "std": list(self.std)}

    def apply(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(m, h, w, 3) uint8 RGB -> (m, 3, h, w) float32, C-ordered."""
        ordered = images if self.color == "rgb" else images[..., ::-1]
        values = np.ascontiguousarray(ordered.transpose(0, 3, 1, 2), np.float32)
        if set(self.mean) != {0.0}:
            values -= np.array(self.mean, np.float32).reshape(-1, 1, 1)
        if set(self.std) != {1.0}:
            values /= np.array(self.std, np.float32).reshape(-1, 1, 1)
        return values


def usual(color: str = "rgb", said_by: str = ASSUMED) -> Preprocessing:
    """Values in [-1, 1]: what most published networks of faces take, and RGB, which most take."""
    return Preprocessing(color, (127.5,), (127.5,), said_by, said_by)
