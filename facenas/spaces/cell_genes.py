"""Cell networks as rows of whole numbers: what evolution works on.

A row has the same length for every network: genes for as many cells, pipelines and blocks as there may be
at most. Each gene is the number of a choice, from 0; choices are ordered so that low numbers make small
networks. A network with fewer parts ignores the genes of the rest: several rows may mean one network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

from facenas.errors import UserError
from facenas.spaces.cell_block import IDENTITY, Block
from facenas.spaces.cell_settings import Activation, CellSpaceConfig, Operation
from facenas.spaces.cells import MERGES, ROLES, Cell, CellArchitecture, Pipeline

Pick = Callable[[Sequence[Any]], Any]  # makes one choice of several
Genes = list[int | None]  # None where a gene is ignored

# "conv3" is a convolution with kernel 3. From small to large.
_OPERATIONS = {
    name: (IDENTITY, 1) if name == IDENTITY else (name[:-1], int(name[-1]))
    for name in get_args(Operation)
}


@dataclass(frozen=True)
class CellCoding:
    """Translates rows into networks and back; `max_shrink` is how much smaller than the image a cell may be.

    Every row within the bounds is a network: where a cell would rise above the resolution of the image, or
    fall below the smallest allowed, it keeps the resolution that it is given.
    """

    config: CellSpaceConfig
    in_channels: int
    num_classes: int
    max_shrink: int

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """How many choices every gene has."""
        found = []

        def smallest(choices: Sequence[Any]) -> Any:
            found.append(len(choices))
            return choices[0]

        self._build(smallest)
        return tuple(found)

    def decode(self, row: Sequence[int]) -> CellArchitecture:
        """The network of a row; raises UserError for one of another length or beyond the bounds."""
        if len(row) != len(self.sizes):
            raise UserError(f"a row has {len(self.sizes)} genes, not {len(row)}")
        for number, (gene, size) in enumerate(zip(row, self.sizes, strict=True)):
            if not 0 <= gene < size:
                raise UserError(f"gene {number} is {gene}, but should lie within 0 and {size - 1}")
        genes = iter(row)
        return self._build(lambda choices: choices[next(genes)])

    def genes(self, arch: CellArchitecture) -> Genes:
        """The row of a network; raises UserError for one that no row means."""
        try:
            found: Genes = [self._counts("cells").index(len(arch.cells))]
            found.append(self._widths.index(arch.stem))
            for cell in arch.cells:
                found += self._cell_genes(cell)
        except ValueError:
            raise UserError("the network has a part that the space does not offer") from None
        found = _filled(found, len(self.sizes))
        if self.decode([gene or 0 for gene in found]) != arch:
            raise UserError("the network lies outside of the bounds of the space")
        return found

    def _build(self, pick: Pick) -> CellArchitecture:
        """The network whose choices `pick` makes, in the order of the genes; those of unused parts too."""
        count, width = pick(self._counts("cells")), pick(self._widths)
        drafts = [self._draft(pick) for _ in range(self.config.max_cells)]
        cells, shrink = [], 1
        for role, merge, pipelines in drafts[:count]:
            if (role, shrink) in (("up", 1), ("down", self.max_shrink)):
                role = "same"
            shrink = {"same": shrink, "down": shrink * 2, "up": shrink // 2}[role]
            channels = round(width * self.config.growth ** (shrink.bit_length() - 1))
            cells.append(Cell(role, merge, channels, pipelines))
        return CellArchitecture(width, tuple(cells), self.in_channels, self.num_classes)

    def _draft(self, pick: Pick) -> tuple[str, str, tuple[Pipeline, ...]]:
        """Role, merge and pipelines of one cell."""
        role, merge, count = pick(ROLES), pick(self._merges), pick(self._counts("pipelines"))
        pipelines = tuple(self._pipeline(pick) for _ in range(self.config.max_pipelines))
        return role, merge, pipelines[:count]

    def _pipeline(self, pick: Pick) -> Pipeline:
        count = pick(self._counts("blocks"))
        found = []
        for _ in range(self.config.max_blocks):
            (operation, kernel), *options = (pick(choices) for choices in self._options)
            found.append(Block(operation, kernel, *options))
        return tuple(found[:count])

    def _cell_genes(self, cell: Cell) -> Genes:
        """The genes of a cell; with one pipeline the merge is ignored."""
        alone = len(cell.pipelines) == 1
        found: Genes = [ROLES.index(cell.role), None if alone else self._merges.index(cell.merge)]
        found.append(self._counts("pipelines").index(len(cell.pipelines)))
        blocks = len(self._options) * self.config.max_blocks
        for pipeline in cell.pipelines:
            genes = [gene for block in pipeline for gene in self._block_genes(block)]
            found.append(self._counts("blocks").index(len(pipeline)))
            found += _filled(genes, blocks)
        return _filled(found, 3 + (1 + blocks) * self.config.max_pipelines)

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
        return range(getattr(self.config, f"min_{part}"), getattr(self.config, f"max_{part}") + 1)

    @cached_property
    def _widths(self) -> list[int]:
        return sorted(self.config.base_widths)

    @cached_property
    def _merges(self) -> list[str]:
        return [merge for merge in MERGES if merge in self.config.merges]

    @cached_property
    def _options(self) -> tuple[Sequence[Any], ...]:
        """Choices of a block's operation and kernel, BatchNorm, activation, skip."""
        config = self.config
        operations = [_OPERATIONS[name] for name in _OPERATIONS if name in config.operations]
        activations = [name for name in get_args(Activation) if name in config.activations]
        return operations, sorted(config.batch_norm), activations, sorted(config.skip)


def _filled(genes: Genes, length: int) -> Genes:
    """`genes`, and ignored ones up to a length."""
    return genes + [None] * (length - len(genes))
