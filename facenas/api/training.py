"""`facenas.train`: a network in full, in one process, in several, or on the nodes of a cluster."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from facenas.api.folders import new_run, open_named, python_call, run_place, stoppable, write_report
from facenas.api.searching import SearchResult
from facenas.api.settings import Settings, anchored, configure, data_name, find_data, first_alone, tell_split
from facenas.config import Config
from facenas.errors import UserError
from facenas.files import reading
from facenas.runs import Run, open_run
from facenas.runs.callbacks import Callback, Callbacks, Given
from facenas.runs.config import RunConfig
from facenas.runs.journal import read_journal
from facenas.spaces import Architecture, ImageFacts, from_json
from facenas.spaces.named import NAMED
from facenas.training.recipes import with_protocol

if TYPE_CHECKING:
    from facenas.models.transfer import Beginning

log = logging.getLogger(__name__)

_WAIT_SECONDS = 600  # under torchrun, for the run that the first process makes


@dataclass(frozen=True)
class TrainResult:
    """What a full training gave.

    test_accuracy: in percent, on images that nothing was chosen on (None: there were none); verification: of
    faces, the accuracy on held-out pairs, in percent; details: all of `train.json`.
    """

    run: Path
    architecture: Architecture
    parameters: int
    epochs: int
    test_accuracy: float | None
    verification: float | None
    report: Path | None
    details: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """What `facenas train --json` prints."""
        report = None if self.report is None else str(self.report)
        return {"run": str(self.run), **self.details, "report": report}


def train(
    target: str | Path | Architecture | SearchResult | None = None,
    *,
    data: Any = None,
    recipe: Any = None,
    weights: str | Path | SearchResult | TrainResult | None = None,
    teacher: str | Path | SearchResult | TrainResult | None = None,
    preset: str | Path | None = None,
    epochs: int | None = None,
    bench: str | Path | None = None,
    bench_data: str | Path | None = None,
    pick: int | None = None,
    so_far: bool = False,
    seed: int | None = None,
    settings: Settings = (),
    callbacks: Given = (),
    run: str | Path | None = None,
    runs_dir: str | Path | None = None,
    nodes: int | None = None,
    address: str | None = None,
    command: str | None = None,
) -> TrainResult | None:
    """Trains a network in full and tests it once; a killed training goes on where it was.

    target: a run (its name, folder, or SearchResult), an architecture or a JSON file of one, or a named network
    such as `ir18`. A run alone is trained in place; with any other choice the training becomes a run of its
    own, with the settings of the run it comes from (and the protocol that a joint search found), else of
    `preset`. On `data` with other channels, classes or pixels than a run's, its network is adapted to them.
    weights: of the same network, trained, to begin with, except its classifier: a run or a checkpoint as `load`
    takes them; the head of faces begins at the mean embeddings. Without a target, the network is that of the
    weights, and faces are trained by the recipe `finetune-face`. teacher: see `search`. bench, bench_data: of
    `evaluate`; measured before the first epoch and after the last, to tell what such a training forgets. pick:
    of a run's Pareto front, the number of the trial to train. so_far: of a search that has not ended, the best
    until now, as a run of its own. epochs: else the recipe's. callbacks: of a run trained in place for this
    call alone, beside those that it names. nodes: of the Ray cluster at `address` (HOST:PORT or auto), which
    train together, in a process a card, else one a node; all see the folder of the run, and the data. The
    others as in `search`.

    Under `torchrun` all processes call this, and all but the first get None. Raises UserError for wrong
    arguments, SearchStoppedError when training diverges or the disk is full.
    """
    from facenas.training import distributed

    if address is not None and nodes is None:
        raise UserError(f"address {address}: is of a cluster; say on how many of its nodes to train (nodes)")
    distributed.start()
    path = None if weights is None else weights_path(weights, runs_dir)
    if isinstance(target, SearchResult):
        target = target.run
    alone = target is None
    if target is None:
        target = _network_of(path)
    name = target if isinstance(target, Architecture) else str(target)
    overrides = {
        "data.name": data_name(data),
        "recipe": recipe.model_dump(mode="json") if isinstance(recipe, Config) else recipe,
        "recipe.distill.teacher": teacher_path(teacher, runs_dir),
        "seed": seed,
        "bench": _bench(bench, bench_data),
    }
    chosen = [preset, run, pick, so_far or None, weights, *overrides.values()]
    changed = bool(settings) or any(value is not None for value in chosen)
    if isinstance(name, str) and not _names_network(name) and not changed:
        opened = open_named(name, runs_dir)
        if distributed.rank() == 0 and opened.config.recipe.kind == "faces" and not opened.trained():
            tell_split(opened.config, opened.open_data(), final=True)
        return _train(opened, epochs, first_alone(opened.config, callbacks), nodes, address)
    arch, base, found_for = _resolve(name, runs_dir, pick, so_far)
    if alone and arch.task == "face" and preset is None and recipe is None:
        overrides["recipe"] = "finetune-face"
    config = anchored(configure(preset or base, settings, overrides, callbacks))
    if weights is None and bench is None:  # that of the run whose settings these are
        config = config.model_copy(update={"bench": None})
    told = first_alone(config, callbacks)
    label = arch.kind if isinstance(name, Architecture) else name
    origin = command or python_call("train")
    made = _shared_run(arch, found_for, path, config, label, run, runs_dir, origin)
    return _train(made, epochs, told, nodes, address)


def weights_path(source: str | Path | SearchResult | TrainResult, runs_dir: str | Path | None) -> Path:
    """The file that `source` is, else the folder of the run."""
    if isinstance(source, SearchResult | TrainResult):
        source = source.run
    path = Path(source).expanduser()
    if path.is_file() or path.suffix.lower() == ".onnx":
        return path
    try:
        return open_named(source, runs_dir).folder
    except UserError as error:
        if not path.suffix:
            raise
        raise UserError(f"{source}: there is no such file; of a run: {error}") from None


def teacher_path(
    source: str | Path | SearchResult | TrainResult | None, runs_dir: str | Path | None
) -> str | None:
    """What `recipe.distill.teacher` says: a file or the folder of a run."""
    return None if source is None else str(weights_path(source, runs_dir))


def _names_network(target: str) -> bool:
    return target in NAMED or target.endswith(".json")


def _resolve(
    target: str | Architecture, runs_dir: str | Path | None, pick: int | None, so_far: bool
) -> tuple[Architecture, str | RunConfig, ImageFacts | None]:
    """The architecture that `target` names, the preset or configuration it is trained by, and, of a run's, what
    images it was found for.
    """
    from facenas.files import read_json

    if pick is not None and (isinstance(target, Architecture) or _names_network(target)):
        raise UserError(f"pick {pick}: {target} is one network, and no run with a Pareto front")
    if not isinstance(target, Architecture) and _names_network(target):
        tree = {} if target in NAMED else read_json(Path(target))
        with reading(Path(target)):
            target = NAMED.get(str(target)) or from_json(tree.get("architecture", tree))
    if isinstance(target, Architecture):
        return target, "small" if target.task == "face" else "tiny", None
    run = open_named(target, runs_dir)
    best = run.found(so_far)
    arch = from_json(best["architecture"] if pick is None else _picked(run, best, pick))
    if run.best() is None:
        log.warning("%s: its search has not ended; the best so far is %s", run.name, arch.summary())
    config = run.config
    if pick is None:  # the protocol is that of the one network found
        with reading(run.folder / "best.json"):
            recipe = with_protocol(config.recipe, best.get("protocol", {}).items())
        config = config.model_copy(update={"recipe": recipe})
    with reading(run.folder / "run.yaml"):
        return arch, config, ImageFacts.of(run.about["data"])


def _network_of(weights: Path | None) -> str | Architecture:
    """What is to be trained when nothing but weights is named: their run, else the network in their file."""
    if weights is None:
        raise UserError("say what to train: a run, an architecture, a network by name, or weights (--from)")
    if weights.is_dir():
        return str(weights)
    from facenas.models.load import load_network

    return load_network(weights).arch


def _bench(name: str | Path | None, data: str | Path | None) -> dict[str, str] | None:
    if (name is None) != (data is None):
        raise UserError(f"bench {name or data}: a bench and its files go together (bench, bench_data)")
    return None if name is None else {"name": str(name), "data": str(data)}


class _OpenedError(Exception):
    """The bench has found its files."""


def _opened_only(*_: Any, **__: Any) -> NoReturn:
    raise _OpenedError


def _check_bench(config: RunConfig, weights: Path | None) -> None:
    """Opens it before a run is made, which could not begin without its files."""
    from facenas.evaluation.benches import find_bench

    if config.bench is None:
        return
    bench = find_bench(config.bench.name)
    if weights is None or config.recipe.kind != "faces":
        raise UserError(
            f"bench {bench.name}: tells what a trained network forgets; begin with one of faces (--from)"
        )
    with suppress(_OpenedError):
        bench.measure(config.bench.data, _opened_only)


def _picked(run: Run, best: dict[str, Any], pick: int) -> dict[str, Any]:
    """The architecture of trial number `pick` on the front of `run`."""
    members = {member["id"]: member for member in best.get("front", [])}
    if pick not in members:
        known = ", ".join(map(str, members)) or "none: it found one network"
        raise UserError(f"pick {pick}: is not on the front of {run.name}; there are {known}")
    architecture: dict[str, Any] = members[pick]["architecture"]
    return architecture


def _shared_run(
    arch: Architecture,
    found_for: ImageFacts | None,
    weights: Path | None,
    config: RunConfig,
    label: str,
    run: str | Path | None,
    runs_dir: str | Path | None,
    command: str,
) -> Run:
    """The new run. Under `torchrun` the first process makes it, the others open it; it needs a name then."""
    from facenas.data import describe
    from facenas.runs.full_training import beginning_path, check_freeze
    from facenas.runs.run import counts
    from facenas.training import distributed

    if distributed.world() > 1 and run is None:
        raise UserError("under torchrun the run needs a name that all processes know: give run")
    if distributed.rank():
        assert run is not None
        return _opened(*run_place(run, runs_dir))
    data = find_data(config)
    facts = describe(data)
    _check_task(arch, config, label)
    if found_for:
        arch = _adapted(arch, found_for, ImageFacts.of(facts), label)
    _check_fit(arch, facts, config, label)
    check_freeze(config.recipe, weights)
    _check_bench(config, weights)
    beginning = weights and _beginning(weights, arch, ImageFacts.of(facts))
    tell_split(config, data, final=True)
    made = new_run(config, facts, label, run, runs_dir, command)
    best = {"architecture": arch.to_json(), **counts(arch, facts["image_size"])}
    if beginning:
        best["beginning"] = beginning.write(beginning_path(made))
    made.write_best(best)
    return made


def _adapted(arch: Architecture, found_for: ImageFacts, images: ImageFacts, label: str) -> Architecture:
    """`arch`, found for other images, for these; says what that changes."""
    if found_for.image_size == images.image_size:  # then no stem changes, of a run from before they had strides
        images = replace(images, stem_stride=found_for.stem_stride)
    if images == found_for:
        return arch
    changed = arch.adapted(images)
    stem = getattr(changed, "stem_stride", 1)
    log.info(
        "%s: found for %s; trained for %s%s",
        label,
        found_for.summary(),
        images.summary(),
        f", with a stride of {stem} in the stem" if stem != getattr(arch, "stem_stride", 1) else "",
    )
    return changed


def _beginning(weights: Path, arch: Architecture, images: ImageFacts) -> Beginning:
    """What the training begins with; says what is drawn all the same."""
    from facenas.models.load import load_network
    from facenas.models.transfer import begin_with

    found = begin_with(load_network(weights), str(weights), arch, images)
    log.info("%s", found.summary())
    return found


def _opened(runs_dir: Path, name: str) -> Run:
    """Another process's run, as soon as it is there."""
    for _ in range(_WAIT_SECONDS):
        if (runs_dir / name / "best.json").exists():
            return open_run(runs_dir, name)
        time.sleep(1)
    raise UserError(f"{runs_dir / name}: was not made by the first process")


def _check_task(arch: Architecture, config: RunConfig, label: str) -> None:
    if (arch.task == "face") != (config.recipe.kind == "faces"):
        raise UserError(
            f"{label}: an architecture of kind {arch.kind} cannot be trained by a recipe for "
            f"{config.recipe.kind}; choose another preset or recipe"
        )


def _check_fit(arch: Architecture, facts: dict[str, Any], config: RunConfig, label: str) -> None:
    if arch.task == "face":
        return
    if (arch.in_channels, arch.num_classes) != (facts["in_channels"], facts["classes"]):
        raise UserError(
            f"{label}: takes {arch.in_channels} channels and {arch.num_classes} classes, but "
            f"{config.data.name} has {facts['in_channels']} and {facts['classes']}; a file is trained as it "
            "says: train the run that found the network, or what `Architecture.adapted` gives"
        )


def _train(
    run: Run,
    epochs: int | None,
    given: Sequence[Callback],
    nodes: int | None = None,
    address: str | None = None,
) -> TrainResult | None:
    from facenas.runs.full_training import train_found
    from facenas.runs.progress import TrainingProgress
    from facenas.training import distributed

    # Of the processes that train together, the first tells.
    progress = TrainingProgress(epochs or run.config.recipe.final_epochs)
    callbacks = Callbacks([] if distributed.rank() else [progress, *given])
    result = None
    if epochs is None and run.trained() and distributed.rank() == 0:
        log.warning(
            "%s: is trained already, this is what it gave; a training anew is a run of its own: --run NAME",
            run.name,
        )
    try:
        told = stoppable(f"stopped; `facenas train {run.name}` goes on where it was")
        with run.lock() if distributed.rank() == 0 else nullcontext(), told:
            if nodes is not None and run.trained() is None:
                _train_on_nodes(run, epochs, callbacks, nodes, address)
            trained = train_found(run, epochs, callbacks)
        if distributed.rank() == 0:
            result = _train_result(run, trained)
    finally:
        callbacks.on_end(result)
    return result


def _train_on_nodes(run: Run, epochs: int | None, callbacks: Callback, nodes: int, address: str | None) -> None:
    """Trains `run` on a Ray cluster; the callbacks are told here what its first process writes."""
    from facenas.execution.ray import train_together

    callbacks.on_begin(run, "training")
    folder = run.folder.resolve()
    told = len(_final_epochs(folder))

    def look() -> int:
        nonlocal told
        for metrics in _final_epochs(folder)[told:]:
            callbacks.on_epoch("final", metrics)
            told += 1
        return told

    train_together(partial(_train_part, folder, epochs), nodes, address, folder, look)


def _train_part(folder: Path, epochs: int | None) -> None:
    """One of the processes on the nodes; the driver holds the run's lock."""
    from facenas.runs.full_training import train_found
    from facenas.training import distributed

    distributed.start()
    if not (folder / "run.yaml").is_file():
        node = socket.gethostname()
        raise UserError(f"node {node}: does not see {folder}; keep runs on a disk that all nodes see")
    train_found(open_run(folder.parent, folder.name), epochs, Callback())


def _final_epochs(folder: Path) -> list[dict[str, Any]]:
    """The epochs so far of the full training."""
    lines = read_journal(folder / "metrics.jsonl")
    return [{k: v for k, v in line.items() if k != "trial"} for line in lines if line["trial"] == "final"]


def _train_result(run: Run, result: dict[str, Any]) -> TrainResult:
    with reading(run.folder / "train.json", "remove it and train again"):
        return TrainResult(
            run=run.folder,
            architecture=from_json(result["architecture"]),
            parameters=result["parameters"],
            epochs=result["epochs"],
            test_accuracy=result.get("test_accuracy"),
            verification=(result.get("verification") or {}).get("accuracy"),
            report=write_report(run),
            details=result,
        )
