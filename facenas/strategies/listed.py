"""Networks of a list, trained alike: the yardstick by which what other strategies found is compared."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from facenas.config import Config
from facenas.errors import UserError
from facenas.spaces import Architecture, from_json
from facenas.strategies.base import (
    Budget,
    Candidate,
    Decision,
    Strategy,
    StrategySettings,
    TrialResult,
    register,
)


class ListedNetwork(Config):
    """A network as `Architecture.to_json` describes it, and settings in which its recipe differs."""

    architecture: dict[str, Any]
    protocol: dict[str, Any] = Field({})
    name: str = ""


@register("listed")
class Listed(Strategy):
    """The strategy: all networks of the list for `epochs`, `repeats` times each, whatever comes out.

    They are judged after the last epoch (`judge_last`). So with `data.select_on: test` this is a final
    training, also on a part of the images (`data.data_fraction`), that runs on all workers and is resumed as a
    search is.
    """

    class Settings(StrategySettings):
        """networks: what is trained, left out the space's start; repeats: of each, with draws of its own."""

        networks: tuple[ListedNetwork, ...] = ()
        epochs: int = Field(10, ge=1)
        repeats: int = Field(1, ge=1)
        judge_last: bool = True

    needs = ("start",)

    def begin(self) -> None:
        """Everything is asked for at once."""
        start = ListedNetwork(architecture=self.space.start().to_json())
        self._networks = self.settings.networks or (start,)
        self._architectures = [self._of(network) for network in self._networks]
        self._results: list[TrialResult] = []
        self._wanted = [
            Candidate(
                architecture,
                Budget(self.settings.epochs, repeat=repeat, judge_last=self.settings.judge_last),
                "listed",
                network.name or f"network {number + 1}",
                tuple((key, _frozen(value)) for key, value in network.protocol.items()),
            )
            for repeat in range(self.settings.repeats)
            for number, (network, architecture) in enumerate(
                zip(self._networks, self._architectures, strict=True)
            )
        ]

    def ask(self) -> list[Candidate]:
        """All that are left."""
        return self._wanted[len(self._results) :]

    def tell(self, result: TrialResult) -> Decision:
        """Kept: the most accurate training so far."""
        if not self.ask():
            raise RuntimeError("the search is over: nothing was asked for")
        best = max((told.accuracy for told in self._results), default=-1.0)
        self._results.append(result)
        self.note = "trained"
        return Decision.KEPT if result.status == "ok" and result.accuracy > best else Decision.REJECTED

    def result(self) -> dict[str, Any]:
        """The network of the best mean; `networks`: of each, the accuracies of its trainings, in order."""
        count = len(self._architectures)
        networks = []
        for number, (given, architecture) in enumerate(zip(self._networks, self._architectures, strict=True)):
            accuracies = [told.accuracy for told in self._results[number::count]]
            mean = sum(accuracies) / len(accuracies) if accuracies else 0.0
            told = {"name": given.name, "accuracy": mean, "accuracies": accuracies}
            networks.append({**told, "architecture": architecture.to_json(), "protocol": dict(given.protocol)})
        best = max(networks, key=lambda one: float(one["accuracy"]))
        protocol = {"protocol": best["protocol"]} if best["protocol"] else {}
        return {
            "architecture": best["architecture"],
            "accuracy": best["accuracy"],
            **protocol,
            "networks": networks,
        }

    def _of(self, network: ListedNetwork) -> Architecture:
        """As it is for the images of the space; raises UserError when it is none of the space's."""
        architecture = from_json(network.architecture)
        if not isinstance(architecture, self.space.Architecture):
            raise UserError(
                f"search.networks: {network.name or architecture.summary()} is of kind {architecture.kind}, "
                f"but the space of kind {self.space.name}"
            )
        adapted: Architecture = architecture.adapted(self.space.images)
        return adapted


def _frozen(value: Any) -> Any:
    """Candidates are looked up by what they are: a list of a recipe's settings is a tuple there."""
    return tuple(value) if isinstance(value, list) else value
