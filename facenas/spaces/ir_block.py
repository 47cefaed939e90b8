"""One block of a face network: what builder, counters and drawing need to know of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from facenas.errors import UserError
from facenas.spaces.plain import PLAIN

IMAGE_SIZE = 112
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
        side = IMAGE_SIZE // self.shrink
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


def check_image_size(height: int, width: int) -> None:
    """Raises UserError for any size but the one that the network's last layer fits."""
    if (height, width) != (IMAGE_SIZE, IMAGE_SIZE):
        size = f"{IMAGE_SIZE}x{IMAGE_SIZE}"
        raise UserError(
            f"a face network takes aligned crops of {size} pixels, not {height}x{width}"
        )
