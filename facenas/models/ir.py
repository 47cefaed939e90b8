"""The face networks as modules, under the names that AdaFace's checkpoints use.

Source: `mk-minchul/AdaFace:net.py` (Backbone with BasicBlockIR and BasicBlockIRSE). Parameters equal the closed
form in `facenas.spaces.ir` exactly; networks of plain blocks load AdaFace's weights key by key.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from facenas.models.dropout import SeededDropout
from facenas.spaces.base import check_face_size
from facenas.spaces.ir import LAST_SIZE, Block, IRArchitecture
from facenas.spaces.plain import PLAIN

DROPOUT = 0.4


def build_module(arch: IRArchitecture) -> nn.Module:
    """(n, 3, 112, 112) float32 RGB in [-1, 1] -> z (n, embedding), not normalized."""
    return IRNetwork(arch).apply(initialize)


class FaceBackbone(nn.Module):
    """Stem, body, output layer, as every family of face networks has them."""

    input_layer: nn.Module
    body: nn.Module
    output_layer: nn.Module

    def forward(self, images: Tensor) -> Tensor:
        """(n, 3, 112, 112) -> z (n, embedding): direction is the identity, length the quality.

        Raises UserError for images that are not 112x112.
        """
        check_face_size(images.shape[2], images.shape[3])
        z: Tensor = self.output_layer(self.body(self.input_layer(images)))
        return z


def depthwise_output(channels: int, side: int, embedding: int) -> list[nn.Module]:
    """MobileFaceNet's way to z: a weight for every pixel of a channel, then one linear layer."""
    return [
        nn.Conv2d(channels, channels, side, groups=channels, bias=False),
        nn.BatchNorm2d(channels),
        nn.Flatten(),
        nn.Linear(channels, embedding, bias=False),
        nn.BatchNorm1d(embedding),
    ]


class IRNetwork(FaceBackbone):
    """Stem without a stride, blocks, output layer. Raises UserError for images that are not 112x112."""

    def __init__(self, arch: IRArchitecture) -> None:
        super().__init__()
        stem, last = arch.width, 8 * arch.width
        self.input_layer = nn.Sequential(
            nn.Conv2d(arch.in_channels, stem, 3, padding=1, bias=False),
            nn.BatchNorm2d(stem),
            nn.PReLU(stem),
        )
        self.body = nn.Sequential(*(IRBlock(block) for block in arch.blocks()))
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(last),
            SeededDropout(DROPOUT),
            nn.Flatten(),
            nn.Linear(last * LAST_SIZE**2, arch.embedding),
            nn.BatchNorm1d(arch.embedding, affine=False),
        )


class IRBlock(nn.Module):
    """BatchNorm first, the stride in the second convolution, and no activation after the sum."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        before, after = block.in_channels, block.out_channels
        # Takes every stride-th pixel.
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, block.stride)
        if block.projected:
            self.shortcut_layer = nn.Sequential(
                Pointwise(before, after, 1, block.stride, bias=False), nn.BatchNorm2d(after)
            )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(before),
            _convolution(block, before, 1),
            nn.BatchNorm2d(after),
            nn.PReLU(after),
            _convolution(block, after, block.stride),
            nn.BatchNorm2d(after),
        )
        if block.squeezed:
            self.res_layer.add_module("se_block", SqueezeExcite(after, block.squeezed))

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) -> (n, out_channels, h / stride, w / stride)."""
        summed: Tensor = self.res_layer(x) + self.shortcut_layer(x)
        return summed


class Pointwise(nn.Conv2d):
    """A 1x1 convolution that takes every stride-th pixel first.

    The same values as nn.Conv2d, whose backward kills the process on a CPU for up to 8 channels, channels last
    and stride 2 (torch 2.14).
    """

    def forward(self, input: Tensor) -> Tensor:
        """(n, in_channels, h, w) -> (n, out_channels, h / stride, w / stride)."""
        rows, columns = self.stride
        return nn.functional.conv2d(input[:, :, ::rows, ::columns], self.weight)


class SqueezeExcite(nn.Module):
    """Scales every channel by a factor in (0, 1) computed from the means of all channels."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1, bias=False)
        self.fc2 = nn.Conv2d(squeezed, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, h, w) -> the same shape."""
        means = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.fc2(torch.relu(self.fc1(means))))


def _convolution(block: Block, before: int, stride: int) -> nn.Module:
    after, size, pad = block.out_channels, block.kernel, block.kernel // 2
    if block.operation == PLAIN:
        return nn.Conv2d(before, after, size, stride, pad, bias=False)
    return nn.Sequential(
        nn.Conv2d(before, before, size, stride, pad, groups=before, bias=False),
        nn.Conv2d(before, after, 1, bias=False),
    )


def initialize(module: nn.Module) -> None:
    """AdaFace's: Kaiming by fan-out for convolutions and the linear layer; the rest is torch's default."""
    if not isinstance(module, nn.Conv2d | nn.Linear):
        return
    # A depthwise convolution feeds one channel from one: its fan-in is right, torch's fan-out counts them all.
    depthwise = isinstance(module, nn.Conv2d) and module.groups > 1
    nn.init.kaiming_normal_(module.weight, mode="fan_in" if depthwise else "fan_out", nonlinearity="relu")
    if module.bias is not None:
        nn.init.zeros_(module.bias)
