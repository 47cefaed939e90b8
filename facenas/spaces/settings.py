"""Bounds of the search spaces."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from facenas.config import Config


class Bounds(Config):
    """Bounds of any space; widths are channels of its first layer, or first stage."""

    min_depth: int = Field(10, ge=1)
    max_depth: int = Field(100, ge=1)
    min_width: int = Field(16, ge=1)
    max_width: int = Field(64, ge=1)
    width_step: int = Field(2, ge=1)

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Self:
        if self.min_depth > self.max_depth or self.min_width > self.max_width:
            raise ValueError("a minimum is above its maximum")
        return self


class SpaceConfig(Bounds):
    """Bounds of the classification space (`facenas.spaces.plain`)."""

    kind: Literal["plain"] = "plain"


class IRSpaceConfig(Bounds):
    """Bounds of the face space (`facenas.spaces.ir`). Depth counts layers: 2 * blocks + 2.

    `ratio`: how the four stages share the blocks; `embedding`: how long z is.
    """

    kind: Literal["ir"] = "ir"
    min_depth: int = Field(10, ge=10)
    min_width: int = Field(8, ge=1)
    max_width: int = Field(32, ge=1)
    ratio: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (1, 2, 4, 1)
    embedding: int = Field(512, ge=1)
    se: bool = False

    @model_validator(mode="after")
    def _even_depths(self) -> Self:
        if self.min_depth % 2 or self.max_depth % 2:
            raise ValueError("depths are even: two layers a block, the stem and the last layer")
        return self
