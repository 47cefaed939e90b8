"""Which task trains an architecture: that of its data."""

from __future__ import annotations

from facenas.arch import AnyArchitecture, IRArchitecture
from facenas.config import DataConfig, FaceRecipe, Recipe
from facenas.data import ImageSet, TrainingData
from facenas.device import Device
from facenas.errors import UserError
from facenas.training.loop import Task


def build_task(
    arch: AnyArchitecture,
    data: TrainingData,
    config: DataConfig,
    recipe: Recipe | FaceRecipe,
    split_seed: int,
    seed: int,
    device: Device,
    final: bool = False,
) -> Task:
    """The task of a candidate, or of the `final` network, which trains on all that is not held out.

    `split_seed` decides what is held out, `seed` weights and draws. Raises UserError when architecture,
    data and recipe do not belong together.
    """
    if isinstance(data, ImageSet):
        if not isinstance(arch, IRArchitecture) and isinstance(recipe, Recipe):
            from facenas.training.classification import Classification

            return Classification(arch, data, config, recipe, split_seed, seed, device, final)
    elif isinstance(arch, IRArchitecture) and isinstance(recipe, FaceRecipe):
        from facenas.training.faces import Faces

        return Faces(arch, data, config, recipe, split_seed, seed, device, final)
    raise UserError(
        f"{config.name}: an architecture of kind {arch.kind} and a recipe for {recipe.kind} do not fit this "
        "data; faces (a store made by `facenas data import`) go with kind ir, images of classes with others"
    )
