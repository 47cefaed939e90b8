"""How well brief trainings, sizes, and trainings that fit the size rank networks.

"Efficient Global Neural Architecture Search", section 3.2: 240 random networks, 50 epochs of CIFAR-10. Static
ranking: all by their accuracy after the same few epochs. Dynamic: sorted by parameters, the k-th trained for k
epochs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from facenas.config import Config
from facenas.errors import UserError, counted
from facenas.runs import Run
from facenas.runs.config import RunConfig
from facenas.runs.journal import read_journal
from facenas.runs.search_log import read_results
from facenas.spaces import from_json
from facenas.studies.base import Conduct, Member, Study, register, strategy, varied
from facenas.studies.findings import (
    Chart,
    Findings,
    Floats,
    Interval,
    Series,
    Table,
    bootstrap,
    kendall,
    spearman,
)

# Spearman's, as published; of the dynamic ranking against the final one, and of parameters against it.
PUBLISHED = {"epoch 1": 0.65, "parameters": 0.49, "dynamic": 0.85, "parameters and dynamic": 0.91}
PUBLISHED_RANGE = (76.11, 94.65)
BY_SIZE = "parameters and dynamic"
CHOICES = 30  # of as many networks as epochs, out of each sample of the networks
Numbers = NDArray[np.int64]
Pair = tuple[Interval, Interval]  # Spearman's and Kendall's


@dataclass(frozen=True)
class Trained:
    """Networks trained in full: (n, epochs) accuracies in percent after each epoch, (n,) sizes and shapes.

    agreements: (n, epochs) with a teacher, in percent, where they had one.
    """

    accuracies: Floats
    parameters: Floats
    macs: Floats
    shapes: tuple[str, ...] = ()
    agreements: Floats | None = None

    @property
    def final(self) -> Floats:
        """(n,) accuracies after the last epoch."""
        return self.accuracies[:, -1]

    @property
    def epochs(self) -> int:
        """Of each training."""
        return int(self.accuracies.shape[1])


@register("ranking")
class Ranking(Study):
    """The study: `networks` random networks, all trained alike."""

    class Settings(Config):
        """networks: how many; epochs: of each; draws: samples of the networks, for the intervals."""

        networks: int = Field(40, ge=4)
        epochs: int = Field(12, ge=2)
        draws: int = Field(500, ge=10)

    title = "How brief trainings and sizes rank networks"

    def conduct(self, config: RunConfig, facts: dict[str, Any]) -> Conduct:
        """One random search in one generation."""
        wanted = {"population": self.settings.networks, "generations": 1, "epochs": self.settings.epochs}
        run = yield Member("networks", varied(config, search=strategy("random", **wanted)))
        return findings(read_trained(run), self.settings.draws, config.seed)


def read_trained(run: Run) -> Trained:
    """From a run's journal, without failed trainings; raises UserError for fewer than four networks."""
    lines, results = read_journal(run.folder / "trials.jsonl"), read_results(run.folder)
    kept = [(line, result) for line, result in zip(lines, results, strict=True) if result.status == "ok"]
    if len(kept) < 4:
        raise UserError(f"{run.folder}: {len(kept)} trainings succeeded, too few to rank; look at its failures")
    histories = [result.history for _, result in kept]
    taught = all("agreement" in epoch for history in histories for epoch in history)
    return Trained(
        # With a teacher, pairs tell how accurate a network is also where it is judged by agreement.
        np.array(
            [[epoch.get("verification", epoch["accuracy"]) for epoch in history] for history in histories]
        ),
        np.array([float(line["parameters"]) for line, _ in kept]),
        np.array([float(line["macs"]) for line, _ in kept]),
        tuple(from_json(line).summary() for line, _ in kept),
        np.array([[epoch["agreement"] for epoch in history] for history in histories]) if taught else None,
    )


def findings(trained: Trained, draws: int, seed: int) -> Findings:
    """Correlations of every ranking with the final one, as tables, charts and sentences."""
    by_epoch = [correlation(trained, scores, draws, seed) for scores in trained.accuracies.T[:-1]]
    agreements = () if trained.agreements is None else trained.agreements.T
    by_agreement = [correlation(trained, scores, draws, seed) for scores in agreements]
    sizes = {
        "parameters": correlation(trained, trained.parameters, draws, seed),
        "MACs": correlation(trained, trained.macs, draws, seed),
    }
    dynamic = dynamic_ranking(trained, draws, seed)
    low, high = float(trained.final.min()), float(trained.final.max())
    first = by_epoch[0][0]
    count, epochs = len(trained.final), trained.epochs
    return Findings(
        summary=(
            f"{count} networks, trained for {counted(epochs, 'epoch')}, reach {low:.2f} to {high:.2f} % "
            f"(paper, on CIFAR-10: {PUBLISHED_RANGE[0]} to {PUBLISHED_RANGE[1]} %).",
            f"Spearman's correlation with the final accuracy: after one epoch {first} (paper 0.65), of the "
            f"parameters {sizes['parameters'][0]} (0.49), of the dynamic ranking {dynamic['dynamic'][0]} "
            f"(0.85); of parameters with the dynamic accuracies {dynamic['parameters and dynamic'][0]} (0.91).",
            *_agreement_told(by_epoch, by_agreement),
        ),
        tables=(_table(by_epoch, by_agreement, sizes, dynamic), _networks(trained)),
        charts=_charts(trained, by_epoch, by_agreement),
        values={
            "networks": count,
            "epochs": epochs,
            "accuracies": [low, high],
            "static": [_json(*one) for one in by_epoch],
            **({"agreement": [_json(*one) for one in by_agreement]} if by_agreement else {}),
            **{name: _json(*one) for name, one in {**sizes, **dynamic}.items()},
        },
    )


def _agreement_told(by_epoch: list[Pair], by_agreement: list[Pair]) -> list[str]:
    """Beside the accuracy after as many epochs, half of all."""
    if not by_agreement:
        return []
    middle = len(by_epoch) // 2
    epochs, accuracy = counted(middle + 1, "epoch"), by_epoch[middle][0]
    return [
        f"Of the agreement with the teacher after {epochs} {by_agreement[middle][0]} (of the accuracy then: "
        f"{accuracy}); after the last one {by_agreement[-1][0]}."
    ]


Measure = Callable[[Floats, Floats], Any]


def correlation(trained: Trained, scores: Floats, draws: int, seed: int) -> Pair:
    """Of scores with the final accuracies, by Spearman and by Kendall; intervals over samples of networks."""

    def of(measure: Measure) -> Interval:
        return bootstrap(
            lambda some: measure(scores[some], trained.final[some]), len(trained.final), seed, draws
        )

    return of(spearman), of(kendall)


def dynamic_ranking(trained: Trained, draws: int, seed: int) -> dict[str, Pair]:
    """Of as many networks as there are epochs, sorted by parameters, the k-th is known after k epochs.

    With more networks than epochs, the mean over `draws` random choices; its intervals are over `draws` samples
    of the networks, of each the mean over 30 choices.
    """
    n = len(trained.final)

    def of(scores: str, measure: Measure) -> Interval:
        rng = np.random.default_rng([seed, 1])

        def mean(some: Numbers, choices: int = CHOICES) -> float:
            distinct, counts = np.unique(some, return_counts=True)  # no network is trained twice
            waits = rng.exponential(size=(choices, len(distinct))) / counts
            chosen = distinct[np.argsort(waits, axis=1)[:, : trained.epochs]]
            found = measure(*_dynamic(trained, chosen)[scores])
            return float(found[np.isfinite(found)].mean()) if np.isfinite(found).any() else np.nan

        return replace(bootstrap(mean, n, seed, draws), value=mean(np.arange(n), draws))

    return {scores: (of(scores, spearman), of(scores, kendall)) for scores in ("dynamic", BY_SIZE)}


def _dynamic(trained: Trained, chosen: Numbers) -> dict[str, tuple[Floats, Floats]]:
    """What is correlated with what, of (choices, networks) numbers of networks."""
    order = np.argsort(trained.parameters[chosen], axis=1, kind="stable")
    ordered = np.take_along_axis(chosen, order, axis=1)
    known = trained.accuracies[ordered, np.arange(ordered.shape[1])]
    return {"dynamic": (known, trained.final[ordered]), BY_SIZE: (trained.parameters[ordered], known)}


def _json(rho: Interval, tau: Interval) -> dict[str, Any]:
    return {"spearman": rho.to_json(), "kendall": tau.to_json()}


def _table(
    by_epoch: list[Pair], by_agreement: list[Pair], sizes: dict[str, Pair], dynamic: dict[str, Pair]
) -> Table:
    named = {f"accuracy after epoch {n}": one for n, one in enumerate(by_epoch, start=1)}
    named |= {f"agreement after epoch {n}": one for n, one in enumerate(by_agreement, start=1)}
    named |= sizes | {"dynamic: the k-th by parameters after k epochs": dynamic["dynamic"]}
    named |= {"parameters, with the dynamic accuracies": dynamic["parameters and dynamic"]}
    published = {
        "accuracy after epoch 1": PUBLISHED["epoch 1"],
        "parameters": PUBLISHED["parameters"],
        "dynamic: the k-th by parameters after k epochs": PUBLISHED["dynamic"],
        "parameters, with the dynamic accuracies": PUBLISHED["parameters and dynamic"],
    }
    rows = tuple((name, str(rho), str(tau), published.get(name)) for name, (rho, tau) in named.items())
    return Table(
        "correlations",
        "Rank correlation with the accuracy after the last epoch",
        ("ranked by", "Spearman", "Kendall", "paper (CIFAR-10, Spearman)"),
        rows,
        "In brackets the 95 % interval over samples of the networks.",
    )


def _networks(trained: Trained) -> Table:
    shapes = trained.shapes or [None] * len(trained.final)
    sizes = [trained.parameters.astype(int).tolist(), trained.macs.astype(int).tolist()]
    rows = [*zip(range(len(shapes)), shapes, *sizes, trained.accuracies[:, 0], trained.final, strict=True)]
    rows.sort(key=lambda row: -row[-1])
    columns = ("network", "shape", "parameters", "MACs", "after epoch 1, %", "after the last epoch, %")
    return Table("networks", "All networks, the most accurate first", columns, tuple(rows))


def _charts(trained: Trained, by_epoch: list[Pair], by_agreement: list[Pair]) -> tuple[Chart, ...]:
    curves = [_curve("Spearman", by_epoch, 0), _curve("Kendall", by_epoch, 1)]
    curves += [_curve("Spearman, agreement", by_agreement, 0)] if by_agreement else []
    paper = Series("paper (CIFAR-10), after epoch 1", (1.0,), (PUBLISHED["epoch 1"],))
    final = tuple(trained.final.tolist())
    text = trained.shapes or tuple(f"network {n}" for n in range(len(final)))
    sized = Series("networks", tuple(trained.parameters.tolist()), final, text=text)
    early = Series("networks", tuple(trained.accuracies[:, 0].tolist()), final, text=text)
    last = "accuracy after the last epoch, %"
    return (
        Chart("static", "Static ranking", "epoch", "rank correlation with the last", (*curves, paper)),
        Chart("parameters", "Size and accuracy", "parameters", last, (sized,), log_x=True),
        Chart("early", "The first epoch and the last", "accuracy after epoch 1, %", last, (early,)),
    )


def _curve(name: str, by_epoch: list[Pair], kind: int) -> Series:
    """One of the correlations of each pair, epoch by epoch, with its interval."""
    found = [pair[kind] for pair in by_epoch]
    epochs = tuple(float(n) for n in range(1, len(found) + 1))
    low, high = zip(*(one.ends for one in found), strict=True)
    return Series(name, epochs, tuple(one.value for one in found), "line", low, high)
