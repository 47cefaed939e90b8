"""The search loop: strategy <-> journal <-> executor. The file to read first.

The strategy says what it wants judged and is told the results in logical order, whatever order they
finish in. A result is looked up by trial key before anything is trained: so a resumed search, and one
whose next candidates were judged ahead on idle workers, take the same path as a plain one.
"""

from __future__ import annotations

import logging
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from facenas.errors import SearchStoppedError
from facenas.execution import Evaluator, Executor, SupernetPath, TrialSpec, build_executor
from facenas.files import reading
from facenas.runs.callbacks import Callback
from facenas.runs.evaluator import build_evaluator, train_supernet
from facenas.runs.extend import OtherRun, bring_weights, retry_last_failures, shared_results
from facenas.runs.run import Run, describe_found, other_versions
from facenas.runs.search_log import SearchLog
from facenas.strategies import Candidate, Decision, Strategy, TrialResult

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StopRule:
    """When a search is to stop before its end: after so many trials, or at a time as `time.time()` tells it.

    What has to be waited for counts: results that are known already cost nothing. One trial at least is made,
    so that resuming it again and again comes to an end.
    """

    trials: int | None = None
    time: float | None = None

    def reached(self, trials: int) -> bool:
        """Whether to stop after so many trials."""
        if self.trials is not None and trials >= self.trials:
            return True
        return self.time is not None and trials > 0 and time.time() >= self.time


class Search:
    """One search: its strategy, its log on disk, and the executor that runs its trials."""

    def __init__(
        self,
        strategy: Strategy,
        log: SearchLog,
        executor: Executor,
        evaluator: Evaluator,
        callback: Callback | None = None,
        speculate: bool = True,
        max_failures: int = 3,
        bring: Callable[[str], None] = lambda key: None,
    ) -> None:
        """bring: called with the key of each result that is taken, before the strategy is told."""
        self.strategy = strategy
        self.log = log
        self.executor = executor
        self.evaluator = evaluator
        self.callback = callback or Callback()
        self.speculate, self.max_failures, self.bring = speculate, max_failures, bring
        self._running: dict[str, TrialSpec] = {}
        self._specs: dict[Candidate, TrialSpec] = {}

    def knows_first(self) -> bool:
        """Whether the first trial's result is there before anything is trained."""
        wanted = self.strategy.ask()
        return not wanted or self._spec(wanted[0]).key in self.log.known

    def run(self, stop: StopRule = StopRule()) -> bool:
        """Runs to the end, or to the decision that `stop` says; gives whether it came to the end.

        Raises SearchStoppedError when `max_failures` trials in a row have failed.
        """
        failures = made = 0
        while wanted := self.strategy.ask():
            spec, trial, again = self._spec(wanted[0]), self.log.next_trial, self.log.replaying
            if spec.key not in self.log.known:
                if stop.reached(made):
                    return False
                made += 1
            if not again:
                self.callback.on_trial(trial, spec.candidate, spec.key)
            result = self._result_of(spec.key)
            self.bring(spec.key)
            decision = self.strategy.tell(result)
            if not isinstance(decision, Decision):
                raise TypeError(f"{type(self.strategy).__name__}.tell gave {decision!r}, not a Decision")
            self.log.decided(spec, result, decision, self.strategy.note)
            tell = self.callback.on_replay if again else self.callback.on_decision
            tell(trial, spec.candidate, result, decision, self.strategy.note)
            failures = failures + 1 if result.status == "failed" else 0
            if not again and failures >= self.max_failures:
                raise SearchStoppedError(
                    f"{failures} trials in a row failed, the last one with: {result.reason}; mend it and "
                    "resume the run, or raise search.max_failures"
                )
        return True

    def _spec(self, candidate: Candidate) -> TrialSpec:
        # Kept with its key: with many workers, hundreds that lie ahead are looked up after every trial.
        if candidate not in self._specs:
            self._specs[candidate] = TrialSpec(candidate, self.evaluator.identity(candidate))
        return self._specs[candidate]

    def _result_of(self, key: str) -> TrialResult:
        while key not in self.log.known:
            self._keep_busy()
            for result in self.executor.wait():
                del self._running[result.key]
                self.log.finished(result, early=result.key != key)
        return self.log.known[key]

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
        """Trials without a result, in the order they will be wanted: asked for, then looked ahead to."""
        candidates = self.strategy.ask()
        if self.speculate and self.executor.slots > 1:
            # Some of what lies ahead is judged already: look that much further.
            count = self.executor.slots + self.log.early_results
            candidates += self.strategy.look_ahead(count, self._known)
        for candidate in candidates:
            spec = self._spec(candidate)
            if spec.key not in self.log.known:
                yield spec

    def _known(self, candidate: Candidate) -> TrialResult | None:
        return self.log.known.get(self._spec(candidate).key)


def run_search(
    run: Run,
    callback: Callback,
    stop: StopRule = StopRule(),
    reuse: Sequence[OtherRun] = (),
) -> dict[str, Any]:
    """Runs or resumes the search of `run` and returns what it found, also written to `best.json` at its end.

    reuse: runs whose results are taken for trials of the same key. The caller holds the run's lock. What is
    found is `architecture` None when the search was to stop before any candidate kept the limits. Raises
    UserError when the images are missing or not those the run began with, SearchStoppedError when the search
    cannot go on.
    """
    if best := run.best():
        return best
    callback.on_begin(run, "search")
    max_failures = getattr(run.config.search, "max_failures", 3)
    with reading(run.folder / "run.yaml"):
        space = run.config.build_space(run.about["data"])
    strategy = run.config.build_strategy(space)
    evaluator = build_evaluator(run, space)
    if isinstance(evaluator, SupernetPath):
        train_supernet(run, evaluator, lambda metrics, _: callback.on_epoch("supernet", metrics))
    others = other_versions(run.about)
    with reading(run.folder / "trials.jsonl", "restore the run's files, or start a new run"):
        retry_last_failures(run, max_failures)
        log = SearchLog(run.folder, space.images.image_size, others, shared_results(run, reuse))
    if others and log.journaled:
        told = ", ".join(f"{name} {run.about['versions'][name]} (now {now})" for name, now in others.items())
        logger.warning(
            "%s: was begun with %s; what is trained from here on may round otherwise", run.name, told
        )
    execution = run.config.execution
    executor = build_executor(execution, evaluator, callback.on_epoch, run.config.import_main)
    try:
        callback.on_search(strategy, executor.slots)
        bring = partial(bring_weights, run, reuse)
        search = Search(strategy, log, executor, evaluator, callback, execution.speculate, max_failures, bring)
        if reuse and not run.study and not search.knows_first():  # the runs of a study have others beside them
            logger.warning(
                "%s: its first trial is none of those to reuse (%s): a trial is the same where data, recipe, "
                "seed, network and epochs are",
                run.name,
                textwrap.shorten(", ".join(other.run.name for other in reuse), 60, placeholder=" ..."),
            )
        ended = search.run(stop)
    finally:
        executor.close()
    best = _found(strategy, log, executor.slots, ended)
    if ended:
        run.write_best(best)
        log.done()
    return best


def _found(strategy: Strategy, log: SearchLog, workers: int, ended: bool) -> dict[str, Any]:
    found, trials = strategy.result(), log.trials.records
    if not trials:
        raise SearchStoppedError(f"{type(strategy).__name__} asked for no candidate at all")
    if missing := {"architecture", "accuracy"} - found.keys():
        raise TypeError(f"{type(strategy).__name__}.result tells no {min(missing)}")
    if ended and found["architecture"] is None:
        raise SearchStoppedError(
            f"no candidate of {len(trials)} kept all limits; resume the run with looser search.limits"
        )
    return describe_found(found, log.image_size) | {
        "trials": len(trials),
        "failed_trials": sum(trial["status"] == "failed" for trial in trials),
        "search_seconds": trials[-1]["search_seconds"],
        "trial_seconds": round(sum(trial["seconds"] for trial in trials if "reused" not in trial), 3),
        "workers": workers,
        **{f"{name}_table": table.facts() for name, table in strategy.space.costs.items()},
        **trials[-1].get("facts", {}),
    }
