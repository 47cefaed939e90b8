"""ArcFace: "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", equation 3."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from facenas.models.heads import HEADS
from facenas.models.heads.base import MarginHead


@HEADS.register("arcface")
class ArcFace(MarginHead):
    """The angle at the label is `margin` radians wider."""

    class Settings(MarginHead.Settings):
        """`margin`: in radians; `scale` multiplies cosines."""

        margin: float = Field(0.5, ge=0)

    separable = True

    def apply_margin(self, cosines: Tensor, norms: Tensor) -> Tensor:
        """cos(theta + margin)."""
        return self.widen(cosines, self.settings.margin)
