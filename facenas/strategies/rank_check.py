"""Before a search that trusts a supernet: does the supernet rank networks as training alone would?"""

from __future__ import annotations

import random
from typing import Any

from facenas.strategies.base import (
    Budget,
    Candidate,
    Decision,
    Known,
    Strategy,
    TrialResult,
)

SHARED, ALONE = "ranked by supernet", "ranked by training"
WEAK = 0.3  # below this Kendall's tau the ranking of the supernet is hardly better than chance


class RankCheck(Strategy):
    """The strategy: random networks first, judged by the supernet and then trained alone; then `search`.

    A candidate of 0 epochs is judged by the supernet.
    """

    def __init__(self, search: Strategy) -> None:
        super().__init__(search.settings)
        self.search, self.space, self.seed = search, search.space, search.seed
        settings = search.settings.supernet
        rng = random.Random(self.seed)
        networks = [self.space.sample(rng) for _ in range(settings.rank_networks)]
        alone = Budget(settings.rank_epochs)
        self._waiting = [Candidate(network, Budget(0), SHARED, "drawn") for network in networks]
        self._waiting += [Candidate(network, alone, ALONE, "drawn") for network in networks]
        self._accuracies: dict[str, list[float]] = {SHARED: [], ALONE: []}
        self._networks = networks

    def ask(self) -> list[Candidate]:
        """What is left to rank, and then what the search asks for."""
        return list(self._waiting) if self._waiting else self.search.ask()

    def tell(self, result: TrialResult) -> Decision:
        """Keeps the accuracy, or passes the result to the search."""
        if not self._waiting:
            decision = self.search.tell(result)
            self.note = self.search.note
            return decision
        candidate = self._waiting.pop(0)
        self._accuracies[candidate.phase].append(result.accuracy)
        self.note = "ranked"
        return Decision.BASELINE

    def look_ahead(self, count: int, known: Known) -> list[Candidate]:
        """The search's first candidates while the last networks are ranked."""
        if self._waiting:
            return self.search.ask()[:count]
        return self.search.look_ahead(count, known)

    def result(self) -> dict[str, Any]:
        """What the search found, with Kendall's tau-b (null when all accuracies are equal) and its networks."""
        shared, alone = self._accuracies[SHARED], self._accuracies[ALONE]
        done = len(alone)  # of a search that is stopped while it ranks
        pairs = zip(self._networks, shared, alone, strict=False)
        ranked = [
            {"accuracy_shared": shared, "accuracy_alone": alone, "architecture": network.to_json()}
            for network, shared, alone in pairs
        ]
        tau = kendall_tau(shared[:done], alone) if done > 1 else None
        result = self.search.result()
        before = 2 * len(self._networks)  # the search counts its own trials alone
        front = [{**member, "id": member["id"] + before} for member in result["front"]]
        return result | {"front": front, "tau": tau, "ranked": ranked}


def rank_warning(tau: float | None) -> str | None:
    """What speaks against a supernet of this tau (None: not defined), in one sentence; None if nothing does."""
    if tau is not None and tau >= WEAK:
        return None
    found = "is not defined, as all networks were equally accurate"
    if tau is not None:
        found = f"is {tau:.3g}, below {WEAK:g}"
    return (
        f"Kendall's tau {found}: the supernet's ranking of networks is hardly better than chance, and the "
        "front rests on it; train the supernet longer (search.supernet.epochs), or search without one."
    )


def kendall_tau(first: list[float], second: list[float]) -> float | None:
    """Kendall's tau-b of two rankings, -1..1; None when one of them ranks nothing."""
    from scipy.stats import kendalltau  # takes half a second to import

    tau = float(kendalltau(first, second).statistic)
    return tau if tau == tau else None
