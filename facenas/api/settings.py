"""What the arguments of `search` and `train` say, as the settings of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facenas.config import Config
from facenas.errors import UserError
from facenas.runs.callbacks import Callback, Given, build_callbacks, with_names
from facenas.runs.config import BenchConfig, RunConfig
from facenas.runs.presets import load_run_config

if TYPE_CHECKING:
    from facenas.data import TrainingData

# What is searched when there is no preset: the images of a run without data of its own.
_NO_DATA = {"name": "", "fingerprint": "", "in_channels": 3, "classes": 10, "image_size": 32}

Settings = Mapping[str, Any] | Sequence[str]


def as_group(group: str, key: str, thing: Any, registry: Any) -> dict[str, Any]:
    """A space or strategy as settings: the whole group, by the name of its class."""
    if thing is None:
        return {}
    if isinstance(thing, type):
        thing = thing()
    if not hasattr(thing, "settings"):
        raise UserError(
            f"{group}: {thing!r} is no {registry.noun}; derive it from the base class in {registry.package}"
        )
    name = registry.name_of(type(thing))
    return {group: {key: name, **thing.settings.model_dump(mode="json")}}


def is_own(thing: Any) -> bool:
    """Whether it is defined in a notebook or a script, where worker processes do not find it unaided."""
    if thing is None or isinstance(thing, str):
        return False
    where = thing if hasattr(thing, "__qualname__") else type(thing)
    return where.__module__ == "__main__" or "<" in where.__qualname__


def evaluate_name(evaluate: Callable[..., Any] | str | None) -> str | None:
    """What `evaluate` says in the settings; a function is remembered by it in this process."""
    if evaluate is None or isinstance(evaluate, str):
        return evaluate
    from facenas.execution.evaluators import remember

    return remember(evaluate)


def data_name(data: Any) -> str | None:
    """What `data.name` says: a name or path as it is, images in memory by the cache entry they become."""
    if data is None or isinstance(data, str):
        return data
    if isinstance(data, Path):
        return str(data)
    from facenas.data import from_arrays, from_dataset

    if isinstance(data, tuple):
        return str(from_arrays(data))
    return str(from_dataset(data))


def configure(
    preset: str | Path | RunConfig | None,
    settings: Settings,
    overrides: dict[str, Any],
    callbacks: Given,
) -> RunConfig:
    """The preset with what else was given; raises UserError as `load_run_config` does."""
    if preset is None:
        preset = RunConfig()
    given = preset if isinstance(preset, RunConfig) else str(preset)
    config = load_run_config(given, as_list(settings), overrides)
    return config.model_copy(update={"callbacks": with_names(config.callbacks, callbacks)})


def as_list(settings: Settings) -> list[str]:
    """In the form of `--set`."""
    if not isinstance(settings, Mapping):
        return list(settings)
    import json

    return [f"{key}={json.dumps(_plain(value))}" for key, value in settings.items()]


def first_alone(config: RunConfig, given: Given) -> list[Callback]:
    """The callbacks, in the first of the processes that train together; the others tell nothing."""
    from facenas.training import distributed

    return [] if distributed.rank() else build_callbacks(config.callbacks, given)


def _plain(value: Any) -> Any:
    """A class, or its settings, as the group that names it: `{"recipe.head": MyHead}`."""
    if isinstance(value, type) and hasattr(value, "Settings"):
        value = value.Settings()
    if isinstance(value, Config) and value.owner is not None:
        return {"kind": value.owner.name, **value.model_dump(mode="json")}
    return value.model_dump(mode="json") if isinstance(value, Config) else value


def anchored(config: RunConfig) -> RunConfig:
    """With absolute paths: a run can be resumed from another working directory."""
    from facenas.data.datasets import DEMO, known_name

    data = config.data
    path = Path(data.name).expanduser()
    named = data.name in ("", DEMO) or known_name(data.name) is not None or not path.exists()
    name = data.name if named else str(path.resolve())
    root = data.root.expanduser().resolve()
    latency = config.latency and config.latency.expanduser().resolve()
    groups = data.groups and data.groups.expanduser().resolve()
    data = data.model_copy(update={"name": name, "root": root, "groups": groups})
    changes: dict[str, Any] = {"data": data, "latency": latency}
    changes["bench"] = _anchored(config.bench)
    if distill := getattr(config.recipe, "distill", None):
        distill = distill.model_copy(update={"teacher": distill.teacher.expanduser().resolve()})
        changes["recipe"] = config.recipe.model_copy(update={"distill": distill})
    return config.model_copy(update=changes)


def _anchored(bench: BenchConfig | None) -> BenchConfig | None:
    if bench is None:
        return None
    name, own = bench.name, bench.name.endswith((".yaml", ".yml"))
    name = str(Path(name).expanduser().resolve()) if own else name
    return BenchConfig(name=name, data=bench.data.expanduser().resolve())


def data_facts(config: RunConfig, tell: bool = False) -> dict[str, Any]:
    """What the run notes of its data, found before its folder is made: a fault leaves nothing behind.

    tell: says on whom candidates are judged.
    """
    from facenas.data import describe

    if config.evaluate and not config.data.name:
        return _NO_DATA
    data = find_data(config)
    if tell:
        tell_split(config, data, final=False)
    return describe(data)


def tell_split(config: RunConfig, data: TrainingData, final: bool) -> None:
    """Says which faces are trained on and which are held out; raises UserError where they cannot be."""
    from facenas.data.faces.store import FaceStore
    from facenas.training import faces
    from facenas.training.recipes import FaceRecipe

    if isinstance(data, FaceStore) and isinstance(config.recipe, FaceRecipe):
        faces.tell_split(data.labels, config.data, config.recipe, config.seed, final)


def find_data(config: RunConfig) -> TrainingData:
    """The images, decoded; raises UserError when they do not fit the recipe."""
    from facenas.data import ImageSet, open_data, prepare
    from facenas.data.cache import crop_side
    from facenas.data.datasets import DEMO, HOW_TO_GET_FACES, known_name, names_store
    from facenas.data.faces.store import FaceStore
    from facenas.training.recipes import FaceRecipe

    faces = isinstance(config.recipe, FaceRecipe)
    if faces and not config.data.name:
        raise UserError(f"this preset needs a store of faces: {HOW_TO_GET_FACES}")
    path = Path(config.data.name).expanduser()
    if (
        faces
        and path.exists()
        and config.data.name != DEMO
        and not (known_name(config.data.name) or names_store(path))
    ):
        raise UserError(
            f"{config.data.name}: faces are trained from a store: facenas data import {path} {path.stem}.zarr, "
            "with --unlabeled if nobody has told the people apart (recipe.distill.labels false); photographs "
            f"become crops first: facenas align {path} CROPS"
        )
    data = open_data(prepare(config.data), config.data.image_size)
    if faces != isinstance(data, FaceStore):
        what = "a set of image classes" if faces else "a store of faces"
        needed = "faces" if faces else "classification"
        raise UserError(f"{config.data.name}: is {what}, but the recipe is for {needed}")
    if isinstance(data, FaceStore) and config.data.groups:
        from facenas.training.faces import check_groups

        check_groups(data, config.data, config.seed)  # before anything runs
    if not isinstance(data, FaceStore) and not isinstance(config.recipe, FaceRecipe):
        if config.recipe.augment == "pad_crop":  # a crop that does not fit would fail every trial
            crop_side(data, config.recipe.pad, config.recipe.crop)
        elif isinstance(data, ImageSet):
            raise UserError(
                f"{config.data.name}: recipe.augment random_resized_crop needs images of their full size; make "
                "a store of them by `facenas data import SOURCE OUT.zarr --classes`"
            )
    return data
