"""Joint search: the macro architecture and the protocol of its training, by moves in turn.

What "Efficient Global Neural Architecture Search" names as future work ("joint macro architecture and training
protocol search"). A network is judged by how it was trained: the learning rate that suits a shallow network may
hide what a deep one is worth. So a candidate is a depth, a width and a value of each setting of the protocol,
and each move changes one of them: one of the macro architecture, then one of the protocol, and so on.

All candidates train for as many epochs. The paper trains larger networks longer; here that would count what
longer training gives as the merit of depth, and a protocol found for one length is none for another.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from facenas.spaces.base import FACE
from facenas.strategies.base import (
    Budget,
    Candidate,
    Decision,
    Known,
    Strategy,
    StrategySettings,
    TrialResult,
    register,
)
from facenas.strategies.paired import better

CLASSIFICATION: dict[str, tuple[float, ...]] = {
    "lr": (0.0125, 0.025, 0.05, 0.1, 0.2),
    "weight_decay": (1e-4, 3e-4, 1e-3, 3e-3),
    "batch_size": (32, 64, 128, 256),
    "cutout": (0, 8, 12, 16, 20),
    "pad": (2, 4, 6),
    "color_jitter": (0.0, 0.2, 0.4),
    "label_smoothing": (0.0, 0.05, 0.1, 0.2),
}
FACES: dict[str, tuple[float, ...]] = {
    "lr": (0.0125, 0.025, 0.05, 0.1, 0.2),
    "head.margin": (0.2, 0.3, 0.4, 0.5),
    "head.h": (0.1, 0.2, 0.333, 0.5, 0.66),
    "weight_decay": (1e-4, 3e-4, 5e-4, 1e-3),
    "batch_size": (32, 64, 128, 256, 512),
    "crop": (0.0, 0.1, 0.2, 0.3, 0.4),
    "low_res": (0.0, 0.1, 0.2, 0.3, 0.4),
    "photometric": (0.0, 0.1, 0.2, 0.3, 0.4),
}

MACRO, PROTOCOL = "macro", "protocol"  # phases: which of the two a move changes


@dataclass
class Dimension:
    """One thing that moves change: `values` in order, the place of the best so far, and what was tried there.

    step: places that a move goes, halved once both directions have lost. ahead: the direction kept last;
    directions: those still to be tried. losses: moves not kept since the last one that was.
    """

    name: str
    values: Sequence[Any]
    place: int
    step: int = 1
    ahead: int = 1
    directions: list[int] = field(default_factory=lambda: [1, -1])
    losses: int = 0

    def target(self) -> int | None:
        """Where the next move goes; none when all were tried. Directions that lead nowhere are dropped."""
        while self.directions:
            place = min(max(self.place + self.directions[0] * self.step, 0), len(self.values) - 1)
            if place != self.place:
                return place
            self._drop()
        return None

    def kept(self, place: int) -> None:
        """The move was kept: go on in its direction."""
        self.place, self.ahead, self.losses = place, self.directions[0], 0
        self.directions = [self.ahead]

    def lost(self) -> None:
        """The move was not kept."""
        self.losses += 1
        self._drop()

    def again(self) -> None:
        """Something has changed: both directions are worth a try, first those that were not tried before."""
        self.directions += [way for way in (self.ahead, -self.ahead) if way not in self.directions]

    def _drop(self) -> None:
        """The other direction is next, then finer steps."""
        self.directions = self.directions[1:]
        if not self.directions and self.step > 1:
            self.step //= 2
            self.again()


def _macro(name: str, values: Sequence[int], place: int) -> Dimension:
    """The first step is an eighth to a quarter of the range, as a power of two."""
    return Dimension(name, values, place % len(values), max(1, 2 ** (len(values).bit_length() - 3)))


def _setting(name: str, values: Sequence[float], own: float | None) -> Dimension:
    """It begins with the recipe's own value, in its place; in the middle when there is no recipe."""
    ordered = sorted({*values, *([] if own is None else [own])})
    return Dimension(name, ordered, len(ordered) // 2 if own is None else ordered.index(own))


Judged = tuple[Candidate, TrialResult]


@register("joint")
class Joint(Strategy):
    """The strategy: from the space's start and the recipe's own protocol, one move after the other.

    A move is kept when it is better by paired comparison, with `confidence`, or when it makes the network
    smaller and is as good as the most accurate one kept, within noise. Settings whose moves have lost are tried
    after others. A round ends when all moves were tried since the last one kept. The next one begins with the
    best, trained again with other draws: unless it is kept by the same rule, beside the start of the round
    before, that round has found nothing, and the search is over. Else it ends after `trials`, of which the last
    is for the moves of a round that is under way.
    """

    class Settings(StrategySettings):
        """epochs: of every candidate. confidence: a high one finds smaller networks, a low one more accurate.

        protocol: settings of the recipe by dotted names, such as `lr` or `head.margin`, with the values that
        each may have; the recipe's own value is always one of them. null: `CLASSIFICATION` or `FACES` of
        `facenas.strategies.joint`, as far as the recipe has them.
        """

        epochs: int = Field(10, ge=1)
        trials: int = Field(60, ge=1)
        confidence: float = Field(0.6, ge=0.5, lt=1)
        protocol: dict[str, tuple[int | float, ...]] | None = None

    needs = ("at", "depths", "widths")

    _best: Judged
    _start: Judged  # of this round
    _most_accurate: TrialResult  # of those kept in this round
    _most_accurate_start: TrialResult  # of all rounds

    def begin(self) -> None:
        """Stands before the start: the space's, trained by the recipe as it is."""
        self._macro = [
            _macro("depth", self.space.depths(), 0),
            _macro("width", sorted(self.space.widths()), -1),
        ]
        self._protocol = [_setting(*one, self._own(one[0])) for one in self._allowed().items()]
        self._seen: frozenset[tuple[Any, ...]] = frozenset()  # of this round
        self._moves: tuple[dict[str, Any], ...] = ()
        self._told = self._round = 0
        self._move: tuple[Dimension, int] | None = None
        self._wanted: Candidate | None = self._candidate(MACRO, "start")
        self._begin_round((self._wanted, TrialResult(status="failed")))

    def ask(self) -> list[Candidate]:
        """The one move that is next, or nothing when the search is over."""
        return [self._wanted] if self._wanted else []

    def tell(self, result: TrialResult) -> Decision:
        """Keeps the move, or the last round, or not; chooses the next move."""
        if self._wanted is None:
            raise RuntimeError("the search is over: nothing was asked for")
        judged = self._wanted, result
        self._seen |= {_content(self._wanted)}
        self._told += 1
        kept, over = self._judge_move(judged) if self._move else self._judge_round(judged)
        left, last = self.settings.trials - self._told, self._wanted.phase
        if over or not left:
            self._wanted = None
        else:  # the last trial is for what this round has kept
            self._wanted = self._another_round() if left == 1 else self._next(last)
        return Decision.KEPT if kept else Decision.REJECTED

    def look_ahead(self, count: int, known: Known) -> list[Candidate]:
        """What comes next if no move is kept."""
        ahead, found = self._copy(), list[Candidate]()
        while ahead._wanted and len(found) <= count:
            found.append(ahead._wanted)
            ahead.tell(known(found[-1]) or TrialResult(status="failed"))
        return found[1:]

    def result(self) -> dict[str, Any]:
        """The best network, and the settings in which its protocol differs from the recipe's.

        `moves`: those kept, in order, by the number of their trial.
        """
        candidate, judged = self._best
        return {
            "architecture": candidate.architecture.to_json(),
            "accuracy": judged.accuracy,
            "protocol": dict(candidate.protocol),
            "moves": list(self._moves),
        }

    def _judge_move(self, judged: Judged) -> tuple[bool, bool]:
        """Whether it is kept, and whether the search is over."""
        assert self._move
        moved, place = self._move
        if not self._is_kept(judged, self._best, self._most_accurate):
            moved.lost()
            return False, False
        change = {"setting": moved.name, "from": moved.values[moved.place], "to": moved.values[place]}
        self._moves += ({"trial": self._told - 1, **change, "accuracy": judged[1].accuracy},)
        self._best = judged
        self._most_accurate = max(self._most_accurate, judged[1], key=lambda one: one.accuracy)
        moved.kept(place)
        self._try_again(besides=moved)
        return True, False

    def _judge_round(self, judged: Judged) -> tuple[bool, bool]:
        """Whether what the last round kept is worth it in this training too; else its moves are undone."""
        # Beside the most accurate start of all rounds: what each round loses within noise would add up, too.
        if self._round and not self._is_kept(judged, self._start, self._most_accurate_start):
            self._best, self._moves = self._start, self._moves[: self._moves_before]
            return False, True
        if not self._round:
            self.note = "what moves are compared with"
        self._begin_round(judged)
        return True, False

    def _begin_round(self, judged: Judged) -> None:
        self._best = self._start = judged
        before = self._most_accurate_start if self._round else judged[1]
        self._most_accurate_start = max(before, judged[1], key=lambda one: one.accuracy)
        self._most_accurate = judged[1]
        self._moves_before = len(self._moves)

    def _is_kept(self, judged: Judged, best: Judged, most_accurate: TrialResult) -> bool:
        """Whether it is better than `best`, or smaller and as good as the most accurate; notes why."""
        (candidate, result), confidence = judged, self.settings.confidence
        if result.status == "failed":
            self.note = "failed"
            return False
        chance = better(result, best[1])
        self.note = f"{chance:.0%} likely better"
        if chance >= confidence or _size(candidate) >= _size(best[0]):
            return bool(chance >= confidence)
        # Not with the best: of many small steps down, each may be within noise of the one before.
        chance = better(result, most_accurate)
        self.note = f"smaller; {chance:.0%} likely better"
        return bool(chance >= 1 - confidence)

    def _next(self, last: str) -> Candidate | None:
        """Macro architecture and protocol in turn, as long as both have moves left; then another round."""
        first, second = (MACRO, PROTOCOL) if last == PROTOCOL else (PROTOCOL, MACRO)
        if found := self._next_of(first) or self._next_of(second):
            return found
        return self._another_round()

    def _another_round(self) -> Candidate | None:
        """Begins with the best, trained again; none if the last round has kept nothing."""
        if len(self._moves) == self._moves_before:
            return None
        self._round, self._move, self._seen = self._round + 1, None, frozenset()
        self._try_again()
        return self._candidate(MACRO, f"round {self._round + 1}")

    def _next_of(self, phase: str) -> Candidate | None:
        """A move of that dimension whose moves have lost least often; none when all were tried."""
        dimensions = self._macro if phase == MACRO else self._protocol
        while found := [(one, place) for one in dimensions if (place := one.target()) is not None]:
            moved, place = self._move = min(found, key=lambda one: one[0].losses)
            reason = f"{moved.name} {moved.values[moved.place]} to {moved.values[place]}"
            candidate = self._candidate(phase, reason)
            if _content(candidate) not in self._seen:
                return candidate
            moved.lost()  # as it did when it was tried
        return None

    def _try_again(self, besides: Dimension | None = None) -> None:
        for dimension in (*self._macro, *self._protocol):
            if dimension is not besides:
                dimension.again()

    def _candidate(self, phase: str, reason: str) -> Candidate:
        """The best so far, or what the move makes of it."""

        def value(dimension: Dimension) -> Any:
            moved, place = self._move or (None, 0)
            return dimension.values[place if moved is dimension else dimension.place]

        architecture = self.space.at(*map(value, self._macro))
        chosen = [(one.name, value(one)) for one in self._protocol]
        differing = tuple((name, setting) for name, setting in chosen if setting != self._own(name))
        return Candidate(
            architecture, Budget(self.settings.epochs, repeat=self._round), phase, reason, differing
        )

    def _allowed(self) -> dict[str, tuple[float, ...]]:
        if self.settings.protocol is not None:
            return dict(self.settings.protocol)
        defaults = FACES if self.space.images.task == FACE else CLASSIFICATION
        return {n: values for n, values in defaults.items() if not self.recipe or self._own(n) is not None}

    def _own(self, name: str) -> Any:
        """The recipe's own value of a setting by its dotted name; None when there is none."""
        found: Any = self.recipe
        for part in name.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        return found

    def _copy(self) -> Joint:
        twin = copy.copy(self)
        twin._macro, twin._protocol, twin._move = copy.deepcopy((self._macro, self._protocol, self._move))
        return twin


def _content(candidate: Candidate) -> tuple[Any, ...]:
    return candidate.architecture, candidate.protocol


def _size(candidate: Candidate) -> int:
    return candidate.architecture.count_parameters()
