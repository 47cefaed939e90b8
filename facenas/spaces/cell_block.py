"""One block of a cell network: an operation with options, and what builder and counters need to know of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from facenas.errors import UserError
from facenas.spaces.base import read_fields

CONVOLUTIONS = ("conv", "separable")  # they alone have weights, and change the number of channels
POOLS = ("max_pool", "avg_pool")
ACTIVATIONS = ("none", "relu", "silu", "prelu")
IDENTITY = "identity"


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

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, tree: Any) -> Block:
        """The inverse of `to_json`; raises UserError when a field is missing, wrong or unknown."""
        types = {
            "operation": str,
            "kernel": int,
            "batch_norm": bool,
            "activation": str,
            "skip": bool,
        }
        return cls(**read_fields(tree, "a block of a cell", types))


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
