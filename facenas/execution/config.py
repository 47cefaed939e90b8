"""Where candidates are trained."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from facenas.config import Config


class ExecutionConfig(Config):
    """Where candidates are trained. `workers` left at null: one for every core; on GPUs set one for each."""

    executor: Literal["serial", "process"] = "process"
    workers: int | None = Field(None, ge=1)
    speculate: bool = True
