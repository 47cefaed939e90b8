"""What searches over chains of layers, or of blocks, share: one candidate at a time, swaps in place.

A subclass writes its search as a generator: a `yield` asks for a candidate to be trained and returns its
result.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Any, Self

from facenas.spaces.plain import PLAIN
from facenas.strategies.base import Budget, Candidate, Decision, Known, Strategy, TrialResult

# Accuracies logged by others carry float32 rounding of up to 1e-5 points; one image in a million is 1e-4.
EPSILON = 5e-5

Steps = Generator[Candidate, TrialResult, None]


class ChainSearch(Strategy):
    """Base of `MacroMicro` and `Trend`: the machine around `_search`, a generator of candidates.

    The space says which depths and widths there are (`depths`, `widths`, `at`) and what micro search swaps in
    (`swap_operation`, `swap_kernel`); its architectures are chains of layers, or of blocks (`unit`).
    """

    needs = ("start", "at", "depths", "widths", "swap_operation", "swap_kernel", "unit")

    def begin(self) -> None:
        """Stands before the first candidate."""
        self.best = self.space.start()
        self.best_result = TrialResult()
        self.macro_accuracy: float | None = None
        self.macro_width = self.best.width
        self.macro_epochs = self.settings.min_epochs
        self._decision = Decision.REJECTED
        self._told: list[TrialResult] = []
        self._steps = self._search()
        self._wanted: Candidate | None = next(self._steps)

    def ask(self) -> list[Candidate]:
        """The one candidate whose result decides what comes next, or nothing when the search is over."""
        return [self._wanted] if self._wanted else []

    def tell(self, result: TrialResult) -> Decision:
        """Goes on with the result of the candidate asked for."""
        if self._wanted is None:
            raise RuntimeError("the search is over: nothing was asked for")
        self._told.append(result)
        try:
            self._wanted = self._steps.send(result)
        except StopIteration:
            self._wanted = None
        return self._decision

    def look_ahead(self, count: int, known: Known) -> list[Candidate]:
        """What comes next if all goes as it is likely to, such as that replacements are rejected."""
        ahead = self._copy()
        found: list[Candidate] = []
        while ahead._wanted and len(found) <= count:
            found.append(ahead._wanted)
            ahead.tell(known(found[-1]) or ahead._likely(found[-1]))
        return found[1:]

    def result(self) -> dict[str, Any]:
        """The best network so far; the `macro_` values are those that macro search ended with, once it has."""
        return {
            "architecture": self.best.to_json(),
            "accuracy": self.best_result.accuracy,
            **({} if self.macro_accuracy is None else {"macro_accuracy": self.macro_accuracy}),
            "macro_width": self.macro_width,
            "macro_epochs": self.macro_epochs,
        }

    def _search(self) -> Steps:
        """The whole search; `_take` and `_reject` say what becomes of each candidate."""
        raise NotImplementedError

    def _likely(self, candidate: Candidate) -> TrialResult:
        """What is likely to come of a candidate."""
        raise NotImplementedError

    def _baseline(self, phase: str = "ops", repeat: int = 0) -> Steps:
        """Candidates of micro search train briefly: so the macro network is trained anew, as briefly.

        phase: the first of micro search.
        """
        budget = Budget(self.settings.micro_epochs, repeat=repeat)
        candidate = Candidate(self.best, budget, phase, "baseline")
        self._take(self.best, (yield candidate))
        self._decision, self.note = Decision.BASELINE, "what swaps are compared with"

    def _swapped(self, arch: Any, base: Any, phase: str, layers: Iterable[int]) -> Any:
        """`arch` with another operation, or kernel, in `layers`: as wide as the parameters of `base` allow."""
        for layer in layers:
            if phase == "ops":
                arch = arch.with_operation(layer, self.space.swap_operation)
            else:
                arch = arch.with_kernel(layer, self.space.swap_kernel)
        return self._fitted(arch.with_width(base.width), base.count_parameters())

    def _what(self, phase: str) -> str:
        """What is swapped in, for people."""
        if phase == "kernels":
            return f"kernel {self.space.swap_kernel}"
        return "plain convolution" if self.space.swap_operation == PLAIN else "separable convolution"

    def _fitted(self, arch: Any, parameters: int) -> Any:
        """As wide as `parameters` allow: a costlier network is narrowed, a cheaper one widened."""
        most = parameters + self.settings.param_slack
        if arch.count_parameters() < parameters:
            while arch.width < self.space.settings.max_width:
                wider = arch.with_width(arch.width + 1)
                if wider.count_parameters() > most:
                    break
                arch = wider
        while arch.width > 1 and arch.count_parameters() > most:
            arch = arch.with_width(arch.width - 1)
        return arch

    def _take(self, arch: Any, result: TrialResult) -> None:
        self.best, self.best_result = arch, result
        self._decision, self.note = Decision.KEPT, "best so far"

    def _reject(self, note: str) -> None:
        self._decision, self.note = Decision.REJECTED, note

    def _copy(self) -> Self:
        """A second machine in the same state: a generator cannot be copied, but it can be told again."""
        twin = self.begun(self.space, self.seed)
        for result in self._told:
            twin.tell(result)
        assert isinstance(twin, type(self))
        return twin
