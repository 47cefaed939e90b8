"""How far a supernet can be trusted: networks that it judged, beside the same networks trained alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

from facenas.report.reading import RunFolder
from facenas.report.records import Epoch, Trial
from facenas.report.wording import NBSP, many
from facenas.strategies.pareto import SupernetSettings as SupernetConfig
from facenas.strategies.rank_check import ALONE, SHARED, kendall_tau, rank_warning


@dataclass(frozen=True)
class Ranked:
    """A network by its two trials; ranks count from 1, and equal accuracies share the better one."""

    number: int
    shared: Trial
    alone: Trial
    rank_shared: int
    rank_alone: int


@dataclass(frozen=True)
class Trust:
    """What the run tells of its supernet, as far as it has come; `epochs` are those of its training."""

    settings: SupernetConfig
    epochs: tuple[Epoch, ...]
    ranked: tuple[Ranked, ...]

    @property
    def complete(self) -> bool:
        """Whether all networks are judged and trained."""
        return len(self.ranked) >= self.settings.rank_networks

    @cached_property
    def tau(self) -> float | None:
        """Kendall's tau-b of what is ranked so far; None when it is not defined."""
        shared = [one.shared.accuracy for one in self.ranked]
        return kendall_tau(shared, [one.alone.accuracy for one in self.ranked])

    @property
    def warning(self) -> str | None:
        """What to say before anything is taken from the front; None when nothing, or not yet."""
        return rank_warning(self.tau) if self.complete else None

    @property
    def meaning(self) -> str:
        """Kendall's tau in words; empty when it is not defined."""
        if self.tau is None:
            return ""
        alike, opposite, tied = self._pairs()
        pairs = many(alike + opposite + tied, "pair")
        told = f"Of {pairs} of networks it ranks {alike} alike and {opposite} the other way round"
        ties = f"; {tied} {'is a tie' if tied == 1 else 'are ties'}" if tied else ""
        return (
            "1 would mean that the supernet ranks networks as training alone does, 0 that its ranking is "
            f"chance. {told}{ties}. Chance alone gives 0{NBSP}±{NBSP}{_spread(len(self.ranked)):.2f} (one "
            f"standard deviation, {len(self.ranked)} networks)."
        )

    def _pairs(self) -> tuple[int, int, int]:
        """How many pairs are ranked alike, the other way round, and equally by one of the two."""
        signs = [
            (a.shared.accuracy - b.shared.accuracy) * (a.alone.accuracy - b.alone.accuracy)
            for a, b in combinations(self.ranked, 2)
        ]
        alike, opposite = sum(sign > 0 for sign in signs), sum(sign < 0 for sign in signs)
        return alike, opposite, len(signs) - alike - opposite


def read_trust(run: RunFolder) -> Trust | None:
    """Of the run's supernet; None when it has none."""
    settings = run.front_settings and run.front_settings.supernet
    if not settings:
        return None
    shared, alone = ([t for t in run.trials if t.phase == phase] for phase in (SHARED, ALONE))
    return Trust(settings, run.supernet_epochs, tuple(_ranked(shared, alone)))


def _ranked(shared: Sequence[Trial], alone: Sequence[Trial]) -> list[Ranked]:
    """Both phases try the same networks in the same order."""
    pairs = list(zip(shared, alone, strict=False))
    return [
        Ranked(
            number=number,
            shared=judged,
            alone=trained,
            rank_shared=1 + sum(other.accuracy > judged.accuracy for other, _ in pairs),
            rank_alone=1 + sum(other.accuracy > trained.accuracy for _, other in pairs),
        )
        for number, (judged, trained) in enumerate(pairs, start=1)
    ]


def _spread(count: int) -> float:
    """Standard deviation of tau between independent rankings without ties (M. G. Kendall, 1938)."""
    return float((2 * (2 * count + 5) / (9 * count * (count - 1))) ** 0.5)
