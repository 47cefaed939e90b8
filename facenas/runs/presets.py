"""Presets: a YAML file, then what the command line says, then `--set a.b=c`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from facenas.config import Config, Registry, parse_yaml, read_yaml, shipped, validate
from facenas.data.config import DataConfig
from facenas.errors import UserError
from facenas.execution import ExecutionConfig
from facenas.models.heads import HEADS
from facenas.runs.config import RunConfig
from facenas.runs.run import kept_config
from facenas.spaces import SPACES
from facenas.strategies import STRATEGIES


def preset_names() -> list[str]:
    """Names that `--preset` takes."""
    return sorted(path.stem for path in (shipped("configs") / "presets").glob("*.yaml"))


def load_run_config(
    preset: str | RunConfig | dict[str, Any],
    settings: list[str],
    overrides: dict[str, Any],
    where: str = "the settings",
) -> RunConfig:
    """The preset (a shipped name, a YAML file, another run's), then `overrides` by dotted key, then `--set`.

    where: what messages call settings that come from no file. Raises UserError that names the file or the
    setting at fault.
    """
    if isinstance(preset, RunConfig):
        tree, path = preset.model_dump(mode="json"), Path(where)
    elif isinstance(preset, dict):
        tree, path = preset, Path(where)
    else:
        path = Path(preset) if preset.endswith((".yaml", ".yml")) else _shipped_preset(preset)
        tree = read_yaml(path)
        if "config" in tree:  # of a run.yaml, which tells more than settings
            tree = kept_config(path.parent, tree["config"])
    _resolve_recipe(tree)
    for key, value in overrides.items():
        if value is not None:
            _put(tree, key, value)
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise UserError(f"--set {setting}: write it as key=value, for example search.min_epochs=2")
        _put(tree, _full_key(key.strip(), tree), yaml_value(setting, text))
    return validate(RunConfig, tree, f"{path} with these settings" if settings else str(path))


def _resolve_recipe(tree: dict[str, Any]) -> None:
    """A recipe by name or file becomes its settings, which `--set recipe.lr=...` can then change."""
    recipe = tree.get("recipe")
    if isinstance(recipe, str):
        own = recipe.endswith((".yaml", ".yml"))
        tree["recipe"] = read_yaml(Path(recipe) if own else _shipped_recipe(recipe))


def _shipped_preset(name: str) -> Path:
    if name not in preset_names():
        known = ", ".join(preset_names())
        raise UserError(f"preset {name}: no such preset; there are {known}, or give a .yaml file")
    return _named("presets", name)


def _shipped_recipe(name: str) -> Path:
    path = _named("recipes", name)
    if not path.is_file():
        known = ", ".join(sorted(recipe.stem for recipe in path.parent.glob("*.yaml")))
        raise UserError(f"recipe {name}: no such recipe; there are {known}, or give a .yaml file")
    return path


def _named(kind: str, name: str) -> Path:
    return shipped("configs") / kind / f"{name}.yaml"


def _full_key(key: str, tree: dict[str, Any]) -> str:
    """`micro` is `search.micro`: a bare key that one group alone has means that group's."""
    if key == "strategy":
        return "search.strategy"
    search = tree.get("search")
    strategy = search.get("strategy", "macro_micro") if isinstance(search, dict) else "macro_micro"
    groups: dict[str, type[Config]] = {
        "data": DataConfig,
        "search": STRATEGIES.get(strategy).Settings,
        "execution": ExecutionConfig,
    }
    owners = [name for name, group in groups.items() if key in group.model_fields]
    return f"{owners[0]}.{key}" if len(owners) == 1 else key


def yaml_value(setting: str, text: str) -> Any:
    """The value of a `--set key=value`; raises UserError when it is no YAML."""
    try:
        value = parse_yaml(text)
        if isinstance(value, dict) and any(":" in str(key) and value[key] is None for key in value):
            raise ValueError("a colon needs a blank behind it, as in {fraction: 0.5}")
        return value
    except ValueError as error:
        shown = setting if len(setting) < 80 else f"{setting[:77]}..."
        raise UserError(f"--set {shown}: the value is not valid YAML ({error})") from None


def _put(tree: dict[str, Any], dotted: str, value: Any) -> None:
    group, (*parents, leaf) = tree, dotted.split(".")
    for parent in parents:
        if group.get(parent) is None:  # not there, or left out as `recipe.distill: null`
            group[parent] = {}
        child = group[parent]
        if not isinstance(child, dict):
            raise UserError(f"--set {dotted}: {parent} is not a group of settings")
        group = child
    if dotted in _CHOICES:
        _exchange(group, leaf, value, *_CHOICES[dotted])
    group[leaf] = value
    if dotted == "execution.executor" and value != "ray":
        group.pop("address", None)  # of the cluster that the run was begun on
    _resolve_recipe(tree)


# Where the name of a class stands whose settings lie beside it, and whether another takes over those it has
# too: a random search keeps the population of the evolution that it is compared with, but the margin of ArcFace
# means something else than that of AdaFace.
_CHOICES: dict[str, tuple[Registry[Any], str, bool]] = {
    "space.kind": (SPACES, "plain", False),
    "search.strategy": (STRATEGIES, "macro_micro", True),
    "recipe.head.kind": (HEADS, "adaface", False),
}


def _exchange(
    group: dict[str, Any], key: str, name: Any, registry: Registry[Any], default: str, keep: bool
) -> None:
    """Another class is named: settings that are not its own go."""
    try:
        before, after = registry.get(group.get(key, default)), registry.get(name)
    except UserError:
        return  # an unknown name is told with its place, when all is validated
    if before is after:
        return
    kept = set(after.Settings.model_fields) if keep else set()
    for setting in set(group) - kept - {key}:
        del group[setting]
