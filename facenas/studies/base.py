"""The seam between a study and what conducts it (`facenas.api.studying`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from facenas.config import Config, Registry, read_yaml, shipped, validate
from facenas.errors import UserError
from facenas.runs import Run
from facenas.runs.config import RunConfig
from facenas.runs.presets import load_run_config, yaml_value
from facenas.strategies import STRATEGIES, TrialResult
from facenas.studies.findings import Findings

STUDIES: Registry[Study] = Registry("study", "facenas.studies")
register = STUDIES.register

# A study asks for runs, is sent each once its search has ended, and returns what it found.
Conduct = Generator["Member", Run, Findings]


@dataclass(frozen=True)
class Member:
    """A run that a study needs: its folder's name within the study's, and its settings."""

    name: str
    config: RunConfig


class Study(ABC):
    """Base of all studies: a subclass has its own `Settings`, a `title`, and says what is run by `conduct`.

    makes_runs: whether it needs images; else it reads what is there.
    """

    Settings: ClassVar[type[Config]] = Config
    title: ClassVar[str]
    makes_runs: ClassVar[bool] = True
    name: ClassVar[str] = ""  # given by the registry

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        STUDIES.name_of(cls)

    def __init__(self, settings: Config | None = None, **values: Any) -> None:
        """From settings, or from their keys as arguments; raises UserError for a wrong key or value."""
        if settings is None:
            settings = validate(self.Settings, values, f"study {type(self).__name__}")
        self.settings: Any = settings

    @abstractmethod
    def conduct(self, config: RunConfig, facts: dict[str, Any]) -> Conduct:
        """Yields the runs it needs and returns its findings; the same runs in the same order each time.

        config: the settings of the study's preset, which members vary; facts: of the images, as in `run.yaml`.
        """


STUDIES.base = Study


class Seeds(Config):
    """Of studies of searches. seeds: how many searches, alike but for their seed."""

    seeds: int = Field(3, ge=1)


def varied(config: RunConfig, **groups: Any) -> RunConfig:
    """The settings with other groups, or values of top-level keys such as `seed`; raises UserError."""
    tree = config.model_dump(mode="json")
    for name, value in groups.items():
        tree[name] = {**tree[name], **value} if name == "data" else value
    return validate(RunConfig, tree, "the study's settings")


def strategy(name: str, config: RunConfig | None = None, **settings: Any) -> dict[str, Any]:
    """A `search` group: that strategy with these settings, and with those that it shares with `config`'s."""
    known = STRATEGIES.get(name).Settings.model_fields
    shared = config.search.model_dump(mode="json") if config else {}
    kept = {key: value for key, value in shared.items() if key in known}
    return {"strategy": name, **kept, **settings}


def trained_alike(
    config: RunConfig, networks: Sequence[dict[str, Any]], epochs: int, repeats: int, fraction: float = 1.0
) -> RunConfig:
    """Settings of a run that trains `networks` (of strategy `listed`) in full and tests after the last epoch.

    fraction: part of the training images. See `last_accuracy`.
    """
    search = strategy("listed", networks=list(networks), epochs=epochs, repeats=repeats)
    return varied(config, search=search, data={"select_on": "test", "data_fraction": fraction})


def last_accuracy(result: TrialResult) -> float:
    """After the last epoch: no epoch was chosen; 0 where it failed."""
    return float(result.history[-1]["accuracy"]) if result.history else result.accuracy


def study_names() -> list[str]:
    """Presets that `facenas study` takes."""
    return sorted(path.stem for path in (shipped("configs") / "studies").glob("*.yaml"))


def load_study(
    preset: str | Path, settings: Sequence[str], overrides: dict[str, Any]
) -> tuple[Study, RunConfig]:
    """A shipped study or a YAML file: its group `study`, and the settings of its runs.

    settings: as of `--set`, those of the study as `study.key=value`; overrides: of the runs, by dotted key.
    Raises UserError that names the file or the setting at fault.
    """
    path = Path(preset)
    if path.suffix not in (".yaml", ".yml"):
        if str(preset) not in study_names():
            known = ", ".join(study_names())
            raise UserError(f"study {preset}: no such study; there are {known}, or give a .yaml file")
        path = shipped("configs") / "studies" / f"{preset}.yaml"
    tree = read_yaml(path)
    own, changed = tree.pop("study", None), {}
    for setting in settings:
        if setting.startswith("study."):
            key, _, text = setting.removeprefix("study.").partition("=")
            changed[key] = yaml_value(setting, text)
    rest = [setting for setting in settings if not setting.startswith("study.")]
    made = build_study(own, path, changed)
    return made, load_run_config(tree, rest, overrides, str(path))


def build_study(group: Any, path: Path, changed: dict[str, Any] | None = None) -> Study:
    """The study that the group `study` of the file at `path` says, with some settings changed.

    Raises UserError that names the file.
    """
    if not isinstance(group, dict) or "kind" not in group:
        raise UserError(f"{path}: has no group `study` with its kind")
    values = {**group, **(changed or {})}
    kind = values.pop("kind")
    cls = STUDIES.get(kind)
    return cls(
        validate(cls.Settings, values, f"study {kind} with these settings" if changed else f"{path}: study")
    )
