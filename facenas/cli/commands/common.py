"""What searches and trainings have in common: their data, their run folder, their report."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from facenas.data import ImageSet, TrainingData, describe, open_data, prepare
from facenas.data.datasets import DEMO, HOW_TO_GET_FACES, known_name
from facenas.errors import UserError
from facenas.runs import Run, create_run
from facenas.runs.config import RunConfig
from facenas.training.recipes import FaceRecipe


def anchored(config: RunConfig) -> RunConfig:
    """With absolute paths: a run can be resumed from another working directory."""
    data = config.data
    path = Path(data.name).expanduser()
    named = data.name in ("", DEMO) or known_name(data.name) is not None or not path.exists()
    name = data.name if named else str(path.resolve())
    root = data.root.expanduser().resolve()
    return config.model_copy(update={"data": data.model_copy(update={"name": name, "root": root})})


def find_data(config: RunConfig) -> TrainingData:
    """Found before a run folder is made: data that is missing or does not fit leaves nothing behind."""
    faces = isinstance(config.recipe, FaceRecipe)
    if faces and not config.data.name:
        raise UserError(f"this preset needs a store of faces: {HOW_TO_GET_FACES}")
    data = open_data(prepare(config.data))
    if faces == isinstance(data, ImageSet):
        what = "a set of image classes" if faces else "a store of faces"
        needed = "faces" if faces else "classification"
        raise UserError(f"{config.data.name}: is {what}, but the preset is for {needed}")
    if isinstance(data, ImageSet) and not isinstance(config.recipe, FaceRecipe):
        from facenas.data.augment import crop_side  # with torch

        crop_side(config.recipe, data)  # a recipe that does not fit would fail every trial
    return data


def new_run(
    config: RunConfig,
    data: TrainingData,
    label: str,
    name: str | None,
    runs_dir: Path,
    command: str,
) -> Run:
    """A run folder for `config`, called `name`, or after label, data and time."""
    time = datetime.now().strftime("%Y%m%d-%H%M%S")
    name = name or f"{Path(label).stem}-{Path(config.data.name).stem}-{time}"
    return create_run(runs_dir, name, config, describe(data), command)


def report(run: Run) -> str:
    """Writes the run's report and returns its path."""
    from facenas.report import write_report

    return str(write_report(run.folder))


def counts(arch: Any, image_size: int) -> dict[str, Any]:
    """Parameters and MACs as `best.json` tells them."""
    parameters = arch.count_parameters()
    return {
        "parameters": parameters,
        "params_millions": parameters / 1e6,
        "macs": arch.count_macs(image_size),
    }
