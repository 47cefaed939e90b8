"""What speculation brings: recorded searches run through our driver on workers in virtual time.

    python tools/simulate_speculation.py LOG.json [LOG.json ...] [--workers 1 2 4 8]

The driver, the strategy and the look-ahead are those of a real search; only the executor is simulated: a
trial ends after the time the log gives it. A trial that the log does not hold (growth that went on
beyond where it ended, a replacement at a width that was not reached) takes its epochs times the seconds
per epoch of the recorded trial with the nearest parameter count.
"""

from __future__ import annotations

import argparse
import heapq
import tempfile
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from facenas.execution import Evaluator, TrialSpec
from facenas.runs import SearchLog
from facenas.runs.driver import Search
from facenas.runs.replay import RecordedSearch, read_recorded
from facenas.strategies import Candidate, TrialResult


class SimulatedExecutor:
    """Answers from a log, on `slots` workers that all run at the recorded speed."""

    def __init__(self, recorded: RecordedSearch, slots: int) -> None:
        self.slots, self.clock, self.busy = slots, 0.0, 0.0
        self._trials = {_identity(trial): trial for trial in recorded.trials}
        self._running: list[tuple[float, int, TrialSpec, float]] = []
        self._submitted = 0

    def submit(self, spec: TrialSpec) -> None:
        """Starts a trial: the driver never submits more than there are slots."""
        assert len(self._running) < self.slots
        self._submitted += 1
        heapq.heappush(self._running, (self.clock + self._seconds(spec), self._submitted, spec, self.clock))

    def wait(self) -> list[TrialResult]:
        """Sets the clock to the end of the trial that ends next."""
        end, _, spec, start = heapq.heappop(self._running)
        self.clock, self.busy = end, self.busy + end - start
        trial = self._trials.get(_spec_identity(spec), {"accuracy": 0.0, "train_accuracy": 0.0})
        return [TrialResult(key=spec.key, accuracy=trial["accuracy"], train_accuracy=trial["train_accuracy"])]

    def cancel(self, key: str) -> None:
        """Frees the slot at once: a worker looks for a cancellation at every batch."""
        for task in [task for task in self._running if task[2].key == key]:
            self._running.remove(task)
            self.busy += self.clock - task[3]
        heapq.heapify(self._running)

    def close(self) -> None:
        """Nothing to free."""

    def _seconds(self, spec: TrialSpec) -> float:
        if trial := self._trials.get(_spec_identity(spec)):
            return float(trial["seconds"])
        millions = spec.candidate.architecture.count_parameters() / 1e6
        nearest = min(
            self._trials.values(),
            key=lambda t: (
                abs(t["depth"] - spec.candidate.architecture.depth),
                abs(t["params_millions"] - millions),
            ),
        )
        return float(spec.candidate.budget.epochs * nearest["seconds"] / nearest["epochs"])


class NoEvaluator(Evaluator):
    """Nothing but the architecture and its epochs tells trials apart."""

    def identity(self, candidate: Candidate) -> dict[str, Any]:
        """Nothing."""
        return {}


def simulate(recorded: RecordedSearch, slots: int) -> tuple[float, float]:
    """(wall clock, worker time spent) in seconds of the recorded search on `slots` workers."""
    executor, start = SimulatedExecutor(recorded, slots), recorded.strategy
    strategy = start.bind(start.space, start.seed)
    with tempfile.TemporaryDirectory() as folder:
        log = SearchLog(Path(folder), image_size=32)
        Search(strategy, log, executor, NoEvaluator()).run()
        assert len(log.trials.records) == len(recorded.trials)
    return executor.clock, executor.busy


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


def _identity(trial: dict[str, Any]) -> tuple[Any, ...]:
    return trial["width"], tuple(trial["ops"]), tuple(trial["kernels"]), trial["epochs"]


def _spec_identity(spec: TrialSpec) -> tuple[Any, ...]:
    arch: Any = spec.candidate.architecture
    return arch.width, arch.operations, arch.kernels, spec.candidate.budget.epochs


def main() -> None:
    """Prints one row a log and the mean."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("logs", nargs="+", type=Path)
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2, 4, 8])
    arguments = parser.parse_args()
    print("| log | trials | hours on one |" + "".join(f" {n} workers |" for n in arguments.workers))
    print("|---|---|---|" + "---|" * len(arguments.workers))
    totals = dict.fromkeys(arguments.workers, 0.0)
    for path in arguments.logs:
        recorded = with_seconds(read_recorded(path))
        alone = sum(trial["seconds"] for trial in recorded.trials)
        cells = []
        for workers in arguments.workers:
            wall, busy = simulate(recorded, workers)
            totals[workers] += alone / wall / len(arguments.logs)
            cells.append(f" {alone / wall:.2f}x ({100 * alone / busy:.0f} % useful) |")
        print(f"| {path.stem} | {len(recorded.trials)} | {alone / 3600:.2f} |" + "".join(cells))
    print("| mean | | |" + "".join(f" **{total:.2f}x** |" for total in totals.values()))


if __name__ == "__main__":
    main()
