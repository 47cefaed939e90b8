"""The seam between a search strategy and everything that runs it.

A strategy is a pure state machine: it says which candidates it wants judged next and is told the
results. It never trains, never touches the disk, never draws from a global random source. Resume,
replay and speculation all rest on that: a strategy built anew and told the same results in the same
order asks for the same candidates.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from pydantic import Field

from facenas.config import Config, Registry, validate
from facenas.errors import UserError
from facenas.spaces.base import SPACES, Architecture


@dataclass(frozen=True)
class Budget:
    """What a candidate may cost: epochs, and the part (0..1) of the training images that it sees.

    repeat: which of several trainings alike this is, each with draws of its own; their mean is less noisy.
    judge_last: whether it is judged after its last epoch alone, so that no epoch is chosen by what it is judged
    on, in place of after each.
    """

    epochs: int
    data_fraction: float = 1.0
    repeat: int = 0
    judge_last: bool = False


@dataclass(frozen=True)
class Candidate:
    """An architecture to be judged, at what budget, and why it is proposed.

    phase: part of the search that it belongs to; reports group by it in order of appearance.
    reason: for people. protocol: settings of the recipe, by their dotted names, in which its training differs
    from the run's. parent: key of the trial whose weights it begins with; none: they are drawn.
    """

    architecture: Architecture
    budget: Budget
    phase: str
    reason: str
    protocol: tuple[tuple[str, Any], ...] = ()
    parent: str = ""


@dataclass(frozen=True)
class TrialResult:
    """What came of a trial. Accuracies in percent, the best over the epochs; 0 when it failed.

    key: the trial key, filled in by whoever ran it. values: what else was measured, by name, such as
    `latency` in milliseconds for one image. right_bits: hex of numpy.packbits over the validation images
    (of faces: pairs) in order, 1 where the best epoch was right; `validated` says how many there are.
    facts: of a trial on a GPU, where its images were and how many bytes they took.
    """

    key: str = ""
    status: Literal["ok", "failed"] = "ok"
    reason: str | None = None
    accuracy: float = 0.0
    train_accuracy: float = 0.0
    correct: int = 0
    validated: int = 0
    images: int = 0
    seconds: float = 0.0
    threads: int = 1
    history: list[dict[str, Any]] = field(default_factory=list)
    right_bits: str = ""
    values: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `TrialResult(**tree)` is the inverse."""
        return asdict(self)


class Decision(StrEnum):
    """What became of a candidate: best (or on the front) so far, not so, or what others are compared with."""

    KEPT = "kept"
    REJECTED = "rejected"
    BASELINE = "baseline"


class Fidelity(Config):
    """How candidates are judged more cheaply: on `fraction` of the training images.

    At the end, `finalists` networks (of a front, all its members) are trained on the part `confirm`.
    """

    fraction: float = Field(gt=0, le=1)
    confirm: float = Field(1.0, gt=0, le=1)
    finalists: int = Field(2, ge=1)


class StrategySettings(Config):
    """What every strategy has.

    max_failures: trials in a row that may fail before the search stops. fidelity: candidates see a part of the
    images. inherit: epochs for which a candidate trains that begins with the weights of a smaller one, by a
    change that keeps what that computes; null: all are trained from scratch. With either, finalists are trained
    from scratch in the end (`facenas.strategies.finalists`).
    """

    max_failures: int = Field(3, ge=1)
    fidelity: Fidelity | None = None
    inherit: int | None = Field(None, ge=1)


STRATEGIES: Registry[Strategy] = Registry("strategy", "facenas.strategies")
register = STRATEGIES.register

# The result of a candidate that was judged before its turn, or None.
Known = Callable[[Candidate], TrialResult | None]


class Strategy:
    """Base of all strategies: ask, tell, look ahead.

    A subclass has its own `Settings`, and says in `needs` what it calls of a space (`start`, `mutate`, ...), in
    `revisable` which settings may turn decisions that were taken, when a run goes on with others.
    Built from settings alone, it is bound to a space and a seed before the first `ask`; `begin` then sets up
    its state: `self.settings`, `self.space` and `self.seed` are there, and `self.recipe`, the settings by which
    candidates train as JSON (empty where no run says so). Told the same results, it must ask for
    the same candidates: draw from `random.Random(self.seed)`, never from the global generator.
    """

    Settings: ClassVar[type[Config]] = StrategySettings
    needs: ClassVar[tuple[str, ...]] = ()
    revisable: ClassVar[tuple[str, ...]] = ()
    name: ClassVar[str] = ""  # given by the registry

    note: str = ""  # the last decision in words, for people; nothing compares or parses it
    recipe: Mapping[str, Any] = MappingProxyType({})
    space: Any
    seed: int

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        STRATEGIES.name_of(cls)  # gives it settings of its own that know it, in whatever process it is imported

    def __init__(self, settings: Config | None = None, **values: Any) -> None:
        """From settings, or from their keys as arguments; raises UserError for a wrong key or value."""
        if settings is None:
            settings = validate(self.Settings, values, f"strategy {type(self).__name__}")
        self.settings: Any = settings

    @classmethod
    def check(cls, settings: Config, space: Any) -> None:
        """Whether `space`, a space or its class, has what the strategy needs; raises UserError when not."""
        missing = [name for name in cls.needs if not hasattr(space, name)]
        if missing:
            spaces = [SPACES.get(name) for name in SPACES.names()]
            fitting = [one.name for one in spaces if all(hasattr(one, name) for name in cls.needs)]
            takes = f"; {cls.name} takes spaces of kind {', '.join(fitting)}" * bool(fitting)
            raise UserError(
                f"a space of kind {space.name} cannot be searched by {cls.name}: it has no "
                f"{', '.join(missing)}{takes}"
            )
        if getattr(settings, "inherit", None) and space.Architecture.extends is Architecture.extends:
            raise UserError(
                f"search.inherit: a network of kind {space.name} cannot begin with the weights of a smaller one"
            )

    def bind(self, space: Any, seed: int) -> Strategy:
        """A strategy at its start, over `space`; `seed` decides all its draws. Raises UserError as `check`."""
        self.check(self.settings, space)
        begun = self.begun(space, seed)
        if getattr(self.settings, "fidelity", None) or getattr(self.settings, "inherit", None):
            from facenas.strategies.finalists import Finalists

            return Finalists(begun)
        return begun

    def begun(self, space: Any, seed: int) -> Strategy:
        """The strategy itself at its start, as it would be without `fidelity` and `inherit`."""
        begun = copy.copy(self)
        begun.space, begun.seed = space, seed
        begun.begin()
        return begun

    def begin(self) -> None:
        """Sets up the state, once, before the first `ask`."""

    def ask(self) -> list[Candidate]:
        """Candidates wanted next; the same answer until they are told. Empty: the search is over."""
        raise NotImplementedError

    def tell(self, result: TrialResult) -> Decision:
        """The result of the first candidate asked for; a failed one has accuracy 0 and status "failed"."""
        raise NotImplementedError

    def look_ahead(self, count: int, known: Known) -> list[Candidate]:
        """Up to `count` candidates that it would ask for after those of `ask`: idle workers judge them early.

        Under the results that are `known` already, and likely ones for the others. A wrong guess costs time,
        never a result; without foresight, none.
        """
        return []

    def result(self) -> dict[str, Any]:
        """The best found so far as plain JSON values: at least `architecture` (`to_json()`) and `accuracy`.

        A search for a Pareto front also tells `objectives` (names) and `front` (members with `id`, the number
        of their trial, `accuracy`, each objective, and `architecture`). `architecture` None: nothing kept
        the limits.
        """
        raise NotImplementedError


STRATEGIES.base = Strategy
