"""The search loop: strategy <-> journal <-> executor. The file to read first.

The strategy says what it wants trained and is told the results in logical order, whatever order they
finish in. A result is looked up by trial key before anything is trained: so a resumed search, and one
whose next candidates were trained ahead on idle workers, take the same path as a plain one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from facenas.errors import SearchStoppedError
from facenas.execution import Executor, build_executor
from facenas.execution.trial import SupernetUse, TrialResult, TrialSpec
from facenas.runs import MAX_FAILURES_IN_A_ROW, Run, SearchRecord
from facenas.spaces import Graph, ImageFacts, SearchSpace, from_json
from facenas.strategies import Candidate, Outcome, Strategy, build_strategy

SpecOf = Callable[[Candidate], TrialSpec]


class Observer:
    """Watches a search, for a progress bar; this one does nothing."""

    def epoch(self, key: str, metrics: dict[str, Any]) -> None:
        """A running trial has ended an epoch."""

    def supernet(self, metrics: dict[str, Any], epochs: int) -> None:
        """An epoch of the supernet's training has ended."""

    def wanted(self, candidate: Candidate, key: str, strategy: Strategy) -> None:
        """The search cannot go on before this candidate, whose trial has this key, is trained."""

    def decided(self, candidate: Candidate, result: TrialResult, decision: str) -> None:
        """The strategy was told this result."""


class Search:
    """One search: its strategy, its record on disk, and the executor that trains for it."""

    def __init__(
        self,
        strategy: Strategy,
        record: SearchRecord,
        executor: Executor,
        spec_of: SpecOf,
        observer: Observer | None = None,
        speculate: bool = True,
    ) -> None:
        self.strategy = strategy
        self.record = record
        self.executor = executor
        self.spec_of = spec_of
        self.observer = observer or Observer()
        self.speculate = speculate
        self._running: dict[str, TrialSpec] = {}

    def run(self) -> None:
        """Runs to the end. Raises SearchStoppedError after three failed trials in a row."""
        failures = 0
        while wanted := self.strategy.ask():
            candidate = wanted[0]
            spec = self.spec_of(candidate)
            self.observer.wanted(candidate, spec.key, self.strategy)
            result = self._result_of(spec.key)
            decision = self.strategy.tell(outcome_of(result))
            self.record.decided(candidate, spec, result, decision)
            self.observer.decided(candidate, result, decision)
            failures = failures + 1 if result.status == "failed" else 0
            if failures == MAX_FAILURES_IN_A_ROW:
                raise SearchStoppedError(
                    f"{failures} trials in a row failed, the last one with: {result.reason}"
                )

    def _result_of(self, key: str) -> TrialResult:
        while key not in self.record.known:
            self._keep_busy()
            for result in self.executor.wait():
                del self._running[result.key]
                self.record.finished(result, early=result.key != key)
        return self.record.known[key]

    def _keep_busy(self) -> None:
        """Gives every slot the next trial that is sure or likely to be wanted; gives up the others."""
        useful: dict[str, TrialSpec] = {}
        for spec in self._next_specs():
            if len(useful) == self.executor.slots:
                break
            useful[spec.key] = spec
        for key in self._running:
            if key not in useful:
                self.executor.cancel(key)
        for key, spec in useful.items():
            if key not in self._running:
                self.executor.submit(spec)
        self._running = useful

    def _next_specs(self) -> Iterator[TrialSpec]:
        """Untrained trials in the order they will be wanted: those asked for, then those looked ahead to."""
        candidates = self.strategy.ask()
        if self.speculate and self.executor.slots > 1:
            # Some of what lies ahead is trained already: look that much further.
            count = self.executor.slots + self.record.early_results
            candidates += self.strategy.look_ahead(count, self._known_outcome)
        for candidate in candidates:
            spec = self.spec_of(candidate)
            if spec.key not in self.record.known:
                yield spec

    def _known_outcome(self, candidate: Candidate) -> Outcome | None:
        result = self.record.known.get(self.spec_of(candidate).key)
        return outcome_of(result) if result else None


def outcome_of(result: TrialResult) -> Outcome:
    """What the strategy is told; a failed trial counts as accuracy 0."""
    return Outcome(result.accuracy, result.train_accuracy, result.latency)


def run_search(run: Run, observer: Observer) -> dict[str, Any]:
    """Runs or resumes the search of `run` and returns what it found, also written to `best.json`.

    The caller holds the run's lock. Raises UserError when the images are missing or not those the run
    began with, SearchStoppedError when the search cannot go on.
    """
    if best := run.best():
        return best
    config = run.config
    latency = "latency" in getattr(config.search, "objectives", ())
    if latency:
        from facenas.models.latency import check_packages  # needs torch

        check_packages()
    data_folder = run.find_data()
    facts = run.about["data"]
    images = ImageFacts(facts["in_channels"], facts.get("classes", 0), facts["image_size"])
    space = config.space.owner(config.space).bind(images)
    strategy = build_strategy(space, config.search, config.seed, facts["image_size"])
    record = SearchRecord(run.folder, facts["image_size"])

    supernet = _supernet(run, space, data_folder, observer)

    def spec_of(candidate: Candidate) -> TrialSpec:
        arch, epochs = candidate.architecture, candidate.epochs
        return TrialSpec(
            arch,
            epochs,
            config.data,
            facts["fingerprint"],
            config.recipe,
            config.seed,
            supernet if epochs == 0 else None,
            latency,
        )

    executor = build_executor(config.execution, data_folder, observer.epoch)
    try:
        speculate = config.execution.speculate
        Search(strategy, record, executor, spec_of, observer, speculate).run()
    finally:
        executor.close()
    best = _found(strategy, record, executor.slots)
    run.write_best(best)
    record.done()
    return best


def _supernet(
    run: Run, space: SearchSpace[Any], data_folder: Path, observer: Observer
) -> SupernetUse | None:
    """The trained supernet that candidates of 0 epochs are judged by, if the search has one."""
    settings = getattr(run.config.search, "supernet", None)
    if settings is None or not isinstance(space, Graph):
        return None
    from facenas.runs.supernet_training import train_supernet  # needs torch

    return train_supernet(run, space, settings, data_folder, observer.supernet)


def _found(strategy: Strategy, record: SearchRecord, workers: int) -> dict[str, Any]:
    found, trials = strategy.result(), record.trials.records
    if found["architecture"] is None:
        raise SearchStoppedError("no candidate kept all limits; loosen search.limits")
    arch = from_json(found["architecture"])
    parameters = arch.count_parameters()
    return found | {
        "parameters": parameters,
        "params_millions": parameters / 1e6,
        "macs": arch.count_macs(record.image_size),
        "trials": len(trials),
        "failed_trials": sum(trial["status"] == "failed" for trial in trials),
        "search_seconds": trials[-1]["search_seconds"],
        "trial_seconds": round(sum(trial["seconds"] for trial in trials), 3),
        "workers": workers,
    }
