"""An architecture in words: what differs from the networks of macro search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from facenas.report.terms import CLASSIFICATION, FACES
from facenas.report.wording import many, ranges
from facenas.spaces import Architecture, IRArchitecture, PlainArchitecture
from facenas.spaces.plain import PLAIN, SEPARABLE

Chain = PlainArchitecture | IRArchitecture  # a single path, that macro-micro search finds


def describe(arch: Architecture) -> str:
    """The network in one sentence; layers, of faces blocks, are counted from 1."""
    if not isinstance(arch, Chain):
        return arch.summary()
    terms = FACES if isinstance(arch, IRArchitecture) else CLASSIFICATION
    special = [f"{what} at {_units(places, terms.unit)}" for what, places in _special(arch)]
    operation, _, kernel = terms.usual.partition(" ")
    rest = f"all else {operation} and {kernel}" if special else f"all {terms.usual}"
    return f"{_size(arch)}: " + "; ".join([*special, rest])


def special_units(arch: Chain) -> str:
    """The same, brief: only what is not as macro search has it."""
    return "; ".join(f"{what.split()[0]} at {ranges(places)}" for what, places in _special(arch))


def _size(arch: Chain) -> str:
    if not isinstance(arch, IRArchitecture):
        return f"{many(arch.depth, 'layer')}, width {arch.width}"
    blocks = ", ".join(map(str, arch.stages))
    size = f"{arch.depth} layers (blocks {blocks}), width {arch.width}, embedding {arch.embedding}"
    return size + (", squeeze-and-excitation" if arch.se else "")


def _special(arch: Chain) -> Iterator[tuple[str, list[int]]]:
    """(what, at which layers or blocks)."""
    other = SEPARABLE if isinstance(arch, IRArchitecture) else PLAIN
    if other in arch.operations:
        name = "plain" if other == PLAIN else "separable"
        yield f"{name} convolutions", _places(arch.operations, other)
    for kernel in sorted(set(arch.kernels) - {3}):
        yield f"{kernel}×{kernel} kernels", _places(arch.kernels, kernel)


def _places(genes: Sequence[int], wanted: int) -> list[int]:
    return [number for number, gene in enumerate(genes, start=1) if gene == wanted]


def _units(numbers: Sequence[int], unit: str) -> str:
    return f"{unit}{'s' if len(numbers) > 1 else ''} {ranges(numbers)}"
