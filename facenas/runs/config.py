"""All settings of a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Discriminator, Field, Tag, model_validator

from facenas.config import Config, choice
from facenas.data.config import DataConfig
from facenas.execution.config import ExecutionConfig
from facenas.spaces import SPACES, Graph, Plain
from facenas.spaces.plain import ChainSpace
from facenas.strategies.settings import MultiObjectiveConfig, SearchConfig
from facenas.training.recipes import FaceRecipe, Recipe


def _kind_or(default: str) -> Callable[[Any], str]:
    """Which class a group of settings is of: by its `kind`, else the default one."""

    def kind(tree: Any) -> str:
        return str(tree.get("kind", default) if isinstance(tree, dict) else tree.kind)

    return kind


def _search_kind(tree: Any) -> str:
    """Which class the settings of a search are of: by its `strategy`."""
    default = "macro_micro"
    found = tree.get("strategy", default) if isinstance(tree, dict) else None
    strategy = found or getattr(tree, "strategy", default)
    return "macro_micro" if strategy == "macro_micro" else "multi_objective"


if TYPE_CHECKING:  # a type checker knows nothing of types that a registry makes
    SpaceChoice = Config
else:
    SpaceChoice = choice(SPACES, "kind", "plain")


class RunConfig(Config):
    """All settings of one search, as written to `run.yaml`."""

    seed: int = Field(0, ge=0)
    data: DataConfig = DataConfig()
    space: SpaceChoice = Plain.Settings()
    search: Annotated[
        Annotated[SearchConfig, Tag("macro_micro")]
        | Annotated[MultiObjectiveConfig, Tag("multi_objective")],
        Discriminator(_search_kind),
    ] = SearchConfig()
    recipe: Annotated[
        Annotated[Recipe, Tag("classification")] | Annotated[FaceRecipe, Tag("faces")],
        Discriminator(_kind_or("classification")),
    ] = Recipe()
    execution: ExecutionConfig = ExecutionConfig()

    @model_validator(mode="after")
    def _one_task(self) -> Self:
        space, task = self.space.owner, "face" if self.recipe.kind == "faces" else "classification"
        if task not in space.tasks:
            raise ValueError(
                f"a space of kind {space.name} cannot be trained by a recipe for {self.recipe.kind}"
            )
        macro_micro = self.search.strategy == "macro_micro"
        if macro_micro != (issubclass(space, ChainSpace)):
            raise ValueError(
                f"a space of kind {space.name} cannot be searched by {self.search.strategy}"
            )
        if getattr(self.search, "supernet", None) and space is not Graph:
            raise ValueError(f"a space of kind {space.name} has no supernet")
        return self
