"""Hierarchical cell networks: a chain of cells, each of parallel pipelines, each a chain of blocks.

Source: "An Approach for Efficient Neural Architecture Search Space Definition", arXiv 2310.17669. What it
leaves open is settled so:

* A "down" cell halves the resolution, rounding up: the first block of each of its pipelines has a stride
  of 2. An "up" cell doubles every pixel of its input before the pipelines, and cuts off what would
  reach beyond the resolution before the halving. No cell rises above the resolution of the image.
* Convolutions give the cell's number of channels; pools and the identity leave it as it is.
* "add" projects each pipeline that has another number of channels by a 1x1 convolution. "concat" projects
  what is joined: so a cell is as wide with either merge, and the cells behind it need not know which it has.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from facenas.errors import UserError
from facenas.spaces.base import read_fields
from facenas.spaces.cell_block import Block, PlacedBlock, side

ROLES = ("same", "down", "up")
MERGES = ("add", "concat")

Pipeline = tuple[Block, ...]


@dataclass(frozen=True)
class Cell:
    """Pipelines side by side, joined by a merge; `role` says what becomes of the resolution.

    Pipelines are kept sorted, and a single one has nothing to concatenate, so that equal networks have
    equal descriptions. Raises UserError when the fields do not fit together.
    """

    role: str
    merge: str
    channels: int
    pipelines: tuple[Pipeline, ...]

    def __post_init__(self) -> None:
        fits = (
            self.role in ROLES
            and self.merge in MERGES
            and self.channels > 0
            and len(self.pipelines) > 0
            and all(self.pipelines)
        )
        if not fits:
            raise UserError(f"not a cell: {self}")
        object.__setattr__(self, "pipelines", tuple(sorted(self.pipelines)))
        if len(self.pipelines) == 1:
            object.__setattr__(self, "merge", "add")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        pipelines = [[block.to_json() for block in pipeline] for pipeline in self.pipelines]
        return {**vars(self), "pipelines": pipelines}

    @classmethod
    def from_json(cls, tree: Any) -> Cell:
        """The inverse of `to_json`; raises UserError when a field is missing, wrong or unknown."""
        types = {"role": str, "merge": str, "channels": int, "pipelines": list}
        read = read_fields(tree, "a cell", types)
        if not all(isinstance(pipeline, list) for pipeline in read["pipelines"]):
            raise UserError("a pipeline of a cell should be a list of blocks")
        pipelines = (tuple(map(Block.from_json, blocks)) for blocks in read["pipelines"])
        return cls(read["role"], read["merge"], read["channels"], tuple(pipelines))


@dataclass(frozen=True)
class PlacedCell:
    """A cell where it lies; an image is `shrink` times larger than the cell's output."""

    cell: Cell
    in_channels: int
    shrink: int
    pipelines: tuple[tuple[PlacedBlock, ...], ...]

    @property
    def ends(self) -> tuple[int, ...]:
        """Channels of what is merged: of each pipeline, or of all of them joined.

        What has another number than the cell is projected.
        """
        channels = tuple(blocks[-1].out_channels for blocks in self.pipelines)
        return channels if self.cell.merge == "add" else (sum(channels),)

    def projections(self) -> int:
        """Weights of the projections before or behind the merge; they have no bias."""
        width = self.cell.channels
        return sum(end * width for end in self.ends if end != width)

    def count_parameters(self) -> int:
        """Parameters of all blocks and of the merge."""
        blocks = (block for pipeline in self.pipelines for block in pipeline)
        return sum(block.count_parameters() for block in blocks) + self.projections()

    def count_macs(self, image_size: int) -> int:
        """Multiply-accumulates of the convolutions for one image of this side."""
        blocks = (block for pipeline in self.pipelines for block in pipeline)
        merge = self.projections() * side(image_size, self.shrink) ** 2
        return sum(block.count_macs(image_size) for block in blocks) + merge


@dataclass(frozen=True)
class CellArchitecture:
    """Width of the stem, cells in order, and what goes in and out.

    The stem is a 3x3 convolution with BatchNorm and ReLU; after the last cell come global average pooling
    and a linear classifier. Raises UserError when the fields do not fit together, also when a cell would
    rise above the resolution of the image.
    """

    stem: int
    cells: tuple[Cell, ...]
    in_channels: int
    num_classes: int

    kind = "cells"

    def __post_init__(self) -> None:
        if not self.cells or min(self.stem, self.in_channels, self.num_classes) < 1:
            raise UserError(f"not a cells architecture: {self}")
        shrink = 1.0
        for number, cell in enumerate(self.cells, start=1):
            shrink *= {"down": 2, "same": 1, "up": 0.5}[cell.role]
            if shrink < 1:
                raise UserError(f"cell {number} would rise above the resolution of the image")

    def placed(self) -> Iterator[PlacedCell]:
        """Cells in order, with their pipelines and blocks, as builder, counters and drawing see them."""
        channels, shrink = self.stem, 1
        for cell in self.cells:
            stride = 2 if cell.role == "down" else 1
            shrink = shrink // 2 if cell.role == "up" else shrink * stride
            pipelines = (
                _placed(p, channels, cell.channels, stride, shrink) for p in cell.pipelines
            )
            yield PlacedCell(cell, channels, shrink, tuple(pipelines))
            channels = cell.channels

    def count_parameters(self) -> int:
        """Exact number of parameters of the built module."""
        stem = self.in_channels * self.stem * 9 + 2 * self.stem
        cells = sum(cell.count_parameters() for cell in self.placed())
        return stem + cells + (self.cells[-1].channels + 1) * self.num_classes

    def count_macs(self, image_size: int) -> int:
        """Multiply-accumulates of convolutions and the classifier for one `image_size` x `image_size` image."""
        stem = self.in_channels * self.stem * 9 * image_size**2
        cells = sum(cell.count_macs(image_size) for cell in self.placed())
        return stem + cells + self.cells[-1].channels * self.num_classes

    def words(self) -> str:
        """What it is in a few words."""
        pipelines = [pipeline for cell in self.cells for pipeline in cell.pipelines]
        blocks = sum(map(len, pipelines))
        return f"{len(self.cells)} cells, {len(pipelines)} pipelines, {blocks} blocks"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "kind": self.kind,
            "stem": self.stem,
            "cells": [cell.to_json() for cell in self.cells],
            "in_channels": self.in_channels,
            "num_classes": self.num_classes,
        }

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> CellArchitecture:
        """The inverse of `to_json`; raises UserError when a field is missing, wrong or unknown."""
        types = {"kind": str, "stem": int, "cells": list, "in_channels": int, "num_classes": int}
        read = read_fields(tree, "an architecture of cells", types)
        cells = tuple(map(Cell.from_json, read["cells"]))
        return cls(read["stem"], cells, read["in_channels"], read["num_classes"])


def _placed(
    pipeline: Pipeline, before: int, width: int, stride: int, shrink: int
) -> tuple[PlacedBlock, ...]:
    """The blocks of a pipeline; the first has the stride."""
    found = []
    for block in pipeline:
        after = width if block.convolves else before
        found.append(PlacedBlock(block, before, after, stride, shrink))
        before, stride = after, 1
    return tuple(found)
