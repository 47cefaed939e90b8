"""A run is a folder: `run.yaml` says what was asked for, the other files what came of it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from filelock import FileLock, Timeout

from facenas.config import read_yaml, validate
from facenas.data import TrainingData, open_data, prepare
from facenas.errors import UnknownClassError, UserError
from facenas.files import (
    MOST_JSON,
    check_place,
    read_json,
    read_whole,
    remedy_of,
    temporary_for,
    write_atomically,
    write_json,
    write_text,
)
from facenas.models.latency_table import read_table
from facenas.runs.config import RunConfig
from facenas.runs.journal import read_journal
from facenas.runs.search_log import read_results
from facenas.spaces import Architecture, from_json

if TYPE_CHECKING:
    from facenas.training.teachers import Teacher

STUDY = "study.yaml"
_LATENCY = "latency.json"
_PACKAGES = ("facenas", "torch", "torchvision", "numpy", "pydantic")


@dataclass(frozen=True)
class Run:
    """A run folder and its resolved configuration; `about` is all of `run.yaml`."""

    folder: Path
    config: RunConfig
    about: dict[str, Any]

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def study(self) -> Path | None:
        """The folder of the study that it is part of, if it is."""
        return self.folder.parent if (self.folder.parent / STUDY).is_file() else None

    @property
    def called(self) -> str:
        """What commands call it: its name, within a study its folder."""
        return str(self.folder) if self.study else self.name

    @property
    def weights(self) -> Path:
        """Where trials keep the weights that others begin with, if the search has `inherit`."""
        return self.folder.absolute() / "weights"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Held by the one process that works on the run; the system frees it when that process dies.

        Raises UserError when another process holds it, and when the folder cannot be written.
        """
        with locked(self.folder):
            yield

    def find_data(self) -> Path:
        """The folder that `open_data` opens.

        Raises UserError when images are missing, or are not those that the run began with.
        """
        return self._find()[0]

    def open_data(self) -> TrainingData:
        """The images that the run is about; raises UserError as `find_data` does."""
        return self._find()[1]

    def _find(self) -> tuple[Path, TrainingData]:
        folder = prepare(self.config.data)
        data = open_data(folder, self.config.data.image_size)
        if data.fingerprint != self.about["data"]["fingerprint"]:
            raise UserError(
                f"{self.config.data.name}: the images have changed since run {self.name} began; "
                "restore them, or start a new run"
            )
        return folder, data

    @property
    def taught(self) -> dict[str, Any]:
        """What keys of trainings say of the teacher, wherever it lies; nothing without one."""
        return {"teacher": self.about["teacher"]} if "teacher" in self.about else {}

    def find_teacher(self) -> Teacher | None:
        """The teacher, with its embeddings of the images made; None without one. Raises as `check_teacher`."""
        found = self.check_teacher()
        return found and found.keep(self.open_data())

    def check_teacher(self) -> Teacher | None:
        """The teacher; None without one.

        Raises UserError when it is missing, or not the one that the run began with.
        """
        distill = getattr(self.config.recipe, "distill", None)
        if distill is None:
            return None
        from facenas.training.teachers import find_teacher  # needs torch

        if not distill.teacher.exists():
            raise UserError(
                f"{distill.teacher}: the teacher of run {self.name} is gone; put it back, or resume with "
                "recipe.distill.teacher where it lies now"
            )
        found = find_teacher(distill)
        if "teacher" not in self.about:
            raise UserError(f"{self.name}: began without a teacher; start a new run with one")
        if found.facts != self.about["teacher"]:
            raise UserError(
                f"{distill.teacher}: the teacher has changed since run {self.name} began; restore it, or start "
                "a new run"
            )
        return found

    def best(self) -> dict[str, Any] | None:
        """What the search found, or None while it has not ended."""
        best = _if_there(self.folder / "best.json")
        if best is not None and not isinstance(best.get("architecture"), dict):
            raise UserError(f"{self.folder / 'best.json'}: has no architecture; remove it and resume the run")
        return best

    def best_so_far(self) -> dict[str, Any] | None:
        """What the search found, or has found until now, as its strategy says after the trials in the journal.

        None: there is no trial yet. `architecture` is None while no candidate keeps the limits. Raises
        UserError when a file is damaged.
        """
        if best := self.best():
            return best
        results = read_results(self.folder)
        if not results:
            return None
        space = self.config.build_space(self.about["data"])
        strategy = self.config.build_strategy(space)
        for result in results:
            strategy.ask()
            strategy.tell(result)
        return describe_found(strategy.result(), space.images.image_size)

    def found(self, so_far: bool = False) -> dict[str, Any]:
        """What the search found; raises UserError while it has not ended.

        so_far: then the best until now will do, and it is an error only that there is none.
        """
        if best := self.best():
            return best
        best = self.best_so_far()
        goes_on = f"`facenas resume {self.study or self.name}` goes on"
        fault = f"{self.folder}: its search has not ended; {goes_on}"
        if best is None or best["architecture"] is None:
            raise UserError(f"{fault}, and nothing is found until now")
        if not so_far:
            told = f"{from_json(best['architecture']).summary()}, {best['accuracy']:.2f} %"
            raise UserError(
                f"{fault}, `facenas train {self.called} --so-far` trains the best until now ({told})"
            )
        return best

    def trained(self) -> dict[str, Any] | None:
        """The final training's result, or None."""
        return _if_there(self.folder / "train.json")

    def write_best(self, best: dict[str, Any]) -> None:
        """Writes `best.json`."""
        write_json(self.folder / "best.json", best)

    def alike(self, other: Run) -> bool:
        """Whether code, libraries and machine are the same: else the same settings may give other results."""
        return all(
            self.about.get(name) == other.about.get(name) for name in ("versions", "git_commit", "machine")
        )

    def changed(self, config: RunConfig, change: dict[str, Any]) -> Run:
        """The run under other settings, in `run.yaml` too, where `change` joins the list of changes."""
        changes = [*self.about.get("changes", []), change]
        about = {**self.about, "config": config.model_dump(mode="json"), "changes": changes}
        write_text(self.folder / "run.yaml", as_yaml(about))
        return Run(self.folder, config, about)


@contextmanager
def locked(folder: Path, held: str = "another process is working on this run") -> Iterator[None]:
    """Held by the one process that works in `folder`; see `Run.lock`. held: what is told to another."""
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(f"{folder}: {held}; wait for it, or stop it first") from None
    except OSError as error:
        fault = f"{folder}: cannot be written ({error.strerror})"
        raise UserError(f"{fault}; {remedy_of(error, 'make room and resume the run')}") from None
    try:
        check_place(folder)
        yield
    finally:
        lock.release()


def describe_found(found: dict[str, Any], image_size: int) -> dict[str, Any]:
    """What a strategy found, with the size of its network."""
    if found["architecture"] is None:
        return found
    return found | counts(from_json(found["architecture"]), image_size)


def counts(arch: Architecture, image_size: int) -> dict[str, Any]:
    """Parameters and multiply-accumulates as `best.json` tells them."""
    parameters = arch.count_parameters()
    return {
        "parameters": parameters,
        "params_millions": parameters / 1e6,
        "macs": arch.count_macs(image_size),
    }


def create_run(runs_dir: Path, name: str, config: RunConfig, data: dict[str, Any], command: str) -> Run:
    """A new run folder with its `run.yaml`, made under a temporary name and then renamed.

    `data`: fingerprint and counts of the image set. Raises UserError when the name is taken or unusable.
    """
    folder, kept, facts = runs_dir / name, {}, dict[str, Any]()
    check_new(runs_dir, name)
    if config.latency:
        table, kept[_LATENCY] = read_table(config.latency), read_whole(config.latency, MOST_JSON)
        facts["latency"] = {"fingerprint": table.fingerprint, "target": table.target}
        config = config.model_copy(update={"latency": folder.resolve() / _LATENCY})
    if distill := getattr(config.recipe, "distill", None):
        from facenas.training.teachers import find_teacher  # needs torch

        facts["teacher"] = find_teacher(distill, tell=True).facts
    about = origin(name, config, data, command) | facts
    create_folder(folder, {"run.yaml": as_yaml(about).encode(), **kept})
    return Run(folder, config, about)


def check_new(runs_dir: Path, name: str) -> None:
    """Raises UserError when no run can be called `name`, or one is."""
    if not name or name.startswith(".") or Path(name).name != name or len(name) > 200:
        raise UserError(
            f"run {name!r}: a run's name is one folder name of up to 200 characters, without "
            "slashes or a leading dot"
        )
    if (runs_dir / name).exists():
        raise UserError(f"{runs_dir / name}: exists already; resume it, remove it, or choose another name")


def create_folder(folder: Path, files: dict[str, bytes]) -> None:
    """A new folder with these files, made under a temporary name and then renamed. Raises UserError."""
    temporary = temporary_for(folder)
    try:
        temporary.mkdir(parents=True)
        for file, content in files.items():
            write_atomically(temporary / file, partial(Path.write_bytes, data=content))
        temporary.rename(folder)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be created ({error.strerror}); choose another folder for runs (runs_dir)"
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def as_yaml(about: dict[str, Any]) -> str:
    return yaml.safe_dump(about, sort_keys=False, allow_unicode=True)


def origin(name: str, config: RunConfig, data: dict[str, Any], command: str) -> dict[str, Any]:
    """All that is needed to repeat the run."""
    return {
        "name": name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "config": config.model_dump(mode="json"),
        "data": data,
        "versions": {package: _version(package) for package in _PACKAGES}
        | {"python": platform.python_version()},
        "git_commit": _git_commit(),
        "machine": _machine(),
    }


def other_versions(about: dict[str, Any]) -> dict[str, str | None]:
    """The versions now of those packages that decide results and are others than `run.yaml` says."""
    then = about.get("versions", {})
    now = {package: _version(package) for package in _PACKAGES if package in then}
    return {package: version for package, version in now.items() if version != then[package]}


def open_run(runs_dir: Path, name: str) -> Run:
    """The run called `name` in `runs_dir`, or at the path `name`; raises UserError when there is none."""
    for folder in (runs_dir / name, Path(name)):
        if (folder / "run.yaml").is_file():
            about = read_yaml(folder / "run.yaml")
            tree = kept_config(folder, about.get("config"))
            config = validate(RunConfig, tree, f"{folder / 'run.yaml'}: config")
            if not isinstance(data := about.get("data"), dict) or not isinstance(data.get("fingerprint"), str):
                raise UserError(f"{folder / 'run.yaml'}: tells no fingerprint of its data; restore the file")
            return Run(folder, config, about)
        check_is_no_study(folder, name)
    raise UserError(f"{name}: no such run in {runs_dir}; `facenas runs` lists them, --runs-dir looks elsewhere")


def check_is_no_study(folder: Path, name: str | Path) -> None:
    """Raises UserError when the folder, which was called `name`, is that of a study and not of a run."""
    if (folder / STUDY).is_file():
        begun = sorted(path.parent for path in folder.glob("*/run.yaml"))
        told = f"name one of its runs, such as {begun[0]}" if begun else "none of its runs has begun"
        raise UserError(f"{name}: is a study; {told}")


def kept_config(folder: Path, tree: Any) -> Any:
    """The configuration in `run.yaml`, with the table of latencies that the run keeps wherever it lies now."""
    if isinstance(tree, dict) and tree.get("latency") and (folder / _LATENCY).exists():
        return {**tree, "latency": str(folder / _LATENCY)}
    return tree


def _if_there(path: Path) -> dict[str, Any] | None:
    return read_json(path) if path.exists() else None


def list_runs(runs_dir: Path) -> list[dict[str, Any]]:
    """A row for every run in `runs_dir`, the newest last."""
    found = []
    for path in sorted(runs_dir.glob("[!.]*/run.yaml")):
        best: dict[str, Any] | None = None
        try:
            with suppress(UnknownClassError):  # of somebody's own, elsewhere: the run is whole all the same
                run = open_run(runs_dir, path.parent.name)
                with suppress(Exception):  # a journal of another version, somebody's own strategy
                    best = run.best_so_far()
            found.append(_row(path.parent, read_yaml(path), best))
        except (UserError, KeyError, TypeError) as error:
            found.append({"run": path.parent.name, "created": "", "state": f"damaged: {error}"})
    found += [_study_row(path) for path in sorted(runs_dir.glob(f"[!.]*/{STUDY}"))]
    return sorted(found, key=lambda row: str(row["created"]))


def _study_row(path: Path) -> dict[str, Any]:
    """Of a study, whose runs lie in its folder: how many trials they have together."""
    try:
        about = read_yaml(path)
        trials = sum(len(read_journal(run)) for run in path.parent.glob("*/trials.jsonl"))
        return {
            "run": path.parent.name,
            "created": about.get("created", ""),
            "data": Path(about["config"].get("data", {}).get("name", "digits")).name,
            "state": "study" if (path.parent / "study.json").exists() else "studying",
            "trials": trials,
        }
    except (UserError, KeyError, TypeError) as error:
        return {"run": path.parent.name, "created": "", "state": f"damaged: {error}"}


def _row(folder: Path, about: dict[str, Any], best: dict[str, Any] | None) -> dict[str, Any]:
    trained, trials = _if_there(folder / "train.json"), read_journal(folder / "trials.jsonl")
    ended = _if_there(folder / "best.json")
    # Of a strategy that is not here, the most accurate so far.
    shown = ended or best or max(trials, key=lambda trial: float(trial["accuracy"]), default={})
    return {
        "run": folder.name,
        "created": about.get("created", ""),
        "data": Path(about["config"].get("data", {}).get("name", "digits")).name,
        "state": "trained" if trained else "found" if ended else "searching",
        "trials": len(trials),
        "best_accuracy": shown.get("accuracy"),
        "parameters": shown.get("parameters"),
        "test_accuracy": trained["test_accuracy"] if trained else None,
        "verification_accuracy": ((trained or {}).get("verification") or {}).get("accuracy"),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except ModuleNotFoundError:
        return None


def _git_commit() -> str | None:
    """The commit of the checkout that runs, or None for an installed package."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None if answer.returncode == 0 else None


def _machine() -> dict[str, Any]:
    return {
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": sys.implementation.name,
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
