"""Which images, and what part of them is held out."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from facenas.config import ADDED, Config, deciding
from facenas.errors import UserError
from facenas.files import read_whole

_MOST_GROUPS = 1_000_000_000  # bytes


class DataConfig(Config):
    """Which images, and what part of them a candidate sees.

    Nothing held out, a `validation_fraction` of 0, is for final trainings alone: they keep the last epoch.
    Of faces, the fractions held out are of identities; `test_fraction` and `pairs` (pairs of images to
    verify on) are for faces alone: classification sets have test images of their own.
    `subset_of`: whether `data_fraction` is a part of every class's images, or, of faces, of the identities with
    all their images.
    `classes`: those that are kept, by name or by number; none: all.
    `strict`: whether images that cannot be read end the command, in place of being left out.
    `residency`: whether images live in the memory of the GPU that trains; auto: when they fit.
    `groups`: of faces, a CSV of identities and their groups, such as an age band: candidates are judged by
    group too, for the objectives `worst_group` and `group_gap` of a search for a Pareto front.
    """

    name: str = "digits"
    root: Path = Path("data")
    image_size: int | None = Field(None, ge=8, le=1024)
    download: bool = False
    select_on: Literal["validation", "test"] = "validation"
    validation_fraction: float = Field(0.1, ge=0, lt=1)
    data_fraction: float = Field(1.0, gt=0, le=1)
    test_fraction: float = Field(0.0, ge=0, lt=1)
    pairs: int = Field(6000, ge=20)
    strict: bool = False
    residency: Literal["auto", "device", "host"] = "auto"
    subset_of: Annotated[Literal["images", "identities"], ADDED] = "images"
    classes: Annotated[tuple[int | str, ...], ADDED] = ()
    groups: Annotated[Path | None, ADDED] = None

    def deciding(self) -> dict[str, Any]:
        """What decides the result of a training beside the images themselves, as JSON for its key."""
        where = ("name", "root", "image_size", "download", "strict", "residency")
        told = {key: value for key, value in deciding(self).items() if key not in where}
        if self.groups:  # what the table says, wherever it lies
            told["groups"] = hashlib.sha256(read_whole(self.groups.expanduser(), _MOST_GROUPS)).hexdigest()
        return told

    def check_candidates_are_judged(self) -> None:
        """Raises UserError when nothing is held out that a search could judge candidates on."""
        if not self.validation_fraction and self.select_on == "validation":
            raise UserError(
                "data.validation_fraction: is 0, which leaves a search nothing to judge candidates on; only "
                "a final training can do without"
            )
