"""Softmax: a plain linear layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from facenas.config import Config
from facenas.models.heads import HEADS
from facenas.models.heads.base import Head


@HEADS.register("softmax")
class Softmax(Head):
    """A linear layer over z: no margin, no normalization."""

    separable = True

    def __init__(self, embedding: int, identities: int, seed: int, settings: Config | None = None) -> None:
        super().__init__(embedding, identities, seed, settings)
        self.bias = nn.Parameter(torch.zeros(identities))

    def logits(self, z: Tensor, labels: Tensor) -> Tensor:
        """As z @ kernel + bias, whatever the labels are."""
        return torch.addmm(self.bias, z, self.kernel)
