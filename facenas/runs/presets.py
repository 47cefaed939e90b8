"""Presets: a YAML file, then what the command line says, then `--set a.b=c`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from facenas.config import Config, read_yaml, shipped, validate
from facenas.data.config import DataConfig
from facenas.errors import UserError
from facenas.execution.config import ExecutionConfig
from facenas.runs.config import RunConfig
from facenas.strategies.settings import MultiObjectiveConfig, SearchConfig

# Keys that name whose settings their group holds, and what they are when they are left out: of another
# head, margin and scale mean something else, so a changed kind begins with that head's own defaults.
_OWNERS = {"recipe.head.kind": "adaface"}


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
    groups: list[tuple[str, type[Config]]] = [
        ("data", DataConfig),
        ("search", SearchConfig),
        ("search", MultiObjectiveConfig),
        ("execution", ExecutionConfig),
    ]
    owners = sorted({name for name, group in groups if key in group.model_fields})
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
    if dotted in _OWNERS and value != tree.get(leaf, _OWNERS[dotted]):
        tree.clear()
    tree[leaf] = value
