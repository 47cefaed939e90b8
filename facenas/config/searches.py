"""How a search decides."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from facenas.config.base import Config


class SearchConfig(Config):
    """Macro-micro search. Defaults: what the authors ran (gain, drop and accuracies in percentage points)."""

    strategy: Literal["macro_micro"] = "macro_micro"
    min_epochs: int = Field(10, ge=1)
    depth_epoch_step: int = Field(1, ge=0)
    width_epoch_step: int = Field(2, ge=0)
    micro: bool = True
    micro_epochs: int = Field(2, ge=1)
    depth_gain: float = Field(0.1, ge=0)
    depth_drop: float = Field(0.05, ge=0)
    max_depth_drops: int = Field(3, ge=1)
    max_width_drops: int = Field(3, ge=1)
    target_accuracy: float = 100.0
    target_slack: float = 0.1
    saturated_train_accuracy: float = 100.0
    param_slack: int = Field(10_000, ge=0)
