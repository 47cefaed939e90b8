"""CosFace: "CosFace: Large Margin Cosine Loss for Deep Face Recognition", equation 4."""

from __future__ import annotations

from torch import Tensor

from facenas.models.heads import HEADS
from facenas.models.heads.base import MarginHead


@HEADS.register("cosface")
class CosFace(MarginHead):
    """The cosine at the label is `margin` smaller."""

    separable = True

    def apply_margin(self, cosines: Tensor, norms: Tensor) -> Tensor:
        """cos(theta) - margin."""
        return cosines - self.settings.margin
