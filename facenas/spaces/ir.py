"""The face space: improved residual networks ("IR") of any depth and width, choices in every block.

Source: `mk-minchul/AdaFace:net.py` for stem, block and output layer; "Efficient Global Neural Architecture
Search" for what is searched. How blocks are shared out over the stages is ours: the paper gives no rule.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from typing import Any

from facenas.errors import UserError
from facenas.spaces.base import put, whole
from facenas.spaces.ir_block import IMAGE_SIZE, REDUCTION, Block, check_image_size
from facenas.spaces.plain import KERNELS, OPERATIONS, PLAIN, SEPARABLE
from facenas.spaces.settings import IRSpaceConfig

LAST_SIZE = 7  # after the four strides of 2

Gene = tuple[int, int]  # operation and kernel of a block


@dataclass(frozen=True)
class IRArchitecture:
    """Blocks of the four stages (W, 2W, 4W, 8W wide), operation and kernel of each block, length of z.

    Both convolutions of a block have its operation and kernel. `se`: squeeze-and-excitation in every block.
    `project_first`: the first block's shortcut is projected though the width stays, as insightface has it.
    Raises UserError when the fields do not fit together.
    """

    width: int
    stages: tuple[int, ...]
    operations: tuple[int, ...]
    kernels: tuple[int, ...]
    embedding: int = 512
    se: bool = False
    project_first: bool = False

    kind = "ir"
    in_channels = 3

    def __post_init__(self) -> None:
        fits = (
            len(self.stages) == 4
            and min(self.stages) > 0
            and sum(self.stages) == len(self.operations) == len(self.kernels)
            and self.width > 0
            and self.embedding > 0
            and set(self.operations) <= set(OPERATIONS)
            and all(kernel > 0 and kernel % 2 for kernel in self.kernels)
        )
        if not fits:
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

    def count_parameters(self) -> int:
        """Exact number of parameters of the built module: the backbone, without a classification head."""
        return _count_parameters(self)

    def head_parameters(self, identities: int) -> int:
        """Parameters of a head that tells this many identities apart: one vector each."""
        return self.embedding * identities

    def count_macs(self, image_size: int = IMAGE_SIZE) -> int:
        """Multiply-accumulates of convolutions and the linear layer for one image, which must be 112x112."""
        check_image_size(image_size, image_size)
        stem = self.in_channels * self.width * 9 * IMAGE_SIZE**2
        return stem + sum(block.count_macs() for block in self.blocks()) + _linear(self)

    def words(self) -> str:
        """What it is in a few words."""
        return f"depth {self.depth}, width {self.width}"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; depth is told too, for people who read the file."""
        return {
            "kind": self.kind,
            "depth": self.depth,
            "width": self.width,
            "stages": list(self.stages),
            "ops": list(self.operations),
            "kernels": list(self.kernels),
            "embedding": self.embedding,
            "se": self.se,
            "project_first": self.project_first,
        }

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> IRArchitecture:
        """The inverse of `to_json`; raises UserError when a field is missing or wrong."""
        stages, ops, kernels = (whole(tree, n, several=True) for n in ("stages", "ops", "kernels"))
        width, embedding = (whole(tree, name)[0] for name in ("width", "embedding"))
        se, project_first = (_flag(tree, name) for name in ("se", "project_first"))
        made = cls(width, stages, ops, kernels, embedding, se, project_first)
        if tree.get("depth", made.depth) != made.depth:
            raise UserError(
                f"an architecture says depth {tree['depth']} but lists blocks for {made.depth} layers"
            )
        return made

    def with_width(self, width: int) -> IRArchitecture:
        """The same network with a first stage of `width` channels."""
        return replace(self, width=width)

    def with_operation(self, index: int, operation: int) -> IRArchitecture:
        """The same network with another operation in block `index`."""
        return replace(self, operations=put(self.operations, index, operation))

    def with_kernel(self, index: int, kernel: int) -> IRArchitecture:
        """The same network with another kernel in block `index`."""
        return replace(self, kernels=put(self.kernels, index, kernel))


@lru_cache(maxsize=65_536)  # micro search counts the same narrow variants over and over
def _count_parameters(arch: IRArchitecture) -> int:
    stem = arch.in_channels * arch.width * 9 + 3 * arch.width  # BatchNorm 2, PReLU 1 for a channel
    body = sum(block.count_parameters() for block in arch.blocks())
    return stem + body + 2 * 8 * arch.width + _linear(arch) + arch.embedding


def _linear(arch: IRArchitecture) -> int:
    """Weights of the last layer, without its bias."""
    return 8 * arch.width * LAST_SIZE**2 * arch.embedding


def _flag(tree: dict[str, Any], name: str) -> bool:
    value = tree.get(name, False)
    if not isinstance(value, bool):
        raise UserError(
            f"an architecture's field {name!r} is {value!r}, but should be true or false"
        )
    return value


def share_out(blocks: int, ratio: Sequence[int]) -> tuple[int, ...]:
    """Blocks of each stage, by D'Hondt's rule: one block more never takes one from another stage.

    One each, then every block to the stage with the largest ratio / (blocks + 1); ties go to the deeper.
    """
    stages = [1] * len(ratio)
    for _ in range(blocks - len(ratio)):
        stage = max(range(len(ratio)), key=lambda s: (ratio[s] / (stages[s] + 1), s))
        stages[stage] += 1
    return tuple(stages)


@dataclass(frozen=True)
class IRSpace:
    """All face networks within the bounds of `config`; depth and ratio decide how many blocks a stage has."""

    config: IRSpaceConfig

    # What micro search offers to each block in place of a plain 3x3.
    swap_operation = SEPARABLE
    swap_kernel = 5
    unit = "block"

    def at(self, depth: int, width: int) -> IRArchitecture:
        """All plain 3x3 at this depth, an even number of layers, and width: the networks of macro search."""
        if depth < 10 or depth % 2:
            raise UserError(f"a face network has an even number of layers, 10 or more, not {depth}")
        stages = share_out((depth - 2) // 2, self.config.ratio)
        return IRArchitecture.uniform(width, stages, self.config.embedding, self.config.se)

    def start(self) -> IRArchitecture:
        """Shallowest and widest: macro search grows its depth, then prunes its width."""
        return self.at(self.config.min_depth, self.config.max_width)

    def depths(self) -> range:
        """Depths from the shallowest up, one block apart."""
        return range(self.config.min_depth, self.config.max_depth + 1, 2)

    def widths(self) -> range:
        """Widths on the grid, from the widest down."""
        return range(self.config.max_width, self.config.min_width - 1, -self.config.width_step)

    def size(self, depth: int | None = None) -> int:
        """Number of networks; with `depth`, Eq. 1 of the paper: (O*K)^blocks * depths * widths."""
        depths = self.depths()
        counted = depths if depth is None else [depth] * len(depths)
        choices = len(OPERATIONS) * len(KERNELS)
        return sum(int(choices ** ((layers - 2) // 2)) for layers in counted) * len(self.widths())

    def contains(self, arch: IRArchitecture) -> bool:
        """Whether all lies within the bounds (any width, as for plain networks) and stages follow the rule."""
        if arch.depth not in self.depths() or arch.width > self.config.max_width:
            return False
        macro = self.at(arch.depth, arch.width)
        same = replace(macro, operations=arch.operations, kernels=arch.kernels)
        return set(arch.kernels) <= set(KERNELS) and same == arch

    def sample(self, rng: random.Random) -> IRArchitecture:
        """Depth, width, operations and kernels each drawn uniformly."""
        arch = self.at(rng.choice(self.depths()), rng.choice(self.widths()))
        return _filled(arch, lambda stage, i: (rng.choice(OPERATIONS), rng.choice(KERNELS)))

    def neighbours(self, arch: IRArchitecture) -> list[IRArchitecture]:
        """One block more or less at the end of a stage, one width step, one operation or one kernel changed."""
        bounds = range(self.config.min_width, self.config.max_width + 1)
        widths = (arch.width - self.config.width_step, arch.width + self.config.width_step)
        found = [arch.with_width(width) for width in widths if width in bounds]
        depths = (arch.depth - 2, arch.depth + 2)
        found += [self._resized(arch, depth) for depth in depths if depth in self.depths()]
        for i in range(len(arch.operations)):
            found += [arch.with_operation(i, o) for o in OPERATIONS if o != arch.operations[i]]
            found += [arch.with_kernel(i, k) for k in KERNELS if k != arch.kernels[i]]
        return found

    def mutate(self, arch: IRArchitecture, rng: random.Random) -> IRArchitecture:
        """One random neighbour."""
        return rng.choice(self.neighbours(arch))

    def crossover(
        self, first: IRArchitecture, second: IRArchitecture, rng: random.Random
    ) -> IRArchitecture:
        """Depth and width from either parent; each block from a parent whose stage has one there."""
        depth = rng.choice((first.depth, second.depth))
        width = rng.choice((first.width, second.width))
        parents = _by_stage(first), _by_stage(second)

        def pick(stage: int, i: int) -> Gene:
            return rng.choice([genes[stage][i] for genes in parents if i < len(genes[stage])])

        return _filled(self.at(depth, width), pick)

    def _resized(self, arch: IRArchitecture, depth: int) -> IRArchitecture:
        """The same genes at another depth; a block that is new is plain 3x3."""
        genes = _by_stage(arch)

        def pick(stage: int, i: int) -> Gene:
            return genes[stage][i] if i < len(genes[stage]) else (PLAIN, 3)

        return _filled(self.at(depth, arch.width), pick)


def _by_stage(arch: IRArchitecture) -> list[list[Gene]]:
    genes = zip(arch.operations, arch.kernels, strict=True)
    return [list(islice(genes, count)) for count in arch.stages]


def _filled(arch: IRArchitecture, pick: Callable[[int, int], Gene]) -> IRArchitecture:
    """The same network with genes of its blocks by stage and number within the stage."""
    places = ((stage, i) for stage, count in enumerate(arch.stages) for i in range(count))
    operations, kernels = zip(*(pick(*place) for place in places), strict=True)
    return replace(arch, operations=operations, kernels=kernels)
