"""Three-level networks as rows of whole numbers: what evolution works on.

A row has the same length for every network: the two multipliers (macro), the blocks of each stage (meso), and
an operation for as many blocks as every stage may have at most (micro). Each gene is the number of a choice,
from 0, small networks first. A network with fewer blocks ignores the operations of the rest; several rows may
mean one network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import get_args

from facenas.errors import UserError
from facenas.spaces.graph import GraphArchitecture, Stage
from facenas.spaces.graph_blocks import AVERAGE, SKIP
from facenas.spaces.graph_settings import GraphOperation, GraphSpaceConfig

Genes = list[int | None]  # None where a gene is ignored

DEPTH, WIDTH = 0, 1  # the two macro genes


@dataclass(frozen=True)
class GraphCoding:
    """Translates rows into networks and back.

    Every row within the bounds is a network: where a block with a stride would skip, which its shapes forbid,
    it becomes average pooling.
    """

    config: GraphSpaceConfig
    task: str
    first_stride: int
    in_channels: int
    outputs: int

    @cached_property
    def levels(self) -> tuple[range, range, range]:
        """Numbers of the genes of each level: macro, meso, micro."""
        macro, stages = 2, len(self.config.widths)
        micro = macro + stages
        end = micro + stages * self.most_blocks
        return range(macro), range(macro, micro), range(micro, end)

    @cached_property
    def most_blocks(self) -> int:
        """Blocks of a stage at most."""
        return _multiplied(self.depths[-1], self.config.max_blocks)

    @cached_property
    def depths(self) -> list[float]:
        """Multipliers of the number of blocks."""
        return sorted(self.config.depth_multipliers)

    @cached_property
    def widths(self) -> list[tuple[int, ...]]:
        """Channels of the stages under each multiplier."""
        multipliers = sorted(self.config.width_multipliers)
        return [tuple(max(1, round(m * w)) for w in self.config.widths) for m in multipliers]

    @cached_property
    def operations(self) -> list[str]:
        """What a block may do."""
        return [name for name in get_args(GraphOperation) if name in self.config.operations]

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """How many choices every gene has."""
        macro = (len(self.depths), len(self.widths))
        meso = (self.config.max_blocks - self.config.min_blocks + 1,) * len(self.levels[1])
        return (*macro, *meso, *(len(self.operations),) * len(self.levels[2]))

    def places(self, stage: int) -> slice:
        """Where the operations of a stage (from 0) lie in a row."""
        first = self.levels[2].start + stage * self.most_blocks
        return slice(first, first + self.most_blocks)

    def blocks(self, row: Sequence[int]) -> list[int]:
        """Blocks of each stage that a row asks for, skips among them."""
        depth, meso = self.depths[row[DEPTH]], self.levels[1]
        return [_multiplied(depth, self.config.min_blocks + row[gene]) for gene in meso]

    def decode(self, row: Sequence[int]) -> GraphArchitecture:
        """The network of a row; raises UserError for one of another length or beyond the bounds."""
        if len(row) != len(self.sizes):
            raise UserError(f"a row has {len(self.sizes)} genes, not {len(row)}")
        for number, (gene, size) in enumerate(zip(row, self.sizes, strict=True)):
            if not 0 <= gene < size:
                raise UserError(f"gene {number} is {gene}, but should lie within 0 and {size - 1}")
        stages = []
        for stage, blocks in enumerate(self.blocks(row)):
            genes = row[self.places(stage)][:blocks]
            stages.append(tuple(self.operations[gene] for gene in genes))
        return self.network(self.widths[row[WIDTH]], stages)

    def network(self, widths: tuple[int, ...], stages: Sequence[Stage]) -> GraphArchitecture:
        """The network with these stages, repaired."""
        repaired = tuple(
            (AVERAGE, *stage[1:]) if self._stride(number) == 2 and stage[0] == SKIP else stage
            for number, stage in enumerate(stages)
        )
        return GraphArchitecture(
            self.task,
            widths,
            repaired,
            self.first_stride,
            self.config.expansion,
            self.in_channels,
            self.outputs,
        )

    def genes(self, arch: GraphArchitecture) -> Genes:
        """The row of a network with as few skips as can be; raises UserError for one that no row means."""
        if arch.widths not in self.widths or len(arch.stages) != len(self.config.widths):
            raise UserError("the network has widths that the space does not offer")
        lengths = [len(stage) for stage in arch.stages]
        depth, meso = self._multiplier(lengths)
        found: Genes = [depth, self.widths.index(arch.widths), *meso]
        blocks = self.blocks([gene or 0 for gene in found])
        for number, (stage, count) in enumerate(zip(arch.stages, blocks, strict=True)):
            filled = stage + (SKIP,) * (count - len(stage))
            found += [self._gene(name, number, block) for block, name in enumerate(filled)]
            found += [None] * (self.most_blocks - count)
        if self.decode([gene or 0 for gene in found]) != arch:
            raise UserError("the network lies outside of the bounds of the space")
        return found

    def _multiplier(self, lengths: Sequence[int]) -> tuple[int, list[int]]:
        """Depth gene and meso genes that give these numbers of blocks, or as few more as can be."""
        allowed = range(self.config.min_blocks, self.config.max_blocks + 1)
        found = []
        for number, depth in enumerate(self.depths):
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
        if operation not in self.operations and operation == AVERAGE and block == 0:
            operation = SKIP
        if operation not in self.operations:
            raise UserError(f"stage {stage + 1} has a {operation}, which the space does not offer")
        return self.operations.index(operation)

    def _stride(self, stage: int) -> int:
        return self.first_stride if stage == 0 else 2


def _multiplied(multiplier: float, blocks: int) -> int:
    """Rounded up; what floating point adds does not make a block."""
    return math.ceil(multiplier * blocks - 1e-9)
