"""What a user can set: frozen pydantic models, YAML presets, and `--set a.b=c`.

A preset is a YAML file in `configs/presets`, a recipe one in `configs/recipes`; both are shipped in the
wheel and found from any working directory. Unknown keys are refused, so a typing error never passes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from facenas.errors import UserError

T = TypeVar("T", bound="Config")


class Config(BaseModel):
    """Base of all settings: immutable, and a key it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SpaceConfig(Config):
    """Bounds of the classification space (`facenas.arch.plain`); widths are channels of the first layer."""

    kind: Literal["plain"] = "plain"
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
    """Which images, and what part of them a candidate sees."""

    name: str = "digits"
    root: Path = Path("data")
    image_size: int | None = Field(None, ge=8, le=1024)
    download: bool = False
    select_on: Literal["validation", "test"] = "validation"
    validation_fraction: float = Field(0.1, gt=0, lt=1)
    data_fraction: float = Field(1.0, gt=0, le=1)


class Recipe(Config):
    """How a network is trained. Defaults: the authors' recipe for a classification candidate.

    `flip` and `crop` left at null take the data set's own value (no flip for characters; 32x32 crops of
    28x28 and 32x32 images, else the image size).
    """

    batch_size: int = Field(64, ge=2)
    lr: float = Field(0.025, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(3e-4, ge=0)
    grad_clip: float = Field(5.0, gt=0)
    pad: int = Field(4, ge=0)
    crop: int | None = Field(None, ge=8)
    flip: bool | None = None
    cutout: int = Field(16, ge=0)
    final_epochs: int = Field(600, ge=1)


class ExecutionConfig(Config):
    """Where candidates are trained. `workers` left at null: one for every core; on GPUs set one for each."""

    executor: Literal["serial", "process"] = "process"
    workers: int | None = Field(None, ge=1)
    speculate: bool = True


class RunConfig(Config):
    """All settings of one search, as written to `run.yaml`."""

    seed: int = Field(0, ge=0)
    data: DataConfig = DataConfig()
    space: SpaceConfig = SpaceConfig()
    search: SearchConfig = SearchConfig()
    recipe: Recipe = Recipe()
    execution: ExecutionConfig = ExecutionConfig()


def shipped(folder: Literal["configs", "eval_protocols"]) -> Path:
    """The folder of shipped YAML files: inside the installed package, else beside it in a checkout."""
    package = Path(__file__).parent
    return package / folder if (package / folder).is_dir() else package.parent / folder


def preset_names() -> list[str]:
    """Names that `--preset` takes."""
    return sorted(path.stem for path in (shipped("configs") / "presets").glob("*.yaml"))


def load_run_config(preset: str, settings: list[str], overrides: dict[str, Any]) -> RunConfig:
    """The preset (a shipped name or a YAML file), then `overrides` by dotted key, then `--set` in order.

    Raises UserError that names the file or the setting at fault.
    """
    path = Path(preset) if preset.endswith((".yaml", ".yml")) else _shipped_preset(preset)
    tree = read_yaml(path)
    _resolve_recipe(tree)
    for key, value in overrides.items():
        if value is not None:
            _put(tree, key, value)
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise UserError(
                f"--set {setting}: write it as key=value, for example search.min_epochs=2"
            )
        _put(tree, key.strip(), _yaml_value(setting, text))
        _resolve_recipe(tree)
    return validate(RunConfig, tree, f"{path} with --set" if settings else str(path))


def validate(model: type[T], tree: Any, where: str) -> T:
    """`tree` as a `model`; raises UserError with the first fault and the place it lies at."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the settings"
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
    """A recipe by name becomes its settings, which `--set recipe.lr=...` can then change."""
    if isinstance(tree.get("recipe"), str):
        tree["recipe"] = read_yaml(_named("recipes", tree["recipe"]))


def _shipped_preset(name: str) -> Path:
    if name not in preset_names():
        known = ", ".join(preset_names())
        raise UserError(f"--preset {name}: no such preset; there are {known}, or give a .yaml file")
    return _named("presets", name)


def _named(kind: str, name: str) -> Path:
    return shipped("configs") / kind / f"{name}.yaml"


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
