"""Judging candidates more cheaply, for any strategy; its finalists are then trained alike, from scratch.

On a part of the images (`search.fidelity`), or for a few epochs from a neighbor's weights (`search.inherit`).
What is cheap may rank falsely: so the search ends with a phase in which the most promising networks are trained
by drawn weights, for as many epochs as its longest training, on the images that `fidelity.confirm` says.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from facenas.spaces import Architecture, from_json
from facenas.strategies.base import Budget, Candidate, Decision, Fidelity, Known, Strategy, TrialResult

CONFIRM = "confirm"  # the phase of the finalists

Network = tuple[Architecture, tuple[tuple[str, Any], ...]]  # with its protocol


class Finalists(Strategy):
    """The strategy: what `search` asks for, more cheaply; then its finalists, as they would be trained in full.

    `search` never knows: it is told results of what it asked for.
    """

    def __init__(self, search: Strategy) -> None:
        super().__init__(search.settings)
        self.search, self.space, self.seed = search, search.space, search.seed
        self._fidelity: Fidelity = search.settings.fidelity or Fidelity(fraction=1.0)
        self._told: list[tuple[Candidate, TrialResult]] = []  # what `search` asked for
        self._asked: dict[Candidate, Candidate] = {}  # of what it asks for now, how each is judged
        self._finalists: list[Candidate] = []
        self._of_front = False
        self._confirmed: list[TrialResult] = []

    def ask(self) -> list[Candidate]:
        """What the search wants, more cheaply; after its end the finalists that are left."""
        if wanted := self.search.ask():
            # Of many at once, the trials that are told meanwhile change no other's beginning.
            self._asked = {one: self._asked.get(one) or self._cheap(one) for one in wanted}
            return [self._asked[one] for one in wanted]
        return self._finalists[len(self._confirmed) :]

    def tell(self, result: TrialResult) -> Decision:
        """Passes the result to the search, or keeps that of a finalist."""
        if not self.ask():
            raise RuntimeError("the search is over: nothing was asked for")
        if wanted := self.search.ask():
            self._told.append((wanted[0], result))
            decision = self.search.tell(result)
            self.note = self.search.note
            if not self.search.ask():
                self._finalists = self._chosen()
            return decision
        best = max((done.accuracy for done in self._confirmed), default=-1.0)
        self._confirmed.append(result)
        if result.status == "failed" or result.accuracy <= best:
            self.note = "no better than another finalist"
            return Decision.REJECTED
        first = len(self._confirmed) == 1 and not self._of_front  # judged otherwise than all before
        self.note = "what finalists are compared with" if first else "best finalist so far"
        return Decision.BASELINE if first else Decision.KEPT

    def look_ahead(self, count: int, known: Known) -> list[Candidate]:
        """As the search does; whose weights a candidate will begin with is not known ahead."""
        if not self.search.ask() or self.settings.inherit:
            return []
        ahead = self.search.look_ahead(count, lambda candidate: known(self._cheap(candidate)))
        return [self._cheap(candidate) for candidate in ahead]

    def result(self) -> dict[str, Any]:
        """What the search found, of its finalists the most accurate; `searched`: what it would have been else.

        `finalists`: each with its accuracy, and that in the search; without those that failed. Of a front, its
        members by their accuracy as finalists.
        """
        found = self.search.result()
        if len(self._confirmed) < len(self._finalists) or not self._finalists:
            return found
        done = list(zip(self._finalists, self._confirmed, strict=True))
        ranked: list[dict[str, Any]] = [
            {
                "id": len(self._told) + number,
                "accuracy": result.accuracy,
                "search_accuracy": max(r.accuracy for c, r in self._told if _network(c) == _network(finalist)),
                "architecture": finalist.architecture.to_json(),
                **({"protocol": dict(finalist.protocol)} if finalist.protocol else {}),
            }
            for number, (finalist, result) in enumerate(done)
            if result.status == "ok"
        ]
        told: dict[str, Any] = {"finalists": ranked}
        told["searched"] = {key: found[key] for key in ("architecture", "accuracy", "protocol") if key in found}
        if not ranked:
            return found | told
        best = max(ranked, key=lambda one: one["accuracy"])
        told |= {"architecture": best["architecture"], "accuracy": best["accuracy"]}
        if "front" in found:
            told["front"] = _confirmed_front(found["front"], ranked, found["objectives"])
        if "protocol" in best or "protocol" in found:  # that of another network may be told there
            told["protocol"] = best.get("protocol", {})
        return found | told

    def _cheap(self, candidate: Candidate) -> Candidate:
        budget = candidate.budget
        budget = replace(budget, data_fraction=budget.data_fraction * self._fidelity.fraction)
        # What would train as briefly anyway is compared with others that begin with drawn weights, as it does.
        if self.settings.inherit and budget.epochs > self.settings.inherit:
            parent = self._parent(candidate.architecture)
            budget = replace(budget, epochs=self.settings.inherit if parent else budget.epochs)
            candidate = replace(candidate, parent=parent)
        return replace(candidate, budget=budget)

    def _parent(self, architecture: Architecture) -> str:
        """The trial of the largest network that `architecture` extends; none: it is trained from scratch."""
        fitting = [
            (candidate.architecture.count_parameters(), number)
            for number, (candidate, result) in enumerate(self._told)
            if result.status == "ok" and architecture.extends(candidate.architecture)
        ]
        return self._told[max(fitting)[1]][1].key if fitting else ""

    def _chosen(self) -> list[Candidate]:
        """The winner and the most accurate of trainings at least half as long as its own; or the front.

        All by draws of their own: the accuracy that they were chosen for is the luckiest of many.
        """
        found = self.search.result()
        trained = [(candidate, result) for candidate, result in self._told if result.status == "ok"]
        self._of_front = "front" in found
        if self._of_front:
            wanted: list[Network] = [(from_json(member["architecture"]), ()) for member in found["front"]]
        else:
            wanted = self._best(found, trained)
        budget = Budget(
            max((c.budget.epochs for c, _ in self._told), default=1),
            self._fidelity.confirm,
            1 + max((c.budget.repeat for c, _ in self._told), default=0),
        )
        return [Candidate(arch, budget, CONFIRM, "from scratch", protocol) for arch, protocol in wanted]

    def _best(self, found: dict[str, Any], trained: list[tuple[Candidate, TrialResult]]) -> list[Network]:
        """As many as there are to be finalists, the one that the search found first; none if that failed."""
        if found["architecture"] is None:
            return []
        winner = from_json(found["architecture"]), tuple(found.get("protocol", {}).items())
        lengths = [c.budget.epochs for c, _ in trained if _network(c) == winner]
        if not lengths:
            return []
        long = [(c, r) for c, r in trained if 2 * c.budget.epochs >= max(lengths)]
        ordered = sorted(long, key=lambda one: -one[1].accuracy)
        return list(dict.fromkeys([winner, *(_network(c) for c, _ in ordered)]))[: self._fidelity.finalists]


def _network(candidate: Candidate) -> Network:
    return candidate.architecture, candidate.protocol


def _confirmed_front(
    front: list[dict[str, Any]], ranked: list[dict[str, Any]], objectives: list[str]
) -> list[dict[str, Any]]:
    """The members with their accuracy as finalists, without those that another now beats."""
    import numpy as np

    from facenas.strategies.pareto import non_dominated

    by_network = {from_json(one["architecture"]): one for one in ranked}
    members = []
    for member in front:
        if one := by_network.get(from_json(member["architecture"])):
            told = {"id": one["id"], "accuracy": one["accuracy"], "error": 100 - one["accuracy"]}
            members.append(member | told)
    points = np.array([[member[name] for name in objectives] for member in members], np.float64)
    return [members[row] for row in non_dominated(points)] if members else []
