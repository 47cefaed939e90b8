"""How far a search scales: our driver, strategies and look-ahead on a cluster in virtual time.

    python tools/simulate_cluster.py                      # recorded searches, cells, pareto; 8 to 256 workers
    python tools/simulate_cluster.py tests/recorded_searches/*-tiny.json --ideal --workers 1 2 4 8
    python tools/simulate_cluster.py runs/cells --scale 100 --lost-after 1
    python tools/simulate_cluster.py cells --set search.population=200 --set search.generations=5

Only the executor is simulated. A worker pays `--start` seconds before its first trial (process, torch, CUDA
context); a node gets the data over the driver's link, which all nodes share, and is lost after a time drawn
from an exponential distribution: its running trials begin anew elsewhere, and it comes back empty.

SEARCH is one of
    LOG.json  a search of the macro-micro authors: trials take what the log tells. One that it does not hold
              (growth that went on beyond where it ended) takes its epochs times the seconds per epoch of the
              recorded trial of the nearest depth, and then parameters
    RUN       a run folder of ours: trials take what the journal tells, or `--scale` times as long
    PRESET    its strategy over its space. An image trained on takes a constant and a part that grows with
              the MACs, fitted to the authors' logs; an image through a path of a supernet a third of it, one
              in the supernet's training that of its four paths. Accuracies are made up: they grow with the
              logarithm of the MACs, with noise
"""

from __future__ import annotations

import argparse
import heapq
import math
import random
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from facenas.device import core_count
from facenas.execution import Evaluator, TrialSpec
from facenas.runs import SearchLog
from facenas.runs.driver import Search
from facenas.runs.presets import load_run_config, preset_names
from facenas.runs.replay import RecordedSearch, read_recorded
from facenas.spaces import ImageFacts, from_json
from facenas.strategies import Candidate, Strategy, TrialResult

RECORDED = Path(__file__).parents[1] / "tests" / "recorded_searches"
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # for journals, which sync each line
# Facts of the images that presets name, and how many there are to train on; EMNIST's are the balanced ones.
IMAGES = {
    "mnist": (ImageFacts(1, 10, 28), 60_000),
    "cifar10": (ImageFacts(3, 10, 32), 50_000),
    "cifar100": (ImageFacts(3, 100, 32), 50_000),
    "emnist": (ImageFacts(1, 47, 32), 112_800),
    "fashionmnist": (ImageFacts(1, 10, 32), 60_000),
    "kmnist": (ImageFacts(1, 10, 32), 60_000),
}


@dataclass(frozen=True)
class Cluster:
    """`workers` on nodes of `per_node`, and what a perfect cluster would not cost; in seconds and bytes.

    start: of a worker, before its first trial; latency: of every trial; shipped: bytes once a node, at
    `bandwidth` bytes a second of the driver's link; lost_after: mean time between failures of a node;
    back_after: until it is replaced.
    """

    workers: int
    per_node: int = 8
    start: float = 0.0
    latency: float = 0.0
    shipped: float = 0.0
    bandwidth: float = 1.25e9
    lost_after: float = math.inf
    back_after: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Workload:
    """A search: `begin` gives its strategy at the start, `judge` the result of a trial with its seconds.

    prepare: seconds before the first trial, which no second worker shortens: a supernet's training.
    """

    begin: Callable[[], Strategy]
    judge: Callable[[TrialSpec], TrialResult]
    prepare: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """wall: seconds from the start; alone: what one perfect worker takes; lost: trials that failures killed.

    journal: trial key and decision of every trial; found: what the strategy says in the end.
    """

    wall: float
    alone: float
    lost: int
    journal: list[tuple[str, str]]
    found: dict[str, Any]


@dataclass(eq=False)
class _Node:
    cold: int = 0  # free workers that have not run a trial yet
    warm: int = 0


@dataclass(eq=False)
class _Running:
    spec: TrialSpec
    node: _Node


class SimulatedExecutor:
    """Trials on a cluster. `clock`: virtual seconds; `lost`: trials that were running on nodes that failed."""

    def __init__(self, workload: Workload, cluster: Cluster) -> None:
        self.slots, self.clock, self.lost = cluster.workers, workload.prepare, 0
        self._workload, self._cluster = workload, cluster
        self._random = random.Random(cluster.seed)
        self._link_free = self.clock
        self._events: list[tuple[float, int, Callable[[], TrialResult | None]]] = []
        self._foreseen = 0
        self._queue: list[TrialSpec] = []
        self._running: dict[str, _Running] = {}
        self._nodes: list[_Node] = []
        for first in range(0, cluster.workers, cluster.per_node):
            self._nodes.append(_Node())
            self._ship(self._nodes[-1], min(cluster.per_node, cluster.workers - first))

    def submit(self, spec: TrialSpec) -> None:
        """Starts a trial, or queues it: a lost node leaves fewer workers than slots."""
        self._queue.append(spec)
        self._place()

    def wait(self) -> list[TrialResult]:
        """Sets the clock to the end of the trial that ends next."""
        while True:
            self.clock, _, event = heapq.heappop(self._events)
            if result := event():
                return [result]

    def cancel(self, key: str) -> None:
        """Frees the worker at once: it looks for a cancellation at every batch."""
        self._queue = [spec for spec in self._queue if spec.key != key]
        if task := self._running.pop(key, None):
            task.node.warm += 1
            self._place()

    def close(self) -> None:
        """Nothing to free."""

    def _foresee(self, when: float, event: Callable[[], TrialResult | None]) -> None:
        self._foreseen += 1
        heapq.heappush(self._events, (when, self._foreseen, event))

    def _ship(self, node: _Node, workers: int) -> None:
        """One node after another over the driver's link; together they would all wait for the last."""
        self._link_free = max(self._link_free, self.clock) + self._cluster.shipped / self._cluster.bandwidth
        self._foresee(self._link_free, partial(self._ready, node, workers))

    def _ready(self, node: _Node, workers: int) -> None:
        node.cold = workers
        if math.isfinite(self._cluster.lost_after):
            until = self._random.expovariate(1 / self._cluster.lost_after)
            self._foresee(self.clock + until, partial(self._lose, node, workers))
        self._place()

    def _lose(self, node: _Node, workers: int) -> None:
        node.cold = node.warm = 0
        killed = [task.spec for task in self._running.values() if task.node is node]
        for spec in killed:
            del self._running[spec.key]
        self.lost += len(killed)
        self._queue = killed + self._queue
        self._foresee(self.clock + self._cluster.back_after, partial(self._ship, node, workers))
        self._place()

    def _place(self) -> None:
        while self._queue:
            node = max(self._nodes, key=lambda node: (node.warm > 0, node.cold))
            if not node.warm + node.cold:
                return
            spec, delay = self._queue.pop(0), self._cluster.latency
            if node.warm:
                node.warm -= 1
            else:
                node.cold -= 1
                delay += self._cluster.start
            task = self._running[spec.key] = _Running(spec, node)
            result = self._workload.judge(spec)
            self._foresee(self.clock + delay + result.seconds, partial(self._end, task, result))

    def _end(self, task: _Running, result: TrialResult) -> TrialResult | None:
        if self._running.get(result.key) is not task:
            return None  # cancelled, or lost with its node
        del self._running[result.key]
        task.node.warm += 1
        self._place()
        return result


class NoEvaluator(Evaluator):
    """Nothing but the architecture and its epochs tells trials apart."""

    def identity(self, candidate: Candidate) -> dict[str, Any]:
        """Nothing."""
        return {}


def simulate(workload: Workload, cluster: Cluster) -> Outcome:
    """Runs the whole search on the cluster, its journal in a folder that is gone afterwards."""
    executor, strategy = SimulatedExecutor(workload, cluster), workload.begin()
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        log = SearchLog(Path(folder), strategy.space.images.image_size)
        Search(strategy, log, executor, NoEvaluator()).run()
        trials = log.trials.records
    return Outcome(
        wall=executor.clock,
        alone=workload.prepare + sum(trial["seconds"] for trial in trials),
        lost=executor.lost,
        journal=[(trial["key"], trial["decision"]) for trial in trials],
        found=strategy.result(),
    )


def recorded_search(path: Path, scale: float = 1.0) -> Workload:
    """A log of the authors or a run of ours; its trials take `scale` times what they took."""
    recorded = with_seconds(read_recorded(path))
    trials = {(_architecture(recorded, trial), trial["epochs"]): trial for trial in recorded.trials}
    first, prepare = recorded.trials[0], 0.0
    if getattr(recorded.strategy.settings, "supernet", None):
        prepare = first["search_seconds"] - first["seconds"]

    def judge(spec: TrialSpec) -> TrialResult:
        arch, epochs = spec.candidate.architecture, spec.candidate.budget.epochs
        trial = trials.get((arch, epochs), {})
        return TrialResult(
            key=spec.key,
            status=trial.get("status", "ok"),
            accuracy=trial.get("accuracy", 0.0),
            train_accuracy=trial.get("train_accuracy", 0.0),
            values=trial.get("values", {}),
            seconds=scale * (trial["seconds"] if trial else epochs * _epoch_seconds(arch, trials)),
        )

    return Workload(lambda: read_recorded(path).strategy, judge, scale * prepare)


def with_seconds(recorded: RecordedSearch) -> RecordedSearch:
    """Adds each trial's seconds: from the end of the one before; the first by its epochs and the second."""
    if all("seconds" in trial for trial in recorded.trials):  # our own journal
        return recorded
    if len(recorded.trials) < 2 or not all("finished" in trial for trial in recorded.trials):
        raise SystemExit("a log has no durations: its trials tell neither seconds nor finished")
    times = [_timestamp(trial["finished"]) for trial in recorded.trials]
    seconds = [after - before for before, after in pairwise(times)]
    first, second = recorded.trials[:2]
    seconds.insert(0, seconds[0] * first["epochs"] / second["epochs"])
    for trial, took in zip(recorded.trials, seconds, strict=True):
        trial["seconds"] = took
    return recorded


def _timestamp(text: str) -> float:
    return datetime.fromisoformat(text.replace(",", ".")).timestamp()


def _architecture(recorded: RecordedSearch, trial: dict[str, Any]) -> Any:
    """A line of ours tells all of it; the authors' logs leave out what is the same in every line."""
    images = recorded.strategy.space.images
    facts = {"kind": "plain", "in_channels": images.in_channels, "num_classes": images.num_classes}
    return from_json(trial if recorded.ours else {**facts, **trial})


def _epoch_seconds(arch: Any, trials: dict[tuple[Any, int], dict[str, Any]]) -> float:
    def distance(trial: tuple[Any, int]) -> tuple[int, int]:
        other = trial[0]
        return abs(other.depth - arch.depth), abs(other.count_parameters() - arch.count_parameters())

    nearest = trials[min(trials, key=distance)]
    return float(nearest["seconds"] / nearest["epochs"])


@dataclass(frozen=True)
class Cost:
    """Seconds to train on an image: `image` + `mac` x MACs. error: of the fit, the median of trials (0..1)."""

    image: float
    mac: float
    error: float

    def seconds(self, macs: float, images: float) -> float:
        """Of training on so many images."""
        return images * (self.image + self.mac * macs)


def fit_cost(logs: Sequence[Path]) -> Cost:
    """Least squares of the relative error over all trials of the authors' logs, named by their data set."""
    macs, seconds = [], []
    for path in logs:
        recorded, (facts, images) = with_seconds(read_recorded(path)), IMAGES[path.stem.split("-")[0]]
        for trial in recorded.trials:
            macs.append(_architecture(recorded, trial).count_macs(facts.image_size))
            seconds.append(trial["seconds"] / trial["epochs"] / images)
    terms, took = np.array([np.ones(len(macs)), macs]).T, np.array(seconds)
    image, mac = np.linalg.lstsq(terms / took[:, None], np.ones(len(took)), rcond=None)[0].tolist()
    errors = np.abs(terms @ [image, mac] / took - 1)
    return Cost(image, mac, float(np.median(errors)))


def preset_search(name: str, settings: list[str], cost: Cost) -> Workload:
    """A preset as changed by `settings` (`key=value`) on the whole of its data set."""
    config = load_run_config(name, settings, {})
    if config.data.name not in IMAGES:
        raise SystemExit(f"preset {name}: the images of {config.data.name} are not known here")
    facts, images = IMAGES[config.data.name]
    space = config.build_space(
        {"in_channels": facts.in_channels, "classes": facts.num_classes, "image_size": facts.image_size}
    )
    held_out = images * config.data.validation_fraction
    trained_on = (images - held_out) * config.data.data_fraction
    supernet = getattr(config.search, "supernet", None)

    def judge(spec: TrialSpec) -> TrialResult:
        macs = spec.candidate.architecture.count_macs(facts.image_size)
        seconds = cost.seconds(macs, spec.candidate.budget.epochs * trained_on)
        if not seconds:  # forwards alone, through the supernet
            seconds = cost.seconds(macs, held_out + supernet.recalibration) / 3
        noise = random.Random(spec.seed).gauss(0, 2)
        accuracy = min(max(20 + 8 * math.log10(1 + macs) + noise, 1), 99)
        return TrialResult(key=spec.key, accuracy=accuracy, seconds=seconds)

    prepare = 0.0
    if supernet:
        paths = _paths(space, supernet.sandwich)
        prepare = supernet.epochs * sum(cost.seconds(macs, trained_on) for macs in paths)
    return Workload(lambda: config.build_strategy(space), judge, prepare)


def _paths(space: Any, sandwich: bool) -> list[float]:
    """MACs of what an image trains of a supernet: of one random path, or of a sandwich's four."""
    rng, size = random.Random(0), space.images.image_size
    mean = float(np.mean([space.sample(rng).count_macs(size) for _ in range(100)]))
    if not sandwich:
        return [mean]
    return [space.largest().count_macs(size), space.smallest().count_macs(size), mean, mean]


def main() -> None:
    """Prints one row a search, and the mean of those that ask for one candidate at a time."""
    options = _parser().parse_args()
    logs = sorted(RECORDED.glob("*-*.json"))
    searches = options.searches or [*map(str, logs), "cells", "pareto"]
    cost = fit_cost(logs) if set(searches) & set(preset_names()) else None
    clusters = _clusters(options)
    print("| search | trials | hours on one |" + "".join(f" {title} |" for title in clusters))
    print("|---|---|---|" + "---|" * len(clusters))
    rows = []
    with ProcessPoolExecutor(core_count()) as pool:
        told = [
            [pool.submit(_outcomes, search, options, cost, cluster) for cluster in clusters.values()]
            for search in searches
        ]
        for search, futures in zip(searches, told, strict=True):
            outcomes = [future.result() for future in futures]
            print(_row(Path(search).stem, outcomes, list(clusters.values()), options.factors), flush=True)
            if search.endswith(".json"):
                rows.append([_speedup(draws) for draws in outcomes])
    if len(rows) > 1:
        print("| mean of the logs | | |" + "".join(f" **{mean:.2f}x** |" for mean in np.mean(rows, axis=0)))
    if cost:
        print(
            f"\nAn image takes {1e6 * cost.image:.0f} us and {1e12 * cost.mac:.2f} us for each million MACs; "
            f"half of the recorded trials are within {100 * cost.error:.0f} % of that."
        )


def _outcomes(search: str, options: argparse.Namespace, cost: Cost | None, cluster: Cluster) -> list[Outcome]:
    """One for each draw of the failures; one where nothing fails."""
    if cost and search in preset_names():
        workload = preset_search(search, options.set, cost)
    else:
        workload = recorded_search(Path(search), options.scale)
    draws = options.draws if math.isfinite(cluster.lost_after) else 1
    return [simulate(workload, replace(cluster, seed=seed)) for seed in range(draws)]


def _speedup(draws: list[Outcome]) -> float:
    """Over one worker without any of a cluster's costs, by the mean of the wall clocks."""
    return draws[0].alone / float(np.mean([outcome.wall for outcome in draws]))


def _row(name: str, outcomes: list[list[Outcome]], clusters: list[Cluster], lost: bool) -> str:
    """Speed-ups; in brackets what part of all workers' time one alone would need, or the trials lost."""
    first = outcomes[0][0]
    cells = f"| {name} | {len(first.journal)} | {first.alone / 3600:.2f} |"
    for draws, cluster in zip(outcomes, clusters, strict=True):
        used = f"{100 * _speedup(draws) / cluster.workers:.0f} %"
        if lost:
            used = f"{np.mean([outcome.lost for outcome in draws]):.1f} lost"
        cells += f" {_speedup(draws):.2f}x ({used}) |"
    return cells


def _clusters(options: argparse.Namespace) -> dict[str, Cluster]:
    """By title: one for each number of workers, or with --factors, one for each thing that a cluster costs."""
    costs = {
        "start": {"start": options.start},
        "latency": {"latency": options.latency},
        "shipping": {"shipped": options.ship * 1e9, "bandwidth": options.bandwidth * 1e9 / 8},
        "failures": {"lost_after": options.lost_after * 3600, "back_after": options.back_after},
    }
    all_costs: dict[str, Any] = {key: value for cost in costs.values() for key, value in cost.items()}
    if options.ideal:
        all_costs = {}
    perfect = [Cluster(n, options.per_node) for n in options.workers]
    if not options.factors:
        return {f"{c.workers} workers": replace(c, **all_costs) for c in perfect}
    found = {}
    for c in perfect:
        found[f"{c.workers} perfect workers"] = c
        found |= {f"{title} ({c.workers})": replace(c, **cost) for title, cost in costs.items()}
        found[f"all ({c.workers})"] = replace(c, **all_costs)
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("searches", nargs="*", metavar="SEARCH")
    add("--workers", nargs="+", type=int, default=[8, 16, 32, 64, 128, 256])
    add("--per-node", type=int, default=8, help="workers a node")
    add("--start", type=float, default=15, help="seconds before a worker's first trial")
    add("--latency", type=float, default=0.1, help="seconds added to each trial")
    add("--ship", type=float, default=2, help="GB of data, once a node")
    add("--bandwidth", type=float, default=10, help="Gbit/s of the driver's link")
    add("--lost-after", type=float, default=24, help="hours a node lives in the mean")
    add("--back-after", type=float, default=300, help="seconds until it is replaced")
    add("--ideal", action="store_true", help="none of these costs: speculation alone")
    add("--factors", action="store_true", help="columns: each of these costs alone, and all")
    add("--scale", type=float, default=1, help="factor on the seconds of journals")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the presets")
    add("--draws", type=int, default=1, help="of the failures, whose mean is told")
    return parser


if __name__ == "__main__":
    main()
