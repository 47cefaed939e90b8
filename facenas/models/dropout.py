"""Dropout whose masks can be repeated: by resumed trainings, by processes that train as one, and on any device.

A mask is a hash of each value's place in the joint batch, keyed for the step. So a CPU and a GPU drop the same
values, and a step on a GPU asks no generator, which a captured step could not.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_WORD = (1 << 32) - 1
_LAYER = 0x9E3779B9  # 2^32 over the golden ratio: keeps the layers' masks apart


class SeededDropout(nn.Module):
    """nn.Dropout that, once placed, takes its rows of the mask that a key gives the whole joint batch.

    Unplaced, it draws from torch's global generator like nn.Dropout.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self._place: tuple[Tensor, int, int] | None = None

    def place(self, key: Tensor, start: int, number: int = 0) -> None:
        """The next forward is for rows `start` and following of a joint batch.

        key: (2,) int64 on the input's device, as `draw_key` tells; number: of the layer in its network.
        """
        self._place = key, start, number

    def shift(self, rows: int) -> None:
        """The next forward is for rows that lie so much further down."""
        if self._place is not None:
            key, start, number = self._place
            self._place = key, start + rows, number

    def forward(self, input: Tensor) -> Tensor:
        """(n, ...) -> the same shape; evaluation changes nothing."""
        if not self.training or self.p == 0:
            return input
        if self._place is None:
            return nn.functional.dropout(input, self.p)
        key, start, number = self._place
        numbers = torch.arange(input.numel(), device=input.device).add_(start * input[0].numel())
        kept = hashed(numbers, key, number) >= int(self.p * 2**32)
        return input * kept.view(input.shape).to(input.dtype).div_(1 - self.p)

    def extra_repr(self) -> str:
        """Shown when the network is printed."""
        return f"p={self.p}"


def place_dropout(network: nn.Module, key: Tensor, start: int) -> None:
    """Places all seeded dropout of the network; each layer has a mask of its own."""
    for number, layer in enumerate(_layers(network)):
        layer.place(key, start, number)


def shift_dropout(network: nn.Module, rows: int) -> None:
    """The network's next forward is for rows that lie so much further down in the joint batch."""
    for layer in _layers(network):
        layer.shift(rows)


def _layers(network: nn.Module) -> list[SeededDropout]:
    return [module for module in network.modules() if isinstance(module, SeededDropout)]


def hashed(numbers: Tensor, key: Tensor, layer: int) -> Tensor:
    """(n,) int64 in [0, 2^32): evenly distributed, for numbers below 2^32; changes `numbers`.

    A step through all residues by the key, then the finalizer found by `skeeto/hash-prospector` (#19), whose
    factors keep every product inside int64.
    """
    x = numbers.mul_(key[0]).add_(key[1] + layer * _LAYER).bitwise_and_(_WORD)
    for shift, factor in ((16, 0x21F0AAAD), (15, 0x735A2D97)):
        x = x.bitwise_xor_(x >> shift).mul_(factor).bitwise_and_(_WORD)
    return x.bitwise_xor_(x >> 15)
