"""Benches: published ones are YAML files in `eval_protocols/`, one's own a YAML file anywhere, or `Pairs`.

A bench is data: where its files lie, what is measured, what others published. How a kind of bench is read and
measured is a `Protocol`, found by the YAML's `kind`: `pairs`, `people`, `templates`, `ranking`, or one's own as
`module:Class`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, PositiveInt

from facenas.config import Config, Registry, read_yaml, shipped, validate
from facenas.errors import UserError
from facenas.evaluation.metrics.checks import check_embeddings

if TYPE_CHECKING:  # of the metrics, numpy alone is needed
    from facenas.evaluation.benches.images import Images
    from facenas.evaluation.benches.result import BenchResult
    from facenas.evaluation.metrics.checks import Floats

# Raw embeddings (n, E) of all images, in order; keywords as `embedders.cache.extract` has them.
Extract = Callable[..., "Floats"]

HQ = ("lfw", "cfp_fp", "agedb_30", "calfw", "cplfw")  # whose mean accuracy the tables print


class BenchNotThereError(UserError):
    """The data given hold nothing of this bench: others of them may be there."""


class Published(Config):
    """A row of somebody's table: the model, fractions by metric, and where it stands (`owner/name:path`).

    Metrics are called `accuracy`, `tar_at_nearest_far@1e-4`, `rank_1`, ..., as `BenchResult` has them.
    trained_on: the name of its train set; parameters, macs: millions, of the backbone alone.
    """

    model: str
    values: dict[str, float]
    source: str = Field(pattern=r"^[\w.-]+/[\w.-]+:.+")
    trained_on: str = ""
    parameters: float | None = Field(None, gt=0)
    macs: float | None = Field(None, gt=0)

    @property
    def name(self) -> str:
        """Of the network, and what it was trained on."""
        return f"{self.model}, {self.trained_on}" if self.trained_on else self.model


class Overlap(Config):
    """What part of a bench's identities a train set is known to contain, and where that stands."""

    share: float = Field(gt=0, le=1)
    source: str


class Bench(Config):
    """What is known of a bench of any kind; each protocol's `Settings` add what its files need.

    files: names under which it is looked for in a folder of benches, the first that is there; counts:
    official sizes; formula: what exactly is measured, where projects differ; note: what to know of published
    figures; contained: by train set, what it is known to have in common with the bench.
    """

    name: str
    title: str = ""
    files: tuple[str, ...] = ()
    counts: dict[str, PositiveInt] = Field(default_factory=dict)
    formula: str = ""
    published: tuple[Published, ...] = ()
    note: str = ""
    contained: dict[str, Overlap] = Field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The name of its protocol."""
        return str(self.owner.name)

    @property
    def protocol(self) -> Any:
        """How it is read and measured."""
        return self.owner(self)

    def measure(self, data: Path, extract: Extract) -> BenchResult:
        """The result on the files at `data`; `extract` gives the embeddings of its images.

        Raises BenchNotThereError when nothing of the bench is there, and UserError when files are damaged,
        incomplete, or say nothing that can be measured.
        """

        def checked(images: Images, **how: Any) -> Floats:
            embeddings = extract(images, **how)
            check_embeddings(embeddings, "embeddings")
            return embeddings

        try:
            result: BenchResult = self.protocol.measure(data, checked)
        except ValueError as error:  # of a metric, in one sentence
            raise UserError(f"{data}: {self.name} cannot be measured: {error}") from None
        return replace(result, warnings=(*result.warnings, *self._other_counts(result)))

    def _other_counts(self, result: BenchResult) -> Iterator[str]:
        """At most one sentence: what was measured is not as large as what others published figures of."""
        found = {key: getattr(result, key, None) for key in self.counts}
        if result.same is not None and "genuine" in found:
            found["genuine"] = int(result.same.sum())
        other = [
            f"{size:,} {key} where the official bench has {self.counts[key]:,}"
            for key, size in found.items()
            if isinstance(size, int) and size != self.counts[key]
        ]
        if other:
            yield f"{self.name}: {', '.join(other)}; published figures are of another set of pairs or images"


class Protocol(ABC):
    """How a kind of bench is read and measured.

    Settings: the keys of its YAML files, `Bench`'s and its own.
    """

    Settings: Any = Bench

    def __init__(self, bench: Any) -> None:
        self.bench = bench

    @abstractmethod
    def measure(self, data: Path, extract: Extract) -> BenchResult:
        """See `Bench.measure`. A ValueError of a metric may propagate."""


PROTOCOLS: Registry[Protocol] = Registry("kind of bench", __name__)


def bench_names() -> list[str]:
    """The shipped benches: the files of `eval_protocols/`."""
    return sorted(path.stem for path in shipped("eval_protocols").glob("*.yaml"))


def find_bench(bench: str | Path | Bench, **settings: Any) -> Bench:
    """A shipped bench by its name, a YAML file by its path, or a bench as it is, with `settings` changed.

    Settings are the keys of the bench's YAML, such as `pairs` or `fusion`. Raises UserError for a name that is
    unknown, a file that is missing or faulty, and settings that the bench does not have.
    """
    if isinstance(bench, Bench):
        found = bench
    elif str(bench).endswith((".yaml", ".yml")):
        found = _load(Path(bench).expanduser())
    elif bench in bench_names():
        found = _load(shipped("eval_protocols") / f"{bench}.yaml", _networks(str(bench)))
    else:
        known = ", ".join(bench_names())
        raise UserError(f"bench {bench}: is unknown; there are {known}, or give a YAML file of one's own")
    if not settings:
        return found
    fields = type(found).model_fields
    for key in settings.keys() - fields.keys():
        own = ", ".join(sorted(fields.keys() - Bench.model_fields.keys())) or "none of its own"
        raise UserError(f"bench {found.name}: has no setting {key}; it has {own}")
    return validate(type(found), dict(found) | settings, f"bench {found.name}")


def Pairs(name: str, pairs: str | Path, **more: Any) -> Bench:  # noqa: N802  (reads as the class it makes)
    """A bench of one's own: a `name` and a list of `pairs`.

    The list has LFW's form (`10<TAB>300`, then `name<TAB>i<TAB>j`), rows `label path1 path2`, or rows
    `path1 path2 label`, label 1 for one person and 0 for two; `more`: other keys of `eval_protocols/*.yaml`.
    """
    settings: Any = PROTOCOLS.get("pairs").Settings
    found: Bench = validate(settings, {"name": name, "pairs": pairs, **more}, f"bench {name}")
    return found


def _networks(bench: str) -> list[dict[str, Any]]:
    """Rows of `eval_protocols/tables/light.yaml`, which has a network a row and a bench a column."""
    table = _light()
    measure = "accuracy" if bench in HQ else "tar_at_nearest_far@1e-4"
    networks = [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
    return [
        {
            "model": one["network"],
            "trained_on": one["trained on"],
            **{size: one[size] for size in ("parameters", "macs")},
            "values": {measure: round(one[bench] / 100, 6)},
            "source": one["source"],
        }
        for one in networks
        if one.get(bench) is not None
    ]


@cache
def _light() -> dict[str, Any]:
    return read_yaml(shipped("eval_protocols") / "tables" / "light.yaml")


def _load(path: Path, networks: Sequence[dict[str, Any]] = ()) -> Bench:
    """The bench of a YAML file, with more rows of published networks that it does not have itself."""
    tree = {"name": path.stem, **read_yaml(path)}
    if networks and isinstance(own := tree.get("published", []), list):
        # AdaFace's IR-18 and IR-50 stand in both.
        known = [(row["trained_on"], row["values"], row["source"]) for row in own]
        more = [row for row in networks if (row["trained_on"], row["values"], row["source"]) not in known]
        tree["published"] = [*own, *more]
    kind = tree.pop("kind", "pairs")
    try:
        settings: Any = PROTOCOLS.get(kind).Settings
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    for key in {"pairs", "groups", "quality"} & tree.keys():  # beside the YAML file, wherever one starts
        tree[key] = path.parent / str(tree[key])
    found: Bench = validate(settings, tree, str(path))
    return found
