"""Settings of heads."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from facenas.config import Config


class HeadConfig(Config):
    """The classification head of a face network (`facenas.models.heads`); `margin` null: the head's own.

    `scale` multiplies cosines; `h` and `t_alpha`, AdaFace's concentration and weight of the new batch's norms,
    mean nothing to the others.
    """

    kind: Literal["adaface", "arcface", "cosface", "softmax"] = "adaface"
    margin: float | None = Field(None, ge=0)
    scale: float = Field(64.0, gt=0)
    h: float = Field(0.333, ge=0)
    t_alpha: float = Field(0.01, gt=0, le=1)
