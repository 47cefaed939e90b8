"""GhostFaceNets as modules; parameters equal the closed form in `facenas.spaces.ghostfacenet` exactly.

Sources as there. Padding is that of Keras, so that weights trained there compute here what they do there.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facenas.models.ir import FaceBackbone, depthwise_output, initialize
from facenas.spaces.ghostfacenet import GHOST_KERNEL, Bottleneck, GhostFaceNetArchitecture


def build_module(arch: GhostFaceNetArchitecture) -> nn.Module:
    """(n, 3, 112, 112) float32 RGB in [-1, 1] -> z (n, embedding), not normalized."""
    return GhostFaceNetModule(arch).apply(initialize)


class GhostFaceNetModule(FaceBackbone):
    """Stem, bottlenecks, output layer. Raises UserError for images that are not 112x112."""

    def __init__(self, arch: GhostFaceNetArchitecture) -> None:
        super().__init__()
        stem, last = arch.stem, arch.last
        *_, bottleneck = bottlenecks = list(arch.bottlenecks())
        self.input_layer = nn.Sequential(
            SamePadded(arch.in_channels, stem, 3, arch.stem_stride), nn.BatchNorm2d(stem), nn.PReLU(stem)
        )
        self.body = nn.Sequential(*map(BottleneckBlock, bottlenecks))
        self.output_layer = nn.Sequential(
            *_pointwise(bottleneck.out_channels, last),
            nn.PReLU(last),
            *depthwise_output(last, bottleneck.side, arch.embedding),
        )


class SamePadded(nn.Conv2d):
    """A convolution without bias, padded as Keras does: with a stride of 2, an even side has more behind it.

    A side of 56 with a kernel of 3 gets no pixel before and one behind; torch's own padding takes one and one,
    and so looks at other pixels.
    """

    def __init__(self, before: int, after: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(before, after, kernel, stride, groups=groups, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """(n, before, h, w) -> (n, after, ceil(h / stride), ceil(w / stride))."""
        side, kernel, stride = input.shape[3], self.kernel_size[0], self.stride[0]
        more = max(0, (-(-side // stride) - 1) * stride + kernel - side)
        if more % 2:
            first, last = more // 2, more - more // 2
            return super().forward(F.pad(input, (first, last, first, last)))
        return F.conv2d(input, self.weight, None, stride, more // 2, groups=self.groups)


class GhostModule(nn.Module):
    """Half of the channels by a 1x1 convolution, the other half out of these by a depthwise one."""

    def __init__(self, before: int, after: int, activation: bool) -> None:
        super().__init__()
        half = after // 2
        slopes = [nn.PReLU(half)] if activation else []
        self.primary = nn.Sequential(*_pointwise(before, half), *slopes)
        slopes = [nn.PReLU(half)] if activation else []
        self.cheap = nn.Sequential(*_depthwise(half, GHOST_KERNEL), *slopes)

    def forward(self, x: Tensor) -> Tensor:
        """(n, before, h, w) -> (n, after, h, w)."""
        primary = self.primary(x)
        return torch.cat((primary, self.cheap(primary)), 1)


class BottleneckBlock(nn.Module):
    """Wide inside; the narrow ends are summed, and have no activation."""

    def __init__(self, bottleneck: Bottleneck) -> None:
        super().__init__()
        before, inner, after = bottleneck.in_channels, bottleneck.inner, bottleneck.out_channels
        kernel, stride = bottleneck.kernel, bottleneck.stride
        layers: list[nn.Module] = [GhostModule(before, inner, activation=True)]
        layers += _depthwise(inner, kernel, stride) if stride > 1 else []
        layers += [SqueezeExcite(inner, bottleneck.squeezed)] if bottleneck.squeezed else []
        self.layers = nn.Sequential(*layers, GhostModule(inner, after, activation=False))
        self.shortcut: nn.Module = nn.Identity()
        if bottleneck.projected:
            self.shortcut = nn.Sequential(*_depthwise(before, kernel, stride), *_pointwise(before, after))

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) -> (n, out_channels, h', w')."""
        summed: Tensor = self.shortcut(x) + self.layers(x)
        return summed


class SqueezeExcite(nn.Module):
    """Scales every channel by a factor within 0 and 1, computed from the means of all channels."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc1, self.act = nn.Conv2d(channels, squeezed, 1), nn.PReLU(squeezed)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, h, w) -> the same shape. The sigmoid is Keras 2's: a line of slope 0.2, cut off."""
        told: Tensor = self.fc2(self.act(self.fc1(x.mean((2, 3), keepdim=True))))
        return x * (0.2 * told + 0.5).clamp(0, 1)


def _pointwise(before: int, after: int) -> list[nn.Module]:
    return [nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after)]


def _depthwise(channels: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    return [SamePadded(channels, channels, kernel, stride, groups=channels), nn.BatchNorm2d(channels)]
