"""What a person sees while a search or a training runs: one bar on a terminal, log lines elsewhere."""

from __future__ import annotations

import logging
import sys
from typing import Any

from tqdm import tqdm

from facenas.runs import Run
from facenas.runs.callbacks import Callback, Work
from facenas.strategies import Candidate, Decision, Strategy, TrialResult

log = logging.getLogger(__name__)

_FORESIGHT = 10_000


class SearchProgress(Callback):
    """Phase, candidate, best so far and time left.

    The time left, and the bar, are those of the longest course the search can take from here (growth
    and pruning to their bounds), at the rate of the trials so far: so "at most".
    """

    def __init__(self) -> None:
        self._trial, self._best = 0, 0.0
        self._work_done, self._seconds = 0.0, 0.0
        self._epochs: dict[str, int] = {}
        self._candidate: Candidate | None = None
        self._key, self._left = "", ""

    def on_begin(self, run: Run, work: Work) -> None:
        """An empty bar."""
        self._run, self._image_size = run, run.about["data"]["image_size"]
        form = "{percentage:3.0f}%|{bar:12}| {desc}"
        self._bar = tqdm(total=1.0, bar_format=form, disable=None, leave=False, dynamic_ncols=True)

    def on_search(self, strategy: Strategy, slots: int) -> None:
        """So many trials share the work that is left."""
        self._strategy, self._workers = strategy, slots

    def on_trial(self, trial: int, candidate: Candidate, key: str) -> None:
        """Shows the candidate the search waits for, and how long the rest may take."""
        self._trial, self._candidate, self._key = trial, candidate, key
        if not self._bar.disable and self._work_done:
            ahead = self._strategy.ask() + self._strategy.look_ahead(_FORESIGHT, lambda _: None)
            work = sum(self._work(candidate) for candidate in ahead)
            seconds = work * self._seconds / self._work_done / self._workers
            self._left = f" | at most {tqdm.format_interval(seconds)} left"
            self._bar.n = self._work_done / (self._work_done + work)
        self._show()

    def on_epoch(self, key: str, metrics: dict[str, Any]) -> None:
        """An epoch has ended, of the trial that is waited for, of one trained ahead, or of the supernet."""
        if key == "supernet":
            self._show_supernet(metrics)
            return
        self._epochs[key] = metrics["epoch"]
        self._show()

    def on_replay(
        self, trial: int, candidate: Candidate, result: TrialResult, decision: Decision, note: str
    ) -> None:
        """Only counts: its line was written before the resume."""
        # What is compared with from now on may be worse than what came before: it was trained more briefly.
        best = 0.0 if decision == Decision.BASELINE else self._best
        self._best = max(best, result.accuracy)
        if result.status == "ok":
            self._work_done += self._work(candidate)
            self._seconds += result.seconds

    def on_decision(
        self, trial: int, candidate: Candidate, result: TrialResult, decision: Decision, note: str
    ) -> None:
        """One log line a trial."""
        self.on_replay(trial, candidate, result, decision, note)
        outcome = f"{result.accuracy:.2f} %" if result.status == "ok" else f"failed: {result.reason}"
        told = f": {note}" if note else ""
        text = f"trial {trial}: {describe(candidate)}: {outcome}, {decision}{told}"
        log.info("%s", text) if self._bar.disable else self._bar.write(text, file=sys.stderr)

    def on_end(self, result: Any) -> None:
        """Takes the bar off the screen."""
        self._bar.close()

    def _work(self, candidate: Candidate) -> float:
        # A candidate of 0 epochs is judged by a supernet: about a tenth of an epoch.
        return (candidate.budget.epochs or 0.1) * candidate.architecture.count_macs(self._image_size)

    def _show_supernet(self, metrics: dict[str, Any]) -> None:
        epochs = self._run.config.search.supernet.epochs
        told = f"supernet: epoch {metrics['epoch']} of {epochs}, loss {metrics['train_loss']:.4f}"
        self._bar.n = metrics["epoch"] / epochs
        log.info("%s", told) if self._bar.disable else self._bar.set_description_str(told)

    def _show(self) -> None:
        if self._candidate is None or self._bar.disable:
            return
        epoch = f", epoch {self._epochs[self._key]}" if self._key in self._epochs else ""
        self._bar.set_description_str(
            f"trial {self._trial}: {describe(self._candidate)}{epoch} | best {self._best:.2f} %{self._left}"
        )


class TrainingProgress(Callback):
    """A bar over the epochs of a full training."""

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs
        self._bar: Any = None

    def on_epoch(self, key: str, metrics: dict[str, Any]) -> None:
        """One epoch has ended."""
        if self._bar is None:
            done = metrics["epoch"] - 1
            self._bar = tqdm(total=self._epochs, initial=done, desc="train", unit="epoch", disable=None)
        told = f"loss {metrics['train_loss']:.4f}, train {metrics['train_accuracy']:.2f} %"
        if "accuracy" in metrics:  # of faces: on identities held out
            shown = {name: metrics[name] for name in ("verification", "agreement") if name in metrics}
            for name, value in (shown or {"verification": metrics["accuracy"]}).items():
                told += f", {name} {value:.2f} %"
        self._bar.set_postfix_str(told)
        self._bar.update()
        if self._bar.disable:
            log.info("epoch %d of %d: %s", metrics["epoch"], self._epochs, told)

    def on_end(self, result: Any) -> None:
        """Ends the bar's line."""
        if self._bar is not None:
            self._bar.close()


def describe(candidate: Candidate) -> str:
    """A candidate in a few words."""
    epochs = candidate.budget.epochs
    told = f", {epochs} epoch{'s' * (epochs != 1)}" if epochs else ""
    return f"{candidate.phase}, {candidate.reason}: {candidate.architecture.summary()}{told}"
