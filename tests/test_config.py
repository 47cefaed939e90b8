"""Settings: shipped files load, unknown keys are refused by name, --set does what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from facenas.config import read_yaml, shipped, validate
from facenas.data.config import DataConfig
from facenas.errors import UserError
from facenas.execution import ExecutionConfig
from facenas.models.heads import HEADS
from facenas.runs.config import RunConfig
from facenas.runs.presets import load_run_config, preset_names
from facenas.spaces import Cells, Plain
from facenas.strategies import MacroMicro, RandomSearch
from facenas.training.recipes import FaceRecipe, Recipe

# The settings that the authors' recorded "tiny" searches tell.
AUTHORS_SPACE = {
    "min_depth": 10,
    "max_depth": 100,
    "min_width": 16,
    "max_width": 64,
    "width_step": 2,
    "operation": "separable",
    "kernel": 3,
}
AUTHORS_SEARCH = {
    "min_epochs": 10,
    "depth_epoch_step": 1,
    "width_epoch_step": 2,
    "micro_epochs": 2,
    "depth_gain": 0.1,
    "depth_drop": 0.05,
    "max_depth_drops": 3,
    "max_width_drops": 3,
    "target_accuracy": 100.0,
    "target_slack": 0.1,
    "saturated_train_accuracy": 100.0,
    "param_slack": 10000,
}
# What they train a candidate with (section 4.1 of the paper).
AUTHORS_RECIPE = {
    "batch_size": 64,
    "lr": 0.025,
    "momentum": 0.9,
    "weight_decay": 3e-4,
    "grad_clip": 5.0,
    "pad": 4,
    "cutout": 16,
    "final_epochs": 600,
}
MODELS = [RunConfig, DataConfig, Plain.Settings, MacroMicro.Settings, Recipe, ExecutionConfig]


def loaded(*settings: str, preset: str = "tiny", **overrides: Any) -> RunConfig:
    return load_run_config(preset, list(settings), overrides)


def preset_file(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text)
    return str(path)


# Shipped files.


def test_the_presets_are_listed():
    assert preset_names() == sorted(preset_names())
    assert {"demo-digits", "tiny", "mobile"} <= set(preset_names())


UNSAID = {"max_failures", "fidelity", "inherit"}  # what every strategy has, off in all presets


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_loads_and_says_all_of_its_space_and_search(name):
    config = loaded(preset=name)
    tree = read_yaml(shipped("configs") / "presets" / f"{name}.yaml")
    for group in ("space", "search"):
        told = config.model_dump(mode="json")[group]
        assert {key: told[key] for key in tree[group]} == tree[group]
        unsaid = told.keys() - tree[group].keys() - UNSAID
        assert not unsaid, "a reader of the preset should see every setting"


@pytest.mark.parametrize("path", sorted((shipped("configs") / "recipes").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_recipe_loads(path):
    tree = read_yaml(path)
    preset = "small" if tree.get("kind") == "faces" else "tiny"
    told = load_run_config(preset, [], {"recipe": path.stem}).recipe
    assert told.model_dump(mode="json", exclude_unset=True) == tree


def test_adaface_casia_is_the_published_recipe():
    recipe = load_run_config("small", [], {"recipe": "adaface-casia"}).recipe
    assert (recipe.lr, recipe.momentum, recipe.weight_decay) == (0.1, 0.9, 5e-4)
    assert (recipe.batch_size, recipe.final_epochs, recipe.milestones) == (512, 26, (12, 20, 24))
    assert (recipe.crop, recipe.low_res, recipe.photometric) == (0.2, 0.2, 0.2)
    assert not recipe.decay_norms
    assert recipe.grad_clip is None
    head = recipe.head
    assert (head.margin, head.h, head.scale, head.t_alpha) == (0.4, 0.333, 64, 0.01)


def test_face_search_is_the_candidates_recipe_with_another_head():
    faces, plain = loaded(preset="small").recipe, loaded().recipe
    same = ("lr", "momentum", "weight_decay", "batch_size", "grad_clip", "schedule", "decay_norms")
    assert all(getattr(faces, name) == getattr(plain, name) for name in same)
    assert faces.head.owner.name == "adaface"


def test_space_and_recipe_are_of_one_task():
    with pytest.raises(UserError, match="space of kind plain cannot be trained by a recipe for faces"):
        load_run_config("tiny", [], {"recipe": "face-search"})


def test_a_bare_key_means_the_one_group_that_has_it():
    assert loaded("micro=false").search.micro is False
    assert loaded("data_fraction=0.5").data.data_fraction == 0.5
    assert loaded("seed=7").seed == 7


def test_tiny_is_what_the_authors_ran():
    config = loaded()
    assert config.space.model_dump() == AUTHORS_SPACE
    assert config.search.model_dump(exclude={"micro", "operations", *UNSAID}) == AUTHORS_SEARCH
    assert config.search.micro
    assert config.recipe.model_dump(include=set(AUTHORS_RECIPE)) == AUTHORS_RECIPE
    assert (config.recipe.schedule, config.recipe.decay_norms) == ("cosine", True)


def test_mobile_differs_in_its_widest_network_only():
    tiny, mobile = loaded().model_dump(), loaded(preset="mobile").model_dump()
    assert mobile["space"].pop("max_width") == 128
    assert tiny["space"].pop("max_width") == 64
    assert mobile == tiny


def test_the_defaults_are_the_authors_too():
    assert loaded().model_dump(exclude={"data"}) == RunConfig().model_dump(exclude={"data"})


def test_presets_are_found_from_another_working_directory(tmp_path, monkeypatch):
    here = loaded()
    monkeypatch.chdir(tmp_path)
    assert loaded() == here
    script = "from facenas.runs import presets; print(presets.load_run_config('tiny', [], {}).space.max_width)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "64\n"


def test_a_preset_of_ones_own_names_a_shipped_recipe(tmp_path):
    path = preset_file(tmp_path, "seed: 3\nrecipe: classification\nspace: {max_width: 20}\n")
    config = loaded(preset=path)
    assert (config.seed, config.space.max_width) == (3, 20)
    assert config.recipe == loaded().recipe


def test_another_head_begins_with_its_own_settings():
    """`demo` has an AdaFace head of margin 0.2 and scale 32, which mean nothing to ArcFace."""
    head = loaded("recipe.head.kind=arcface", preset="demo").recipe.model_dump()["head"]
    assert head == {"kind": "arcface", "margin": 0.5, "scale": 64, "sample_rate": 1}
    head = loaded("recipe.head.kind=adaface", preset="demo").recipe.model_dump()["head"]
    own = {"margin": 0.2, "scale": 32, "sample_rate": 1, "h": 0.333, "t_alpha": 0.01}
    assert head == {"kind": "adaface", **own}
    settings = ["recipe.head.kind=arcface", "recipe.head.margin=0.3"]
    assert loaded(*settings, preset="demo").recipe.head.margin == 0.3
    with pytest.raises(UserError, match=r"head.h: is not a known setting$"):
        loaded("recipe.head.kind=cosface", "recipe.head.h=0.5", preset="demo")
    with pytest.raises(UserError, match=r"head.kind: head 'magface' is unknown"):
        loaded("recipe.head.kind=magface", preset="demo")


def test_a_space_a_strategy_and_a_head_may_be_objects_settings_or_classes():
    by_name = RunConfig.model_validate({"space": {"kind": "cells"}, "search": {"strategy": "random"}})
    for strategy in (RandomSearch, RandomSearch(), RandomSearch.Settings()):
        assert RunConfig(space=Cells, search=strategy) == by_name
    head = FaceRecipe(head=HEADS.get("arcface")).model_dump()["head"]
    assert head == {"kind": "arcface", "margin": 0.5, "scale": 64, "sample_rate": 1}


# Unknown keys and wrong values.


@pytest.mark.parametrize("model", MODELS)
def test_an_unknown_key_is_refused_by_every_group(model):
    with pytest.raises(UserError, match="here: nonsense: is not a known setting"):
        validate(model, {"nonsense": 1}, "here")


@pytest.mark.parametrize("model", MODELS)
def test_settings_cannot_be_changed(model):
    config = model()
    with pytest.raises(ValidationError):
        setattr(config, next(iter(model.model_fields)), None)


def test_an_unknown_key_in_a_file_is_named_with_the_file(tmp_path):
    path = preset_file(tmp_path, "search: {min_epoch: 2}\n")
    with pytest.raises(UserError) as told:
        loaded(preset=path)
    assert str(told.value) == f"{path}: search.min_epoch: is not a known setting; min_epochs is"


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("search.min_epoch=2", "search.min_epoch: is not a known setting"),
        ("serach.min_epochs=2", "serach: is not a known setting; search is"),
        ("search.min_epochs.x=2", "search.min_epochs"),
        ("=5", "not a known setting"),
        ("seed", "write it as key=value"),
        ("", "write it as key=value"),
        ("search.min_epochs=[", "not valid YAML"),
        ("search.min_epochs=[2", "not valid YAML"),
        ("search.min_epochs={2: 3", "not valid YAML"),
        ("search.fidelity={fraction:0.5}", "a colon needs a blank behind it"),
        ("seed=2024-13-45", "not valid YAML .month must be"),
        ("seed=!!int x", "not valid YAML .invalid literal"),
        ("seed=" + 3000 * "[", r"^--set seed=\[{72}\.\.\.: .* nested too deeply"),
        ("seed=&a [*a]", "holds more than 200,000 values"),
        ("seed={a: 1, a: 2}", "'a' stands twice in one mapping"),
        ("space=foo", "space: should be a group of settings"),
        ("search.strategy={}", "search.strategy: a strategy is named by a text"),
        ("search.strategy=':x'", "'' is no module's name"),
        ("search.min_epochs=many", "search.min_epochs: Input should be a valid integer"),
        ("search.min_epochs=2.5", "search.min_epochs: Input should be a valid integer"),
        ("search.min_epochs=", "search.min_epochs: Input should be a valid integer"),
        ("search.min_epochs=[2]", "search.min_epochs: Input should be a valid integer"),
        ("search.min_epochs=0", "search.min_epochs: Input should be greater"),
        ("seed=-1", "seed: Input should be greater"),
        ("search=5", "search: "),
        ("recipe.lr=.nan", "recipe.lr: Input should be a finite number"),
        ("data.validation_fraction=1", "data.validation_fraction: Input should be less"),
        ("data.select_on=luck", "data.select_on: Input should be 'validation' or 'test'"),
        ("space.max_depth=5", "space: .*a minimum is above its maximum"),
        ("space.min_width=65", "space: .*a minimum is above its maximum"),
        ("execution.workers=0", "execution.workers: Input should be greater"),
    ],
)
def test_a_wrong_setting_is_told_by_its_key(setting, words):
    with pytest.raises(UserError, match=words):
        loaded(setting)


@pytest.mark.parametrize("name", ["nonsense", "Tiny", "", "../presets/tiny", "tiny.yml"])
def test_a_preset_that_is_not_there_is_told(name):
    with pytest.raises(UserError) as told:
        loaded(preset=name)
    assert name in str(told.value)
    if not name.endswith("yml"):
        assert ", ".join(preset_names()) in str(told.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [\n", "not valid YAML"),
        ("seed: 1\ndata: {name: a, root: b, name: c}\n", "'name' stands twice in one mapping, from line 2"),
        ("seed: 1\n---\nseed: 2\n", "not valid YAML"),
        ("!!python/object/apply:os.getcwd []\n", "not valid YAML"),
        ("\udcff".encode("utf-8", "surrogateescape"), "not valid YAML"),
        ("", "mapping"),
        ("[1]", "mapping"),
        ("tiny", "mapping"),
        ("data: null\n", "data"),
        ("1: 2\n", "1: "),
        ("recipe: {batch_size: 1}\n", "recipe.batch_size"),
        ("recipe: {batchsize: 64}\n", "recipe.batchsize: is not a known setting; batch_size is"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, text, words):
    path = tmp_path / "mine.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=words) as told:
        loaded(preset=str(path))
    assert str(path) in str(told.value)


def test_a_recipe_that_is_not_there_is_told(tmp_path):
    with pytest.raises(UserError, match="recipe nonsense: no such recipe; there are adaface-casia"):
        loaded(preset=preset_file(tmp_path, "recipe: nonsense\n"))


# --set and the options of the command line.


def test_set_reaches_every_level():
    config = loaded("seed=3", "search.min_epochs=2", "data.name=digits", "recipe.lr=1e-1", "recipe.flip=true")
    assert (config.seed, config.search.min_epochs, config.data.name) == (3, 2, "digits")
    assert (config.recipe.lr, config.recipe.flip) == (0.1, True)
    untouched = {"seed", "search", "data", "recipe"}
    assert config.model_dump(exclude=untouched) == loaded().model_dump(exclude=untouched)
    assert config.search.model_dump(exclude={"min_epochs"}) == loaded().search.model_dump(
        exclude={"min_epochs"}
    )


def test_numbers_may_have_a_suffix_or_an_exponent():
    config = loaded("seed=1M", "search.min_epochs=1e1", "recipe.lr=1e-1", "recipe.milestones=[1k, 2e3]")
    assert (config.seed, config.search.min_epochs, config.recipe.lr) == (1_000_000, 10, 0.1)
    assert config.recipe.milestones == (1000, 2000)
    config = loaded("search.limits={macs: 1.5M}", "data.name=10k", preset="pareto")
    assert config.search.limits == {"macs": 1_500_000}
    assert config.data.name == "10k"  # a folder may be called so
    with pytest.raises(UserError, match="min_epochs: Input should be a valid integer"):
        loaded("search.min_epochs=1.5")


def test_set_takes_whole_groups_nulls_and_an_equals_sign():
    config = loaded("search={min_epochs: 3, micro: false}", "recipe.crop=null", "data.root=/a=b/c")
    assert config.search == MacroMicro.Settings(min_epochs=3, micro=False)
    assert config.recipe.crop is None
    assert config.data.root == Path("/a=b/c")


def test_set_is_applied_in_order_and_after_the_options():
    options = {"seed": 1, "data.name": "emnist"}
    assert load_run_config("tiny", [], options).seed == 1
    assert load_run_config("tiny", [], options).data.name == "emnist"
    assert load_run_config("tiny", [], {"seed": None}) == loaded(), "an option that was not given"
    assert load_run_config("tiny", ["seed=2", "seed=3"], options).seed == 3
    with_group = load_run_config("tiny", ["data={name: kmnist}", "data.download=true"], options)
    assert (with_group.data.name, with_group.data.download) == ("kmnist", True)


def test_set_does_not_change_the_shipped_preset():
    before = loaded()
    loaded("search.min_epochs=2", "recipe.lr=0.5")
    assert loaded() == before


def test_set_of_a_list_replaces_it(tmp_path):
    """No setting is a list yet, so a list must be refused by the setting's own type, whole."""
    with pytest.raises(UserError, match=r"data\.name: Input should be a valid string"):
        loaded("data.name=[digits, emnist]")


@given(
    st.integers(0, 2**40),
    st.integers(1, 500),
    st.floats(1e-6, 10),
    st.booleans(),
    st.sampled_from(["test", "validation"]),
)
def test_values_go_through_set_and_run_yaml_unchanged(seed, epochs, lr, micro, select_on):
    settings = {
        "seed": seed,
        "search.min_epochs": epochs,
        "recipe.lr": lr,
        "search.micro": micro,
        "data.select_on": select_on,
    }
    config = loaded(*(f"{key}={yaml.safe_dump(value).splitlines()[0]}" for key, value in settings.items()))
    assert (config.seed, config.search.min_epochs, config.recipe.lr) == (seed, epochs, lr)
    assert (config.search.micro, config.data.select_on) == (micro, select_on)
    told = yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json")))
    assert validate(RunConfig, told, "run.yaml") == config
