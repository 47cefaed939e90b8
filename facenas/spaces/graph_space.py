"""The space of three-level networks: what evolution and random search draw from, and the moves within it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from facenas.errors import UserError
from facenas.spaces.base import put
from facenas.spaces.graph import TASKS, GraphArchitecture
from facenas.spaces.graph_blocks import POOLS, SKIP
from facenas.spaces.graph_genes import GraphCoding
from facenas.spaces.graph_settings import GraphSpaceConfig
from facenas.spaces.ir_block import check_image_size

Row = tuple[int, ...]

LARGE = 64  # images of so many pixels a side lose half of them in the first stage already
LEAST_SIDE = 2  # BatchNorm cannot learn from one image of one pixel


@dataclass(frozen=True)
class GraphSpace:
    """All three-level networks within the bounds of `config`, for one kind of input and output.

    image_size: side of the images in pixels. For the task "face" images have 3 channels and 112 pixels, and
    z has `config.embedding` numbers; `num_classes` says nothing. Raises UserError when the images are too small
    for as many stages.
    """

    config: GraphSpaceConfig
    in_channels: int
    num_classes: int
    image_size: int
    task: str = TASKS[0]

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise UserError(f"task {self.task!r} is unknown; there are {', '.join(TASKS)}")
        if self.task == "face":
            check_image_size(self.image_size, self.image_size)
        shrink = self._coding.first_stride * 2 ** (len(self.config.widths) - 1)
        if -(-self.image_size // shrink) < LEAST_SIDE:
            raise UserError(
                f"space.widths has {len(self.config.widths)} stages, too many for images of "
                f"{self.image_size} pixels: the last would have less than {LEAST_SIDE} pixels a side"
            )

    def start(self) -> GraphArchitecture:
        """The smallest network: every gene at its lowest value."""
        return self.decode(self.bounds()[0])

    def bounds(self) -> tuple[Row, Row]:
        """Lowest and highest value of every gene."""
        sizes = self._coding.sizes
        return (0,) * len(sizes), tuple(size - 1 for size in sizes)

    def decode(self, row: Sequence[int]) -> GraphArchitecture:
        """The network of a row; raises UserError for one of another length or beyond the bounds."""
        return self._coding.decode(row)

    def encode(self, arch: GraphArchitecture) -> Row:
        """A row that decodes to `arch`, ignored genes at 0; raises UserError when there is none."""
        return tuple(gene or 0 for gene in self._coding.genes(arch))

    def contains(self, arch: GraphArchitecture) -> bool:
        """Whether some row means this network."""
        try:
            self.encode(arch)
        except UserError:
            return False
        return True

    def uniform(self, operation: str, largest: bool = True) -> GraphArchitecture:
        """All blocks alike, at the largest multipliers and the most blocks, or at the least of both."""
        macro = self.bounds()[1 if largest else 0]
        gene = self._coding.operations.index(operation)
        return self.decode(
            [gene if n in self._coding.levels[2] else m for n, m in enumerate(macro)]
        )

    def largest(self) -> GraphArchitecture:
        """The uniform network of the most multiply-accumulates."""
        found = [self.uniform(operation) for operation in self._coding.operations]
        return max(found, key=lambda arch: arch.count_macs(self.image_size))

    def smallest(self) -> GraphArchitecture:
        """The uniform network of the fewest multiply-accumulates whose blocks have weights, if there is one."""
        names = self._coding.operations
        learning = [name for name in names if name != SKIP and name not in POOLS]
        found = [self.uniform(operation, largest=False) for operation in learning or names]
        return min(found, key=lambda arch: arch.count_macs(self.image_size))

    def sample(self, rng: random.Random) -> GraphArchitecture:
        """Every gene drawn uniformly."""
        return self.decode([rng.randrange(size) for size in self._coding.sizes])

    def neighbours(self, arch: GraphArchitecture) -> list[GraphArchitecture]:
        """All networks with one gene changed; blocks that appear do what is first among the operations."""
        row = self.encode(arch)
        changes = [change for level in self._coding.levels for change in self._changes(arch, level)]
        changed = {self.decode(put(row, *change)): None for change in changes}
        return [other for other in changed if other != arch]

    def mutate(self, arch: GraphArchitecture, rng: random.Random) -> GraphArchitecture:
        """One gene changed, of a level that is drawn first: macro, meso and micro change equally often.

        Operations of blocks that appear are drawn. `arch` itself if nothing can be changed.
        """
        genes = list(zip(self._coding.genes(arch), self._coding.sizes, strict=True))
        for level in rng.sample(self._coding.levels, 3):
            changes = self._changes(arch, level)
            for change in rng.sample(changes, len(changes)):
                row = tuple(rng.randrange(size) if gene is None else gene for gene, size in genes)
                changed = self.decode(put(row, *change))
                if changed != arch:
                    return changed
        return arch

    def crossover(
        self, first: GraphArchitecture, second: GraphArchitecture, rng: random.Random
    ) -> GraphArchitecture:
        """Each multiplier and each stage's number of blocks from either parent, and each stage's operations.

        Blocks that the one parent's stage lacks are the other's; those that both lack are drawn.
        """
        coding = self._coding
        parents = [coding.genes(first), coding.genes(second)]
        macro_and_meso = range(coding.levels[2].start)
        child = [rng.choice(parents)[gene] for gene in macro_and_meso]
        for stage in range(len(first.stages)):
            ours, theirs = (genes[coding.places(stage)] for genes in rng.sample(parents, 2))
            child += [
                their if our is None else our for our, their in zip(ours, theirs, strict=True)
            ]
        sizes = coding.sizes
        return self.decode(
            [rng.randrange(size) if g is None else g for g, size in zip(child, sizes, strict=True)]
        )

    def _changes(self, arch: GraphArchitecture, level: range) -> list[tuple[int, int]]:
        """Every gene of a level that is not ignored, with every value that it does not have."""
        genes = self._coding.genes(arch)
        return [
            (number, value)
            for number in level
            for value in range(self._coding.sizes[number])
            if genes[number] not in (None, value)
        ]

    @cached_property
    def _coding(self) -> GraphCoding:
        first_stride = 2 if self.image_size >= LARGE else 1
        outputs = self.config.embedding if self.task == "face" else self.num_classes
        return GraphCoding(self.config, self.task, first_stride, self.in_channels, outputs)
