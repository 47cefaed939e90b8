"""The hierarchical cell space: chains of cells, each of parallel pipelines, each a chain of blocks.

Source: "An Approach for Efficient Neural Architecture Search Space Definition", arXiv 2310.17669. What it
leaves open is settled so:

* A "down" cell halves the resolution, rounding up: the first block of each of its pipelines has a stride
  of 2. An "up" cell doubles every pixel of its input before the pipelines, and cuts off what would
  reach beyond the resolution before the halving. No cell rises above the resolution that the stem gives.
* Convolutions give the cell's number of channels; pools and the identity leave it as it is.
* "add" projects each pipeline that has another number of channels by a 1x1 convolution. "concat" projects
  what is joined: so a cell is as wide with either merge, and the cells behind it need not know which it has.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, Self, get_args

from pydantic import Field, PositiveInt, model_validator

from facenas.config import Config
from facenas.errors import UserError
from facenas.spaces.base import (
    ADDED,
    SPACES,
    STEM_STRIDES,
    Architecture,
    GeneSpace,
    ImageFacts,
    check_choices,
    check_left,
)

# What a block may do, from small to large; the number is the side of its kernel in pixels.
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

CONVOLUTIONS = ("conv", "separable")  # they alone have weights, and change the number of channels
POOLS = ("max_pool", "avg_pool")
ACTIVATIONS = get_args(Activation)
IDENTITY = "identity"
ROLES = ("same", "down", "up")
MERGES = get_args(Merge)


@dataclass(frozen=True, order=True)
class Block:
    """Operation, then BatchNorm, then activation; with `skip` the block's input is added to all that.

    kernel: side in pixels, odd; 1 for the identity. A skip around the identity would only scale: there is
    none, whatever is asked for. Raises UserError when the fields do not fit together.
    """

    operation: str
    kernel: int
    batch_norm: bool
    activation: str
    skip: bool

    nouns = ("a block of a cell", "blocks of a cell")

    def __post_init__(self) -> None:
        if self.operation == IDENTITY:
            object.__setattr__(self, "skip", False)
            fits = self.kernel == 1
        elif self.operation in POOLS:
            fits = self.kernel >= 3
        else:
            fits = self.operation in CONVOLUTIONS and self.kernel >= 1
        if not fits or self.kernel % 2 == 0 or self.activation not in ACTIVATIONS:
            raise UserError(f"not a block of a cell: {self}")

    @property
    def convolves(self) -> bool:
        """Whether the operation has weights, and so chooses how many channels it gives."""
        return self.operation in CONVOLUTIONS


Pipeline = tuple[Block, ...]


@dataclass(frozen=True)
class PlacedBlock:
    """A block where it lies; an image is `shrink` times larger than the block's output.

    With a stride of 2 the identity, and the shortcut of a skip, are means over 2x2 pixels; a shortcut
    between different numbers of channels is a 1x1 convolution after that.
    """

    block: Block
    in_channels: int
    out_channels: int
    stride: int
    shrink: int

    @property
    def projected(self) -> bool:
        """Whether the shortcut is a convolution."""
        return self.block.skip and self.in_channels != self.out_channels

    def convolutions(self) -> Iterator[int]:
        """Weights of each convolution without its bias; a separable pair counts as one."""
        before, after, area = self.in_channels, self.out_channels, self.block.kernel**2
        if self.block.operation == "conv":
            yield before * after * area
        elif self.block.operation == "separable":
            yield before * (area + after)
        if self.projected:
            yield before * after

    def count_parameters(self) -> int:
        """Convolutions; BatchNorm (two for a channel) or else the convolution's bias (one); PReLU (one)."""
        block = self.block
        shifts = 2 if block.batch_norm else int(block.convolves)
        slopes = int(block.activation == "prelu")
        return sum(self.convolutions()) + (shifts + slopes) * self.out_channels

    def count_macs(self, image_size: int) -> int:
        """Multiply-accumulates of the convolutions for one image of this side."""
        return sum(self.convolutions()) * side(image_size, self.shrink) ** 2


def side(image_size: int, shrink: int) -> int:
    """Pixels that are left of `image_size` after all halvings: each rounds up, so that none gives nothing."""
    return -(-image_size // shrink)


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

    nouns = ("a cell", "cells")

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
class CellArchitecture(Architecture):
    """Width of the stem, cells in order, and what goes in and out.

    The stem is a 3x3 convolution with BatchNorm and ReLU, its stride at most 2; max pooling does the rest of
    `stem_stride`. After the last cell come global average pooling and a linear classifier. Raises UserError
    when the fields do not fit together, also when a cell would rise above the resolution of the stem.
    """

    stem: int
    cells: tuple[Cell, ...]
    in_channels: int
    num_classes: int
    stem_stride: int = field(default=1, metadata=ADDED)

    def __post_init__(self) -> None:
        positive = min(self.stem, self.in_channels, self.num_classes) > 0
        if not self.cells or not positive or self.stem_stride not in STEM_STRIDES:
            raise UserError(f"not a cells architecture: {self}")
        shrink = 1.0
        for number, cell in enumerate(self.cells, start=1):
            shrink *= {"down": 2, "same": 1, "up": 0.5}[cell.role]
            if shrink < 1:
                raise UserError(f"cell {number} would rise above the resolution of the stem")

    def placed(self) -> Iterator[PlacedCell]:
        """Cells in order, with their pipelines and blocks, as builder, counters and drawing see them."""
        channels, shrink = self.stem, self.stem_stride
        for cell in self.cells:
            stride = 2 if cell.role == "down" else 1
            shrink = shrink // 2 if cell.role == "up" else shrink * stride
            pipelines = (_placed(p, channels, cell.channels, stride, shrink) for p in cell.pipelines)
            yield PlacedCell(cell, channels, shrink, tuple(pipelines))
            channels = cell.channels

    def count_parameters(self) -> int:
        """Exact number of parameters of the built module."""
        stem = self.in_channels * self.stem * 9 + 2 * self.stem
        cells = sum(cell.count_parameters() for cell in self.placed())
        return stem + cells + (self.cells[-1].channels + 1) * self.num_classes

    def count_macs(self, image_size: int) -> int:
        """Multiply-accumulates of convolutions and the classifier for one `image_size` x `image_size` image."""
        stem = self.in_channels * self.stem * 9 * side(image_size, min(2, self.stem_stride)) ** 2
        cells = sum(cell.count_macs(image_size) for cell in self.placed())
        return stem + cells + self.cells[-1].channels * self.num_classes

    def adapted(self, images: ImageFacts) -> Self:
        """The same cells for other images: their channels, their classes, a stem for their size.

        Raises UserError when the images are too small for so many halvings.
        """
        ends = replace(self, in_channels=images.in_channels, num_classes=images.num_classes)
        found = replace(ends, stem_stride=images.stem_stride)
        check_left(images.image_size, max(cell.shrink for cell in found.placed()))
        return found

    def summary(self) -> str:
        """What it is in a few words."""
        pipelines = [pipeline for cell in self.cells for pipeline in cell.pipelines]
        blocks = sum(map(len, pipelines))
        return f"{len(self.cells)} cells, {len(pipelines)} pipelines, {blocks} blocks"


def _placed(pipeline: Pipeline, before: int, width: int, stride: int, shrink: int) -> tuple[PlacedBlock, ...]:
    """The blocks of a pipeline; the first has the stride."""
    found = []
    for block in pipeline:
        after = width if block.convolves else before
        found.append(PlacedBlock(block, before, after, stride, shrink))
        before, stride = after, 1
    return tuple(found)


Pick = Callable[[Sequence[Any]], Any]  # makes one choice of several
Genes = list[int | None]  # None where a gene is ignored

_OPERATIONS = {  # "conv3" is a convolution with kernel 3
    name: (IDENTITY, 1) if name == IDENTITY else (name[:-1], int(name[-1])) for name in get_args(Operation)
}


@SPACES.register("cells")
class Cells(GeneSpace[CellArchitecture]):
    """All cell networks within the bounds, for one kind of images, which say how often they may be halved.

    A row has genes for as many cells, pipelines and blocks as there may be at most; a network with fewer
    ignores the rest. Where a cell would rise above the resolution of the stem, or fall below the smallest
    allowed, it keeps the resolution that it is given. All networks that this space draws or changes have at
    most `max_parameters`; a row that evolution makes up may have more. `bind` raises UserError when even the
    smallest network has.
    """

    class Settings(Config):
        """Bounds of the cell space (`facenas.spaces.cells`).

        operations, batch_norm, activations, skip: the options that a block chooses from, each by itself.
        merges: how the pipelines of a cell are joined. base_widths: channels of the stem, and of cells at its
        resolution; every halving of the resolution multiplies them by `growth`. min_side: pixels
        below which no cell goes; 2 or more, as BatchNorm cannot learn from one image of one pixel.
        """

        operations: tuple[Operation, ...] = get_args(Operation)
        batch_norm: tuple[bool, ...] = (False, True)
        activations: tuple[Activation, ...] = ACTIVATIONS
        skip: tuple[bool, ...] = (False, True)
        merges: tuple[Merge, ...] = MERGES
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
            choices = ("operations", "batch_norm", "activations", "skip", "merges", "base_widths")
            check_choices(self, choices)
            return self

    Architecture = CellArchitecture
    settings: Settings

    def bind(self, images: ImageFacts) -> Self:
        """This space for such images; raises UserError when even the smallest network is too large."""
        bound = super().bind(images)
        least, most = bound.start().count_parameters(), self.settings.max_parameters
        if least > most:
            raise UserError(f"space.max_parameters is {most}, but the smallest network has {least}")
        return bound

    def sample(self, rng: random.Random) -> CellArchitecture:
        """Every gene drawn uniformly; then random ones set to 0 until the network is small enough."""
        row = [rng.randrange(size) for size in self.sizes]
        return self._shrunk(row, self.bounds()[0], rng)

    def crossover(
        self, first: CellArchitecture, second: CellArchitecture, rng: random.Random
    ) -> CellArchitecture:
        """Each gene from either parent; of too large a child, more from the smaller parent."""
        rows = self.encode(first), self.encode(second)
        child = [rng.choice(pair) for pair in zip(*rows, strict=True)]
        smaller = rows[first.count_parameters() > second.count_parameters()]
        return self._shrunk(child, smaller, rng)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """How many choices every gene has."""
        found = []

        def smallest(choices: Sequence[Any]) -> Any:
            found.append(len(choices))
            return choices[0]

        self._build(smallest)
        return tuple(found)

    def _shrunk(self, row: list[int], smaller: Sequence[int], rng: random.Random) -> CellArchitecture:
        """The network of `row`; as long as it is too large, random genes become those of `smaller`."""
        for number in rng.sample(range(len(row)), len(row)):
            if self._allows(arch := self.decode(row)):
                return arch
            row[number] = smaller[number]
        return self.decode(row)

    def _allows(self, arch: CellArchitecture) -> bool:
        return arch.count_parameters() <= self.settings.max_parameters

    def _decode(self, row: Sequence[int]) -> CellArchitecture:
        genes = iter(row)
        return self._build(lambda choices: choices[next(genes)])

    def _build(self, pick: Pick) -> CellArchitecture:
        """The network whose choices `pick` makes, in the order of the genes; those of unused parts too."""
        count, width = pick(self._counts("cells")), pick(self._widths)
        drafts = [self._draft(pick) for _ in range(self.settings.max_cells)]
        cells, shrink = [], 1
        for role, merge, pipelines in drafts[:count]:
            if (role, shrink) in (("up", 1), ("down", self._max_shrink)):
                role = "same"
            shrink = {"same": shrink, "down": shrink * 2, "up": shrink // 2}[role]
            channels = round(width * self.settings.growth ** (shrink.bit_length() - 1))
            cells.append(Cell(role, merge, channels, pipelines))
        images = self.images
        ends = images.in_channels, images.num_classes, images.stem_stride
        return CellArchitecture(width, tuple(cells), *ends)

    def _draft(self, pick: Pick) -> tuple[str, str, tuple[Pipeline, ...]]:
        """Role, merge and pipelines of one cell."""
        role, merge, count = pick(ROLES), pick(self._merges), pick(self._counts("pipelines"))
        pipelines = tuple(self._pipeline(pick) for _ in range(self.settings.max_pipelines))
        return role, merge, pipelines[:count]

    def _pipeline(self, pick: Pick) -> Pipeline:
        count = pick(self._counts("blocks"))
        found = []
        for _ in range(self.settings.max_blocks):
            (operation, kernel), *options = (pick(choices) for choices in self._options)
            found.append(Block(operation, kernel, *options))
        return tuple(found[:count])

    def _genes(self, arch: CellArchitecture) -> Genes:
        try:
            found: Genes = [self._counts("cells").index(len(arch.cells))]
            found.append(self._widths.index(arch.stem))
            for cell in arch.cells:
                found += self._cell_genes(cell)
        except ValueError:
            raise UserError("the network has a part that the space does not offer") from None
        return _filled(found, len(self.sizes))

    def _cell_genes(self, cell: Cell) -> Genes:
        """The genes of a cell; with one pipeline the merge is ignored."""
        alone = len(cell.pipelines) == 1
        found: Genes = [ROLES.index(cell.role), None if alone else self._merges.index(cell.merge)]
        found.append(self._counts("pipelines").index(len(cell.pipelines)))
        blocks = len(self._options) * self.settings.max_blocks
        for pipeline in cell.pipelines:
            genes = [gene for block in pipeline for gene in self._block_genes(block)]
            found.append(self._counts("blocks").index(len(pipeline)))
            found += _filled(genes, blocks)
        return _filled(found, 3 + (1 + blocks) * self.settings.max_pipelines)

    def _block_genes(self, block: Block) -> Genes:
        """The genes of a block; the skip of an identity is ignored."""
        operations, norms, activations, skips = self._options
        return [
            operations.index((block.operation, block.kernel)),
            norms.index(block.batch_norm),
            activations.index(block.activation),
            None if block.operation == IDENTITY else skips.index(block.skip),
        ]

    def _counts(self, part: str) -> range:
        low, high = (getattr(self.settings, f"{end}_{part}") for end in ("min", "max"))
        return range(low, high + 1)

    @cached_property
    def _max_shrink(self) -> int:
        """How much smaller than what the stem gives a cell may be."""
        images, shrink = self.images, 1
        while side(images.image_size, 2 * shrink * images.stem_stride) >= self.settings.min_side:
            shrink *= 2
        return shrink

    @cached_property
    def _widths(self) -> list[int]:
        return sorted(self.settings.base_widths)

    @cached_property
    def _merges(self) -> list[str]:
        return [merge for merge in MERGES if merge in self.settings.merges]

    @cached_property
    def _options(self) -> tuple[Sequence[Any], ...]:
        """Choices of a block's operation and kernel, BatchNorm, activation, skip."""
        s = self.settings
        operations = [_OPERATIONS[name] for name in _OPERATIONS if name in s.operations]
        activations = [name for name in ACTIVATIONS if name in s.activations]
        return operations, sorted(s.batch_norm), activations, sorted(s.skip)


def _filled(genes: Genes, length: int) -> Genes:
    """`genes`, and ignored ones up to a length."""
    return genes + [None] * (length - len(genes))
