"""Full trainings: of what a search found, of an architecture in a file, of a named network."""

from __future__ import annotations

import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from facenas.cli.commands.common import anchored, counts, find_data, new_run, report
from facenas.data import TrainingData, describe
from facenas.errors import SearchStoppedError, UserError
from facenas.files import read_json
from facenas.runs import Run, open_run
from facenas.runs.config import RunConfig
from facenas.runs.presets import load_run_config
from facenas.spaces import Architecture, from_json
from facenas.spaces.ir import NAMED
from facenas.training import distributed
from facenas.training.recipes import FaceRecipe

_WAIT_SECONDS = 600


def train(
    target: str,
    preset: str | None,
    overrides: dict[str, Any],
    settings: list[str],
    name: str | None,
    runs_dir: Path,
    command: str,
    epochs: int | None,
    pick: int | None = None,
) -> dict[str, Any]:
    """Trains `target`: a run's own network in place, or, with anything chosen, as a run of its own.

    `pick`: of a run that found a Pareto front, which member, by the number of its trial. `overrides` and
    `settings` change the configuration of `preset`, else that of the run, else that of the preset for the
    architecture's kind.
    """
    distributed.start()
    chosen = [preset, name, pick, *overrides.values()]
    changed = settings or any(value is not None for value in chosen)
    if target not in NAMED and not target.endswith(".json") and not changed:
        return _train(open_run(runs_dir, target), epochs)
    arch, base = _resolve(target, runs_dir, pick)
    config = load_run_config(preset or base, settings, overrides)
    run = _shared_run(arch, anchored(config), target, name, runs_dir, command)
    return _train(run, epochs)


def _resolve(target: str, runs_dir: Path, pick: int | None) -> tuple[Architecture, str | RunConfig]:
    """The architecture that `target` names, and the preset or configuration it is trained by."""
    if pick is not None and (target in NAMED or target.endswith(".json")):
        raise UserError(f"--pick {pick}: {target} is one network, and no run with a Pareto front")
    if target in NAMED:
        return NAMED[target], "small"
    if target.endswith(".json"):
        tree = read_json(Path(target))
        arch = from_json(tree.get("architecture", tree))
        return arch, "small" if arch.task == "face" else "tiny"
    run = open_run(runs_dir, target)
    best = run.best()
    if best is None:
        raise UserError(
            f"{run.folder}: its search has not ended; `facenas resume {run.name}` goes on"
        )
    return from_json(best["architecture"] if pick is None else _picked(run, best, pick)), run.config


def _picked(run: Run, best: dict[str, Any], pick: int) -> dict[str, Any]:
    """The architecture of trial number `pick` on the front of `run`."""
    members = {member["id"]: member for member in best.get("front", [])}
    if pick not in members:
        known = ", ".join(map(str, members)) or "none: it found one network"
        raise UserError(f"--pick {pick}: is not on the front of {run.name}; there are {known}")
    architecture: dict[str, Any] = members[pick]["architecture"]
    return architecture


def _shared_run(
    arch: Architecture,
    config: RunConfig,
    target: str,
    name: str | None,
    runs_dir: Path,
    command: str,
) -> Run:
    """The new run. Under `torchrun` the first process makes it, the others open it; it needs a name then."""
    if distributed.rank():
        assert name is not None
        return _opened(runs_dir, name)
    if distributed.world() > 1 and not name:
        raise UserError(
            "under torchrun the run needs a name that all processes know: give --run NAME"
        )
    data = find_data(config)
    _check_fit(arch, data, config, target)
    run = new_run(config, data, target, name, runs_dir, command)
    facts = describe(data)
    run.write_best({"architecture": arch.to_json(), **counts(arch, facts["image_size"])})
    return run


def _opened(runs_dir: Path, name: str) -> Run:
    """Another process's run, as soon as it is there."""
    for _ in range(_WAIT_SECONDS):
        if (runs_dir / name / "best.json").exists():
            return open_run(runs_dir, name)
        time.sleep(1)
    raise UserError(f"{runs_dir / name}: was not made by the first process")


def _check_fit(arch: Architecture, data: TrainingData, config: RunConfig, target: str) -> None:
    facts = describe(data)
    if (arch.task == "face") != isinstance(config.recipe, FaceRecipe):
        raise UserError(
            f"{target}: an architecture of kind {arch.kind} cannot be trained by a recipe for "
            f"{config.recipe.kind}; choose another --preset or --recipe"
        )
    if arch.task == "face":
        return
    if (arch.in_channels, arch.num_classes) != (facts["in_channels"], facts["classes"]):
        raise UserError(
            f"{target}: takes {arch.in_channels} channels and {arch.num_classes} classes, but "
            f"{config.data.name} has {facts['in_channels']} and {facts['classes']}"
        )


def _train(run: Run, epochs: int | None) -> dict[str, Any]:
    from facenas.cli.progress import TrainingProgress
    from facenas.runs.full_training import train_found

    progress = TrainingProgress()
    with run.lock() if distributed.rank() == 0 else nullcontext():
        try:
            result = train_found(run, epochs, progress)
        except KeyboardInterrupt:
            raise SearchStoppedError(
                f"stopped; `facenas train {run.name}` goes on where it was"
            ) from None
        finally:
            progress.close()
    if distributed.rank():
        return {}
    return {"run": str(run.folder), **result, "report": report(run)}
