"""EdgeFace: EdgeNeXt, whose linear layers may be of low rank.

Source: "EdgeFace", arXiv 2307.01838, and `otroshi/edgeface:backbones/timmfr.py`; "EdgeNeXt", arXiv 2206.10589,
as `huggingface/pytorch-image-models:timm/models/edgenext.py` has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

from pydantic import PositiveFloat

from facenas.errors import UserError
from facenas.spaces.base import FACE_SIZE, SPACES
from facenas.spaces.scaled import DEPTHS, ScaledArchitecture, ScaledSpace, repeated, rounded

# Of the four stages: side of the depthwise kernel, parts that attention's input is split into.
KERNELS, SPLITS = (3, 5, 7, 9), (2, 2, 3, 4)
WAVES = 32  # sines and cosines of each coordinate that the positions of one stage are told by
POSITIONED = 1  # the number of that stage
EXPANSION = 4


@dataclass(frozen=True)
class Stage:
    """`blocks` of one width; the last of them attends, in all but the first stage. `side` in pixels."""

    number: int
    in_channels: int
    channels: int
    blocks: int
    side: int

    @property
    def kernel(self) -> int:
        """Side of the depthwise kernel of blocks without attention."""
        return KERNELS[self.number]

    @property
    def splits(self) -> int:
        """Parts that attention's input is split into; all but the last are convolved."""
        return SPLITS[self.number]

    @property
    def part(self) -> int:
        """Channels of such a part; the last may have fewer."""
        return -(-self.channels // self.splits)

    @property
    def attends(self) -> bool:
        """Whether the last block attends."""
        return self.number > 0

    @property
    def positioned(self) -> bool:
        """Whether attention is told where a pixel lies."""
        return self.number == POSITIONED


@dataclass(frozen=True)
class EdgeFaceArchitecture(ScaledArchitecture):
    """Channels and blocks of the four stages, heads of attention, rank of linear layers, length of z.

    rank: of a linear layer, as a part of its lesser side (the paper's gamma); 0: the layer is whole.
    Raises UserError when the fields do not fit together.
    """

    channels: tuple[int, int, int, int]
    blocks: tuple[int, int, int, int]
    heads: int
    rank: float
    embedding: int

    def __post_init__(self) -> None:
        fits = (
            min(*self.blocks, self.heads, self.embedding) >= 1
            and min(self.channels) >= 8
            and 0 <= self.rank <= 1
        )
        if not fits or any(channels % self.heads for channels in self.channels):
            raise UserError(
                f"not an edgeface architecture: {self}; stages have 8 channels or more, a multiple of heads; "
                "rank lies within 0 and 1"
            )

    def stages(self) -> Iterator[Stage]:
        """In order: the stem divides the side by four, every stage but the first by two."""
        before, side = self.channels[0], FACE_SIZE // 4
        for number, (channels, blocks) in enumerate(zip(self.channels, self.blocks, strict=True)):
            side = side if number == 0 else side // 2
            yield Stage(number, before, channels, blocks, side)
            before = channels

    def rank_of(self, before: int, after: int) -> int:
        """Of a linear layer; 0: it is whole."""
        return max(2, int(min(before, after) * self.rank)) if self.rank else 0

    def scaled(self, width: float = 1, depth: float = 1, embedding: int | None = None) -> Self:
        """All channels times `width`, to multiples of the heads; blocks of each stage times `depth`."""
        first, second, third, fourth = (
            max(rounded(width * channels, self.heads), rounded(8, self.heads)) for channels in self.channels
        )
        one, two, three, four = (repeated(count, depth) for count in self.blocks)
        return replace(
            self,
            channels=(first, second, third, fourth),
            blocks=(one, two, three, four),
            embedding=embedding or self.embedding,
        )

    def count_parameters(self) -> int:
        """Exact number of trainable parameters, without a classification head."""
        first, last = self.channels[0], self.channels[-1]
        stem = self.in_channels * 16 * first + 3 * first  # bias, and LayerNorm's two
        return (
            stem
            + sum(map(self._stage_parameters, self.stages()))
            + 2 * last
            + self._linear(last, self.embedding)
        )

    def summary(self) -> str:
        """What it is in a few words."""
        channels, blocks = "-".join(map(str, self.channels)), "-".join(map(str, self.blocks))
        return f"channels {channels}, blocks {blocks}, rank {self.rank or 'full'}"

    def _stage_parameters(self, stage: Stage) -> int:
        c = stage.channels
        mlp = self._linear(c, EXPANSION * c) + self._linear(EXPANSION * c, c)
        total = 0 if stage.number == 0 else 2 * stage.in_channels + 4 * stage.in_channels * c + c
        # Bias, LayerNorm's two and the layer's scale.
        total += (stage.blocks - stage.attends) * (stage.kernel**2 * c + 4 * c + mlp)
        if stage.attends:
            total += (stage.splits - 1) * (9 + 1) * stage.part
            total += 2 * 3 * c + self.heads + self._linear(c, 3 * c) + self._linear(c, c) + mlp
            total += stage.positioned * (2 * WAVES + 1) * c
        return total

    def _linear(self, before: int, after: int) -> int:
        """Weights and bias of a linear layer."""
        return self._linear_macs(before, after) + after

    def _linear_macs(self, before: int, after: int) -> int:
        rank = self.rank_of(before, after)
        return rank * (before + after) if rank else before * after

    def _count_macs(self) -> int:
        stem = self.in_channels * 16 * self.channels[0] * (FACE_SIZE // 4) ** 2
        return (
            stem
            + sum(map(self._stage_macs, self.stages()))
            + self._linear_macs(self.channels[-1], self.embedding)
        )

    def _stage_macs(self, stage: Stage) -> int:
        c = stage.channels
        mlp = self._linear_macs(c, EXPANSION * c) + self._linear_macs(EXPANSION * c, c)
        total = 0 if stage.number == 0 else 4 * stage.in_channels * c
        total += (stage.blocks - stage.attends) * (stage.kernel**2 * c + mlp)
        if stage.attends:
            total += (stage.splits - 1) * 9 * stage.part
            # Attention is among channels: c / heads of them with as many, over all pixels, and back.
            total += self._linear_macs(c, 3 * c) + self._linear_macs(c, c) + 2 * c * (c // self.heads) + mlp
            total += stage.positioned * 2 * WAVES * c
        return total * stage.side**2


NAMED = {
    "edgeface_xxs": EdgeFaceArchitecture((24, 48, 88, 168), (2, 2, 6, 2), 4, 0.0, 512),
    "edgeface_xs": EdgeFaceArchitecture((32, 64, 100, 192), (3, 3, 9, 3), 4, 0.6, 512),
    "edgeface_s": EdgeFaceArchitecture((48, 96, 160, 304), (3, 3, 9, 3), 8, 0.5, 512),
}
# Their "MFLOPs" count a multiplication and an addition as two.
REPRODUCES = {
    "edgeface_xxs": "EdgeFace-XXS: 1.24M, 94.72 MFLOPs",
    "edgeface_xs": "EdgeFace-XS(0.6): 1.77M, 154.00 MFLOPs",
    "edgeface_s": "EdgeFace-S(0.5): 3.65M, 306.12 MFLOPs",
}


@SPACES.register("edgeface")
class EdgeFace(ScaledSpace[EdgeFaceArchitecture]):
    """EdgeFaces of all widths and depths within the settings."""

    class Settings(ScaledSpace.Settings):
        """Multipliers of an EdgeFace (`facenas.spaces.edgeface`)."""

        network: str = "edgeface_xs"
        depth_multipliers: tuple[PositiveFloat, ...] = DEPTHS

    Architecture = EdgeFaceArchitecture
    NAMED = NAMED
    settings: Settings
