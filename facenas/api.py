"""What a notebook calls, and what the command line calls: search, resume, train, load, evaluate.

Everything here is re-exported by `facenas` itself. Errors speak of arguments; a wrong one is a UserError in one
sentence. Calls leave the process as they found it: environment, threads, signal handlers.
"""

from __future__ import annotations

import logging
import math
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facenas.config import Config
from facenas.errors import SearchStoppedError, UserError
from facenas.execution import EXECUTORS, Executor, check_execution
from facenas.files import reading
from facenas.models.latency_table import read_table
from facenas.runs import Run, create_run, open_run
from facenas.runs.callbacks import Callback, Callbacks, Given, build_callbacks, with_names
from facenas.runs.config import RunConfig
from facenas.runs.journal import read_journal
from facenas.runs.presets import load_run_config
from facenas.spaces import SPACES, Architecture, ImageFacts, SearchSpace, from_json
from facenas.spaces.ir import NAMED
from facenas.strategies import STRATEGIES, Strategy

if TYPE_CHECKING:
    from facenas.data import TrainingData
    from facenas.evaluation.embedders import Embedder
    from facenas.evaluation.network import Network
    from facenas.models.transfer import Beginning
    from facenas.runs.driver import StopRule
    from facenas.runs.extend import OtherRun

log = logging.getLogger(__name__)

_RUNS = Path("runs")
_WAIT_SECONDS = 600  # under torchrun, for the run that the first process makes
# What is searched when there is no preset: the images of a run without data of its own.
_NO_DATA = {"name": "", "fingerprint": "", "in_channels": 3, "classes": 10, "image_size": 32}

Settings = Mapping[str, Any] | Sequence[str]


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    accuracy: in percent, of the most accurate architecture on what was held out; front: of a search for several
    objectives its members, each with `id` (the number of its trial), `accuracy`, the objectives and
    `architecture`; finished: False for what was found until the search was to stop, of which architecture,
    parameters and macs are None while no candidate has kept the limits; report: the page, None when it could
    not be written; details: all of `best.json`.
    """

    run: Path
    architecture: Architecture | None
    accuracy: float
    parameters: int | None
    macs: int | None
    trials: int
    front: tuple[dict[str, Any], ...]
    finished: bool
    report: Path | None
    details: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """What `facenas search --json` prints."""
        report = None if self.report is None else str(self.report)
        return {"run": str(self.run), **self.details, "finished": self.finished, "report": report}


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


def search(
    preset: str | Path | None = None,
    *,
    space: SearchSpace[Any] | type[SearchSpace[Any]] | None = None,
    strategy: Strategy | type[Strategy] | None = None,
    data: Any = None,
    recipe: Any = None,
    evaluate: Callable[..., Any] | str | None = None,
    latency: str | Path | None = None,
    seed: int | None = None,
    workers: int | None = None,
    executor: str | type[Executor] | None = None,
    settings: Settings = (),
    callbacks: Given = (),
    run: str | Path | None = None,
    runs_dir: str | Path | None = None,
    max_trials: int | None = None,
    max_hours: float | None = None,
    until: str | datetime | None = None,
    reuse: str | Path | Sequence[str | Path] = (),
    command: str | None = None,
) -> SearchResult:
    """Searches a network, and leaves a run that `resume`, `train` and `load` take up.

    preset: a shipped one by name, or a YAML file; without one, what is not given has its defaults. space,
    strategy: ours (`facenas.spaces.Plain(max_depth=10)`) or one's own. data: a set's name, a folder or zip of
    images, a store of faces, a torch Dataset, or (images n x h x w x c uint8, labels). recipe: a shipped one by
    name, a YAML file, or a `Recipe`. evaluate: one's own measure of a candidate instead of a training; it gets
    what it names of candidate, seed, on_epoch and stop, and returns an accuracy in percent, or a mapping with
    `accuracy` and other values. latency: the file that a target measured (`facenas latency export`), for the
    objective of that name. workers: trials at once, by default 4 a GPU, else one a core; what lives in a
    notebook or a script is searched in this process unless workers are asked for. settings: any other by its
    dotted key (`{"data.data_fraction": 0.5}`). callbacks: what is told how it goes, objects of `Callback` or
    names (`tensorboard`, `module:Class`); the run keeps names for whoever resumes it, not objects. run: the
    run's name in `runs_dir` (`runs`), or its folder. max_trials, max_hours, until (`"07:30"`, the next such
    time of day, or a datetime): when this call is to stop, after the trial that is under way; `resume` goes on.
    reuse: runs, or folders of runs, whose results are taken for trials of the same key.

    Raises UserError for wrong arguments or data, SearchStoppedError when the search cannot go on; a run that
    exists is not touched: see `resume`.
    """
    own = [thing for thing in (space, strategy, evaluate) if _is_own(thing)]
    if executor is None and workers is None and own:
        executor = "serial"
    overrides = {
        **_choice("space", "kind", space, SPACES),
        **_choice("search", "strategy", strategy, STRATEGIES),
        "data.name": _data_name(data),
        "recipe": recipe.model_dump(mode="json") if isinstance(recipe, Config) else recipe,
        "evaluate": _function_name(evaluate),
        "latency": None if latency is None else str(latency),
        "seed": seed,
        "execution.executor": EXECUTORS.name_of(executor) if isinstance(executor, type) else executor,
        "execution.workers": workers,
    }
    config = _anchored(_configure(preset, settings, overrides, callbacks))
    told = build_callbacks(config.callbacks, callbacks)
    if not config.evaluate:
        config.data.check_candidates_are_judged()
    check_execution(config.execution, config.import_main)
    stop, others = _stop_rule(max_trials, max_hours, until), _other_runs(reuse, runs_dir)
    facts = _facts(config)
    if config.latency:
        read_table(config.latency).check(config.build_space(facts))
    label = str(preset) if preset else "search"
    made = _new_run(config, facts, label, run, runs_dir, command or _python_call("search"))
    return _search(made, stop, others, told)


def resume(
    run: str | Path,
    *,
    settings: Settings = (),
    callbacks: Given = (),
    retry_failed: bool = False,
    runs_dir: str | Path | None = None,
    max_trials: int | None = None,
    max_hours: float | None = None,
    until: str | datetime | None = None,
    reuse: str | Path | Sequence[str | Path] = (),
    command: str | None = None,
) -> SearchResult:
    """Goes on with a search that was stopped or killed; no finished trial is judged again.

    A search that has ended is only reported, unless it is extended. settings: others than it began with, which
    may not change what was decided (more generations, deeper bounds, `micro`, looser limits); retry_failed:
    failed trials are made again. Classes and functions that a notebook defined are found if it has defined them
    again. callbacks: for this call alone, beside those that the run names. The others, and what it raises, as
    `search`.
    """
    opened, command = _open(run, runs_dir), command or _python_call("resume")
    stop, others = _stop_rule(max_trials, max_hours, until), _other_runs(reuse, runs_dir)
    config = _anchored(_configure(opened.config, settings, {}, ())) if settings else opened.config
    told = build_callbacks(config.callbacks, callbacks)
    if settings or retry_failed:
        from facenas.runs import extend

        check_execution(config.execution, config.import_main)
        with opened.lock():
            opened = extend.extend(_open(run, runs_dir), config, command)
            if retry_failed:
                opened = extend.retry_failed(opened, command)
    return _search(opened, stop, others, told)


def _other_runs(reuse: str | Path | Sequence[str | Path], runs_dir: str | Path | None) -> list[OtherRun]:
    from facenas.runs.extend import other_runs

    return other_runs(Path(runs_dir or _RUNS), [reuse] if isinstance(reuse, str | Path) else reuse)


def _stop_rule(max_trials: int | None, max_hours: float | None, until: str | datetime | None) -> StopRule:
    from facenas.runs.driver import StopRule

    if max_trials is not None and max_trials < 1:
        raise UserError(f"max_trials {max_trials}: should be 1 or more")
    if max_hours is not None and not 0 < max_hours < math.inf:
        raise UserError(f"max_hours {max_hours}: should be above 0")
    ends = [] if max_hours is None else [time.time() + 3600 * max_hours]
    if until is not None:
        ends.append((until if isinstance(until, datetime) else _next(until)).timestamp())
    return StopRule(max_trials, min(ends, default=None))


def _next(time_of_day: str) -> datetime:
    """The next moment, in local time, that a clock shows HH:MM."""
    try:
        at = datetime.strptime(time_of_day, "%H:%M").time()
    except ValueError:
        raise UserError(f"until {time_of_day}: should be a time of day such as 07:30") from None
    today = datetime.now().date()
    days = (today, today + timedelta(days=1))
    # In the night when summer time ends an hour comes twice: the second time has fold 1.
    moments = [datetime.combine(day, at.replace(fold=fold)) for day in days for fold in (0, 1)]
    return min((m for m in moments if m.timestamp() > time.time()), key=datetime.timestamp)


def train(
    target: str | Path | Architecture | SearchResult,
    *,
    data: Any = None,
    recipe: Any = None,
    weights: str | Path | SearchResult | TrainResult | None = None,
    preset: str | Path | None = None,
    epochs: int | None = None,
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
    own, with the settings of the run it comes from, else of `preset`. On `data` with other channels, classes or
    pixels than a run's, its network is adapted to them. weights: of the same network, trained, to begin with,
    except its classifier: a run or a checkpoint as `load` takes them. pick: of a run's Pareto front, the number
    of the trial to train. so_far: of a search that has not ended, the best until now, as a run of its own.
    epochs: else the recipe's. callbacks: of a run trained in place for this call alone, beside those that it
    names. nodes: of the Ray cluster at `address` (HOST:PORT or auto), which train together, in a process a
    card, else one a node; all see the folder of the run, and the data. The others as in `search`.

    Under `torchrun` all processes call this, and all but the first get None. Raises UserError for wrong
    arguments, SearchStoppedError when training diverges or the disk is full.
    """
    from facenas.training import distributed

    if address is not None and nodes is None:
        raise UserError(f"address {address}: is of a cluster; say on how many of its nodes to train (nodes)")
    distributed.start()
    if isinstance(target, SearchResult):
        target = target.run
    name = target if isinstance(target, Architecture) else str(target)
    overrides = {
        "data.name": _data_name(data),
        "recipe": recipe.model_dump(mode="json") if isinstance(recipe, Config) else recipe,
        "seed": seed,
    }
    chosen = [preset, run, pick, so_far or None, weights, *overrides.values()]
    changed = bool(settings) or any(value is not None for value in chosen)
    if isinstance(name, str) and not _names_network(name) and not changed:
        opened = _open(name, runs_dir)
        return _train(opened, epochs, _first_alone(opened.config, callbacks), nodes, address)
    arch, base, found_for = _resolve(name, runs_dir, pick, so_far)
    config = _anchored(_configure(preset or base, settings, overrides, callbacks))
    told = _first_alone(config, callbacks)
    label = arch.kind if isinstance(name, Architecture) else name
    origin = command or _python_call("train")
    path = None if weights is None else _weights_path(weights, runs_dir)
    made = _shared_run(arch, found_for, path, config, label, run, runs_dir, origin)
    return _train(made, epochs, told, nodes, address)


def load(
    source: str | Path | SearchResult | TrainResult, *, runs_dir: Any = None, prefix: str | None = None
) -> Network | Embedder:
    """A trained network with its preprocessing: `.embed(images)` of faces, `.predict(images)` of classes.

    source: a trained run (name, folder, or what `train` gave), a checkpoint of AdaFace, CVLface or
    arcface_torch, an ONNX file, or a safetensors file that `facenas export` wrote. The network is an
    `nn.Module` on the CPU, but for ONNX. prefix: which network of a checkpoint that has several. Raises
    UserError when there is no such thing, it is not trained yet, or the file is damaged; nothing in it is run.
    """
    from facenas.evaluation.network import Network

    path = _weights_path(source, runs_dir)
    if path.suffix.lower() == ".onnx":
        from facenas.evaluation.embedders import open_embedder

        return open_embedder(path)
    from facenas.models.load import load_network

    return Network(load_network(path, prefix=prefix))


def _weights_path(source: str | Path | SearchResult | TrainResult, runs_dir: str | Path | None) -> Path:
    """The file that `source` is, else the folder of the run."""
    if isinstance(source, SearchResult | TrainResult):
        source = source.run
    path = Path(source).expanduser()
    return path if path.is_file() or path.suffix.lower() == ".onnx" else _open(source, runs_dir).folder


def export_latency(
    target: str | Path,
    out: str | Path,
    *,
    networks: int = 20,
    blocks: int = 2000,
    draws: int = 2000,
    data: Any = None,
    settings: Settings = (),
    runs_dir: str | Path | None = None,
) -> dict[str, Any]:
    """Writes a zip that measures networks on another machine; its `latency.json` is `latency` of `search`.

    target: a run, whose candidates come first (its front, then all others), or a preset, whose space alone is
    known. networks: that are measured whole, filled up by random ones of the space; blocks: distinct parts of
    networks, those of most networks first, out of up to `draws` random ones. data, settings: of a preset, as in
    `search`. Returns what the zip holds. Raises UserError for wrong arguments or data.
    """
    from facenas.export.latency import candidates_of, export_latency

    if any((folder / "run.yaml").is_file() for folder in (Path(runs_dir or _RUNS, target), Path(target))):
        run = _open(target, runs_dir)
        if data is not None or settings:
            raise UserError(f"{target}: is a run, which has data and settings of its own; give a preset")
        space, candidates = run.config.build_space(run.about["data"]), candidates_of(run)
    else:
        config = _anchored(_configure(target, settings, {"data.name": _data_name(data)}, ()))
        space, candidates = config.build_space(_facts(config)), []
    return export_latency(space, candidates, Path(out), networks, blocks, draws)


def _choice(group: str, key: str, thing: Any, registry: Any) -> dict[str, Any]:
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


def _is_own(thing: Any) -> bool:
    """Whether it is defined in a notebook or a script, where worker processes do not find it unaided."""
    if thing is None or isinstance(thing, str):
        return False
    where = thing if hasattr(thing, "__qualname__") else type(thing)
    return where.__module__ == "__main__" or "<" in where.__qualname__


def _function_name(evaluate: Callable[..., Any] | str | None) -> str | None:
    if evaluate is None or isinstance(evaluate, str):
        return evaluate
    from facenas.execution.evaluators import remember

    return remember(evaluate)


def _data_name(data: Any) -> str | None:
    """What `data.name` says: a name or path as it is, images in memory by the cache entry they become."""
    if data is None or isinstance(data, str):
        return data
    if isinstance(data, Path):
        return str(data)
    from facenas.data import from_arrays, from_dataset

    if isinstance(data, tuple):
        return str(from_arrays(data))
    return str(from_dataset(data))


def _configure(
    preset: str | Path | RunConfig | None,
    settings: Settings,
    overrides: dict[str, Any],
    callbacks: Given,
) -> RunConfig:
    if isinstance(settings, Mapping):
        import json

        settings = [f"{key}={json.dumps(_plain(value))}" for key, value in settings.items()]
    if preset is None:
        preset = RunConfig()
    given = preset if isinstance(preset, RunConfig) else str(preset)
    config = load_run_config(given, list(settings), overrides)
    return config.model_copy(update={"callbacks": with_names(config.callbacks, callbacks)})


def _first_alone(config: RunConfig, given: Given) -> list[Callback]:
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


def _anchored(config: RunConfig) -> RunConfig:
    """With absolute paths: a run can be resumed from another working directory."""
    from facenas.data.datasets import DEMO, known_name

    data = config.data
    path = Path(data.name).expanduser()
    named = data.name in ("", DEMO) or known_name(data.name) is not None or not path.exists()
    name = data.name if named else str(path.resolve())
    root = data.root.expanduser().resolve()
    latency = config.latency and config.latency.expanduser().resolve()
    data = data.model_copy(update={"name": name, "root": root})
    return config.model_copy(update={"data": data, "latency": latency})


def _facts(config: RunConfig) -> dict[str, Any]:
    """What the run notes of its data, found before its folder is made: a fault leaves nothing behind."""
    from facenas.data import describe

    if config.evaluate and not config.data.name:
        return _NO_DATA
    return describe(_find_data(config))


def _find_data(config: RunConfig) -> TrainingData:
    from facenas.data import ImageSet, open_data, prepare
    from facenas.data.cache import crop_side
    from facenas.data.datasets import HOW_TO_GET_FACES
    from facenas.data.faces.store import FaceStore
    from facenas.training.recipes import FaceRecipe

    faces = isinstance(config.recipe, FaceRecipe)
    if faces and not config.data.name:
        raise UserError(f"this preset needs a store of faces: {HOW_TO_GET_FACES}")
    data = open_data(prepare(config.data), config.data.image_size)
    if faces != isinstance(data, FaceStore):
        what = "a set of image classes" if faces else "a store of faces"
        needed = "faces" if faces else "classification"
        raise UserError(f"{config.data.name}: is {what}, but the recipe is for {needed}")
    if not isinstance(data, FaceStore) and not isinstance(config.recipe, FaceRecipe):
        if config.recipe.augment == "pad_crop":  # a crop that does not fit would fail every trial
            crop_side(data, config.recipe.pad, config.recipe.crop)
        elif isinstance(data, ImageSet):
            raise UserError(
                f"{config.data.name}: recipe.augment random_resized_crop needs images of their full size; make "
                "a store of them by `facenas data import SOURCE OUT.zarr --classes`"
            )
    return data


def _place(run: str | Path, runs_dir: str | Path | None) -> tuple[Path, str]:
    """Folder and name of a run: without `runs_dir` a bare name lies in `runs`, a path where it says."""
    path = Path(run)
    if runs_dir is not None:
        return Path(runs_dir), str(run)
    return (_RUNS, str(run)) if path.parent == Path() else (path.parent, path.name)


def _open(run: str | Path, runs_dir: str | Path | None) -> Run:
    return open_run(Path(runs_dir or _RUNS), str(run))


def _new_run(
    config: RunConfig,
    facts: dict[str, Any],
    label: str,
    run: str | Path | None,
    runs_dir: str | Path | None,
    command: str,
) -> Run:
    """A run folder, called as `run` says, or after label, data and time."""
    if run is None:
        time = datetime.now().strftime("%Y%m%d-%H%M%S")
        run = "-".join(filter(None, [Path(label).stem, Path(config.data.name).stem, time]))
    return create_run(*_place(run, runs_dir), config, facts, command)


def _python_call(name: str) -> str:
    return f"facenas.{name}(...), called from {Path(sys.argv[0]).name or 'Python'}"


def _search(run: Run, stop: StopRule, reuse: list[OtherRun], given: Sequence[Callback]) -> SearchResult:
    from facenas.runs.driver import run_search
    from facenas.runs.progress import SearchProgress
    from facenas.strategies.rank_check import rank_warning

    callbacks, result = Callbacks([SearchProgress(), *given]), None
    try:
        with run.lock(), _stoppable(f"stopped; `facenas resume {run.name}` goes on"):
            found = run_search(run, callbacks, stop, reuse)
        result = _search_result(run, found)
    finally:
        callbacks.on_end(result)
    if not result.finished:
        log.warning(
            "stopped before its end, as asked; `facenas resume %s` goes on, `facenas train %s --so-far` trains "
            "the best so far",
            run.name,
            run.name,
        )
    elif "tau" in found and (warning := rank_warning(found["tau"])):
        log.warning("%s", warning)
    return result


def _search_result(run: Run, found: dict[str, Any]) -> SearchResult:
    with reading(run.folder / "best.json", "remove it and resume the run"):
        return SearchResult(
            run=run.folder,
            architecture=None if found["architecture"] is None else from_json(found["architecture"]),
            accuracy=found["accuracy"],
            parameters=found.get("parameters"),
            macs=found.get("macs"),
            trials=found["trials"],
            front=tuple(found.get("front", ())),
            finished=run.best() is not None,
            report=_report(run),
            details=found,
        )


def _report(run: Run) -> Path | None:
    """Writes the run's page. Whatever goes wrong in it: what it describes is done, and must not fail for it."""
    try:
        from facenas.report import write_search_page

        return write_search_page(run.folder)
    except Exception as error:
        log.debug("the report failed", exc_info=True)
        log.warning(
            "the report could not be written (%s: %s); `facenas report %s` tries again",
            type(error).__name__,
            str(error).splitlines()[0] if str(error) else "no reason given",
            run.name,
        )
        return None


@contextmanager
def _stoppable(sentence: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise SearchStoppedError(sentence) from None


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
            target = NAMED[target] if target in NAMED else from_json(tree.get("architecture", tree))
    if isinstance(target, Architecture):
        return target, "small" if target.task == "face" else "tiny", None
    run = _open(target, runs_dir)
    best = run.found(so_far)
    arch = from_json(best["architecture"] if pick is None else _picked(run, best, pick))
    if run.best() is None:
        log.warning("%s: its search has not ended; the best so far is %s", run.name, arch.summary())
    with reading(run.folder / "run.yaml"):
        return arch, run.config, ImageFacts.of(run.about["data"])


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
    from facenas.runs.full_training import beginning_path
    from facenas.runs.run import counts
    from facenas.training import distributed

    if distributed.world() > 1 and run is None:
        raise UserError("under torchrun the run needs a name that all processes know: give run")
    if distributed.rank():
        assert run is not None
        return _opened(*_place(run, runs_dir))
    data = _find_data(config)
    facts = describe(data)
    _check_task(arch, config, label)
    if found_for:
        arch = _adapted(arch, found_for, ImageFacts.of(facts), label)
    _check_fit(arch, facts, config, label)
    beginning = weights and _beginning(weights, arch, ImageFacts.of(facts))
    made = _new_run(config, facts, label, run, runs_dir, command)
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
    stoppable = _stoppable(f"stopped; `facenas train {run.name}` goes on where it was")
    try:
        with run.lock() if distributed.rank() == 0 else nullcontext(), stoppable:
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
            report=_report(run),
            details=result,
        )
