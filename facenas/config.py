"""What a user can set: frozen pydantic models, YAML presets, and `--set a.b=c`.

A preset is a YAML file in `configs/presets`, a recipe one in `configs/recipes`; both are shipped in the
wheel and found from any working directory. Unknown keys are refused, so a typing error never passes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PositiveInt,
    Tag,
    ValidationError,
    model_validator,
)

from facenas.errors import UserError

T = TypeVar("T", bound="Config")

_KINDS = ("plain", "ir", "classification", "faces")


class Config(BaseModel):
    """Base of all settings: immutable, and a key it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Bounds(Config):
    """Bounds of any space; widths are channels of its first layer, or first stage."""

    min_depth: int = Field(10, ge=1)
    max_depth: int = Field(100, ge=1)
    min_width: int = Field(16, ge=1)
    max_width: int = Field(64, ge=1)
    width_step: int = Field(2, ge=1)

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Self:
        if self.min_depth > self.max_depth or self.min_width > self.max_width:
            raise ValueError("a minimum is above its maximum")
        return self


class SpaceConfig(Bounds):
    """Bounds of the classification space (`facenas.arch.plain`)."""

    kind: Literal["plain"] = "plain"


class IRSpaceConfig(Bounds):
    """Bounds of the face space (`facenas.arch.ir`). Depth counts layers: 2 * blocks + 2.

    `ratio`: how the four stages share the blocks; `embedding`: how long z is.
    """

    kind: Literal["ir"] = "ir"
    min_depth: int = Field(10, ge=10)
    min_width: int = Field(8, ge=1)
    max_width: int = Field(32, ge=1)
    ratio: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (1, 2, 4, 1)
    embedding: int = Field(512, ge=1)
    se: bool = False

    @model_validator(mode="after")
    def _even_depths(self) -> Self:
        if self.min_depth % 2 or self.max_depth % 2:
            raise ValueError("depths are even: two layers a block, the stem and the last layer")
        return self


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


class ExecutionConfig(Config):
    """Where candidates are trained. `workers` left at null: one for every core; on GPUs set one for each."""

    executor: Literal["serial", "process"] = "process"
    workers: int | None = Field(None, ge=1)
    speculate: bool = True


def _kind_or(default: str) -> Callable[[Any], str]:
    """Which class a group of settings is of: by its `kind`, else the default one."""

    def kind(tree: Any) -> str:
        return str(tree.get("kind", default) if isinstance(tree, dict) else tree.kind)

    return kind


class RunConfig(Config):
    """All settings of one search, as written to `run.yaml`."""

    seed: int = Field(0, ge=0)
    data: DataConfig = DataConfig()
    space: Annotated[
        Annotated[SpaceConfig, Tag("plain")] | Annotated[IRSpaceConfig, Tag("ir")],
        Discriminator(_kind_or("plain")),
    ] = SpaceConfig()
    search: SearchConfig = SearchConfig()
    recipe: Annotated[
        Annotated[Recipe, Tag("classification")] | Annotated[FaceRecipe, Tag("faces")],
        Discriminator(_kind_or("classification")),
    ] = Recipe()
    execution: ExecutionConfig = ExecutionConfig()

    @model_validator(mode="after")
    def _one_task(self) -> Self:
        if (self.space.kind == "ir") != (self.recipe.kind == "faces"):
            raise ValueError(
                f"a space of kind {self.space.kind} cannot be trained by a recipe for {self.recipe.kind}"
            )
        return self


def shipped(folder: Literal["configs", "eval_protocols"]) -> Path:
    """The folder of shipped YAML files: inside the installed package, else beside it in a checkout."""
    package = Path(__file__).parent
    return package / folder if (package / folder).is_dir() else package.parent / folder


def preset_names() -> list[str]:
    """Names that `--preset` takes."""
    return sorted(path.stem for path in (shipped("configs") / "presets").glob("*.yaml"))


def load_run_config(
    preset: str | RunConfig, settings: list[str], overrides: dict[str, Any]
) -> RunConfig:
    """The preset (a shipped name, a YAML file, another run's), then `overrides` by dotted key, then `--set`.

    Raises UserError that names the file or the setting at fault.
    """
    if isinstance(preset, RunConfig):
        tree, path = preset.model_dump(mode="json"), Path("run.yaml")
    else:
        path = Path(preset) if preset.endswith((".yaml", ".yml")) else _shipped_preset(preset)
        tree = read_yaml(path)
    _resolve_recipe(tree)
    for key, value in overrides.items():
        if value is not None:
            _put(tree, key, value)
            _resolve_recipe(tree)
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise UserError(
                f"--set {setting}: write it as key=value, for example search.min_epochs=2"
            )
        _put(tree, _full_key(key.strip()), _yaml_value(setting, text))
        _resolve_recipe(tree)
    return validate(RunConfig, tree, f"{path} with --set" if settings else str(path))


def validate(model: type[T], tree: Any, where: str) -> T:
    """`tree` as a `model`; raises UserError with the first fault and the place it lies at."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        # pydantic puts the kind of a group behind its name: nobody writes that into a file.
        place = [p for i, p in enumerate(first["loc"]) if i != 1 or p not in _KINDS]
        key = ".".join(str(part) for part in place) or "the settings"
        message = "is not a known setting" if first["type"] == "extra_forbidden" else first["msg"]
        raise UserError(f"{where}: {key}: {message}") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping; raises UserError when the file is missing, torn or something else."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is not valid YAML ({str(error).splitlines()[0]})") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: should hold a mapping of settings")
    return tree


def _resolve_recipe(tree: dict[str, Any]) -> None:
    """A recipe by name or file becomes its settings, which `--set recipe.lr=...` can then change."""
    recipe = tree.get("recipe")
    if isinstance(recipe, str):
        own = recipe.endswith((".yaml", ".yml"))
        tree["recipe"] = read_yaml(Path(recipe) if own else _shipped_recipe(recipe))


def _shipped_preset(name: str) -> Path:
    if name not in preset_names():
        known = ", ".join(preset_names())
        raise UserError(f"--preset {name}: no such preset; there are {known}, or give a .yaml file")
    return _named("presets", name)


def _shipped_recipe(name: str) -> Path:
    path = _named("recipes", name)
    if not path.is_file():
        known = ", ".join(sorted(recipe.stem for recipe in path.parent.glob("*.yaml")))
        raise UserError(f"recipe {name}: no such recipe; there are {known}, or give a .yaml file")
    return path


def _named(kind: str, name: str) -> Path:
    return shipped("configs") / kind / f"{name}.yaml"


def _full_key(key: str) -> str:
    """`micro` is `search.micro`: a bare key that one group alone has means that group's."""
    groups: dict[str, type[Config]] = {
        "data": DataConfig,
        "search": SearchConfig,
        "execution": ExecutionConfig,
    }
    owners = [name for name, group in groups.items() if key in group.model_fields]
    return f"{owners[0]}.{key}" if len(owners) == 1 else key


def _yaml_value(setting: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise UserError(f"--set {setting}: the value is not valid YAML") from None


def _put(tree: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, leaf = dotted.split(".")
    for parent in parents:
        child = tree.setdefault(parent, {})
        if not isinstance(child, dict):
            raise UserError(f"--set {dotted}: {parent} is not a group of settings")
        tree = child
    tree[leaf] = value
