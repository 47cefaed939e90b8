"""The classification network of macro-micro search as a module.

Source: `siddikui/Efficient-Macro-Micro-NAS:NetworkMix.py`. Its parameters equal the closed form in
`facenas.spaces.plain` exactly.
"""

from __future__ import annotations

from torch import nn

from facenas.spaces.plain import PLAIN, Layer, PlainArchitecture


def build_module(arch: PlainArchitecture) -> nn.Module:
    """(n, in_channels, h, w) float32 -> (n, num_classes) logits."""
    stem, stride = (arch.in_channels, 2 * arch.width), min(2, arch.stem_stride)
    layers = list(arch.layers())
    return nn.Sequential(
        nn.Sequential(
            nn.Conv2d(*stem, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(stem[1]),
            *stem_pools(arch.stem_stride),
        ),
        *(_layer(layer) for layer in layers),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(layers[-1].out_channels, arch.num_classes),
    )


def halving() -> nn.Module:
    """Half the pixels a side, rounded up. Windows that overlap could add gradients on a GPU in any order."""
    return nn.MaxPool2d(2, ceil_mode=True)


def stem_pools(stem_stride: int) -> list[nn.Module]:
    """What halves the side behind a convolution with a stride of 2, until `stem_stride` is reached."""
    return [halving() for _ in range(1, stem_stride.bit_length() - 1)]


def _layer(layer: Layer) -> nn.Sequential:
    before, after = layer.in_channels, layer.out_channels
    # What comes before is a BatchNorm whose backward does not need its output: in place is safe.
    relu, norm = nn.ReLU(inplace=True), nn.BatchNorm2d(after)

    def spatial(channels: int, groups: int) -> nn.Conv2d:
        size, pad = layer.kernel, layer.kernel // 2
        return nn.Conv2d(before, channels, size, layer.stride, pad, groups=groups, bias=False)

    if layer.operation == PLAIN:
        return nn.Sequential(relu, spatial(after, 1), norm)
    return nn.Sequential(relu, spatial(before, before), nn.Conv2d(before, after, 1, bias=False), norm)
