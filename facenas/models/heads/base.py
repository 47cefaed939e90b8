"""What heads have in common: the kernel, float32, and for those with a margin, cosines.

CVLface and arcface_torch give the margin no gradient; here it has one, as in `mk-minchul/AdaFace:head.py`.
Only the logits at the labels need arc cosines: numerically the same as in that file, and cheaper.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from facenas.config import Config
from facenas.models.heads import HEADS


class Head(nn.Module, ABC):
    """One column of `kernel` (embedding, identities) for each identity; always computes in float32.

    The kernel is drawn from `seed` alone; `settings` left out are the head's own defaults.
    """

    class Settings(Config):
        """A head without settings."""

    settings: Config

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        HEADS.name_of(cls)  # its settings know it in every process: workers get them without the registry

    def __init__(self, embedding: int, identities: int, seed: int, settings: Config | None = None) -> None:
        super().__init__()
        self.settings = settings or self.Settings()
        drawn = torch.empty(embedding, identities)
        drawn.uniform_(-1, 1, generator=torch.Generator().manual_seed(seed))
        self.kernel = nn.Parameter(F.normalize(drawn, dim=0))

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """Raw z (n, embedding), labels (n,) int64 -> logits (n, identities) float32."""
        with torch.autocast(z.device.type, enabled=False):
            return self.logits(z.float(), labels)

    @abstractmethod
    def logits(self, z: Tensor, labels: Tensor) -> Tensor:
        """The same for float32 z."""


HEADS.base = Head


class MarginHead(Head):
    """`scale` times the cosines between z and the columns, made smaller at the labels."""

    class Settings(Config):
        """`margin`: in radians or as a part of the cosine, as the head has it; `scale` multiplies cosines."""

        margin: float = Field(0.4, ge=0)
        scale: float = Field(64.0, gt=0)

    settings: Settings
    eps = 1e-4  # cosines are kept this far from +-1, where the arc cosine has no gradient

    def logits(self, z: Tensor, labels: Tensor) -> Tensor:
        """The scaled cosines; at the labels, what `apply_margin` makes of them."""
        norms = torch.linalg.vector_norm(z, dim=1, keepdim=True).clamp_min(1e-12)
        cosines = (z / norms) @ F.normalize(self.kernel, dim=0)
        cosines = cosines.clamp(-1 + self.eps, 1 - self.eps)
        at = torch.arange(len(labels), device=labels.device), labels
        scale = self.settings.scale
        logits: Tensor = scale * cosines
        logits[at] = scale * self.apply_margin(cosines[at], norms.detach().squeeze(1))
        return logits

    @abstractmethod
    def apply_margin(self, cosines: Tensor, norms: Tensor) -> Tensor:
        """(n,) cosines at the labels and norms of z -> (n,) what stands there in their place."""

    def widen(self, cosines: Tensor, angle: Tensor | float) -> Tensor:
        """Cosines of angles that are `angle` radians wider, kept inside (0, pi)."""
        # Beyond pi the cosine would rise again and reward an embedding for turning further away. The clamp
        # gives such an image no gradient at its label, in AdaFace's file too: the other logits still
        # move it. (pytorch-metric-learning goes on with a straight line there, and other figures follow.)
        return (cosines.arccos() + angle).clamp(self.eps, math.pi - self.eps).cos()
