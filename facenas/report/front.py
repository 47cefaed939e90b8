"""A Pareto front as a run tells it: members, hypervolume, what keeps a budget, a second search beside, CSV.

A cost is whatever the search made small beside the error: told in the journal's line, else counted by the
architecture. Trials that are baselines (a rank check's networks) are no candidates of the front.
"""

from __future__ import annotations

import csv
import json
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facenas.config import validate
from facenas.errors import UserError
from facenas.files import as_cells
from facenas.report.format import amount, exactly, label, listed, many, percent
from facenas.report.read import Network, RunFolder, Trial, phases, read_about, read_final, read_run
from facenas.runs.config import RunConfig
from facenas.runs.run import kept_config
from facenas.spaces.base import fingerprint
from facenas.strategies.pareto import build_objectives, hypervolume, non_dominated
from facenas.strategies.rank_check import kendall_tau

Budget = dict[str, float]  # the most that is allowed, by cost
Valued = tuple[Trial, dict[str, float]]  # a candidate with its objectives

EXAMPLE = "params=1M,macs=80M,memory=4MB"
_SIZES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
_AMOUNT = re.compile(r"(\d+\.?\d*|\.\d+)\s*([kMG]?)(B|ms)?", re.ASCII)
_SUFFIXES = {"B": "memory", "ms": "latency"}  # each belongs to one cost


@dataclass(frozen=True)
class Member:
    """A network of the front; `id` is its trial's number, `accuracy` in percent.

    values: of the objectives in their order, the error (percent) first. costs: all that is known of it and a
    budget may limit, parameters and MACs always.
    """

    id: int
    accuracy: float
    values: dict[str, float]
    costs: dict[str, float]
    network: Network
    trial: Trial


@dataclass(frozen=True)
class Growth:
    """The front after a phase: how many candidates were judged by then, and how many are on it.

    hypervolume: share 0..1 of the box from 0 to `Front.corner` that it dominates.
    """

    phase: str
    judged: int
    members: int
    hypervolume: float


@dataclass(frozen=True)
class Front:
    """The front of a run as far as it has come; `members` from the lowest error on.

    objectives: names, the error first; limits: by name, above which no candidate is accepted.
    """

    run: RunFolder
    objectives: tuple[str, ...]
    limits: dict[str, float]
    corner: dict[str, float]
    members: tuple[Member, ...]
    growth: tuple[Growth, ...]

    @property
    def costs(self) -> tuple[str, ...]:
        """The objectives but the error."""
        return self.objectives[1:]


def read_front(run: RunFolder) -> Front:
    """The front of a run that has `objectives`; raises UserError when `best.json` does not fit the journal."""
    search = run.about.group("search")
    limits = {k: float(v) for k, v in (search.get("limits") or {}).items() if k in run.objectives}
    corner = _corner(run, limits)
    members = _named(run) if run.best else _so_far(run, limits)
    return Front(run, run.objectives, limits, corner, tuple(members), _growth(run, limits, corner))


def candidates(run: RunFolder) -> list[Trial]:
    """Trials that may be on the front."""
    return [t for t in run.trials if t.decision != "baseline"]


def objectives_of(
    run: RunFolder, trials: Iterable[Trial], names: Sequence[str]
) -> Iterator[tuple[Trial, dict[str, float]]]:
    """Trials that did not fail with their values of these objectives, if all are known."""
    for trial in trials:
        found = {name: trial.value(name, run.image_size) for name in names}
        known = {name: value for name, value in found.items() if value is not None}
        if not trial.failed and len(known) == len(found):
            yield trial, known


def _allowed(
    run: RunFolder, trials: Iterable[Trial], names: Sequence[str], limits: dict[str, float]
) -> tuple[NDArray[np.float64], list[Valued]]:
    """Those that keep all limits, and ((n, objectives) float64) their points."""
    kept = [
        (trial, values)
        for trial, values in objectives_of(run, trials, names)
        if all(values[name] <= limit for name, limit in limits.items())
    ]
    points = np.array([list(values.values()) for _, values in kept], np.float64)
    return points.reshape(len(kept), len(names)), kept


def _growth(run: RunFolder, limits: dict[str, float], corner: dict[str, float]) -> tuple[Growth, ...]:
    front, judged, found = np.empty((0, len(corner))), 0, []
    for phase in phases(candidates(run)):
        both = np.vstack([front, _allowed(run, phase.trials, list(corner), limits)[0]])
        front, judged = both[non_dominated(both)], judged + len(phase.trials)
        share = hypervolume(front, list(corner.values()))
        found.append(Growth(phase.name, judged, len(front), share))
    return tuple(found)


def _corner(run: RunFolder, limits: dict[str, float]) -> dict[str, float]:
    """As the search has it; of a space that cannot be built here, the largest costs of the trials."""
    try:
        config = validate(RunConfig, kept_config(run.path, run.about.config), "run.yaml")
        space = config.build_space(run.about.data)
        return {one.name: one.scale for one in build_objectives(space, config.search)}
    except Exception:  # a plug-in's code, or settings of another version
        known = [values for _, values in objectives_of(run, run.trials, run.objectives)]
        largest = {n: max((v[n] for v in known), default=1.0) for n in run.objectives}
        return largest | {"error": 100.0} | limits


def _named(run: RunFolder) -> Iterator[Member]:
    """Members of the front in `best.json`."""
    trials = {trial.trial: trial for trial in run.trials}
    for one in (run.best and run.best.front) or ():
        trial = trials.get(one.get("id", -1))
        lacking = [n for n in run.objectives if not isinstance(one.get(n), int | float)]
        if trial is None or lacking:
            lack = f"no {lacking[0]}" if trial else "no line in trials.jsonl"
            fault = f"{run.path / 'best.json'}: front: trial {one.get('id')} has {lack}"
            raise UserError(f"{fault}; restore the file, or remove it and resume the run")
        yield _member(run, trial, {name: float(one[name]) for name in run.objectives})


def _so_far(run: RunFolder, limits: dict[str, float]) -> Iterator[Member]:
    points, kept = _allowed(run, candidates(run), run.objectives, limits)
    for row in non_dominated(points):
        yield _member(run, *kept[row])


def _member(run: RunFolder, trial: Trial, values: dict[str, float]) -> Member:
    shown = {name: trial.value(name, run.image_size) for name in ("parameters", "macs", "latency")}
    costs = {name: value for name, value in shown.items() if value is not None}
    costs |= {name: value for name, value in values.items() if name != "error"}
    return Member(trial.trial, trial.accuracy, values, costs, trial.network, trial)


# A budget.


@dataclass(frozen=True)
class Recommendation:
    """What a front holds for a budget; `member` is None when nothing keeps it."""

    budget: Budget
    member: Member | None

    @property
    def sentence(self) -> str:
        """For people."""
        limits = listed(f"{amount(name, most)} {label(name)}" for name, most in self.budget.items())
        if (member := self.member) is None:
            return f"No network of the front keeps {limits}."
        costs = listed(exactly(name, value) for name, value in member.costs.items())
        found = f"trial {member.id}, accuracy {percent(member.accuracy)}, {costs}"
        return f"The most accurate within {limits}: {found}."

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        found: dict[str, Any] | None = None
        if self.member:
            found = {"id": self.member.id, "accuracy": self.member.accuracy, **self.member.values}
            found["architecture"] = self.member.network.tree
        return {"budget": self.budget, "recommended": found}


def parse_budget(text: str) -> Budget:
    """Limits out of `params=1M,macs=80M,memory=4MB`: k, M and G are powers of 1000, B may follow for bytes of
    memory, ms for milliseconds of latency. Raises UserError that tells what is wrong.
    """
    budget: Budget = {}
    for part in text.split(","):
        name, equals, limit = (word.strip() for word in part.partition("="))
        if not equals or not name.isidentifier():
            raise UserError(f"budget: {part.strip()!r} is no limit; write it as {EXAMPLE}")
        name = "parameters" if name == "params" else name
        if name in budget:
            raise UserError(f"budget: {name} is limited twice; leave one out")
        budget[name] = _limit(name, limit)
    return budget


def _limit(name: str, text: str) -> float:
    found = _AMOUNT.fullmatch(text)
    suffix = found[3] if found else None
    value = float(found[1]) * _SIZES[found[2]] if found else 0.0
    if not 0 < value < float("inf") or (suffix and _SUFFIXES[suffix] != name):
        fault = f"{text!r} is not a limit of {name}"
        raise UserError(f"budget: {fault}; write a number above 0 as in {EXAMPLE}")
    return value


def recommend(front: Sequence[Member], budget: Budget) -> Member | None:
    """The most accurate within all limits, of equals the one with the smaller costs; None when there is none.

    Raises UserError when the front does not tell a cost that is limited.
    """
    for name in budget:
        if not all(name in member.costs for member in front):
            known = ", ".join(front[0].costs)
            remedy = f"limit one of {known}, or search with {name} among search.objectives"
            raise UserError(f"budget: this search did not weigh {name}; {remedy}")
    within = [m for m in front if all(m.costs[name] <= most for name, most in budget.items())]
    return min(within, key=lambda m: (-m.accuracy, *m.values.values(), m.id), default=None)


def recommendation(run: Path, budget: Budget) -> Recommendation:
    """What the run at this folder recommends. Raises UserError when it is damaged or has no front."""
    read = read_run(run)
    if not read.objectives:
        raise UserError(f"{run}: is no search for a Pareto front, so it has nothing for a budget")
    return Recommendation(budget, recommend(read_front(read).members, budget))


# A second search beside the first.


@dataclass(frozen=True)
class Beside:
    """Another search, measured in the first one's box; `label` names it."""

    label: str
    growth: tuple[Growth, ...]


def find_beside(front: Front, given: Path | None) -> Beside | None:
    """The run `given`, else the newest random search in the same folder that can be compared.

    Raises UserError when the one given cannot be.
    """
    other = _comparable(front.run, read_run(given)) if given else _random_search(front.run)
    if other is None:
        return None
    words = f"{other.strategy} “{other.name}”"
    if _judging(other)[2:] != _judging(front.run)[2:]:
        epochs = max(trial.epochs for trial in candidates(other))
        words += f", {many(epochs, 'epoch')} each" if epochs else ", by a supernet"
    return Beside(words, _growth(other, front.limits, front.corner))


def _comparable(run: RunFolder, other: RunFolder) -> RunFolder:
    if not other.objectives or not other.trials:
        raise UserError(f"{other.path}: has no front to set beside; give a search that has one")
    images, theirs = (
        (one.about.data.get("fingerprint"), one.about.group("data").get("select_on")) for one in (run, other)
    )
    if images != theirs or images[0] is None:
        fault = f"{other.path}: searched on other data than {run.path}"
        raise UserError(f"{fault}; give a run on the same data")
    if set(run.objectives) != set(other.objectives):
        fault = f"{other.path}: weighs {', '.join(other.objectives[1:])}, but {run.path} others"
        raise UserError(f"{fault}; give a run with the same search.objectives")
    return other


def _random_search(run: RunFolder) -> RunFolder | None:
    """Of the same space, with the same training; a damaged run is passed over."""
    found = []
    for path in run.path.resolve().parent.glob("*/run.yaml") if run.strategy != "random" else ():
        with suppress(UserError, OSError, UnicodeDecodeError):
            # Most runs are of another strategy: only what may be compared is read in full.
            if "strategy: random" in path.read_text(encoding="utf-8"):
                other = _comparable(run, read_run(path.parent))
                if other.strategy == "random" and _judging(run) == _judging(other):
                    found.append(other)
    return max(found, key=lambda other: other.about.created or "", default=None)


def _judging(run: RunFolder) -> tuple[Any, ...]:
    """How candidates come to their accuracy; whether a supernet ranks well is looked into apart from it."""
    supernet = run.about.group("search").get("supernet") or {}
    kept = {key: value for key, value in supernet.items() if not key.startswith("rank_")}
    epochs = {trial.epochs for trial in candidates(run)}
    return run.about.group("space"), run.about.group("recipe"), epochs, kept


# What a person does with a member.


def front_csv(front: Front) -> str:
    """A line a member: trial, accuracy (percent), objectives, words, architecture as JSON."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(as_cells(["id", "accuracy", *front.objectives, "words", "architecture"]))
    for member in front.members:
        numbers = [member.accuracy, *member.values.values()]
        shown = [int(n) if float(n).is_integer() else n for n in numbers]
        network = member.network
        writer.writerow(as_cells([member.id, *shown, network.summary, json.dumps(network.tree)]))
    return text.getvalue()


def pick_command(run: RunFolder, member: int) -> str:
    """Trains the network of this trial as a run of its own."""
    return train_command(run, "--pick", str(member), "--run", f"{run.path.resolve().name}-{member}")


def train_command(run: RunFolder, *options: str) -> str:
    """`facenas train` of a run, in the folder of runs that the search was given."""
    name = run.path.resolve().name
    try:
        words = shlex.split(run.about.command or "")
    except ValueError:
        words = []
    folder = [[a, b] for a, b in pairwise(words) if a == "--runs-dir"]
    folder += [word.split("=", 1) for word in words if word.startswith("--runs-dir=")]
    return shlex.join(["facenas", "train", name, *options, *(folder or [[]])[-1]])


def trainings(run: RunFolder) -> list[tuple[str, Network]]:
    """Networks trained in full on the same images, in words: in the run itself, or in one beside it."""
    here, images = run.path.resolve(), run.about.data.get("fingerprint")
    ended = {"trained": run.final}
    for path in sorted(here.parent.glob("*/train.json")) if images else ():
        with suppress(UserError):  # another run's fault: its own page tells
            folder = path.parent
            if folder != here and read_about(folder).data.get("fingerprint") == images:
                ended[f"trained as {folder.name}"] = read_final(folder)
    found = []
    for where, final in ended.items():
        if final:
            shown = "" if final.test_accuracy is None else f": {percent(final.test_accuracy)}"
            found.append((where + shown, final.architecture))
    return found


# How far a supernet can be trusted.


@dataclass(frozen=True)
class Ranked:
    """A network judged by the supernet and trained alone; ranks count from 1, equals share the better one."""

    shared: Trial
    alone: Trial
    rank_shared: int
    rank_alone: int


@dataclass(frozen=True)
class RankCheck:
    """Networks by both accuracies. tau: Kendall's tau-b, None when it is not defined.

    spread: standard deviation of tau between independent rankings without ties (M. G. Kendall, 1938).
    complete: the search has gone on to its candidates.
    """

    ranked: list[Ranked]
    tau: float | None
    spread: float
    complete: bool


def rank_check(run: RunFolder) -> RankCheck | None:
    """From the baselines that the journal has twice, of 0 epochs and of more; None when there is none."""
    baselines = [trial for trial in run.trials if trial.decision == "baseline"]
    shared = {fingerprint(t.network.tree): t for t in baselines if not t.epochs}
    if not shared:
        return None
    alone = [t for t in baselines if t.epochs and fingerprint(t.network.tree) in shared]
    sides = ([shared[fingerprint(t.network.tree)] for t in alone], alone)
    accuracies = [[t.accuracy for t in side] for side in sides]
    ranks = [[1 + sum(other > one for other in side) for one in side] for side in accuracies]
    n, tau = len(alone), kendall_tau(*accuracies) if len(alone) > 1 else None
    spread = (2 * (2 * n + 5) / (9 * n * (n - 1))) ** 0.5 if n > 1 else 0.0
    ranked = [Ranked(*one) for one in zip(*sides, *ranks, strict=True)]
    return RankCheck(ranked, tau, spread, bool(candidates(run)))
