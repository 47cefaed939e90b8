"""Judging candidates more cheaply, for any strategy; its finalists are then trained alike, from scratch.

On a part of the images (`search.fidelity`), or for a few epochs from a neighbor's weights (`search.inherit`).
What is cheap may rank falsely: so the search ends with a phase in which the most promising networks are trained
by drawn weights, for as many epochs as its longest training, on the images that `fidelity.confirm` says.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from facenas.spaces.base import Architecture, fingerprint
from facenas.strategies.base import Budget, Candidate, Decision, Fidelity, Known, Strategy, TrialResult

CONFIRM = "confirm"  # the phase of the finalists


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
        if wanted := self.search.ask():
            self._told.append((wanted[0], result))
            decision = self.search.tell(result)
            self.note = self.search.note
            if not self.search.ask():
                self._finalists = self._chosen()
            return decision
        if not self.ask():
            raise RuntimeError("the search is over: nothing was asked for")
        best = max((done.accuracy for done in self._confirmed), default=-1.0)
        self._confirmed.append(result)
        kept = result.status == "ok" and result.accuracy > best
        self.note = "best finalist so far" if kept else "no better than another finalist"
        return Decision.KEPT if kept else Decision.REJECTED

    def look_ahead(self, count: int, known: Known) -> list[Candidate]:
        """As the search does; whose weights a candidate will begin with is not known ahead."""
        if not self.search.ask() or self.settings.inherit:
            return []
        ahead = self.search.look_ahead(count, lambda candidate: known(self._cheap(candidate)))
        return [self._cheap(candidate) for candidate in ahead]

    def result(self) -> dict[str, Any]:
        """What the search found, of its finalists the most accurate; `searched`: what it would have been else.

        `finalists`: each with its accuracy, and that in the search. Of a front, its members by their accuracy
        as finalists.
        """
        found = self.search.result()
        if len(self._confirmed) < len(self._finalists) or not self._finalists:
            return found
        ranked: list[dict[str, Any]] = [
            {
                "id": len(self._told) + number,
                "accuracy": done.accuracy,
                "search_accuracy": self._search_accuracy(candidate.architecture),
                "architecture": candidate.architecture.to_json(),
            }
            for number, (candidate, done) in enumerate(zip(self._finalists, self._confirmed, strict=True))
            if done.status == "ok"
        ]
        searched = {key: found[key] for key in ("architecture", "accuracy")}
        if not ranked:
            return found
        best = max(ranked, key=lambda one: one["accuracy"])
        told: dict[str, Any] = {"architecture": best["architecture"], "accuracy": best["accuracy"]}
        if "front" in found:
            told["front"] = _confirmed_front(found["front"], ranked, found["objectives"])
        protocol = dict(self._protocol(best["architecture"]))
        if protocol or "protocol" in found:  # that of another network may be told there
            told["protocol"] = protocol
        return found | told | {"searched": searched, "finalists": ranked}

    def _cheap(self, candidate: Candidate) -> Candidate:
        budget = replace(candidate.budget, data_fraction=self._fidelity.fraction)
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
        """The winner and the most accurate of trainings at least half as long as its own; or the front."""
        found = self.search.result()
        if found["architecture"] is None:
            return []
        architectures = {
            fingerprint(c.architecture.to_json()): c.architecture for c, r in self._told if r.status == "ok"
        }
        if "front" in found:
            wanted = [fingerprint(member["architecture"]) for member in found["front"]]
        else:
            winner = fingerprint(found["architecture"])
            long = max(
                c.budget.epochs for c, _ in self._told if fingerprint(c.architecture.to_json()) == winner
            )
            others = [
                (r.accuracy, fingerprint(c.architecture.to_json()))
                for c, r in self._told
                if r.status == "ok" and 2 * c.budget.epochs >= long
            ]
            ordered = [name for _, name in sorted(others, key=lambda one: -one[0])]
            wanted = list(dict.fromkeys([winner, *ordered]))[: self._fidelity.finalists]
        budget = Budget(max(c.budget.epochs for c, _ in self._told), self._fidelity.confirm)
        return [
            Candidate(
                architectures[name],
                budget,
                CONFIRM,
                "from scratch",
                self._protocol(architectures[name].to_json()),
            )
            for name in wanted
        ]

    def _protocol(self, architecture: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
        """That of the most accurate trial of the network."""
        of_it = [
            (r.accuracy, -n) for n, (c, r) in enumerate(self._told) if c.architecture.to_json() == architecture
        ]
        return self._told[-max(of_it)[1]][0].protocol if of_it else ()

    def _search_accuracy(self, architecture: Architecture) -> float:
        return max(r.accuracy for c, r in self._told if c.architecture == architecture)


def _confirmed_front(
    front: list[dict[str, Any]], ranked: list[dict[str, Any]], objectives: list[str]
) -> list[dict[str, Any]]:
    """The members with their accuracy as finalists, without those that another now dominates."""
    by_network = {fingerprint(one["architecture"]): one for one in ranked}
    members = []
    for member in front:
        if one := by_network.get(fingerprint(member["architecture"])):
            told = {"id": one["id"], "accuracy": one["accuracy"], "error": 100 - one["accuracy"]}
            members.append(member | told)

    def beaten(member: dict[str, Any]) -> bool:
        values = [member[name] for name in objectives]
        others = [[other[name] for name in objectives] for other in members if other is not member]
        return any(all(a <= b for a, b in zip(o, values, strict=True)) and o != values for o in others)

    return sorted((m for m in members if not beaten(m)), key=lambda m: -m["accuracy"])
