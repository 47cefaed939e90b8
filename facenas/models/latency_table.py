"""Latencies that a target has measured (`latency.json` of `facenas latency export`), for a whole space.

A network that was measured whole has what was measured. Of any other the blocks are summed, each without the
time of a session that does nothing. A block takes less within a network, where data lie as the next one wants
them: so the sum is stretched and shifted, by so much for each block, as fits the networks measured whole.
"""

from __future__ import annotations

import logging
import math
import random
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from facenas.config import Config, validate
from facenas.errors import UserError
from facenas.files import read_json, reading
from facenas.spaces import Architecture, SearchSpace, from_json
from facenas.spaces.base import fingerprint
from facenas.strategies.rank_check import kendall_tau

log = logging.getLogger(__name__)

FORMAT = "facenas-latency-1"
CHECKED = 100  # networks of a space, for whether the table knows their blocks
LEAST_KNOWN = 90  # of them

LEAST_COMPARED = 5  # networks, for two numbers to be fitted and their error told

Compared = tuple[float, int, float]  # sum of blocks, their number, whole network; both beyond an empty session
Key = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_HOUR = 3_600_000  # milliseconds, for one image


class _Measured(Config):
    """What one ONNX file took."""

    file: str
    ms: float = Field(gt=0, le=_HOUR)
    spread_ms: float = Field(ge=0, le=_HOUR)


class _Block(_Measured):
    key: Key
    block: str


class _Network(_Measured):
    key: Key
    architecture: dict[str, Any]


class _Images(Config):
    in_channels: int = Field(ge=1)
    num_classes: int = Field(ge=0)
    image_size: int = Field(ge=1)


class _Target(Config):
    """Who measured; more may be told."""

    model_config = ConfigDict(extra="allow")

    date: str
    processor: str
    onnxruntime: str
    provider: str
    threads: int = Field(ge=1)


class _File(Config):
    """latency.json."""

    format: Literal["facenas-latency-1"]
    versions: dict[str, str]
    space: dict[str, Any]
    images: _Images
    manifest_sha256: Key
    target: _Target
    empty: _Measured
    blocks: tuple[_Block, ...]
    networks: tuple[_Network, ...]


@dataclass(frozen=True)
class SumError:
    """How sums of blocks compare with networks that were measured whole, each left out of the factor once.

    median: of the relative errors, in percent; tau: Kendall's; None where too few were measured.
    """

    networks: int
    median: float | None
    tau: float | None

    def __str__(self) -> str:
        if self.median is None:
            return f"sum of blocks: compared with no more than {self.networks} whole networks"
        tau = "not defined" if self.tau is None else f"{self.tau:.2f}"
        return (
            f"sum of blocks against whole networks: median error {self.median:.1f} %, rank correlation {tau} "
            f"over {self.networks} networks"
        )


@dataclass
class LatencyTable:
    """Calling it with an architecture gives milliseconds for one image on the target; infinity: unknown.

    fingerprint: of the whole file; kind: of the space; empty: milliseconds of a session that does nothing;
    unsteady: how many files had half of their runs further apart than their median.
    """

    fingerprint: str
    path: Path
    kind: str
    images: _Images
    target: str
    empty: float
    blocks: dict[str, float]
    networks: dict[str, tuple[dict[str, Any], float]]
    unsteady: int
    _found: dict[Architecture, float] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __call__(self, arch: Architecture) -> float:
        """Milliseconds, infinity when a block is missing."""
        if arch not in self._found:
            self._found[arch] = round(self._latency(arch), 6)
        return self._found[arch]

    def _latency(self, arch: Architecture) -> float:
        whole = self.networks.get(fingerprint(arch.to_json()))
        return whole[1] if whole else self.empty + _fitted(*self._sum(arch), self._fit)

    def _sum(self, arch: Architecture) -> tuple[float, int]:
        """Of the blocks, each beyond an empty session, infinity when one is missing; and how many there are."""
        from facenas.models.blocks import block_keys  # imports torch

        keys = block_keys(arch, self.images.image_size)
        return math.fsum(max(0.0, self.blocks.get(key, math.inf) - self.empty) for key in keys), len(keys)

    @cached_property
    def _compared(self) -> list[Compared]:
        """The networks measured whole whose blocks are all known."""
        found = ((*self._sum(from_json(tree)), ms - self.empty) for tree, ms in self.networks.values())
        return [one for one in found if 0 < one[0] < math.inf and one[2] > 0]

    @cached_property
    def _fit(self) -> tuple[float, float]:
        return _fit(self._compared)

    @cached_property
    def error(self) -> SumError:
        """What a sum of blocks may be wrong by."""
        compared = self._compared
        if len(compared) < LEAST_COMPARED:
            return SumError(len(compared), None, None)
        fits = [_fit(compared[:i] + compared[i + 1 :]) for i in range(len(compared))]
        sums = [self.empty + _fitted(*one[:2], fit) for one, fit in zip(compared, fits, strict=True)]
        wholes = [self.empty + whole for *_, whole in compared]
        errors = [abs(told / whole - 1) for told, whole in zip(sums, wholes, strict=True)]
        return SumError(len(compared), 100 * statistics.median(errors), kendall_tau(sums, wholes))

    def check(self, space: SearchSpace[Any]) -> None:
        """Raises UserError when it is of another space, or knows too few of its networks; logs its error."""
        facts = space.images
        ours = (space.name, facts.in_channels, facts.num_classes, facts.image_size)
        theirs = (
            self.kind,
            self.images.in_channels,
            self.images.num_classes,
            self.images.image_size,
        )
        if ours != theirs:
            raise UserError(
                f"{self.path}: was measured for {_described(theirs)}, but what is searched is "
                f"{_described(ours)}; export again from this preset: facenas latency export"
            )
        missing = missing_blocks(space, self.blocks)
        lacking = CHECKED - sum(not lacks for lacks in missing)
        if lacking:
            most = Counter(summary for lacks in missing for summary in lacks).most_common(1)[0][0]
            told = (
                f"{self.path}: lacks blocks of {lacking} in {CHECKED} random networks of this space, such as "
                f"{most}"
            )
            if lacking > CHECKED - LEAST_KNOWN:
                raise UserError(
                    f"{told}; export again from this preset, with more --blocks: facenas latency export"
                )
            log.warning("%s; such networks are not asked for", told)
        if self.unsteady:
            log.warning(
                "%s: %d files ran unsteadily on the target; stop other programs there and measure again",
                self.path,
                self.unsteady,
            )
        log.info("latency of %s: %s", self.target, self.error)

    def facts(self) -> dict[str, Any]:
        """What `best.json` tells of it."""
        error = self.error
        return {
            "fingerprint": self.fingerprint,
            "target": self.target,
            "blocks": len(self.blocks),
            "networks": len(self.networks),
            "compared_networks": error.networks,
            "median_error": error.median,
            "rank_correlation": error.tau,
            "summary": str(error),
        }


def missing_blocks(space: SearchSpace[Any], known: Any) -> list[list[str]]:
    """Of `CHECKED` random networks, always the same, what blocks are not among the keys `known`."""
    from facenas.models.blocks import block_keys, blocks_of  # imports torch

    rng, size = random.Random(0), space.images.image_size
    found: list[list[str]] = []
    for arch in (space.sample(rng) for _ in range(CHECKED)):
        unknown = {*block_keys(arch, size)} - {*known}
        blocks = blocks_of(arch, size) if unknown else ()
        found.append([block.summary for block in blocks if block.key in unknown])
    return found


def _fit(compared: Sequence[Compared]) -> tuple[float, float]:
    """(a, b) so that a * sum + b * blocks has the least squared relative error; of a few networks a alone."""
    if not compared:
        return 1.0, 0.0
    x = [total / whole for total, _, whole in compared]
    y = [count / whole for _, count, whole in compared]
    xx, yy, xy = (math.fsum(p * q for p, q in zip(*both, strict=True)) for both in ((x, x), (y, y), (x, y)))
    determinant = xx * yy - xy * xy
    if len(compared) >= LEAST_COMPARED and determinant > 1e-6 * xx * yy:
        a = (math.fsum(x) * yy - math.fsum(y) * xy) / determinant
        b = (math.fsum(y) * xx - math.fsum(x) * xy) / determinant
        if a > 0:
            return a, b
    return 1 / statistics.median(x), 0.0


def _fitted(total: float, count: int, fit: tuple[float, float]) -> float:
    return max(0.0, fit[0] * total + fit[1] * count)


def _described(facts: tuple[str, int, int, int]) -> str:
    kind, channels, classes, size = facts
    outputs = f"{classes} classes" if classes else "faces"
    return f"a space of kind {kind}, images of {channels}x{size}x{size} and {outputs}"


def read_table(path: Path) -> LatencyTable:
    """The table of a `latency.json`; raises UserError when it is missing, damaged, or something else."""
    with reading(path):
        return _read(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=8)  # a search looks at it several times
def _read(path: Path, changed: int) -> LatencyTable:
    tree = read_json(path)
    if tree.get("format") != FORMAT or "target" not in tree:
        what = (
            "was not measured yet: run bench.py on the target"
            if "blocks" in tree
            else "is no latency.json of bench.py"
        )
        raise UserError(f"{path}: {what}; facenas latency export writes a zip with that script")
    read = validate(_File, tree, str(path))
    on = read.target
    threads = f"{on.threads} thread{'s' * (on.threads != 1)}"
    return LatencyTable(
        fingerprint=fingerprint(tree),
        path=path,
        kind=str(read.space.get("kind")),
        images=read.images,
        target=f"{on.processor}, onnxruntime {on.onnxruntime}, {on.provider}, {threads}, {on.date[:10]}",
        empty=read.empty.ms,
        blocks={block.key: block.ms for block in read.blocks},
        networks={one.key: (one.architecture, one.ms) for one in read.networks},
        unsteady=sum(one.spread_ms > one.ms for one in (*read.blocks, *read.networks)),
    )
