"""How a network is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pydantic import Field

from facenas.config import Config, choice
from facenas.models.heads import HEADS

if TYPE_CHECKING:
    HeadSettings: TypeAlias = Config
else:
    HeadSettings = choice(HEADS, "kind", "adaface")


class Optimization(Config):
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

    def deciding(self, final: bool = False) -> dict[str, Any]:
        """What decides the weights of a candidate, or of the `final` network, as JSON for their keys."""
        tree = self.model_dump(mode="json")
        # No candidate reads it; and the keys of final trainings from before it came stay what they were.
        if tree.pop("hold_out", True) or not final:
            return tree
        return {**tree, "hold_out": False}


class Recipe(Optimization):
    """How a classification network is trained. Defaults: the authors' recipe for a candidate.

    `flip` and `crop` left at null take the data set's own value (no flip for characters; 32x32 crops of
    28x28 and 32x32 images, else the image size).
    """

    kind: Literal["classification"] = "classification"
    pad: int = Field(4, ge=0)
    crop: int | None = Field(None, ge=8)
    flip: bool | None = None
    cutout: int = Field(16, ge=0)


class FaceRecipe(Optimization):
    """How a face network is trained; `crop`, `low_res`, `photometric`: how probable each augmentation is.

    `hold_out` false: the final training holds out no identities to choose its best epoch on, trains on them
    too, and keeps the last epoch, as published trainings do. Candidates are judged on them all the same.
    """

    kind: Literal["faces"] = "faces"
    # As a mapping: the settings themselves lie beside the head, whose file imports torch.
    head: HeadSettings = Field({"kind": "adaface"}, validate_default=True)
    crop: float = Field(0.2, ge=0, le=1)
    low_res: float = Field(0.2, ge=0, le=1)
    photometric: float = Field(0.2, ge=0, le=1)
    flip: bool = True
    hold_out: bool = True
