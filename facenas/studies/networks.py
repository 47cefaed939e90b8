"""Networks that studies compare: what searches found, and what came of training them alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any

from pydantic import Field

from facenas.config import Config
from facenas.errors import UserError
from facenas.runs import Run
from facenas.runs.config import RunConfig
from facenas.runs.search_log import read_results
from facenas.spaces import Architecture, from_json
from facenas.studies.base import Member, last_accuracy, trained_alike


class Final(Config):
    """Of studies that train networks in full: epochs, part of the training images, how often each."""

    epochs: int = Field(600, ge=1)
    fraction: float = Field(1.0, gt=0, le=1)
    repeats: int = Field(1, ge=1)


@dataclass(frozen=True)
class Network:
    """A network by name, with its size; accuracy: what its search says, in percent.

    protocol: settings in which its recipe differs from the run's, as of strategy `joint`.
    """

    name: str
    architecture: Architecture
    macs: int
    accuracy: float | None = None
    protocol: dict[str, Any] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        """Of the built network."""
        return self.architecture.count_parameters()

    def listed(self) -> dict[str, Any]:
        """As strategy `listed` takes it."""
        told = {"name": self.name, "architecture": self.architecture.to_json()}
        return {**told, "protocol": self.protocol}


class Tested:
    """Base of what was trained in full: its accuracies in percent, one a repeat."""

    accuracies: list[float]

    @property
    def accuracy(self) -> float:
        """The mean over repeats."""
        return fmean(self.accuracies)


def found_by(run: Run, name: str) -> Network:
    """What the run's search found; raises UserError while it has not ended."""
    best = run.found()
    architecture, protocol = from_json(best["architecture"]), best.get("protocol", {})
    return Network(name, architecture, int(best["macs"]), float(best["accuracy"]), protocol)


def seeds_of(config: RunConfig, count: int) -> range:
    """That of the settings, and those that follow it."""
    return range(config.seed, config.seed + count)


def final(name: str, config: RunConfig, networks: Sequence[Network], how: Final) -> Member:
    """The run that trains them all alike and tests them; raises UserError for faces."""
    if config.recipe.kind == "faces":
        raise UserError(
            "a study that tests networks needs images of classes; faces are tested by `facenas eval`"
        )
    listed = [network.listed() for network in networks]
    return Member(name, trained_alike(config, listed, how.epochs, how.repeats, how.fraction))


def accuracies_of(run: Run, networks: Sequence[Network]) -> list[list[float]]:
    """Of a run of `final`: for each network the accuracies after the last epoch, one a repeat.

    Failed trainings are left out; raises UserError for a network without any other.
    """
    results = read_results(run.folder)
    found = []
    for number, network in enumerate(networks):
        of_it = [result for result in results[number :: len(networks)] if result.status == "ok"]
        if not of_it:
            raise UserError(f"{run.folder}: all trainings of {network.name} failed; see its report")
        found.append([last_accuracy(result) for result in of_it])
    return found


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Such as `93.05 ± 2.18`: mean and standard deviation, without it for a single value."""
    deviation = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{fmean(values):.{digits}f}{deviation}"
