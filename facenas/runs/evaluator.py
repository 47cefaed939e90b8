"""What a run's candidates are judged by: one's own function, a training alone, or a supernet.

A supernet that another run in the same folder has trained already, by the same settings, code and machine,
is taken from there: searches that differ in strategy or limits alone share it, and find what they would have
found.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field

from facenas.config import Config, validate
from facenas.device import core_count
from facenas.errors import UserError
from facenas.execution import Evaluator, SupernetPath, SupernetRef, TrainAlone
from facenas.execution.evaluators import function_evaluator
from facenas.files import reading
from facenas.runs.run import Run, open_run
from facenas.spaces.base import fingerprint
from facenas.strategies.pareto import SupernetSettings

log = logging.getLogger(__name__)

OnEpoch = Callable[[dict[str, Any], int], None]  # (an epoch's metrics, number of epochs)


def build_evaluator(run: Run, space: Any) -> Evaluator:
    """The evaluator of a run over `space`; one with a supernet judges after `train_supernet` alone.

    Raises UserError when images or packages are missing.
    """
    config, search = run.config, run.config.search
    if config.evaluate:
        return function_evaluator(config.evaluate, config.seed, space.costs.get("latency"))
    latency = space.costs.get("latency") or "latency" in getattr(search, "objectives", ())
    if latency is True:
        from facenas.models.latency import check_packages  # needs torch

        check_packages()
    folder, fingerprint = run.find_data(), run.about["data"]["fingerprint"]
    teacher = run.find_teacher()
    settings = (folder, config.data, fingerprint, config.recipe, config.seed, latency)
    if getattr(search, "supernet", None) is None:
        inherit = getattr(search, "inherit", None)
        return TrainAlone(*settings, weights=run.weights if inherit else None, teacher=teacher)
    path, key = run.folder / "checkpoints" / "supernet.pt", _key(run, search.supernet)
    if teacher and not teacher.judges_paths(space.largest().embedding):
        raise UserError(
            "recipe.distill.agreement: paths of a supernet have no projection to the teacher's "
            f"{teacher.size} numbers; set space.embedding to that, or recipe.distill.kind to relational"
        )
    supernet = SupernetRef(path, key, space, search.supernet.recalibration)
    return SupernetPath(*settings, teacher=teacher, supernet=supernet)


def train_supernet(run: Run, evaluator: SupernetPath, on_epoch: OnEpoch) -> None:
    """Trains the supernet of `run` to its last epoch if it is not yet; it goes on where it was killed.

    Raises UserError when its checkpoint is damaged or belongs to other settings, SearchStoppedError when
    training diverges or the disk is full.
    """
    from facenas.data import open_data
    from facenas.device import pick_device
    from facenas.training.fit import TrainState, fit, kept_threads
    from facenas.training.supernet import supernet_trainer
    from facenas.training.tasks import TaskContext

    settings, ref = run.config.search.supernet, evaluator.supernet
    assert ref is not None
    path, key, space = ref.path, ref.fingerprint, ref.space
    checkpoint = checked_checkpoint(path, key) or _take_over(run, settings, path, key)
    if checkpoint is None or len(checkpoint["history"]) < settings.epochs:
        config, seed = run.config, int(key[:16], 16) >> 1
        data = open_data(evaluator.data_folder, config.data.image_size)
        with kept_threads(checkpoint):
            facts = data, config.data, config.recipe, config.seed, seed, pick_device()
            context = TaskContext(space.largest(), *facts, teacher=evaluator.teacher)
            trainer, supernet = supernet_trainer(context, space, settings)
            state = TrainState(trainer, path, key, {"supernet": supernet})
            with reading(path, "remove it to train anew"):
                state.restore(checkpoint)
            fit(state, run.folder, "supernet", on_epoch)


class _Checkpoint(Config):
    """What `TrainState.save` writes, beside weights."""

    model_config = ConfigDict(extra="ignore", arbitrary_types_allowed=True)

    key: str
    training: dict[str, Any]
    history: list[dict[str, Any]]
    seconds: float = Field(ge=0)
    threads: int = Field(ge=1, le=4096)


def checked_checkpoint(path: Path, key: str) -> dict[str, Any] | None:
    """`read_checkpoint` of what is there in full; raises UserError when it is something else."""
    from facenas.training.fit import read_checkpoint

    with reading(path, "remove it to train anew"):
        checkpoint = read_checkpoint(path, key)
        if checkpoint is not None:
            validate(_Checkpoint, checkpoint, str(path))
        return checkpoint


def _take_over(run: Run, settings: SupernetSettings, path: Path, key: str) -> dict[str, Any] | None:
    """Copies the supernet that a neighboring run has trained to its end, if training anew would repeat it."""
    from facenas.training.fit import save, write_metrics

    for other in sorted(run.folder.parent.glob("[!.]*/checkpoints/supernet.pt")):
        with suppress(UserError):  # of other settings, or damaged: no fault of this run
            neighbor = open_run(run.folder.parent, other.parents[1].name)
            checkpoint = checked_checkpoint(other, key) if run.alike(neighbor) else None
            # Another number of threads rounds otherwise.
            if checkpoint is None or checkpoint["threads"] != core_count():
                continue
            if len(checkpoint["history"]) == settings.epochs:
                log.info("supernet: trained already, in run %s", neighbor.name)
                save(path, checkpoint)
                write_metrics(run.folder, "supernet", checkpoint["history"])
                return checkpoint
    return None


def _key(run: Run, settings: SupernetSettings) -> str:
    """Of all that decides the weights; groups decide what its networks are judged by."""
    space, data = run.config.space, run.config.data.model_copy(update={"groups": None})
    return fingerprint(
        {
            "space": {"kind": space.owner.name, **space.model_dump(mode="json")},
            "recipe": run.config.recipe.deciding(),
            "supernet": settings.model_dump(include={"epochs", "sandwich"}),
            "data": {**data.deciding(), "fingerprint": run.about["data"]["fingerprint"]},
            "seed": run.config.seed,
            **run.taught,
        }
    )
