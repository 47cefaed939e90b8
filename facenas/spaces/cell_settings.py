"""Bounds of the hierarchical cell space: the set of blocks, and how they may be put together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Self, get_args

from pydantic import Field, PositiveInt, model_validator

from facenas.config import Config

# What a block may do; the number is the side of its kernel in pixels.
Operation = Literal[
    "identity",
    "max_pool3",
    "avg_pool3",
    "conv1",
    "separable3",
    "separable5",
    "conv3",
    "conv5",
    "conv7",
]
Activation = Literal["none", "relu", "silu", "prelu"]
Merge = Literal["add", "concat"]


class CellSpaceConfig(Config):
    """Bounds of the cell space (`facenas.spaces.cell_space`).

    operations, batch_norm, activations, skip: the options that a block chooses from, each by itself.
    merges: how the pipelines of a cell are joined. base_widths: channels of the stem, and of cells at the
    images' own resolution; every halving of the resolution multiplies them by `growth`. min_side: pixels
    below which no cell goes; 2 or more, as BatchNorm cannot learn from one image of one pixel.
    """

    kind: Literal["cells"] = "cells"
    operations: tuple[Operation, ...] = get_args(Operation)
    batch_norm: tuple[bool, ...] = (False, True)
    activations: tuple[Activation, ...] = get_args(Activation)
    skip: tuple[bool, ...] = (False, True)
    merges: tuple[Merge, ...] = get_args(Merge)
    min_cells: int = Field(2, ge=1)
    max_cells: int = Field(6, ge=1, le=64)
    min_pipelines: int = Field(1, ge=1)
    max_pipelines: int = Field(3, ge=1, le=16)
    min_blocks: int = Field(1, ge=1)
    max_blocks: int = Field(3, ge=1, le=16)
    base_widths: tuple[PositiveInt, ...] = (16, 32, 64)
    growth: float = Field(2.0, ge=1, le=4)
    min_side: int = Field(4, ge=2)
    max_parameters: int = Field(15_000_000, ge=1)

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Self:
        for name in ("cells", "pipelines", "blocks"):
            if getattr(self, f"min_{name}") > getattr(self, f"max_{name}"):
                raise ValueError(f"min_{name} is above max_{name}")
        return self

    @model_validator(mode="after")
    def _choices_differ(self) -> Self:
        choices: dict[str, Iterable[object]] = {
            "operations": self.operations,
            "batch_norm": self.batch_norm,
            "activations": self.activations,
            "skip": self.skip,
            "merges": self.merges,
            "base_widths": self.base_widths,
        }
        for name, values in choices.items():
            given = list(values)
            if not given or len(set(given)) < len(given):
                raise ValueError(f"{name}: name one or more, each once")
        return self
