"""MobileFaceNet: inverted bottlenecks with PReLU, and a depthwise convolution over the last map.

Source: "MobileFaceNets", arXiv 1804.07573, table 1. For "mbf", twice as wide between bottlenecks:
`deepinsight/insightface:recognition/arcface_torch/backbones/mobilefacenet.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

from facenas.errors import UserError
from facenas.spaces.base import SPACES
from facenas.spaces.scaled import ScaledArchitecture, ScaledSpace, repeated, rounded

STEM_SIDE, LAST_SIDE = 56, 7  # pixels behind the stem, and before the last depthwise convolution


@dataclass(frozen=True)
class Bottleneck:
    """1x1 to `inner` channels, depthwise 3x3 with the stride, 1x1 without activation; `side` of its output."""

    in_channels: int
    inner: int
    out_channels: int
    stride: int
    side: int

    @property
    def residual(self) -> bool:
        """Whether the input is added: in all but the first of a stage, whatever the channels."""
        return self.stride == 1

    def count_parameters(self) -> int:
        """Convolutions, three BatchNorms (two for a channel) and two PReLUs (one)."""
        weights = self.inner * (self.in_channels + 9 + self.out_channels)
        return weights + 6 * self.inner + 2 * self.out_channels

    def count_macs(self) -> int:
        """Multiply-accumulates of the convolutions for one image."""
        expanding = self.in_channels * self.inner * (self.side * self.stride) ** 2
        return expanding + self.inner * (9 + self.out_channels) * self.side**2


@dataclass(frozen=True)
class MobileFaceNetArchitecture(ScaledArchitecture):
    """Channels between and inside of bottlenecks, how many of them, channels of the last map, length of z.

    width: channels behind the stem and of the first stage; the other two stages have twice as many. inner:
    inside of the first stage's bottlenecks; twice as many in the others, and in the first bottleneck of the
    last stage four times. blocks: bottlenecks of each stage behind its first, which has the stride.
    Raises UserError when the fields do not fit together.
    """

    width: int
    inner: int
    blocks: tuple[int, int, int]
    last: int
    embedding: int

    def __post_init__(self) -> None:
        sizes = (self.width, self.last, self.embedding)
        if min(*sizes, *self.blocks) < 1 or self.inner < 2 or self.inner % 2 or self.width % self.groups:
            raise UserError(
                f"not a mobilefacenet architecture: {self}; inner should be even, its half a divisor of width"
            )

    @property
    def groups(self) -> int:
        """Of the convolution behind the stem: depthwise where width is half of inner, as in the paper."""
        return self.inner // 2

    def bottlenecks(self) -> Iterator[Bottleneck]:
        """In order."""
        before, side = self.width, STEM_SIDE
        for stage, count in enumerate(self.blocks):
            channels, inner = (self.width, self.inner) if stage == 0 else (2 * self.width, 2 * self.inner)
            side //= 2
            yield Bottleneck(before, 2 * inner if stage == 2 else inner, channels, 2, side)
            yield from [Bottleneck(channels, inner, channels, 1, side)] * count
            before = channels

    def scaled(self, width: float = 1, depth: float = 1, embedding: int | None = None) -> Self:
        """All channels times `width`, to even numbers; bottlenecks behind a stage's first times `depth`."""
        groups = rounded(width * self.groups, 2)
        first, second, third = (repeated(count, depth) for count in self.blocks)
        return replace(
            self,
            width=self.width // self.groups * groups,
            inner=2 * groups,
            blocks=(first, second, third),
            last=rounded(width * self.last, 2),
            embedding=embedding or self.embedding,
        )

    def count_parameters(self) -> int:
        """Exact number of trainable parameters, without a classification head."""
        weights = sum(weights for weights, _ in self._convolutions())
        weights += sum(bottleneck.count_parameters() for bottleneck in self.bottlenecks())
        # BatchNorm 2, PReLU 1 for a channel; the last two layers have no PReLU.
        return weights + 6 * self.width + 3 * self.last + 2 * self.last + 2 * self.embedding

    def summary(self) -> str:
        """What it is in a few words."""
        return f"width {self.width}, inner {self.inner}, blocks {'-'.join(map(str, self.blocks))}"

    def _count_macs(self) -> int:
        ends = sum(weights * side**2 for weights, side in self._convolutions())
        return ends + sum(bottleneck.count_macs() for bottleneck in self.bottlenecks())

    def _convolutions(self) -> Iterator[tuple[int, int]]:
        """(weights, side of the output) of all but the bottlenecks' and of the linear layer."""
        yield self.in_channels * self.width * 9, STEM_SIDE
        yield self.width * (self.width // self.groups) * 9, STEM_SIDE
        yield 2 * self.width * self.last, LAST_SIDE
        yield self.last * LAST_SIDE**2, 1
        yield self.last * self.embedding, 1


NAMED = {
    "mobilefacenet": MobileFaceNetArchitecture(64, 128, (4, 6, 2), 512, 128),
    "mbf": MobileFaceNetArchitecture(128, 128, (4, 6, 2), 512, 512),
}
# The paper's "0.99M" is 995,584 without the slopes of PReLU; with them it is what other code has as well.
REPRODUCES = {
    "mobilefacenet": "paper: 0.99M, 221M MACs",
    "mbf": "arcface_torch mbf: 2,059,520, 0.45G MACs",
}


@SPACES.register("mobilefacenet")
class MobileFaceNet(ScaledSpace[MobileFaceNetArchitecture]):
    """MobileFaceNets of all widths and depths within the settings."""

    class Settings(ScaledSpace.Settings):
        """Multipliers of a MobileFaceNet (`facenas.spaces.mobilefacenet`). network: mobilefacenet or mbf."""

        network: str = "mobilefacenet"

    Architecture = MobileFaceNetArchitecture
    NAMED = NAMED
    settings: Settings
