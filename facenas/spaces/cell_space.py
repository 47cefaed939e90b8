"""The space of cell networks: what evolution and random search draw from, and the moves within it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from facenas.errors import UserError
from facenas.spaces.base import put
from facenas.spaces.cell_block import side
from facenas.spaces.cell_genes import CellCoding
from facenas.spaces.cell_settings import CellSpaceConfig
from facenas.spaces.cells import CellArchitecture

Row = tuple[int, ...]


@dataclass(frozen=True)
class CellSpace:
    """All cell networks within the bounds of `config`, for one kind of input and output.

    image_size: side of the images in pixels, which says how often the resolution may be halved. All networks
    that this space draws or changes have at most `config.max_parameters`; a row that evolution makes up may
    have more (`contains` tells). Raises UserError when even the smallest network has.
    """

    config: CellSpaceConfig
    in_channels: int
    num_classes: int
    image_size: int

    def __post_init__(self) -> None:
        least, most = self.start().count_parameters(), self.config.max_parameters
        if least > most:
            raise UserError(f"space.max_parameters is {most}, but the smallest network has {least}")

    def start(self) -> CellArchitecture:
        """The smallest network: every gene at its lowest value."""
        return self.decode(self.bounds()[0])

    def bounds(self) -> tuple[Row, Row]:
        """Lowest and highest value of every gene."""
        sizes = self._coding.sizes
        return (0,) * len(sizes), tuple(size - 1 for size in sizes)

    def decode(self, row: Sequence[int]) -> CellArchitecture:
        """The network of a row; raises UserError for one of another length or beyond the bounds."""
        return self._coding.decode(row)

    def encode(self, arch: CellArchitecture) -> Row:
        """A row that decodes to `arch`, ignored genes at 0; raises UserError when there is none."""
        return tuple(gene or 0 for gene in self._coding.genes(arch))

    def contains(self, arch: CellArchitecture) -> bool:
        """Whether some row means this network, and it has no more parameters than allowed."""
        try:
            self.encode(arch)
        except UserError:
            return False
        return self._fits(arch)

    def sample(self, rng: random.Random) -> CellArchitecture:
        """Every gene drawn uniformly; then random ones set to 0 until the network is small enough."""
        row = [rng.randrange(size) for size in self._coding.sizes]
        return self._shrunk(row, self.bounds()[0], rng)

    def neighbours(self, arch: CellArchitecture) -> list[CellArchitecture]:
        """All networks with one gene changed; parts that appear are the smallest there are."""
        row = self.encode(arch)
        changed = {self.decode(put(row, *change)): None for change in self._changes(arch)}
        return [other for other in changed if other != arch and self._fits(other)]

    def mutate(self, arch: CellArchitecture, rng: random.Random) -> CellArchitecture:
        """One gene changed at random; parts that appear are drawn. `arch` itself if nothing can be changed."""
        changes = self._changes(arch)
        genes = list(zip(self._coding.genes(arch), self._coding.sizes, strict=True))
        for change in rng.sample(changes, len(changes)):
            row = tuple(rng.randrange(size) if gene is None else gene for gene, size in genes)
            changed = self.decode(put(row, *change))
            if changed != arch and self._fits(changed):
                return changed
        return arch

    def crossover(
        self, first: CellArchitecture, second: CellArchitecture, rng: random.Random
    ) -> CellArchitecture:
        """Each gene from either parent; of too large a child, more from the smaller parent."""
        rows = self.encode(first), self.encode(second)
        child = [rng.choice(pair) for pair in zip(*rows, strict=True)]
        smaller = rows[first.count_parameters() > second.count_parameters()]
        return self._shrunk(child, smaller, rng)

    def _changes(self, arch: CellArchitecture) -> list[tuple[int, int]]:
        """Every gene that is not ignored, with every value that it does not have."""
        genes = zip(self._coding.genes(arch), self._coding.sizes, strict=True)
        return [
            (number, value)
            for number, (gene, size) in enumerate(genes)
            for value in range(size)
            if gene not in (None, value)
        ]

    def _shrunk(
        self, row: list[int], smaller: Sequence[int], rng: random.Random
    ) -> CellArchitecture:
        """The network of `row`; as long as it is too large, random genes become those of `smaller`."""
        for number in rng.sample(range(len(row)), len(row)):
            if self._fits(arch := self.decode(row)):
                return arch
            row[number] = smaller[number]
        return self.decode(row)

    def _fits(self, arch: CellArchitecture) -> bool:
        return arch.count_parameters() <= self.config.max_parameters

    @cached_property
    def _coding(self) -> CellCoding:
        shrink = 1
        while side(self.image_size, 2 * shrink) >= self.config.min_side:
            shrink *= 2
        return CellCoding(self.config, self.in_channels, self.num_classes, shrink)
