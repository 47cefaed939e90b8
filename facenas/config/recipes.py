"""How a network is trained, and on what."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from facenas.config.base import Config


class DataConfig(Config):
    """Which images, and what part of them a candidate sees.

    Of faces, the fractions held out are of identities; `test_fraction` and `pairs` (pairs of images to
    verify on) are for faces alone: classification sets have test images of their own.
    """

    name: str = "digits"
    root: Path = Path("data")
    image_size: int | None = Field(None, ge=8, le=1024)
    download: bool = False
    select_on: Literal["validation", "test"] = "validation"
    validation_fraction: float = Field(0.1, gt=0, lt=1)
    data_fraction: float = Field(1.0, gt=0, le=1)
    test_fraction: float = Field(0.0, ge=0, lt=1)
    pairs: int = Field(6000, ge=20)


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


class Optimisation(Config):
    """SGD and its schedule. `milestones`: of a training of `final_epochs`, before which the rate drops."""

    batch_size: int = Field(64, ge=2)
    lr: float = Field(0.025, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(3e-4, ge=0)
    decay_norms: bool = True
    grad_clip: float | None = Field(5.0, gt=0)
    schedule: Literal["cosine", "steps"] = "cosine"
    milestones: tuple[int, ...] = ()
    gamma: float = Field(0.1, gt=0, le=1)
    final_epochs: int = Field(600, ge=1)


class Recipe(Optimisation):
    """How a classification network is trained. Defaults: the authors' recipe for a candidate.

    `flip` and `crop` left at null take the data set's own value (no flip for characters; 32x32 crops of
    28x28 and 32x32 images, else the image size).
    """

    kind: Literal["classification"] = "classification"
    pad: int = Field(4, ge=0)
    crop: int | None = Field(None, ge=8)
    flip: bool | None = None
    cutout: int = Field(16, ge=0)


class FaceRecipe(Optimisation):
    """How a face network is trained; `crop`, `low_res`, `photometric`: how probable each augmentation is."""

    kind: Literal["faces"] = "faces"
    head: HeadConfig = HeadConfig()
    crop: float = Field(0.2, ge=0, le=1)
    low_res: float = Field(0.2, ge=0, le=1)
    photometric: float = Field(0.2, ge=0, le=1)
    flip: bool = True
