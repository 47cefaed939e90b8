"""The facts of every bench: `eval_protocols/<name>.yaml`, shipped in the wheel."""

from __future__ import annotations

from functools import cache
from typing import Literal

from pydantic import Field, PositiveInt

from facenas.config import Config, read_yaml, shipped, validate
from facenas.errors import UserError

HQ = ("lfw", "cfp_fp", "agedb_30", "calfw", "cplfw")
BENCHES = (*HQ, "cfp_ff", "ijbb", "ijbc", "tinyface")
Metric = Literal["accuracy", "tar_at_nearest_far@1e-4", "rank_1", "rank_5"]


class Published(Config):
    """A row of somebody's table: the model, fractions by metric, and where it stands (`owner/name:path`)."""

    model: str
    values: dict[Metric, float]
    source: str = Field(pattern=r"^[\w.-]+/[\w.-]+:.+")


class BenchFacts(Config):
    """What is known of a bench.

    files: names under which it is looked for in a folder of benches, the first that is there; lists: names
    of its lists of pairs; folds: of a pair bench; counts: official sizes; formula: what exactly is measured.
    """

    title: str
    kind: Literal["pairs", "templates", "ranking"]
    files: tuple[str, ...]
    lists: tuple[str, ...] = ()
    folds: PositiveInt | None = None
    counts: dict[str, PositiveInt]
    formula: str
    published: tuple[Published, ...] = ()


@cache
def bench_facts(name: str) -> BenchFacts:
    """The facts of the bench `name`; raises UserError when there is none of that name."""
    if name not in BENCHES:
        raise UserError(f"--bench {name}: is unknown; there are {', '.join(BENCHES)}")
    path = shipped("eval_protocols") / f"{name}.yaml"
    return validate(BenchFacts, read_yaml(path), str(path))
