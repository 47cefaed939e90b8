"""What is told how a search or a full training goes: the base of progress bars and of trackers.

class Telegrams(facenas.Callback):
    def on_decision(self, trial, candidate, result, decision, note):
        send(f"trial {trial}: {result.accuracy:.2f} %, {decision}")

facenas.search("demo-digits", callbacks=[Telegrams()])
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from facenas.config import import_object
from facenas.errors import SearchStoppedError, UserError, first_line
from facenas.strategies import Candidate, Decision, Strategy, TrialResult

if TYPE_CHECKING:
    from facenas.runs.run import Run

log = logging.getLogger(__name__)

Work = Literal["search", "training"]

# Those that ship, by the name that `callbacks` takes.
SHIPPED = {"tensorboard": "facenas.runs.tensorboard:TensorBoard"}


class Callback:
    """Is told how a search or a full training goes; every method does nothing until it is overridden.

    Calls come from the process that runs the search, which waits for them; of several that train together
    under `torchrun`, from the first. What a callback raises is told in the log once for each method and kind of
    error, and stops nothing; but a SearchStoppedError stops the search, as Ctrl-C does. One that draws random
    numbers needs a generator of its own.
    """

    def on_begin(self, run: Run, work: Work) -> None:
        """A search or a full training begins, or goes on. run: has `folder`, `name`, `config` and `about`."""

    def on_search(self, strategy: Strategy, slots: int) -> None:
        """A search is about to ask for its first candidate; so many trials run at once.

        strategy: to be looked at (`ask`, `look_ahead`, `result`), never to be told.
        """

    def on_replay(
        self, trial: int, candidate: Candidate, result: TrialResult, decision: Decision, note: str
    ) -> None:
        """What was decided before a resume, in order: told for who builds on it, but nothing new.

        The arguments are those of `on_decision`, which is not called for it again, nor is `on_trial`.
        """

    def on_trial(self, trial: int, candidate: Candidate, key: str) -> None:
        """The search cannot go on without the result of this candidate.

        trial: its number in the journal; key: its trial key. It may be trained already, ahead of its turn.
        """

    def on_epoch(self, key: str, metrics: dict[str, Any]) -> None:
        """An epoch has ended. metrics: `epoch`, counted from 1, and what was measured, as in `metrics.jsonl`.

        key: the trial key, `supernet`, or `final` for a full training. A trial that was killed or whose worker
        died begins again at epoch 1; one that is trained ahead of its turn may never be decided on.
        """

    def on_decision(
        self, trial: int, candidate: Candidate, result: TrialResult, decision: Decision, note: str
    ) -> None:
        """A trial is decided on and stands in the journal. note: the decision in words, for people.

        `result.history` has all its epochs. A search that is resumed with other settings may decide on a trial
        anew, and tells it again.
        """

    def on_end(self, result: Any) -> None:
        """The end, after the report. result: what `facenas.search` or `train` returns; None: interrupted."""


# What a call takes: one or several, objects or names.
Given = Callback | str | Sequence[Callback | str]


class Callbacks(Callback):
    """Several as one: faults of theirs are told and go no further.

    `on_end` is passed on only when the work had begun: a run that was done already has nothing to tell.
    """

    def __init__(self, callbacks: Iterable[Callback]) -> None:
        self._callbacks = list(callbacks)
        self._faults: Counter[tuple[str, str, type]] = Counter()
        self._begun = False

    def on_begin(self, run: Run, work: Work) -> None:
        self._begun = True
        self._tell("on_begin", run, work)

    def on_search(self, strategy: Strategy, slots: int) -> None:
        self._tell("on_search", strategy, slots)

    def on_replay(
        self, trial: int, candidate: Candidate, result: TrialResult, decision: Decision, note: str
    ) -> None:
        for callback in self._callbacks:
            self._tell_one(callback, "on_replay", trial, candidate, _copied(result), decision, note)

    def on_trial(self, trial: int, candidate: Candidate, key: str) -> None:
        self._tell("on_trial", trial, candidate, key)

    def on_epoch(self, key: str, metrics: dict[str, Any]) -> None:
        for callback in self._callbacks:
            self._tell_one(callback, "on_epoch", key, dict(metrics))

    def on_decision(
        self, trial: int, candidate: Candidate, result: TrialResult, decision: Decision, note: str
    ) -> None:
        for callback in self._callbacks:
            self._tell_one(callback, "on_decision", trial, candidate, _copied(result), decision, note)

    def on_end(self, result: Any) -> None:
        if not self._begun:
            return
        self._tell("on_end", result)
        for (name, method, kind), times in self._faults.items():
            if times > 1:
                log.warning("callback %s: %s failed %d times (%s)", name, method, times, kind.__name__)

    def _tell(self, method: str, *arguments: Any) -> None:
        for callback in self._callbacks:
            self._tell_one(callback, method, *arguments)

    def _tell_one(self, callback: Callback, method: str, *arguments: Any) -> None:
        try:
            getattr(callback, method)(*arguments)
        except Exception as error:
            # At the end there is nothing left to stop.
            if isinstance(error, SearchStoppedError) and method != "on_end":
                raise
            self._fault(type(callback).__name__, method, error)

    def _fault(self, name: str, method: str, error: Exception) -> None:
        """A tracker whose server is down costs no search of days, but nobody should wonder where values are."""
        fault = name, method, type(error)
        self._faults[fault] += 1
        log.debug("callback %s: %s failed", name, method, exc_info=error)
        if self._faults[fault] == 1:
            log.warning(
                "callback %s: %s failed (%s: %s); the work goes on without it (--debug shows the traceback)",
                name, method, type(error).__name__, first_line(error),
            )  # fmt: skip


def _copied(result: TrialResult) -> TrialResult:
    """What a callback may change: the result itself goes into the journal."""
    history = [dict(epoch) for epoch in result.history]
    return replace(result, history=history, values=dict(result.values), facts=dict(result.facts))


def build_callbacks(names: Sequence[str], given: Given) -> list[Callback]:
    """Those that a run names (`tensorboard`, `module:Class`), made without arguments, and those that are given.

    Raises UserError for a name that is unknown, a class that cannot be made, and what is no callback.
    """
    objects = [_checked(one, repr(one)) for one in _several(given) if not isinstance(one, str)]
    return [*map(_named, with_names(names, given)), *objects]


def with_names(names: Sequence[str], given: Given) -> tuple[str, ...]:
    """`names`, and those among `given` that are names: what `run.yaml` keeps."""
    return tuple(dict.fromkeys([*names, *(one for one in _several(given) if isinstance(one, str))]))


def _several(given: Given) -> Sequence[Callback | str]:
    return [given] if isinstance(given, Callback | str) else given


def _named(name: str) -> Callback:
    if name not in SHIPPED and ":" not in name:
        known = ", ".join(SHIPPED)
        raise UserError(f"callback {name!r} is unknown; there is {known}, or one's own as module:Class")
    build = import_object(SHIPPED.get(name, name), "callback")
    try:
        return _checked(build(), name)
    except UserError:
        raise
    except Exception as error:
        fault = f"{type(error).__name__}: {first_line(error)}"
        raise UserError(f"callback {name}: cannot be made without arguments ({fault})") from error


def _checked(thing: Any, told: str) -> Callback:
    if not isinstance(thing, Callback):
        raise UserError(f"callback {told}: is no object of a class derived from facenas.Callback")
    return thing
