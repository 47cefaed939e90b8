"""EdgeFaces as modules; parameters equal the closed form in `facenas.spaces.edgeface` exactly.

Sources as there. Inside of a stage modules have the names that timm gives them. Every block adds to its input,
at first a millionth of what it computes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facenas.models.ir import FaceBackbone
from facenas.spaces.edgeface import EXPANSION, WAVES, EdgeFaceArchitecture, Stage

EPSILON = 1e-6  # of LayerNorm
FIRST_SCALE = 1e-6  # of what a block adds
WAVELENGTH = 10_000.0  # the longest, over that of the shortest wave


def build_module(arch: EdgeFaceArchitecture) -> nn.Module:
    """(n, 3, 112, 112) float32 RGB in [-1, 1] -> z (n, embedding), not normalized."""
    return EdgeFaceModule(arch).apply(_initialize)


class EdgeFaceModule(FaceBackbone):
    """Stem of patches, four stages, mean and linear layer. Raises UserError for images that are not 112x112."""

    def __init__(self, arch: EdgeFaceArchitecture) -> None:
        super().__init__()
        first, last = arch.channels[0], arch.channels[-1]
        self.input_layer = nn.Sequential(nn.Conv2d(arch.in_channels, first, 4, 4), ChannelNorm(first))
        self.body = nn.Sequential(*(StageModule(arch, stage) for stage in arch.stages()))
        self.output_layer = nn.Sequential()
        self.output_layer.add_module("pool", nn.AdaptiveAvgPool2d(1))
        self.output_layer.add_module("norm", ChannelNorm(last))
        self.output_layer.add_module("flatten", nn.Flatten())
        self.output_layer.add_module("fc", _linear(arch, last, arch.embedding))


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of every pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, EPSILON)

    def forward(self, input: Tensor) -> Tensor:
        """(n, c, h, w) -> the same shape."""
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class StageModule(nn.Module):
    """Halves the side, but in the first stage; then convolutional blocks, and one that attends."""

    def __init__(self, arch: EdgeFaceArchitecture, stage: Stage) -> None:
        super().__init__()
        before, after = stage.in_channels, stage.channels
        self.downsample: nn.Module = nn.Identity()
        if stage.number:
            self.downsample = nn.Sequential(ChannelNorm(before), nn.Conv2d(before, after, 2, 2))
        blocks: list[nn.Module] = [ConvBlock(arch, stage) for _ in range(stage.blocks - stage.attends)]
        blocks += [AttentionBlock(arch, stage)] if stage.attends else []
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) -> (n, channels, h', w')."""
        y: Tensor = self.blocks(self.downsample(x))
        return y


class Mlp(nn.Module):
    """Two layers with GELU between, for every pixel by itself."""

    def __init__(self, arch: EdgeFaceArchitecture, channels: int) -> None:
        super().__init__()
        self.fc1 = _linear(arch, channels, EXPANSION * channels)
        self.act = nn.GELU()
        self.fc2 = _linear(arch, EXPANSION * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(..., c) -> the same shape."""
        y: Tensor = self.fc2(self.act(self.fc1(x)))
        return y


class ConvBlock(nn.Module):
    """Depthwise convolution, LayerNorm, `Mlp`; as in ConvNeXt."""

    def __init__(self, arch: EdgeFaceArchitecture, stage: Stage) -> None:
        super().__init__()
        channels, kernel = stage.channels, stage.kernel
        self.conv_dw = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)
        self.norm = nn.LayerNorm(channels, EPSILON)
        self.mlp = Mlp(arch, channels)
        self.gamma = nn.Parameter(FIRST_SCALE * torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> the same shape."""
        y = self.mlp(self.norm(self.conv_dw(x).permute(0, 2, 3, 1)))
        added: Tensor = (self.gamma * y).permute(0, 3, 1, 2)
        return x + added


class AttentionBlock(nn.Module):
    """Convolutions over parts of the channels, attention among channels, `Mlp` ("EdgeNeXt", section 3.2)."""

    def __init__(self, arch: EdgeFaceArchitecture, stage: Stage) -> None:
        super().__init__()
        channels, part = stage.channels, stage.part
        self.convs = nn.ModuleList(
            nn.Conv2d(part, part, 3, padding=1, groups=part) for _ in range(stage.splits - 1)
        )
        self.pos_embd = Positions(channels, stage.side) if stage.positioned else None
        self.norm_xca = nn.LayerNorm(channels, EPSILON)
        self.gamma_xca = nn.Parameter(FIRST_SCALE * torch.ones(channels))
        self.xca = ChannelAttention(arch, channels)
        self.norm = nn.LayerNorm(channels, EPSILON)
        self.mlp = Mlp(arch, channels)
        self.gamma = nn.Parameter(FIRST_SCALE * torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> the same shape."""
        tokens = self._convolved(x).permute(0, 2, 3, 1)
        if self.pos_embd is not None:
            tokens = tokens + self.pos_embd()
        n, height, width, channels = tokens.shape
        tokens = tokens.reshape(n, height * width, channels)
        tokens = tokens + self.gamma_xca * self.xca(self.norm_xca(tokens))
        added: Tensor = self.gamma * self.mlp(self.norm(tokens))
        return x + added.reshape(n, height, width, channels).permute(0, 3, 1, 2)

    def _convolved(self, x: Tensor) -> Tensor:
        """Each part is added to what came of the one before; the last stays as it is."""
        *parts, last = x.chunk(len(self.convs) + 1, 1)
        found: list[Tensor] = []
        for convolution, part in zip(self.convs, parts, strict=True):
            found.append(convolution(part + found[-1] if found else part))
        return torch.cat([*found, last], 1)


class Positions(nn.Module):
    """Where a pixel lies, by waves of its row and column, projected to the channels of a map."""

    waves: Tensor

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.token_projection = nn.Conv2d(2 * WAVES, channels, 1)
        self.register_buffer("waves", waves(side), persistent=False)

    def forward(self) -> Tensor:
        """(1, h, w, c)."""
        projected: Tensor = self.token_projection(self.waves)
        return projected.permute(0, 2, 3, 1)


def waves(side: int) -> Tensor:
    """(1, 2 * WAVES, side, side) float32: sine and cosine, by turns, of the row, then of the column.

    Places are counted from 1 to `side`, as a part of 2 pi ("End-to-End Object Detection with Transformers").
    """
    place = torch.arange(1, side + 1, dtype=torch.float32) / (side + EPSILON) * 2 * torch.pi
    pairs = torch.arange(WAVES // 2, dtype=torch.float32)
    angles = place[:, None] / WAVELENGTH ** (2 * pairs / WAVES)
    told = torch.stack((angles.sin(), angles.cos()), 2).flatten(1).T  # (WAVES, side)
    rows = told[:, :, None].expand(-1, -1, side)
    columns = told[:, None, :].expand(-1, side, -1)
    return torch.cat((rows, columns))[None].contiguous()


class ChannelAttention(nn.Module):
    """Each channel becomes a mean of its head's, weighed by how alike they are over all pixels ("XCiT")."""

    def __init__(self, arch: EdgeFaceArchitecture, channels: int) -> None:
        super().__init__()
        self.heads = arch.heads
        self.temperature = nn.Parameter(torch.ones(arch.heads, 1, 1))
        self.qkv = _linear(arch, channels, 3 * channels)
        self.proj = _linear(arch, channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(n, pixels, c) -> the same shape."""
        n, pixels, channels = x.shape
        parts = self.qkv(x).reshape(n, pixels, 3, self.heads, channels // self.heads)
        query, key, value = parts.permute(2, 0, 3, 4, 1).unbind()  # each (n, heads, channels of a head, pixels)
        alike = F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).transpose(-2, -1)
        mixed = (alike * self.temperature).softmax(-1) @ value
        y: Tensor = self.proj(mixed.permute(0, 3, 1, 2).reshape(n, pixels, channels))
        return y


class LowRank(nn.Module):
    """A linear layer whose matrix is the product of two: no bias in the first."""

    def __init__(self, before: int, after: int, rank: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(before, rank, bias=False)
        self.linear2 = nn.Linear(rank, after)

    def forward(self, x: Tensor) -> Tensor:
        """(..., before) -> (..., after)."""
        y: Tensor = self.linear2(self.linear1(x))
        return y


def _linear(arch: EdgeFaceArchitecture, before: int, after: int) -> nn.Module:
    rank = arch.rank_of(before, after)
    return LowRank(before, after, rank) if rank else nn.Linear(before, after)


def _initialize(module: nn.Module) -> None:
    """EdgeNeXt's, normal with 0.02; layers of low rank as torch draws them, which the authors leave so."""
    if isinstance(module, LowRank):
        module.linear1.reset_parameters()
        module.linear2.reset_parameters()
    elif isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02, a=-0.04, b=0.04)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
