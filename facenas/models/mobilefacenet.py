"""MobileFaceNets as modules; parameters equal the closed form in `facenas.spaces.mobilefacenet` exactly.

Sources as there. No activation comes after a sum; z comes out of a BatchNorm with weight and bias.
"""

from __future__ import annotations

from torch import Tensor, nn

from facenas.models.ir import FaceBackbone, depthwise_output, initialize
from facenas.spaces.mobilefacenet import LAST_SIDE, Bottleneck, MobileFaceNetArchitecture


def build_module(arch: MobileFaceNetArchitecture) -> nn.Module:
    """(n, 3, 112, 112) float32 RGB in [-1, 1] -> z (n, embedding), not normalized."""
    return MobileFaceNetModule(arch).apply(initialize)


class MobileFaceNetModule(FaceBackbone):
    """Stem with a stride, bottlenecks, output layer. Raises UserError for images that are not 112x112."""

    def __init__(self, arch: MobileFaceNetArchitecture) -> None:
        super().__init__()
        width, last = arch.width, arch.last
        self.input_layer = nn.Sequential(
            *_convolution(arch.in_channels, width, 3, 2),
            *_convolution(width, width, 3, groups=arch.groups),
        )
        self.body = nn.Sequential(*(BottleneckBlock(bottleneck) for bottleneck in arch.bottlenecks()))
        self.output_layer = nn.Sequential(
            *_convolution(2 * width, last, 1),
            *depthwise_output(last, LAST_SIDE, arch.embedding),
        )


class BottleneckBlock(nn.Module):
    """Wide inside; the narrow ends are summed, and have no activation."""

    def __init__(self, bottleneck: Bottleneck) -> None:
        super().__init__()
        inner, after = bottleneck.inner, bottleneck.out_channels
        self.residual = bottleneck.residual
        self.layers = nn.Sequential(
            *_convolution(bottleneck.in_channels, inner, 1),
            *_convolution(inner, inner, 3, bottleneck.stride, groups=inner),
            nn.Conv2d(inner, after, 1, bias=False),
            nn.BatchNorm2d(after),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) -> (n, out_channels, h / stride, w / stride)."""
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


def _convolution(before: int, after: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    padding = kernel // 2
    convolution = nn.Conv2d(before, after, kernel, stride, padding, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(after), nn.PReLU(after)]
