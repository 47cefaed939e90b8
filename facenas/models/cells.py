"""Cell networks as modules. Parameters equal the closed form in `facenas.spaces.cells` exactly.

BatchNorm may be off in every block, so the scale of values must hold without it: convolutions are drawn so
that they keep it (He et al., "Delving Deep into Rectifiers", eq. 10 and 15), and a sum of n terms is divided
by the square root of n (as the skips of `yang-song/score_sde_pytorch:models/layerspp.py`).
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn

from facenas.models.plain import stem_pools
from facenas.spaces.cells import IDENTITY, Block, CellArchitecture, PlacedBlock, PlacedCell, side

# By which factor weights are larger for what the activation takes away from the mean square. SiLU takes more
# of small values, but large ones would explode with more than ReLU's.
_GAINS = {
    "none": 1.0,
    "relu": math.sqrt(2),
    "silu": math.sqrt(2),
    "prelu": math.sqrt(2 / (1 + 0.25**2)),
}


def build_module(arch: CellArchitecture) -> nn.Module:
    """(n, in_channels, h, w) float32 -> (n, num_classes) logits."""
    return CellNetwork(arch)


class CellNetwork(nn.Module):
    """Stem, cells, global average pooling and a linear classifier."""

    def __init__(self, arch: CellArchitecture) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            _convolution(arch.in_channels, arch.stem, 3, min(2, arch.stem_stride), gain=_GAINS["relu"]),
            nn.BatchNorm2d(arch.stem),
            nn.ReLU(),
            *stem_pools(arch.stem_stride),
        )
        self.cells = nn.ModuleList(CellModule(placed) for placed in arch.placed())
        last = arch.cells[-1].channels
        self.classifier = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, arch.num_classes)
        )

    def forward(self, images: Tensor) -> Tensor:
        """(n, in_channels, h, w) -> (n, num_classes)."""
        x = self.stem(images)
        for cell in self.cells:
            x = cell(x, images.shape[2], images.shape[3])
        logits: Tensor = self.classifier(x)
        return logits


class CellModule(nn.Module):
    """Pipelines side by side, and their merge."""

    def __init__(self, placed: PlacedCell) -> None:
        super().__init__()
        self.up, self.shrink = placed.cell.role == "up", placed.shrink
        self.concat = placed.cell.merge == "concat"
        self.pipelines = nn.ModuleList(
            nn.Sequential(*(BlockModule(block) for block in blocks)) for blocks in placed.pipelines
        )
        width = placed.cell.channels
        self.projections = nn.ModuleList(_projection(end, width) for end in placed.ends)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """(n, in_channels, h, w) -> (n, channels, height / shrink, width / shrink), rounded up.

        height, width: of the image.
        """
        if self.up:
            x = nn.functional.interpolate(x, scale_factor=2, mode="nearest")
            x = x[:, :, : side(height, self.shrink), : side(width, self.shrink)]
        ends = [pipeline(x) for pipeline in self.pipelines]
        if self.concat:
            ends = [torch.cat(ends, dim=1)]
        return _scaled_sum([project(e) for project, e in zip(self.projections, ends, strict=True)])


class BlockModule(nn.Module):
    """Operation, BatchNorm, activation; with a skip, the input on top."""

    def __init__(self, placed: PlacedBlock) -> None:
        super().__init__()
        block, after = placed.block, placed.out_channels
        parts = [_operation(placed)]
        if block.batch_norm:
            parts.append(nn.BatchNorm2d(after))
        if block.activation != "none":
            parts.append(_activation(block, after))
        self.branch = nn.Sequential(*parts)
        self.shortcut: nn.Module | None = None
        if block.skip:
            project = _projection(placed.in_channels, after)
            self.shortcut = nn.Sequential(_halving(placed.stride), project)

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) -> (n, out_channels, h / stride, w / stride), rounded up."""
        branch: Tensor = self.branch(x)
        return branch if self.shortcut is None else _scaled_sum([branch, self.shortcut(x)])


def _operation(placed: PlacedBlock) -> nn.Module:
    block, stride = placed.block, placed.stride
    if block.operation == IDENTITY:
        return _halving(stride)
    if block.operation == "max_pool":
        return nn.MaxPool2d(block.kernel, stride, block.kernel // 2)
    if block.operation == "avg_pool":
        return nn.AvgPool2d(block.kernel, stride, block.kernel // 2, count_include_pad=False)
    return _weighted(placed)


def _weighted(placed: PlacedBlock) -> nn.Module:
    """A plain convolution, or a depthwise one, which carries the stride, and a 1x1."""
    block, stride, before = placed.block, placed.stride, placed.in_channels
    gain, bias = _GAINS[block.activation], not block.batch_norm  # BatchNorm has a shift of its own
    last = partial(_convolution, before, placed.out_channels, gain=gain, bias=bias)
    if block.operation == "separable":
        return nn.Sequential(_convolution(before, before, block.kernel, stride, groups=before), last(1))
    if block.kernel == 1 and stride == 2:
        # Every second pixel is taken first: with channels last and up to 8 channels, the backward of
        # nn.Conv2d with kernel 1 and stride 2 kills the process on a CPU (torch 2.14).
        return nn.Sequential(nn.MaxPool2d(1, 2), last(1))
    return last(block.kernel, stride)


def _convolution(
    before: int,
    after: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    gain: float = 1.0,
    bias: bool = False,
) -> nn.Conv2d:
    made = nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=bias)
    nn.init.normal_(made.weight, std=gain / math.sqrt(kernel**2 * before / groups))
    if made.bias is not None:
        nn.init.zeros_(made.bias)
    return made


def _activation(block: Block, channels: int) -> nn.Module:
    if block.activation == "prelu":
        return nn.PReLU(channels)
    return nn.ReLU() if block.activation == "relu" else nn.SiLU()


def _halving(stride: int) -> nn.Module:
    return nn.AvgPool2d(2, ceil_mode=True) if stride == 2 else nn.Identity()


def _projection(before: int, after: int) -> nn.Module:
    return _convolution(before, after, 1) if before != after else nn.Identity()


def _scaled_sum(terms: list[Tensor]) -> Tensor:
    """The sum of equal shapes, divided so that independent terms keep their scale."""
    return sum(terms[1:], terms[0]) / math.sqrt(len(terms)) if len(terms) > 1 else terms[0]
