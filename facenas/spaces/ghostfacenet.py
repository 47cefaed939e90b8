"""GhostFaceNetV1: GhostNet with PReLU, its stem's stride free, and a depthwise convolution over the last map.

Source: "GhostFaceNets" (10.1109/ACCESS.2023.3266068), `HamadYA/GhostFaceNets:backbones/ghost_model.py` and
`GhostFaceNets.py`; "GhostNet", arXiv 1911.11907, table 1. A network's name tells its width and stem's stride.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

from pydantic import PositiveFloat

from facenas.errors import UserError
from facenas.spaces.base import FACE_SIZE, SPACES
from facenas.spaces.scaled import ScaledArchitecture, ScaledSpace, rounded

STEM, LAST = 16, 512  # channels at width 1
# Of every bottleneck at width 1: kernel, channels inside and behind, whether it squeezes and excites, stride.
TABLE = (
    (3, 16, 16, False, 1),
    (3, 48, 24, False, 2),
    (3, 72, 24, False, 1),
    (5, 72, 40, True, 2),
    (5, 120, 40, True, 1),
    (3, 240, 80, False, 2),
    (3, 200, 80, False, 1),
    (3, 184, 80, False, 1),
    (3, 184, 80, False, 1),
    (3, 480, 112, True, 1),
    (3, 672, 112, True, 1),
    (5, 672, 160, True, 2),
    (5, 960, 160, False, 1),
    (5, 960, 160, True, 1),
    (5, 960, 160, False, 1),
    (5, 512, 160, True, 1),
)
GHOST_KERNEL = 3  # of the cheap half of a ghost module


@dataclass(frozen=True)
class Bottleneck:
    """Two ghost modules; between them a depthwise convolution if there is a stride, and squeeze-and-excitation.

    squeezed: channels inside the latter, 0 without it; side: of the output, in pixels, `before` of the input.
    """

    in_channels: int
    inner: int
    out_channels: int
    kernel: int
    stride: int
    squeezed: int
    before: int
    side: int

    @property
    def projected(self) -> bool:
        """Whether the shortcut is a depthwise and a 1x1 convolution; else it is the input."""
        return self.stride > 1 or self.in_channels != self.out_channels

    def convolutions(self) -> Iterator[tuple[int, int]]:
        """(weights, side of the output) of each convolution."""
        half, area = self.inner // 2, self.kernel**2
        yield half * (self.in_channels + GHOST_KERNEL**2), self.before
        if self.stride > 1:
            yield self.inner * area, self.side
        yield 2 * self.inner * self.squeezed, 1
        yield self.out_channels // 2 * (self.inner + GHOST_KERNEL**2), self.side
        if self.projected:
            yield self.in_channels * (area + self.out_channels), self.side

    def count_parameters(self) -> int:
        """Convolutions, BatchNorms (two for a channel), PReLUs (one), and what squeezes."""
        norms = self.inner + self.out_channels + (self.stride > 1) * self.inner
        norms += self.projected * (self.in_channels + self.out_channels)
        squeezing = (2 * self.squeezed + self.inner) * (self.squeezed > 0)  # two biases, and its PReLU
        return sum(weights for weights, _ in self.convolutions()) + 2 * norms + self.inner + squeezing


@dataclass(frozen=True)
class GhostFaceNetArchitecture(ScaledArchitecture):
    """Multiplier of all channels, stride of the stem (1 or 2), length of z.

    Raises UserError when the fields do not fit together.
    """

    width: float
    stem_stride: int
    embedding: int

    def __post_init__(self) -> None:
        if self.stem_stride not in (1, 2) or self.embedding < 1 or not 0 < self.width <= 64:
            raise UserError(f"not a ghostfacenet architecture: {self}; the stem's stride is 1 or 2")

    @property
    def stem(self) -> int:
        """Channels behind the stem."""
        return self._channels(STEM)

    @property
    def last(self) -> int:
        """Channels of the last map."""
        return self._channels(LAST)

    @property
    def last_side(self) -> int:
        """Of the last map, in pixels."""
        return list(self.bottlenecks())[-1].side

    def bottlenecks(self) -> Iterator[Bottleneck]:
        """In order. Sides are halved upwards: 7 pixels become 4."""
        channels, side = self.stem, FACE_SIZE // self.stem_stride
        for kernel, inner, after, squeezes, stride in TABLE:
            wide, out, halved = self._channels(inner), self._channels(after), -(-side // stride)
            squeezed = rounded(wide / 4, 4) if squeezes else 0
            yield Bottleneck(channels, wide, out, kernel, stride, squeezed, side, halved)
            channels, side = out, halved

    def scaled(self, width: float = 1, depth: float = 1, embedding: int | None = None) -> Self:
        """All channels times `width`; its bottlenecks are a table of their own, and there is no other depth."""
        if depth != 1:
            raise UserError(f"depth {depth}: GhostFaceNets have one depth; scale the width")
        return replace(self, width=round(self.width * width, 6), embedding=embedding or self.embedding)

    def count_parameters(self) -> int:
        """Exact number of trainable parameters, without a classification head."""
        weights = sum(weights for weights, _ in self._convolutions())
        weights += sum(bottleneck.count_parameters() for bottleneck in self.bottlenecks())
        # BatchNorm 2, PReLU 1 for a channel; the last two layers have no PReLU.
        return weights + 3 * self.stem + 3 * self.last + 2 * self.last + 2 * self.embedding

    def summary(self) -> str:
        """What it is in a few words."""
        return f"width {self.width}, stem stride {self.stem_stride}"

    def _channels(self, channels: int) -> int:
        return rounded(channels * self.width, 4)

    def _count_macs(self) -> int:
        body = (pair for bottleneck in self.bottlenecks() for pair in bottleneck.convolutions())
        return sum(weights * side**2 for weights, side in (*self._convolutions(), *body))

    def _convolutions(self) -> Iterator[tuple[int, int]]:
        """(weights, side of the output) of all but the bottlenecks'."""
        *_, bottleneck = self.bottlenecks()
        yield self.in_channels * self.stem * 9, FACE_SIZE // self.stem_stride
        yield bottleneck.out_channels * self.last, bottleneck.side
        yield self.last * bottleneck.side**2, 1
        yield self.last * self.embedding, 1


NAMED = {
    "ghostfacenet_1.3_1": GhostFaceNetArchitecture(1.3, 1, 512),
    "ghostfacenet_1.3_2": GhostFaceNetArchitecture(1.3, 2, 512),
}
# Their "MFLOPs" are half of all operations that TensorFlow's profiler counts: these MACs, and some more.
REPRODUCES = {
    "ghostfacenet_1.3_1": "GhostFaceNetV1-1.3-1: 4.1M, 215.7 MFLOPs",
    "ghostfacenet_1.3_2": "GhostFaceNetV1-1.3-2: 4.1M, 60.3 MFLOPs",
}


@SPACES.register("ghostfacenet")
class GhostFaceNet(ScaledSpace[GhostFaceNetArchitecture]):
    """GhostFaceNets of all widths within the settings."""

    class Settings(ScaledSpace.Settings):
        """Multipliers of a GhostFaceNet (`facenas.spaces.ghostfacenet`), of its width alone."""

        network: str = "ghostfacenet_1.3_2"
        depth_multipliers: tuple[PositiveFloat, ...] = (1.0,)

    Architecture = GhostFaceNetArchitecture
    NAMED = NAMED
    settings: Settings
