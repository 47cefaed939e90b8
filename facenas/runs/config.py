"""All settings of a run, assembled from the registries of spaces, strategies and heads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeAlias

from pydantic import BeforeValidator, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from facenas.config import Config, choice, parse_group
from facenas.data.config import DataConfig
from facenas.errors import UserError
from facenas.execution import ExecutionConfig
from facenas.models.latency_table import read_table
from facenas.spaces import SPACES, ImageFacts, SearchSpace
from facenas.spaces.plain import Plain
from facenas.strategies import STRATEGIES, Listed, MacroMicro, Strategy
from facenas.strategies.pareto import GROUP_OBJECTIVES
from facenas.training.recipes import FaceRecipe, Recipe, check_protocol, with_protocol

_RECIPES: dict[str, type[Recipe] | type[FaceRecipe]] = {
    "classification": Recipe,
    "faces": FaceRecipe,
}
# What a space's `tasks` calls them.
_TASKS = {"classification": "classification", "faces": "face"}


def _parse_recipe(tree: Any) -> Any:
    if not isinstance(tree, dict):
        return tree
    kind = tree.get("kind", "classification")
    if kind not in _RECIPES:
        raise PydanticCustomError("kind", f"kind {kind!r} is unknown; there are {', '.join(_RECIPES)}")
    return parse_group(_RECIPES[kind], tree)


if TYPE_CHECKING:
    SpaceSettings: TypeAlias = Any
    StrategySettings: TypeAlias = Any
else:
    SpaceSettings = choice(SPACES, "kind", "plain")
    StrategySettings = choice(STRATEGIES, "strategy", "macro_micro")


class BenchConfig(Config):
    """A bench that a full training with trained weights measures before its first epoch and after its last.

    name: of a shipped one, or the path of a YAML file; data: its files, as for `facenas eval`.
    """

    name: str
    data: Path


class RunConfig(Config):
    """All settings of one search, as written to `run.yaml`.

    evaluate: one's own measure as `module:function`, instead of a training on `data`. latency: what a target
    measured, the `latency.json` of `facenas latency export`, for the objective of that name. callbacks: what is
    told how search and full training go, `tensorboard` or each as `module:Class`; bench: what a full training
    with trained weights may forget. These two decide nothing.
    """

    seed: int = Field(0, ge=0)
    data: DataConfig = DataConfig()
    space: SpaceSettings = Plain.Settings()
    search: StrategySettings = MacroMicro.Settings()
    recipe: Annotated[Recipe | FaceRecipe, BeforeValidator(_parse_recipe)] = Recipe()
    evaluate: str | None = None
    latency: Path | None = None
    execution: ExecutionConfig = ExecutionConfig()
    callbacks: tuple[str, ...] = ()
    bench: BenchConfig | None = None

    @field_validator("callbacks", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        space, strategy = self.space.owner, self.search.owner
        if self.evaluate is None and _TASKS[self.recipe.kind] not in space.tasks:
            raise ValueError(
                f"a space of kind {space.name} cannot be trained by a recipe for {self.recipe.kind}"
            )
        if self.recipe.kind == "faces" and self.data.select_on == "test":
            raise ValueError(
                "data.select_on is test, but faces are selected on identities held out from training; "
                "leave it at validation"
            )
        if not getattr(self.recipe, "labelled", True):
            self._looks_at_no_labels()
        if self.recipe.kind != "faces" and self.data.subset_of == "identities":
            raise ValueError("data.subset_of is identities, which only faces have; leave it at images")
        if self.evaluate and getattr(self.search, "inherit", None):
            raise ValueError("search.inherit: a measure of your own keeps no weights; leave one of them out")
        if self.latency and "latency" not in getattr(self.search, "objectives", ()):
            raise ValueError(
                "latency: is a table, but search.objectives does not name latency; for example "
                "search.objectives=[parameters,latency]"
            )
        known = {"latency"}  # what a training measures beside what an architecture counts
        if self.data.groups:
            known |= set(GROUP_OBJECTIVES)
        wanted = GROUP_OBJECTIVES & set(getattr(self.search, "objectives", ()))
        if wanted and not self.data.groups and self.evaluate is None:
            raise ValueError(f"search.objectives: {min(wanted)} needs a table of groups, as data.groups")
        if self.data.groups and self.recipe.kind != "faces":
            raise ValueError("data.groups: is a table of people, which only faces have; leave it out")
        for name in () if self.evaluate else getattr(self.search, "objectives", ()):
            if name not in known and not hasattr(space.Architecture, f"count_{name}"):
                raise ValueError(
                    f"search.objectives: {name} is neither counted nor measured; there are parameters, macs, "
                    "memory, latency, and what one's own evaluation tells"
                )
        try:
            strategy.check(self.search, space)
            check_protocol(self.recipe, getattr(self.search, "protocol", None) or {})
            for network in self.search.networks if isinstance(self.search, Listed.Settings) else ():
                with_protocol(self.recipe, network.protocol.items())
        except UserError as error:
            raise ValueError(str(error)) from None
        return self

    def _looks_at_no_labels(self) -> None:
        if self.data.groups:
            raise ValueError("data.groups: is of identities, and recipe.distill.labels false looks at none")
        for name, usual in (("test_fraction", 0.0), ("subset_of", "images")):
            if getattr(self.data, name) != usual:
                raise ValueError(
                    f"data.{name}: is of identities, and recipe.distill.labels false looks at none; "
                    f"leave it at {usual}"
                )

    @property
    def import_main(self) -> bool:
        """Whether a class or function of the script that runs takes part: workers have to import it too."""
        return "__main__:" in self.model_dump_json(exclude={"callbacks"})

    def build_space(self, data: dict[str, Any]) -> SearchSpace[Any]:
        """The space, bound to images as a run's `data` tells them (`facenas.data.describe`)."""
        space: SearchSpace[Any] = self.space.owner(self.space).bind(ImageFacts.of(data))
        if self.latency:
            space.costs = {"latency": read_table(self.latency)}
        return space

    def build_strategy(self, space: SearchSpace[Any]) -> Strategy:
        """The strategy at its start."""
        strategy: Strategy = self.search.owner(self.search)
        strategy.recipe = self.recipe.model_dump(mode="json")
        return strategy.bind(space, self.seed)
