"""What the command line's longer commands do, as functions that a script or a notebook can call."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from facenas.arch import from_json
from facenas.config import RunConfig
from facenas.data import ImageSet, crop_side, open_image_set, prepare
from facenas.data.named import known_name
from facenas.driver import run_search
from facenas.errors import SearchStoppedError, UserError
from facenas.runs import Run, create_run, open_run
from facenas.runs.files import read_json


def start_search(
    config: RunConfig, label: str, name: str | None, runs_dir: Path, command: str
) -> dict[str, Any]:
    """Creates a run and searches; returns what was found, the run and its report."""
    config = _anchored(config)
    return _search(_new_run(config, _images(config), label, name, runs_dir, command))


def resume_search(runs_dir: Path, name: str) -> dict[str, Any]:
    """Goes on with a run's search; one that has ended is only reported."""
    return _search(open_run(runs_dir, name))


def train_run(runs_dir: Path, name: str, epochs: int | None) -> dict[str, Any]:
    """Trains what a run found, and tests it once."""
    from facenas.full_training import train_found
    from facenas.progress import TrainingProgress

    run, progress = open_run(runs_dir, name), TrainingProgress()
    with run.lock():
        try:
            result = train_found(run, epochs, progress)
        except KeyboardInterrupt:
            raise SearchStoppedError(
                f"stopped; `facenas train {name}` goes on where it was"
            ) from None
        finally:
            progress.close()
    return {"run": str(run.folder), **result, "report": _report(run)}


def train_architecture(
    path: Path,
    config: RunConfig,
    name: str | None,
    runs_dir: Path,
    command: str,
    epochs: int | None,
) -> dict[str, Any]:
    """Trains the architecture in a JSON file (or in a `best.json`) as a run of its own."""
    tree = read_json(path)
    arch = from_json(tree.get("architecture", tree))
    config = _anchored(config)
    image_set = _images(config)
    if (arch.in_channels, arch.num_classes) != (image_set.in_channels, image_set.num_classes):
        raise UserError(
            f"{path}: takes {arch.in_channels} channels and {arch.num_classes} classes, but "
            f"{config.data.name} has {image_set.in_channels} and {image_set.num_classes}"
        )
    run = _new_run(config, image_set, path.stem, name, runs_dir, command)
    parameters = arch.count_parameters()
    run.write_best(
        {
            "architecture": arch.to_json(),
            "parameters": parameters,
            "params_millions": parameters / 1e6,
            "macs": arch.count_macs(image_set.image_size),
        }
    )
    return train_run(runs_dir, run.name, epochs)


def _anchored(config: RunConfig) -> RunConfig:
    """With absolute paths: a run can be resumed from another working directory."""
    data = config.data
    path = Path(data.name).expanduser()
    named = known_name(data.name) is not None or not path.exists()
    name = data.name if named else str(path.resolve())
    root = data.root.expanduser().resolve()
    return config.model_copy(update={"data": data.model_copy(update={"name": name, "root": root})})


def _images(config: RunConfig) -> ImageSet:
    """Found before a run folder is made: a data set that is missing or does not fit leaves nothing behind."""
    image_set = open_image_set(prepare(config.data))
    crop_side(config.recipe, image_set)  # a recipe that does not fit would fail every trial
    return image_set


def _new_run(
    config: RunConfig,
    image_set: ImageSet,
    label: str,
    name: str | None,
    runs_dir: Path,
    command: str,
) -> Run:
    about = {
        "name": image_set.name,
        "fingerprint": image_set.fingerprint,
        "train_images": len(image_set.train_labels),
        "test_images": len(image_set.test_labels),
        "classes": image_set.num_classes,
        "image_size": image_set.image_size,
        "in_channels": image_set.in_channels,
    }
    time = datetime.now().strftime("%Y%m%d-%H%M%S")
    name = name or f"{Path(label).stem}-{Path(config.data.name).stem}-{time}"
    return create_run(runs_dir, name, config, about, command)


def _search(run: Run) -> dict[str, Any]:
    from facenas.execution import core_count
    from facenas.progress import SearchProgress

    execution = run.config.execution
    workers = 1 if execution.executor == "serial" else execution.workers or core_count()
    progress = SearchProgress(run.about["data"]["image_size"], workers)
    with run.lock():
        try:
            found = run_search(run, progress)
        except KeyboardInterrupt:
            raise SearchStoppedError(f"stopped; `facenas resume {run.name}` goes on") from None
        finally:
            progress.close()
    return {"run": str(run.folder), **found, "report": _report(run)}


def _report(run: Run) -> str:
    from facenas.report import write_report

    return str(write_report(run.folder))
