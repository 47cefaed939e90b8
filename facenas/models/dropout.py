"""Dropout with masks that can be repeated: for resumed trainings, and for processes that train as one."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SeededDropout(nn.Module):
    """nn.Dropout that, once placed, draws its mask for the whole joint batch from a seed and takes its rows.

    Unplaced, it draws from torch's global generator like nn.Dropout.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self._place: tuple[int, int, int] | None = None

    def place(self, seed: int, start: int, total: int) -> None:
        """The next forward is for rows `start` and following of a joint batch of `total` rows."""
        self._place = seed, start, total

    def forward(self, input: Tensor) -> Tensor:
        """(n, ...) -> the same shape; evaluation changes nothing."""
        if not self.training or self.p == 0:
            return input
        if self._place is None:
            return nn.functional.dropout(input, self.p)
        seed, start, total = self._place
        generator = torch.Generator(input.device).manual_seed(seed)
        shape = (total, *input.shape[1:])
        drawn = torch.rand(shape, generator=generator, device=input.device)
        kept = drawn[start : start + len(input)] >= self.p
        return input * kept.to(input.dtype).div_(1 - self.p)

    def extra_repr(self) -> str:
        """Shown when the network is printed."""
        return f"p={self.p}"


def place_dropout(network: nn.Module, seed: int, start: int, total: int) -> None:
    """Places all seeded dropout of the network, each layer with a seed of its own."""
    layers = (module for module in network.modules() if isinstance(module, SeededDropout))
    for number, layer in enumerate(layers):
        layer.place(seed + number, start, total)
