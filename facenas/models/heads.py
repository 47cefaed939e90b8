"""Classification heads of face training: z and labels -> logits, with a margin at the labels.

Sources: `mk-minchul/AdaFace:head.py`; "AdaFace: Quality Adaptive Margin for Face Recognition", section 3.3.
CVLface and arcface_torch give the margin no gradient; here it has one, as in AdaFace's file. Only the logits at
the labels need arc cosines: numerically the same as in that file, and cheaper.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from facenas.models.head_settings import HeadConfig


class Head(nn.Module, ABC):
    """One column of `kernel` (embedding, identities) for each identity; always computes in float32."""

    def __init__(self, embedding: int, identities: int, seed: int) -> None:
        super().__init__()
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


class Softmax(Head):
    """A linear layer over z: no margin, no normalisation."""

    def __init__(self, embedding: int, identities: int, seed: int) -> None:
        super().__init__(embedding, identities, seed)
        self.bias = nn.Parameter(torch.zeros(identities))

    def logits(self, z: Tensor, labels: Tensor) -> Tensor:
        """As z @ kernel + bias, whatever the labels are."""
        return torch.addmm(self.bias, z, self.kernel)


class MarginHead(Head):
    """`scale` times the cosines between z and the columns, made harder at the labels."""

    eps: float  # cosines are kept this far from +-1, where the arc cosine has no gradient

    def __init__(
        self, embedding: int, identities: int, seed: int, margin: float, scale: float = 64.0
    ) -> None:
        super().__init__(embedding, identities, seed)
        self.margin, self.scale = margin, scale

    def logits(self, z: Tensor, labels: Tensor) -> Tensor:
        """The scaled cosines; at the labels, what `harder` makes of them."""
        norms = torch.linalg.vector_norm(z, dim=1, keepdim=True).clamp_min(1e-12)
        cosines = (z / norms) @ F.normalize(self.kernel, dim=0)
        cosines = cosines.clamp(-1 + self.eps, 1 - self.eps)
        at = torch.arange(len(labels), device=labels.device), labels
        logits: Tensor = self.scale * cosines
        logits[at] = self.scale * self.harder(cosines[at], norms.detach().squeeze(1))
        return logits

    @abstractmethod
    def harder(self, cosines: Tensor, norms: Tensor) -> Tensor:
        """(n,) cosines at the labels and norms of z -> (n,) what stands there in their place."""

    def _widened(self, cosines: Tensor, angle: Tensor | float) -> Tensor:
        """Cosines of angles that are `angle` radians wider, kept inside (0, pi)."""
        return (cosines.arccos() + angle).clamp(self.eps, math.pi - self.eps).cos()


class ArcFace(MarginHead):
    """The angle at the label is `margin` radians wider."""

    eps = 1e-4

    def harder(self, cosines: Tensor, norms: Tensor) -> Tensor:
        """cos(theta + margin)."""
        return self._widened(cosines, self.margin)


class CosFace(MarginHead):
    """The cosine at the label is `margin` smaller."""

    eps = 1e-4

    def harder(self, cosines: Tensor, norms: Tensor) -> Tensor:
        """cos(theta) - margin."""
        return cosines - self.margin


class AdaFace(MarginHead):
    """A margin that follows image quality, told by the norm of z against running mean and deviation of norms.

    `h`: how much of the normalised norm counts; `t_alpha`: weight of the new batch in the running statistics.
    These move in training alone. (The peers' also move under `eval()`, in which they never call the head.)
    """

    eps = 1e-3
    t: Tensor  # unused, but in the peers' checkpoints
    batch_mean: Tensor
    batch_std: Tensor

    def __init__(
        self,
        embedding: int,
        identities: int,
        seed: int,
        margin: float = 0.4,
        scale: float = 64.0,
        h: float = 0.333,
        t_alpha: float = 0.01,
    ) -> None:
        super().__init__(embedding, identities, seed, margin, scale)
        self.h, self.t_alpha = h, t_alpha
        self.register_buffer("t", torch.zeros(1))
        self.register_buffer("batch_mean", torch.full((1,), 20.0))
        self.register_buffer("batch_std", torch.full((1,), 100.0))

    def harder(self, cosines: Tensor, norms: Tensor) -> Tensor:
        """cos(theta - m*q) - (m + m*q) for quality q in [-1, 1]; statistics include this batch."""
        norms = norms.clamp(0.001, 100)
        if self.training:
            self._follow(norms)
        quality = self.h * (norms - self.batch_mean) / (self.batch_std + self.eps)
        shift = self.margin * quality.clamp(-1, 1)
        return self._widened(cosines, -shift) - (self.margin + shift)

    @torch.no_grad()
    def _follow(self, norms: Tensor) -> None:
        """Moves the statistics towards mean and unbiased deviation of the joint batch of all processes."""
        values = norms.double()
        sums = torch.stack([torch.ones_like(values), values, values**2]).sum(1)
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(sums)
        count, total, squares = sums
        variance = (squares - total**2 / count).clamp_min(0) / (count - 1)
        # One image has no deviation: it would turn the statistics into NaN for good.
        deviation = torch.where(count > 1, variance.sqrt(), self.batch_std)
        self.batch_mean.lerp_((total / count).to(self.batch_mean), self.t_alpha)
        self.batch_std.lerp_(deviation.to(self.batch_std), self.t_alpha)


def build_head(config: HeadConfig, embedding: int, identities: int, seed: int) -> Head:
    """The head that `config` describes; its kernel is drawn from `seed` alone."""
    sizes = embedding, identities, seed
    margin = DEFAULT_MARGINS[config.kind] if config.margin is None else config.margin
    match config.kind:
        case "adaface":
            return AdaFace(*sizes, margin, config.scale, config.h, config.t_alpha)
        case "arcface":
            return ArcFace(*sizes, margin, config.scale)
        case "cosface":
            return CosFace(*sizes, margin, config.scale)
        case "softmax":
            return Softmax(*sizes)


DEFAULT_MARGINS = {"adaface": 0.4, "arcface": 0.5, "cosface": 0.4, "softmax": 0.0}
