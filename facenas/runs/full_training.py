"""Full training of the network that a search found, or of a given one; then one look at the test images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from facenas.data import TrainingData
from facenas.data.classes.store import ImageStore
from facenas.data.faces.store import FaceStore
from facenas.device import pick_device
from facenas.errors import UserError
from facenas.files import reading, write_json
from facenas.models.transfer import CLASS_MEANS, load_beginning
from facenas.runs import Run
from facenas.runs.before_after import tell_after, tell_before
from facenas.runs.callbacks import Callback
from facenas.runs.evaluator import checked_checkpoint
from facenas.spaces import Architecture, from_json
from facenas.spaces.base import fingerprint
from facenas.training import distributed
from facenas.training.class_means import begin_head
from facenas.training.depth import depths_of
from facenas.training.faces import FaceTask
from facenas.training.fit import TrainState, fit, kept_threads, save
from facenas.training.recipes import FaceRecipe, Recipe, with_protocol
from facenas.training.tasks import TaskContext, build_task
from facenas.training.trainer import Trainer


def train_found(run: Run, epochs: int | None, callback: Callback) -> dict[str, Any]:
    """Trains the network in `best.json` for `epochs` (left out: the recipe's) and tests it once.

    Returns what `train.json` holds; under `torchrun`, in the first process alone. A run that is trained
    already is not trained or tested again. The caller holds the run's lock. Raises UserError when the search
    has not ended or the run was trained otherwise, SearchStoppedError when training diverges or the disk is
    full.
    """
    if trained := run.trained():
        if epochs not in (None, trained["epochs"]):
            raise UserError(
                f"{run.folder}: was trained for {trained['epochs']} epochs already; to train it for {epochs}, "
                f"make it a run of its own: facenas train {run.name} --epochs {epochs} --run NAME"
            )
        return trained
    best = run.found()
    callback.on_begin(run, "training")
    data, config = run.open_data(), run.config
    arch, beginning = from_json(best["architecture"]), best.get("beginning")
    with reading(run.folder / "best.json", "make the run anew"):
        recipe = with_protocol(config.recipe, best.get("protocol", {}).items())
        epochs = epochs or recipe.final_epochs
        check_freeze(recipe, beginning)
        key = _key(run, arch, recipe, epochs, beginning)
    path = run.folder / "checkpoints" / "training.pt"
    checkpoint = checked_checkpoint(path, key)
    with kept_threads(checkpoint):
        device, seed = pick_device(distributed.local_rank()), int(key[:16], 16) >> 1
        model = arch.build(seed)
        if beginning and checkpoint is None:
            load_beginning(model, beginning_path(run), beginning)
        facts = arch, data, config.data, recipe, config.seed, seed, device
        context = TaskContext(*facts, final=True, model=model, teacher=run.find_teacher())
        task = build_task(context)
        if beginning and checkpoint is None:
            means = beginning.get("head") == CLASS_MEANS
            if means and isinstance(task, FaceTask) and (head := task.network.head) is not None:
                begin_head(task, head, run.folder / "checkpoints" / "class_means.pt", key)
            tell_before(run, arch, task)
        depths = depths_of(task, arch, run.about["data"]["image_size"], recipe)
        trainer = Trainer(task, recipe, epochs, device, config.execution.compile, depths=depths)
        state = TrainState(trainer, path, key)
        with reading(path, "remove it to train anew"):
            state.restore(checkpoint)

        def on_epoch(metrics: dict[str, Any], epochs: int) -> None:
            callback.on_epoch("final", metrics)

        fit(state, run.folder, "final", on_epoch, lambda: _save_model(run, arch, data, state))
        return _conclude(run, arch, data, state, beginning)


def _conclude(
    run: Run, arch: Architecture, data: TrainingData, state: TrainState, beginning: Any
) -> dict[str, Any]:
    """Tests the weights that are kept, once, and writes `train.json`."""
    trainer = state.trainer
    if state.best_epoch is None:
        _save_model(run, arch, data, state)
    if distributed.rank():
        return {}
    if state.best_epoch is not None:  # the weights of the best epoch, not of the last
        saved = torch.load(_model_path(run), map_location="cpu", weights_only=True)
        trainer.task.model.load_state_dict(saved["model"])
    tested = trainer.task.test()
    result = {
        "architecture": arch.to_json(),
        "parameters": arch.count_parameters(),
        "epochs": trainer.epochs,
        **({"beginning": beginning} if beginning else {}),
        "train_images": trainer.task.images,
        "train_accuracy": state.history[-1]["train_accuracy"],
        "best_epoch": state.best_epoch,
        **_agreement(state),
        **tested,
        **tell_after(run, arch, trainer.task, tested),
        "seconds": round(state.seconds, 3),
        "threads": torch.get_num_threads(),
        "processes": distributed.world(),
        "device": str(trainer.device.torch_device),
        **(trainer.facts() if trainer.device.is_gpu else {}),
    }
    write_json(run.folder / "train.json", result)
    return result


def _agreement(state: TrainState) -> dict[str, float]:
    """With the teacher, in percent, after the epoch that is kept: a projection is of the last one alone."""
    kept = state.history[state.best_epoch - 1] if state.best_epoch else {}
    return {"agreement": kept["agreement"]} if "agreement" in kept else {}


def _key(run: Run, arch: Architecture, recipe: Recipe | FaceRecipe, epochs: int, beginning: Any) -> str:
    """Of all that decides the training: its checkpoint carries the key, and it seeds the random draws."""
    data = run.config.data.model_dump(include={"validation_fraction", "test_fraction", "pairs"})
    settings = {
        "architecture": arch.to_json(),
        "epochs": epochs,
        "recipe": recipe.deciding(final=True),
        "data": {**data, "fingerprint": run.about["data"]["fingerprint"]},
        "seed": run.config.seed,
        **run.taught,
    }
    if beginning:  # `facenas.models.transfer`: weights that are not drawn
        settings["beginning"] = beginning["fingerprint"]
    return fingerprint(settings)


def check_freeze(recipe: Recipe | FaceRecipe, beginning: Any) -> None:
    """Raises UserError where drawn weights would stay as they are."""
    if recipe.freeze and not beginning:
        raise UserError(
            f"recipe.freeze {recipe.freeze}: keeps weights as they are; begin with trained ones (--from)"
        )


def beginning_path(run: Run) -> Path:
    """The weights that the training of `run` begins with, when they are not drawn."""
    return run.folder / "checkpoints" / "beginning.safetensors"


def _model_path(run: Run) -> Path:
    return run.folder / "checkpoints" / "model.pt"


def _save_model(run: Run, arch: Architecture, data: TrainingData, state: TrainState) -> None:
    """Weights and all that is needed to use them; loads with `torch.load(weights_only=True)`."""
    about: dict[str, Any] = {"mean": [0.5] * 3, "std": [0.5] * 3}
    if not isinstance(data, FaceStore):
        about = {"classes": data.classes, "mean": data.mean, "std": data.std}
        about = {key: list(values) for key, values in about.items()}
    recipe = state.trainer.recipe
    if isinstance(data, ImageStore) and isinstance(recipe, Recipe):
        about["crop_fraction"] = recipe.crop_fraction
    model = {
        "architecture": arch.to_json(),
        **about,
        "colour": "RGB" if arch.in_channels == 3 else "grey",
        "image_size": run.about["data"]["image_size"],
        "model": state.trainer.task.model.state_dict(),
    }
    save(_model_path(run), model)
