"""The three-level space: stages of blocks, each block with an operation of its own; the whole is a graph.

Source: "Neural Architecture Search for Efficient Convolutional Networks: A Multi-Objective Optimization
Approach" for the levels and the operations. What it leaves open is settled so:

* The stem is a 3x3 convolution as wide as the first stage. The first block of every stage has a stride of 2;
  that of the first stage may do without (`first_stride` 1), for images as small as those of CIFAR. Of images
  that two strides leave more than 63 pixels of, the stem takes more (`stem_stride`): its convolution has a
  stride of at most 2, and max pooling does the rest.
* A block that skips is no block: where the shapes agree it is left out, so that equal networks have equal
  descriptions, and where they do not agree (the first block of a stage with a stride) it is refused.
* Classification ends with the mean of all pixels and a linear layer. Faces end as in MobileFaceNets
  (arXiv 1804.07573): a 1x1 convolution to as many channels as z is long, one depthwise convolution over the
  whole map, a linear layer, and BatchNorm without parameters. The linear layer over all pixels that IR
  networks have would outweigh everything before it in networks as small as these.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Literal, Self, get_args

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from facenas.config import Config
from facenas.errors import UserError
from facenas.spaces.base import (
    ADDED,
    CLASSIFICATION,
    FACE,
    FACE_SIZE,
    LARGE,
    LEAST_SIDE,
    SPACES,
    STEM_STRIDES,
    Architecture,
    GeneSpace,
    ImageFacts,
    check_choices,
    check_face_size,
    check_left,
)
from facenas.spaces.graph_ops import (
    AVERAGE,
    OPERATIONS,
    POOLS,
    SKIP,
    Convolution,
    Dag,
    Embedding,
    GlobalConvolution,
    Halving,
    Linear,
    Mean,
    Node,
    Place,
    Sketch,
    add_block,
)

# What a block may do, from small to large; the number is the side of its kernel in pixels.
Operation = Literal[
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

Stage = tuple[str, ...]  # the operation of each block


@dataclass(frozen=True)
class GraphArchitecture(Architecture):
    """Channels and blocks of each stage, and what goes in and out.

    outputs: classes, or the length of z for faces; expansion: how many times wider a bottleneck is inside.
    Raises UserError when the fields do not fit together.
    """

    task: str = field()  # without a default, whatever the base class has
    widths: tuple[int, ...]
    stages: tuple[Stage, ...]
    first_stride: int
    expansion: int
    in_channels: int
    outputs: int
    stem_stride: int = field(default=1, metadata=ADDED)

    def __post_init__(self) -> None:
        fits = (
            self.task in (CLASSIFICATION, FACE)
            and self.stem_stride in STEM_STRIDES
            and (self.task != FACE or (self.in_channels, self.stem_stride) == (3, 1))
            and len(self.widths) == len(self.stages) > 0
            and self.first_stride in (1, 2)
            and min(*self.widths, self.expansion, self.in_channels, self.outputs) > 0
            and {name for stage in self.stages for name in stage} <= {*OPERATIONS, SKIP}
        )
        if not fits:
            raise UserError(f"not a graph architecture: {self}")
        stages = tuple(self._without_skips(number) for number in range(len(self.stages)))
        object.__setattr__(self, "stages", stages)

    @property
    def embedding(self) -> int:
        """How long z is; of face networks alone."""
        return self.outputs

    @property
    def num_classes(self) -> int:
        """How many logits there are; none for faces."""
        return 0 if self.task == FACE else self.outputs

    @property
    def shrink(self) -> int:
        """By how much the side of an image is divided in all."""
        return self.stem_stride * math.prod(self.strides())

    def strides(self) -> Iterator[int]:
        """Of the first block of each stage."""
        yield self.first_stride
        yield from (2 for _ in self.stages[1:])

    def graph(self) -> Dag:
        """The feature maps and what joins them."""
        return _graph(self)

    def count_parameters(self) -> int:
        """Exact number of parameters of the built module; of face networks without a classification head."""
        return _count_parameters(self)

    def count_macs(self, image_size: int) -> int:
        """Multiply-accumulates of convolutions and linear layers for one image (faces: 112x112)."""
        return self._sized(image_size).count_macs(image_size)

    def count_memory(self, image_size: int) -> int:
        """Bytes of weights and peak activations for one image in inference: `Dag.count_memory`."""
        return self._sized(image_size).count_memory(image_size)

    def adapted(self, images: ImageFacts) -> Self:
        """The same blocks for other images: their channels, their classes, strides for their size.

        A stride that the first stage lacks stays with the stem, so that the blocks keep their weights. Raises
        UserError when the images are too small for so many stages; faces have one size alone.
        """
        if FACE in (self.task, images.task):
            return super().adapted(images)
        first = min(self.first_stride, _first_stride(images))
        stem = _stem_stride(images, first)
        ends = replace(self, in_channels=images.in_channels, outputs=images.num_classes)
        found = replace(ends, first_stride=first, stem_stride=stem)
        check_left(images.image_size, found.shrink)
        return found

    def summary(self) -> str:
        """What it is in a few words."""
        blocks = "+".join(str(len(stage)) for stage in self.stages)
        return f"{blocks} blocks, {'-'.join(map(str, self.widths))} wide"

    def _without_skips(self, number: int) -> Stage:
        """The stage without the blocks that do nothing; raises UserError where nothing is not possible."""
        stage = self.stages[number]
        if list(self.strides())[number] == 2 and stage[:1] in ((), (SKIP,)):
            raise UserError(f"stage {number + 1} has a stride, so that it cannot begin with a skip")
        return tuple(name for name in stage if name != SKIP)

    def _sized(self, image_size: int) -> Dag:
        if self.task == FACE:
            check_face_size(image_size, image_size)
        return self.graph()


@lru_cache(maxsize=65_536)
def _count_parameters(arch: GraphArchitecture) -> int:
    return arch.graph().count_parameters()


@lru_cache(maxsize=1024)  # counters and builder ask for the same one several times
def _graph(arch: GraphArchitecture) -> Dag:
    image = Node("image", arch.in_channels, 1)
    sketch = Sketch(image)
    stem = Convolution(3, min(2, arch.stem_stride), active=True)
    x = sketch.add("stem", image, stem, arch.widths[0])
    for number in range(1, arch.stem_stride.bit_length() - 1):
        x = sketch.add(f"stem_pool{number}", x, Halving(), x.channels)
    stages = zip(arch.widths, arch.stages, arch.strides(), strict=True)
    for number, (channels, stage, stride) in enumerate(stages, start=1):
        for block, operation in enumerate(stage, start=1):
            name = f"stage{number}_block{block}"
            place = Place(name, x, channels, stride if block == 1 else 1, arch.expansion)
            x = add_block(sketch, operation, place)
    if arch.task == FACE:
        _add_face_head(sketch, x, arch.outputs)
    else:
        vector = sketch.add("mean", x, Mean(), x.channels)
        sketch.add("classifier", vector, Linear(), arch.outputs)
    return sketch.graph()


def _add_face_head(sketch: Sketch, x: Node, embedding: int) -> None:
    x = sketch.add("head", x, Convolution(1, active=True), embedding)
    over_all = GlobalConvolution(x.side(FACE_SIZE))
    vector = sketch.add("pool", x, over_all, embedding)
    sketch.add("embedding", vector, Embedding(), embedding)


def _first_stride(images: ImageFacts) -> int:
    return 2 if images.image_size >= LARGE else 1


def _stem_stride(images: ImageFacts, first_stride: int) -> int:
    """What the first stage does not take of the stride by the size of the images."""
    return max(1, images.stem_stride // first_stride)


Row = Sequence[int]
DEPTH, WIDTH = 0, 1  # the two macro genes


@SPACES.register("graph")
class Graph(GeneSpace[GraphArchitecture]):
    """All three-level networks within the bounds, for one kind of images; faces have 3 channels and 112 pixels.

    A row has the two multipliers (macro), the blocks of each stage (meso), and an operation for as many blocks
    as every stage may have at most (micro); a network with fewer ignores the rest. Where a block with a stride
    would skip, which its shapes forbid, it becomes average pooling. `bind` raises UserError when the images are
    too small for as many stages.
    """

    class Settings(Config):
        """Bounds of the three-level space (`facenas.spaces.graph`). Defaults: for images of 28 to 32 pixels.

        Macro: `width_multipliers` scale all of `widths` (channels of each stage), `depth_multipliers` the
        blocks of all stages. Meso: every stage has `min_blocks` to `max_blocks`, before that multiplication,
        which rounds up. Micro: every block does one of `operations`. expansion: how many times wider a
        bottleneck is inside. embedding: how long z is, for faces alone.
        """

        operations: tuple[Operation, ...] = (
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
            check_choices(self, ("operations", "width_multipliers", "depth_multipliers"))
            return self

    Architecture = GraphArchitecture
    tasks = (CLASSIFICATION, FACE)
    settings: Settings

    def bind(self, images: ImageFacts) -> Self:
        """This space for such images; raises UserError when they are too small for as many stages."""
        bound = super().bind(images)
        if images.task == FACE:
            check_face_size(images.image_size, images.image_size)
        stages, first = len(self.settings.widths), _first_stride(images)
        shrink = _stem_stride(images, first) * first * 2 ** (stages - 1)
        if -(-images.image_size // shrink) < LEAST_SIDE:
            raise UserError(
                f"space.widths has {stages} stages, too many for images of "
                f"{images.image_size} pixels: the last would have less than {LEAST_SIDE} pixels a side"
            )
        return bound

    def uniform(self, operation: str, largest: bool = True) -> GraphArchitecture:
        """All blocks alike, at the largest multipliers and the most blocks, or at the least of both."""
        macro = self.bounds()[1 if largest else 0]
        gene = self._operations.index(operation)
        return self.decode([gene if n in self._gene_levels[2] else m for n, m in enumerate(macro)])

    def largest(self) -> GraphArchitecture:
        """The uniform network of the most multiply-accumulates."""
        found = [self.uniform(operation) for operation in self._operations]
        return max(found, key=lambda arch: arch.count_macs(self.images.image_size))

    def smallest(self) -> GraphArchitecture:
        """The uniform network of the fewest multiply-accumulates whose blocks have weights, if there is one."""
        learning = [name for name in self._operations if name != SKIP and name not in POOLS]
        found = [self.uniform(name, largest=False) for name in learning or self._operations]
        return min(found, key=lambda arch: arch.count_macs(self.images.image_size))

    def sample(self, rng: random.Random) -> GraphArchitecture:
        """Every gene drawn uniformly."""
        return self.decode([rng.randrange(size) for size in self.sizes])

    def crossover(
        self, first: GraphArchitecture, second: GraphArchitecture, rng: random.Random
    ) -> GraphArchitecture:
        """Each multiplier and each stage's number of blocks from either parent, and each stage's operations.

        Blocks that the one parent's stage lacks are the other's; those that both lack are drawn.
        """
        parents = [self.genes(first), self.genes(second)]
        child = [rng.choice(parents)[gene] for gene in range(self._gene_levels[2].start)]
        for stage in range(len(first.stages)):
            ours, theirs = (genes[self._places(stage)] for genes in rng.sample(parents, 2))
            child += [their if our is None else our for our, their in zip(ours, theirs, strict=True)]
        genes = zip(child, self.sizes, strict=True)
        return self.decode([rng.randrange(size) if g is None else g for g, size in genes])

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """How many choices every gene has."""
        macro = (len(self._depths), len(self._widths))
        _, meso, micro = self._gene_levels
        blocks = self.settings.max_blocks - self.settings.min_blocks + 1
        return (*macro, *(blocks,) * len(meso), *(len(self._operations),) * len(micro))

    def _levels(self, rng: random.Random) -> Sequence[range]:
        """Drawn first, so that macro, meso and micro change equally often."""
        return rng.sample(self._gene_levels, 3)

    def _decode(self, row: Row) -> GraphArchitecture:
        stages = []
        for stage, blocks in enumerate(self._blocks(row)):
            names = [self._operations[gene] for gene in row[self._places(stage)][:blocks]]
            if names[0] == SKIP and (stage > 0 or _first_stride(self.images) == 2):
                names[0] = AVERAGE
            stages.append(tuple(names))
        images, s = self.images, self.settings
        first = _first_stride(images)
        return GraphArchitecture(
            images.task,
            self._widths[row[WIDTH]],
            tuple(stages),
            first,
            s.expansion,
            images.in_channels,
            s.embedding if images.task == FACE else images.num_classes,
            _stem_stride(images, first),
        )

    def _genes(self, arch: GraphArchitecture) -> list[int | None]:
        """The row of a network with as few skips as can be."""
        if arch.widths not in self._widths or len(arch.stages) != len(self.settings.widths):
            raise UserError("the network has widths that the space does not offer")
        depth, meso = self._multiplier([len(stage) for stage in arch.stages])
        found: list[int | None] = [depth, self._widths.index(arch.widths), *meso]
        blocks = self._blocks([gene or 0 for gene in found])
        for number, (stage, count) in enumerate(zip(arch.stages, blocks, strict=True)):
            filled = stage + (SKIP,) * (count - len(stage))
            found += [self._gene(name, number, block) for block, name in enumerate(filled)]
            found += [None] * (self._most_blocks - count)
        return found

    def _multiplier(self, lengths: Sequence[int]) -> tuple[int, list[int]]:
        """Depth gene and meso genes that give these numbers of blocks, or as few more as can be."""
        allowed = range(self.settings.min_blocks, self.settings.max_blocks + 1)
        found = []
        for number, depth in enumerate(self._depths):
            counts = [_multiplied(depth, blocks) for blocks in allowed]
            if max(lengths) <= counts[-1]:
                meso = [next(i for i, c in enumerate(counts) if c >= n) for n in lengths]
                found.append((sum(counts[i] for i in meso), number, meso))
        if not found:
            raise UserError("the network has more blocks in a stage than the space allows")
        _, number, meso = min(found)
        return number, meso

    def _gene(self, operation: str, stage: int, block: int) -> int:
        """Average pooling that a space does not offer is a skip that was repaired."""
        if operation not in self._operations and operation == AVERAGE and block == 0:
            operation = SKIP
        if operation not in self._operations:
            raise UserError(f"stage {stage + 1} has a {operation}, which the space does not offer")
        return self._operations.index(operation)

    def _blocks(self, row: Row) -> list[int]:
        """Blocks of each stage that a row asks for, skips among them."""
        depth, meso = self._depths[row[DEPTH]], self._gene_levels[1]
        return [_multiplied(depth, self.settings.min_blocks + row[gene]) for gene in meso]

    def _places(self, stage: int) -> slice:
        """Where the operations of a stage (from 0) lie in a row."""
        first = self._gene_levels[2].start + stage * self._most_blocks
        return slice(first, first + self._most_blocks)

    @cached_property
    def _gene_levels(self) -> tuple[range, range, range]:
        """Numbers of the genes of each level: macro, meso, micro."""
        macro, stages = 2, len(self.settings.widths)
        micro = macro + stages
        return range(macro), range(macro, micro), range(micro, micro + stages * self._most_blocks)

    @cached_property
    def _most_blocks(self) -> int:
        """Blocks of a stage at most."""
        return _multiplied(self._depths[-1], self.settings.max_blocks)

    @cached_property
    def _depths(self) -> list[float]:
        """Multipliers of the number of blocks."""
        return sorted(self.settings.depth_multipliers)

    @cached_property
    def _widths(self) -> list[tuple[int, ...]]:
        """Channels of the stages under each multiplier."""
        multipliers = sorted(self.settings.width_multipliers)
        return [tuple(max(1, round(m * w)) for w in self.settings.widths) for m in multipliers]

    @cached_property
    def _operations(self) -> list[str]:
        """What a block may do."""
        return [name for name in get_args(Operation) if name in self.settings.operations]


def _multiplied(multiplier: float, blocks: int) -> int:
    """Rounded up; what floating point adds does not make a block."""
    return math.ceil(multiplier * blocks - 1e-9)
