"""Published networks of nearly the size of ours, those trained on CASIA-WebFace first.

What a network was trained on moves it more than its design does: peers are told by their train set, and none is
compared with ours without it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from facenas.evaluation.benches import Published
from facenas.evaluation.benches.result import BenchResult
from facenas.report.evaluation_results import rows

FIRST = "CASIA-WebFace"  # the one set of the literature that a person can still get and train on in days
COUNT = 3  # networks of that set, and as many of others


@dataclass(frozen=True)
class Peer:
    """A published network; parameters, macs: absolute; values: in percent, by bench."""

    model: str
    trained_on: str
    parameters: float | None
    macs: float | None
    values: dict[str, float]
    source: str

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dict(vars(self))


def nearest(measured: Sequence[BenchResult], network: dict[str, Any]) -> list[Peer]:
    """Of those with figures on what was measured, the nearest in size of each kind of train set, or none.

    network: `parameters` and `macs`, as far as known.
    """
    sized = [(distance, peer) for peer in peers(measured) if (distance := _distance(peer, network)) is not None]
    ordered = [peer for _, peer in sorted(sized, key=lambda pair: pair[0])]
    groups = [[peer for peer in ordered if (peer.trained_on == FIRST) == first] for first in (True, False)]
    return [peer for group in groups for peer in group[:COUNT]]


def peers(measured: Sequence[BenchResult]) -> list[Peer]:
    """All networks that something is published of on a bench that was measured."""
    found: dict[tuple[str, str, str], tuple[Published, dict[str, float]]] = {}
    for result in measured:
        key = next((row.measure.key for row in rows(result) if row.published), "")
        for one in result.bench.published:
            if key in one.values:
                _, values = found.setdefault((one.model, one.trained_on, one.source), (one, {}))
                values[result.bench.name] = 100 * one.values[key]
    return [
        Peer(one.model, one.trained_on, _millions(one.parameters), _millions(one.macs), values, one.source)
        for one, values in found.values()
    ]


def sentences(measured: Sequence[BenchResult], shown: Sequence[Peer]) -> Iterator[str]:
    """What to know of figures that stand beside ours: of their bench, and of what was trained on its people."""
    for result in measured:
        bench = result.bench
        if bench.note:
            yield f"{bench.title}: {bench.note.strip()}"
        for name, overlap in bench.contained.items():
            others = ", ".join(
                sorted({peer.trained_on for peer in shown if bench.name in peer.values} - {name})
            )
            unknown = f" Of {others} it is not known here." if others else ""
            yield (
                f"{name} contains {100 * overlap.share:.2f} % of the identities of {bench.title} "
                f"({overlap.source}): figures of networks trained on it are too good.{unknown}"
            )


def _millions(value: float | None) -> float | None:
    return None if value is None else value * 1e6


def _distance(peer: Peer, network: dict[str, Any]) -> float | None:
    """How far apart in size, as the mean factor of parameters and MACs; None where neither is known of both."""
    pairs = [(getattr(peer, name), network.get(name)) for name in ("parameters", "macs")]
    factors = [abs(math.log(theirs / ours)) for theirs, ours in pairs if theirs and ours]
    return sum(factors) / len(factors) if factors else None
