"""Bounds of the three-level space: multipliers of the whole network, blocks of its stages, what blocks do."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from facenas.config import Config

# What a block may do, from small to large; the number is the side of its kernel in pixels.
GraphOperation = Literal[
    "skip",
    "avg_pool3",
    "max_pool3",
    "separable3",
    "separable5",
    "bottleneck3",
    "se_bottleneck3",
    "bottleneck5",
    "se_bottleneck5",
    "conv3",
    "conv5",
]


class GraphSpaceConfig(Config):
    """Bounds of the three-level space (`facenas.spaces.graph_space`). Defaults: for images of 28 to 32 pixels.

    Macro: `width_multipliers` scale all of `widths` (channels of each stage), `depth_multipliers` the blocks
    of all stages. Meso: every stage has `min_blocks` to `max_blocks`, before that multiplication, which rounds
    up. Micro: every block does one of `operations`. expansion: how many times wider a bottleneck is inside.
    embedding: how long z is, for faces alone.
    """

    kind: Literal["graph"] = "graph"
    operations: tuple[GraphOperation, ...] = (
        "skip",
        "avg_pool3",
        "separable3",
        "separable5",
        "bottleneck3",
        "se_bottleneck3",
        "bottleneck5",
        "conv3",
    )
    widths: tuple[PositiveInt, ...] = Field((16, 32, 64), min_length=1, max_length=8)
    width_multipliers: tuple[PositiveFloat, ...] = (0.5, 0.75, 1.0, 1.5, 2.0)
    depth_multipliers: tuple[PositiveFloat, ...] = (0.5, 1.0, 1.5)
    min_blocks: int = Field(1, ge=1)
    max_blocks: int = Field(4, ge=1, le=64)
    expansion: int = Field(4, ge=1, le=16)
    embedding: int = Field(256, ge=1)

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Self:
        if self.min_blocks > self.max_blocks:
            raise ValueError("min_blocks is above max_blocks")
        return self

    @model_validator(mode="after")
    def _choices_differ(self) -> Self:
        for name in ("operations", "width_multipliers", "depth_multipliers"):
            given = getattr(self, name)
            if not given or len(set(given)) < len(given):
                raise ValueError(f"{name}: name one or more, each once")
        return self
