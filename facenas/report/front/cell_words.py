"""The parts of a cell network in words, as its drawing tells them."""

from __future__ import annotations

from facenas.report.wording import many
from facenas.spaces.cells import IDENTITY, PlacedBlock, PlacedCell

NAMES = {"none": "", "relu": "ReLU", "silu": "SiLU", "prelu": "PReLU"}
_BRIEF = {"conv": "conv", "separable": "sep", "max_pool": "max", "avg_pool": "avg"}
_LONG = {
    "conv": "convolution",
    "separable": "separable convolution",
    "max_pool": "max pooling",
    "avg_pool": "average pooling",
}
_MERGES = {"add": "added", "concat": "concatenated"}


def label(placed: PlacedBlock) -> str:
    """The operation with its kernel: conv 3×3."""
    block = placed.block
    return IDENTITY if block.operation == IDENTITY else f"{_BRIEF[block.operation]} {_side(placed)}"


def marks(placed: PlacedBlock) -> str:
    """What follows the operation: BN ReLU."""
    block = placed.block
    return " ".join(filter(None, ["BN" if block.batch_norm else "", NAMES[block.activation]]))


def block_title(place: str, placed: PlacedBlock, image_size: int | None) -> str:
    """All about a block in one sentence."""
    block = placed.block
    halves = "mean over 2×2 pixels" if block.operation == IDENTITY else "stride 2"
    shortcut = "skip over a 1×1 convolution" if placed.projected else "skip"
    what = IDENTITY if block.operation == IDENTITY else f"{_side(placed)} {_LONG[block.operation]}"
    facts = [
        f"{place}: {what}",
        channels(placed.in_channels, placed.out_channels),
        halves if placed.stride == 2 else "",
        "BatchNorm" if block.batch_norm else "",
        NAMES[block.activation],
        shortcut if block.skip else "",
        resolution(image_size, placed.shrink),
    ]
    return ", ".join(fact for fact in facts if fact)


def cell_title(number: int, cell: PlacedCell, image_size: int | None) -> str:
    """All about a cell in one sentence."""
    joined = many(len(cell.pipelines), "pipeline")
    if len(cell.pipelines) > 1:
        joined += f", {_MERGES[cell.cell.merge]}"
    width = channels(cell.in_channels, cell.cell.channels)
    return (
        f"Cell {number}, {cell.cell.role}: {width}, {resolution(image_size, cell.shrink)}, {joined}"
    )


def channels(before: int, after: int) -> str:
    """4 → 8 channels."""
    return f"{before} → {after} channels" if before != after else many(after, "channel")


def resolution(image_size: int | None, shrink: int) -> str:
    """The side of a map behind `shrink`; halvings round up."""
    if image_size is None:
        return "full size" if shrink == 1 else f"1/{shrink} size"
    side = -(-image_size // shrink)
    return f"{side}×{side}"


def _side(placed: PlacedBlock) -> str:
    return f"{placed.block.kernel}×{placed.block.kernel}"
