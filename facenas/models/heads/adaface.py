"""AdaFace: a margin that follows image quality.

Sources: `mk-minchul/AdaFace:head.py`; "AdaFace: Quality Adaptive Margin for Face Recognition", section 3.3.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from pydantic import Field
from torch import Tensor

from facenas.config import Config
from facenas.models.heads import HEADS
from facenas.models.heads.base import MarginHead


@HEADS.register("adaface")
class AdaFace(MarginHead):
    """The norm of z, against running mean and deviation of norms, tells quality and moves the margin.

    The statistics move in training alone. (The peers' also move under `eval()`, in which they never call
    the head.)
    """

    class Settings(MarginHead.Settings):
        """`h`: how much of the normalized norm counts; `t_alpha`: weight of the new batch in the statistics."""

        h: float = Field(0.333, ge=0)
        t_alpha: float = Field(0.01, gt=0, le=1)

    settings: Settings
    separable = True
    eps = 1e-3
    t: Tensor  # unused, but in the peers' checkpoints
    batch_mean: Tensor
    batch_std: Tensor

    def __init__(self, embedding: int, identities: int, seed: int, settings: Config | None = None) -> None:
        super().__init__(embedding, identities, seed, settings)
        self.register_buffer("t", torch.zeros(1))
        self.register_buffer("batch_mean", torch.full((1,), 20.0))
        self.register_buffer("batch_std", torch.full((1,), 100.0))

    def apply_margin(self, cosines: Tensor, norms: Tensor) -> Tensor:
        """cos(theta - m*q) - (m + m*q) for quality q in [-1, 1]; statistics include this batch."""
        norms, margin = norms.clamp(0.001, 100), self.settings.margin
        if self.training:
            self._follow(norms)
        quality = self.settings.h * (norms - self.batch_mean) / (self.batch_std + self.eps)
        shift = margin * quality.clamp(-1, 1)
        return self.widen(cosines, -shift) - (margin + shift)

    @torch.no_grad()
    def _follow(self, norms: Tensor) -> None:
        """Moves the statistics towards mean and unbiased deviation of the joint batch of all processes."""
        values, t_alpha = norms.double(), self.settings.t_alpha
        sums = torch.stack([torch.ones_like(values), values, values**2]).sum(1)
        # A head that is split has the norms of the joint batch already.
        if self.share is None and dist.is_available() and dist.is_initialized():
            dist.all_reduce(sums)
        count, total, squares = sums
        variance = (squares - total**2 / count).clamp_min(0) / (count - 1)
        # One image has no deviation: it would turn the statistics into NaN for good.
        deviation = torch.where(count > 1, variance.sqrt(), self.batch_std)
        self.batch_mean.lerp_((total / count).to(self.batch_mean), t_alpha)
        self.batch_std.lerp_(deviation.to(self.batch_std), t_alpha)
