"""Which task trains an architecture: that of its data."""

from __future__ import annotations

from torch import nn

from facenas.data import ImageSet, TrainingData
from facenas.data.config import DataConfig
from facenas.device import Device
from facenas.errors import UserError
from facenas.spaces import AnyArchitecture, GraphArchitecture, IRArchitecture, is_face
from facenas.training.recipes import FaceRecipe, Recipe
from facenas.training.trainer import Task


def build_task(
    arch: AnyArchitecture,
    data: TrainingData,
    config: DataConfig,
    recipe: Recipe | FaceRecipe,
    split_seed: int,
    seed: int,
    device: Device,
    final: bool = False,
    model: nn.Module | None = None,
) -> Task:
    """The task of a candidate, or of the `final` network, which trains on all that is not held out.

    `model`: the network of `arch`, when it is not to be built anew; `split_seed` decides what is held out,
    `seed` weights and draws. Raises UserError when architecture, data and recipe do not belong together.
    """
    if isinstance(data, ImageSet):
        if not is_face(arch) and isinstance(recipe, Recipe):
            from facenas.training.classification import Classification

            return Classification(
                arch, data, config, recipe, split_seed, seed, device, final, model
            )
    elif is_face(arch) and isinstance(recipe, FaceRecipe):
        from facenas.training.faces import Faces

        assert isinstance(arch, IRArchitecture | GraphArchitecture)
        return Faces(arch, data, config, recipe, split_seed, seed, device, final, model)
    raise UserError(
        f"{config.name}: an architecture of kind {arch.kind} and a recipe for {recipe.kind} do not fit this "
        "data; faces (a store made by `facenas data import`) go with kind ir, images of classes with others"
    )
