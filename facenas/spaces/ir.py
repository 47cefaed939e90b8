"""The face space: improved residual networks ("IR") of any depth and width, choices in every block.

Source: `mk-minchul/AdaFace:net.py` for stem, block and output layer; "Efficient Global Neural Architecture
Search" for what is searched. How blocks are shared out over the stages is ours: the paper gives no rule.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from pydantic import Field, PositiveInt, model_validator

from facenas.errors import UserError
from facenas.spaces.base import FACE, FACE_SIZE, SPACES, check_face_size
from facenas.spaces.plain import KERNELS, OPERATIONS, PLAIN, SEPARABLE, Bounds, Chain, ChainSpace, Gene
from facenas.spaces.scaled import repeated

LAST_SIZE = 7  # pixels a side after the four strides of 2
REDUCTION = 16  # squeeze-and-excitation works on a sixteenth of the channels


@dataclass(frozen=True)
class Block:
    """Two convolutions beside a shortcut; an image is `shrink` times larger than the block's output.

    `projected`: the shortcut is a 1x1 convolution with BatchNorm, else it takes every `stride`-th pixel.
    `squeezed`: channels inside squeeze-and-excitation, 0 without it.
    """

    in_channels: int
    out_channels: int
    operation: int
    kernel: int
    stride: int
    shrink: int
    projected: bool
    squeezed: int

    def convolutions(self) -> Iterator[tuple[int, int]]:
        """(weights, side of the output) of each convolution; a separable pair counts as one."""
        before, after, area = self.in_channels, self.out_channels, self.kernel**2
        side = FACE_SIZE // self.shrink
        # The second convolution has the stride; of a separable one, its depthwise part.
        if self.operation == PLAIN:
            yield before * after * area, side * self.stride
            yield after * after * area, side
        else:
            yield before * (area + after), side * self.stride
            yield after * (area + after), side
        if self.projected:
            yield before * after, side
        yield 2 * after * self.squeezed, 1

    def count_parameters(self) -> int:
        """Convolutions, three or four BatchNorms (two for a channel) and the PReLU (one)."""
        norms = 2 * self.in_channels + (6 if self.projected else 4) * self.out_channels
        return sum(weights for weights, _ in self.convolutions()) + norms + self.out_channels

    def count_macs(self) -> int:
        """Multiply-accumulates of the convolutions for one image."""
        return sum(weights * side**2 for weights, side in self.convolutions())


@dataclass(frozen=True)
class IRArchitecture(Chain):
    """Blocks of the four stages (W, 2W, 4W, 8W wide), operation and kernel of each block, length of z.

    Both convolutions of a block have its operation and kernel. `se`: squeeze-and-excitation in every block.
    `project_first`: the first block's shortcut is projected though the width stays, as insightface has it.
    Raises UserError when the fields do not fit together.
    """

    width: int
    stages: tuple[int, ...]
    operations: tuple[int, ...] = field(metadata={"json": "ops"})
    kernels: tuple[int, ...]
    embedding: int = 512
    se: bool = False
    project_first: bool = False

    task = FACE
    in_channels = 3
    num_classes = 0
    sizes = (*Chain.sizes, "stages")

    def __post_init__(self) -> None:
        fits = len(self.stages) == 4 and min(*self.stages, self.embedding) > 0
        if not fits or not self._choices_fit(sum(self.stages)):
            raise UserError(f"not an ir architecture: {self}")

    @classmethod
    def uniform(
        cls, width: int, stages: Sequence[int], embedding: int = 512, se: bool = False
    ) -> IRArchitecture:
        """All blocks plain 3x3: the networks of the literature, and of macro search."""
        blocks = sum(stages)
        return cls(width, tuple(stages), (PLAIN,) * blocks, (3,) * blocks, embedding, se)

    @property
    def depth(self) -> int:
        """Layers as the literature counts them: two a block, the stem and the last linear layer."""
        return 2 * len(self.operations) + 2

    def scaled(self, width: float = 1, depth: float = 1, embedding: int | None = None) -> IRArchitecture:
        """Of plain 3x3 blocks, its width times `width`, blocks of every stage times `depth`."""
        stages = [repeated(count, depth) for count in self.stages]
        return IRArchitecture.uniform(
            max(1, round(self.width * width)), stages, embedding or self.embedding, self.se
        )

    def _stages(self) -> tuple[int, ...]:
        return self.stages

    def blocks(self) -> Iterator[Block]:
        """Blocks in order. Every stage begins with a stride of 2, all but the first double the channels."""
        before, shrink = self.width, 1
        genes = zip(self.operations, self.kernels, strict=True)
        for stage, count in enumerate(self.stages):
            channels = self.width * 2**stage
            squeezed = max(1, channels // REDUCTION) if self.se else 0
            for i in range(count):
                stride = 2 if i == 0 else 1
                projected = before != channels or (self.project_first and stage == i == 0)
                shrink *= stride
                yield Block(before, channels, *next(genes), stride, shrink, projected, squeezed)
                before = channels

    def count_macs(self, image_size: int = FACE_SIZE) -> int:
        """Multiply-accumulates of convolutions and the linear layer for one image, which must be 112x112."""
        check_face_size(image_size, image_size)
        stem = self.in_channels * self.width * 9 * FACE_SIZE**2
        return stem + sum(block.count_macs() for block in self.blocks()) + self._linear()

    def _count_parameters(self) -> int:
        stem = self.in_channels * self.width * 9 + 3 * self.width  # BatchNorm 2, PReLU 1 for a channel
        body = sum(block.count_parameters() for block in self.blocks())
        return stem + body + 2 * 8 * self.width + self._linear() + self.embedding

    def _linear(self) -> int:
        """Weights of the last layer, without its bias."""
        return 8 * self.width * LAST_SIZE**2 * self.embedding


def share_out(blocks: int, ratio: Sequence[int]) -> tuple[int, ...]:
    """Blocks of each stage, by D'Hondt's rule: one block more never takes one from another stage.

    One each, then every block to the stage with the largest ratio / (blocks + 1); ties go to the deeper.
    """
    stages = [1] * len(ratio)
    for _ in range(blocks - len(ratio)):
        stage = max(range(len(ratio)), key=lambda s: (ratio[s] / (stages[s] + 1), s))
        stages[stage] += 1
    return tuple(stages)


@SPACES.register("ir")
class IR(ChainSpace[IRArchitecture]):
    """All face networks within the bounds; depth and ratio decide how many blocks a stage has."""

    class Settings(Bounds):
        """Bounds of the face space (`facenas.spaces.ir`). Depth counts layers: 2 * blocks + 2.

        `ratio`: how the four stages share the blocks; `embedding`: how long z is.
        """

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

    Architecture = IRArchitecture
    tasks = (FACE,)
    settings: Settings

    swap_operation = SEPARABLE
    unit = "block"

    def at(self, depth: int, width: int) -> IRArchitecture:
        """All plain 3x3 at this depth, an even number of layers, and width: the networks of macro search."""
        if depth < 10 or depth % 2:
            raise UserError(f"a face network has an even number of layers, 10 or more, not {depth}")
        stages = share_out((depth - 2) // 2, self.settings.ratio)
        return IRArchitecture.uniform(width, stages, self.settings.embedding, self.settings.se)

    def depths(self) -> range:
        """Depths from the shallowest up, one block apart."""
        return range(self.settings.min_depth, self.settings.max_depth + 1, 2)

    def sample(self, rng: random.Random) -> IRArchitecture:
        """Depth, width, operations and kernels each drawn uniformly."""
        arch = self.at(rng.choice(self.depths()), rng.choice(self.widths()))
        return _filled(arch, lambda stage, i: (rng.choice(OPERATIONS), rng.choice(KERNELS)))

    def crossover(self, first: IRArchitecture, second: IRArchitecture, rng: random.Random) -> IRArchitecture:
        """Depth and width from either parent; each block from a parent whose stage has one there."""
        depth = rng.choice((first.depth, second.depth))
        width = rng.choice((first.width, second.width))
        parents = first.by_stage(), second.by_stage()

        def pick(stage: int, i: int) -> Gene:
            return rng.choice([genes[stage][i] for genes in parents if i < len(genes[stage])])

        return _filled(self.at(depth, width), pick)

    def _resized(self, arch: IRArchitecture, depth: int) -> IRArchitecture:
        genes = arch.by_stage()

        def pick(stage: int, i: int) -> Gene:
            return genes[stage][i] if i < len(genes[stage]) else (PLAIN, 3)

        return _filled(self.at(depth, arch.width), pick)


def _filled(arch: IRArchitecture, pick: Callable[[int, int], Gene]) -> IRArchitecture:
    """The same network with genes of its blocks by stage and number within the stage."""
    places = ((stage, i) for stage, count in enumerate(arch.stages) for i in range(count))
    operations, kernels = zip(*(pick(*place) for place in places), strict=True)
    return replace(arch, operations=operations, kernels=kernels)


CASIA_IDENTITIES = 10_572  # what the head of the literature's "R-18 29.4M" tells apart: CASIA-WebFace

NAMED = {
    "ir18": IRArchitecture.uniform(64, (2, 2, 2, 2)),
    "ir34": IRArchitecture.uniform(64, (3, 4, 6, 3)),
    "ir50": IRArchitecture.uniform(64, (3, 4, 14, 3)),
    "ir101": IRArchitecture.uniform(64, (3, 13, 30, 3)),
    "irse50": IRArchitecture.uniform(64, (3, 4, 14, 3), se=True),
    "r34_512": IRArchitecture.uniform(64, (2, 4, 8, 2)),
    "r58_256": IRArchitecture.uniform(32, (3, 7, 15, 3)),
}

# Sources: `mk-minchul/AdaFace:net.py`, counted; the tables of "Efficient Global Neural Architecture Search".
# Of r34_512 and r58_256 only depth, last width and the count are published: the stages are ours.
REPRODUCES = {
    "ir18": "AdaFace IR-18: 24,020,352; paper R-18-512: 29.4M with head",
    "ir34": "AdaFace IR-34: 34,134,080",
    "ir50": "AdaFace IR-50: 43,585,600; paper R-50-512: 49.0M with head",
    "ir101": "AdaFace IR-101: 65,150,912",
    "irse50": "AdaFace IR-SE-50: 43,808,320",
    "r34_512": "paper R-34-512: 37.1M with head",
    "r58_256": "paper R-58-256: 14.6M without head",
}
