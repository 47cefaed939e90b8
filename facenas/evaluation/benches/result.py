"""What was found on one bench: figures for tables and files, arrays for pictures."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facenas.evaluation.benches import Bench
from facenas.evaluation.metrics.calibration import Reliability
from facenas.evaluation.metrics.discard import Discard
from facenas.evaluation.metrics.groups import Gap, GroupRate
from facenas.evaluation.metrics.people import OperatingPoint, Rate


@dataclass(frozen=True, eq=False)
class Mistake:
    """A pair that was judged wrongly: its cosine, whether it is one person, its (112, 112, 3) uint8 images."""

    score: float
    same: bool
    names: tuple[str, str]
    images: tuple[NDArray[np.uint8], NDArray[np.uint8]]


@dataclass(frozen=True, eq=False, kw_only=True)
class BenchResult:
    """Figures of one network on one bench; rates are fractions, None or empty where the kind has none.

    accuracy, std: of pairs, mean and deviation over the folds; tar_at_far, tar_at_nearest_far: true accept
    rates by false accept rate, kept and as the peers print them (`metrics.roc`); rank: shares found among the
    first k, by k; flip: whether the mirror image's embedding was added; warnings: what keeps the figures from
    comparing; scores (n,) cosines and same (n,) bool of pairs, cmc (k,) of rankings, mistakes: for pictures.
    """

    bench: Bench
    images: int = 0
    flip: bool = True
    accuracy: float | None = None
    std: float | None = None
    tar_at_far: dict[float, float] = field(default_factory=dict)
    tar_at_nearest_far: dict[float, float] = field(default_factory=dict)
    eer: float | None = None
    auc: float | None = None
    rank: dict[int, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    scores: NDArray[np.float64] | None = None
    same: NDArray[np.bool_] | None = None
    cmc: NDArray[np.float64] | None = None
    mistakes: tuple[Mistake, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The figures without the pictures: ranks as `rank_1`, rates by their false accept rate as text."""
        tree: dict[str, Any] = {}
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name in _PICTURES or value is None or (isinstance(value, dict) and not value):
                continue
            if one.name == "rank":
                tree |= {f"rank_{k}": share for k, share in value.items()}
            else:
                tree[one.name] = _as_json(value)
        return tree


_PICTURES = ("scores", "same", "cmc", "mistakes")


def _as_json(value: Any) -> Any:
    if isinstance(value, Bench):
        return value.name
    if isinstance(value, dict):
        return {key if isinstance(key, str) else f"{key:g}": _as_json(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | tuple):
        return [_as_json(item) for item in value]
    if is_dataclass(value):
        return {one.name: _as_json(getattr(value, one.name)) for one in fields(value)}
    return value.item() if isinstance(value, np.generic) else value


@dataclass(frozen=True, eq=False, kw_only=True)
class PairResult(BenchResult):
    """Of a bench of pairs. accuracies: (folds,); the threshold is the mean over the folds, in both units."""

    pairs: int
    accuracies: NDArray[np.float64]
    threshold_cosine: float
    threshold_squared: float


@dataclass(frozen=True, eq=False)
class Calibrated:
    """Probabilities that two images show one person, where that is as likely as not before one looks.

    method: the one whose cllr (bits; 0 is perfect, 1 tells nothing) is least; all of them, and reliability,
    are of pairs of people that were not fitted on. probabilities: of `scores`, fitted on all people, for use.
    """

    method: str
    cllr: dict[str, float]
    reliability: Reliability
    scores: NDArray[np.float64]
    probabilities: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class QualityColumn:
    """What leaving out genuine pairs of low quality helps, by one column, or by the embedding's `norm`.

    pairs: whose quality is known; unknown: images without; with_norm: rank correlation with the norm.
    """

    name: str
    discard: Discard
    pairs: int
    unknown: int
    with_norm: float | None


@dataclass(frozen=True, eq=False)
class GroupTable:
    """Error rates by the groups of a column, of pairs within a group; a gap is None without two to compare."""

    column: str
    fnmr: tuple[GroupRate, ...]
    fnmr_gap: Gap | None
    fmr: tuple[GroupRate, ...]
    fmr_gap: Gap | None


@dataclass(frozen=True, eq=False, kw_only=True)
class PeopleResult(BenchResult):
    """Of pairs of one's own people. fmr, fnmr: at `threshold_cosine`, which groups and qualities are judged at.

    points: by wanted FMR; calibration: None for too few people to fit on some and test on others.
    """

    pairs: int
    genuine: int
    impostors: int
    people: int
    threshold_cosine: float
    fmr: Rate
    fnmr: Rate
    points: tuple[OperatingPoint, ...]
    calibration: Calibrated | None
    quality: tuple[QualityColumn, ...]
    groups: tuple[GroupTable, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class TemplateResult(BenchResult):
    """Of IJB-B or IJB-C. `rank` and tpir_at_fpir: 1:N, means over the galleries; merged: the peers' figures.

    keep_norm, use_detector_score: what an image weighed in its template.
    """

    pairs: int
    genuine: int
    templates: int
    keep_norm: bool
    use_detector_score: bool
    tpir_at_fpir: dict[float, float] = field(default_factory=dict)
    merged: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, kw_only=True)
class RankResult(BenchResult):
    """Of TinyFace. map: mean average precision; probes_with_tie: whose mate scores exactly as another."""

    map: float
    probes: int
    gallery: int
    probes_without_mate: int
    probes_with_tie: int
