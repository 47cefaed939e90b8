"""How good an embedding is: `evaluate` any network on any bench, and the exact metrics behind it.

The metrics named here are pure functions, numpy in and numbers out, with the definitions of the published
tables; importing them brings in nothing but numpy. The rest is imported when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Templates searched in galleries: IJB-B and IJB-C, 1:N
from facenas.evaluation.metrics.identification import (
    Identification,
    MergedIdentification,
    Subjects,
    identify_templates,
    identify_templates_merged,
)

# Ranking of a gallery: TinyFace
from facenas.evaluation.metrics.ranking import Ranking, rank_k

# Scored pairs
from facenas.evaluation.metrics.roc import (
    Roc,
    auc,
    eer,
    roc,
    tar_at_far,
    tar_at_fars,
    tar_at_nearest_far,
    tar_at_nearest_fars,
)

# Templates of images in pairs: IJB-B and IJB-C, 1:1
from facenas.evaluation.metrics.templates import (
    FUSIONS,
    Templates,
    TemplateVerification,
    pool_templates,
    score_pairs,
    verify_pooled,
    verify_templates,
)

# Pairs in ten folds: LFW, CFP-FP, AgeDB-30, CALFW, CPLFW
from facenas.evaluation.metrics.ten_fold import TenFold, ten_fold, ten_fold_of

if TYPE_CHECKING:
    from facenas.evaluation import benches
    from facenas.evaluation.benches.result import (
        BenchResult,
        PairResult,
        RankResult,
        TemplateResult,
    )
    from facenas.evaluation.embedders import Embedder, InputOptions, embedder_of, open_embedder
    from facenas.evaluation.runner import HqResult, evaluate, evaluate_hq

# Where torch or pydantic is behind it: seconds to import, which the metrics are spared.
_LATER = {
    "benches": "",
    **dict.fromkeys(
        ("BenchResult", "PairResult", "RankResult", "TemplateResult"), "benches.result"
    ),
    **dict.fromkeys(("Embedder", "InputOptions", "embedder_of", "open_embedder"), "embedders"),
    **dict.fromkeys(("HqResult", "evaluate", "evaluate_hq"), "runner"),
}

__all__ = [
    "FUSIONS",
    "BenchResult",
    "Embedder",
    "HqResult",
    "Identification",
    "InputOptions",
    "MergedIdentification",
    "PairResult",
    "RankResult",
    "Ranking",
    "Roc",
    "Subjects",
    "TemplateResult",
    "TemplateVerification",
    "Templates",
    "TenFold",
    "auc",
    "benches",
    "eer",
    "embedder_of",
    "evaluate",
    "evaluate_hq",
    "identify_templates",
    "identify_templates_merged",
    "open_embedder",
    "pool_templates",
    "rank_k",
    "roc",
    "score_pairs",
    "tar_at_far",
    "tar_at_fars",
    "tar_at_nearest_far",
    "tar_at_nearest_fars",
    "ten_fold",
    "ten_fold_of",
    "verify_pooled",
    "verify_templates",
]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    place = _LATER[name] or name
    found = importlib.import_module(f"{__name__}.{place}")
    return found if name == place else getattr(found, name)


def __dir__() -> list[str]:
    return sorted(__all__)
