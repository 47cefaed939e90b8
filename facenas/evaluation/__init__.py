"""How good an embedding is: `evaluate` any network on any bench, and the exact metrics behind it.

The metrics named here are pure functions, numpy in and numbers out, with the definitions of the published
tables; importing them brings in nothing but numpy. The rest is imported when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Pairs of one's own people: probabilities, qualities, groups
from facenas.evaluation.metrics.calibration import Reliability as Reliability
from facenas.evaluation.metrics.calibration import cllr as cllr
from facenas.evaluation.metrics.calibration import cross_fitted as cross_fitted
from facenas.evaluation.metrics.calibration import reliability as reliability
from facenas.evaluation.metrics.discard import Discard as Discard
from facenas.evaluation.metrics.discard import error_versus_discard as error_versus_discard
from facenas.evaluation.metrics.groups import compare_groups as compare_groups

# Templates searched in galleries: IJB-B and IJB-C, 1:N
from facenas.evaluation.metrics.identification import Identification as Identification
from facenas.evaluation.metrics.identification import MergedIdentification as MergedIdentification
from facenas.evaluation.metrics.identification import Subjects as Subjects
from facenas.evaluation.metrics.identification import identify_templates as identify_templates
from facenas.evaluation.metrics.identification import (
    identify_templates_merged as identify_templates_merged,
)

# ... and error rates with intervals
from facenas.evaluation.metrics.people import OperatingPoint as OperatingPoint
from facenas.evaluation.metrics.people import Rate as Rate
from facenas.evaluation.metrics.people import error_rate as error_rate
from facenas.evaluation.metrics.people import operating_points as operating_points

# Ranking of a gallery: TinyFace
from facenas.evaluation.metrics.ranking import Ranking as Ranking
from facenas.evaluation.metrics.ranking import rank_k as rank_k

# Scored pairs
from facenas.evaluation.metrics.roc import Roc as Roc
from facenas.evaluation.metrics.roc import auc as auc
from facenas.evaluation.metrics.roc import eer as eer
from facenas.evaluation.metrics.roc import roc as roc
from facenas.evaluation.metrics.roc import tar_at_far as tar_at_far
from facenas.evaluation.metrics.roc import tar_at_fars as tar_at_fars
from facenas.evaluation.metrics.roc import tar_at_nearest_far as tar_at_nearest_far
from facenas.evaluation.metrics.roc import tar_at_nearest_fars as tar_at_nearest_fars

# Templates of images in pairs: IJB-B and IJB-C, 1:1
from facenas.evaluation.metrics.templates import FUSIONS as FUSIONS
from facenas.evaluation.metrics.templates import Templates as Templates
from facenas.evaluation.metrics.templates import TemplateVerification as TemplateVerification
from facenas.evaluation.metrics.templates import pool_templates as pool_templates
from facenas.evaluation.metrics.templates import score_pairs as score_pairs
from facenas.evaluation.metrics.templates import verify_pooled as verify_pooled
from facenas.evaluation.metrics.templates import verify_templates as verify_templates

# Pairs in ten folds: LFW, CFP-FP, AgeDB-30, CALFW, CPLFW
from facenas.evaluation.metrics.ten_fold import TenFold as TenFold
from facenas.evaluation.metrics.ten_fold import ten_fold as ten_fold
from facenas.evaluation.metrics.ten_fold import ten_fold_of as ten_fold_of

if TYPE_CHECKING:
    from facenas.evaluation import benches as benches
    from facenas.evaluation.benches.result import BenchResult as BenchResult
    from facenas.evaluation.benches.result import PairResult as PairResult
    from facenas.evaluation.benches.result import PeopleResult as PeopleResult
    from facenas.evaluation.benches.result import RankResult as RankResult
    from facenas.evaluation.benches.result import TemplateResult as TemplateResult
    from facenas.evaluation.data_check import DataCheck as DataCheck
    from facenas.evaluation.data_check import Finding as Finding
    from facenas.evaluation.data_check import check_faces as check_faces
    from facenas.evaluation.embedders import Embedder as Embedder
    from facenas.evaluation.embedders import InputOptions as InputOptions
    from facenas.evaluation.embedders import embedder_of as embedder_of
    from facenas.evaluation.embedders import open_embedder as open_embedder
    from facenas.evaluation.runner import HqResult as HqResult
    from facenas.evaluation.runner import evaluate as evaluate
    from facenas.evaluation.runner import evaluate_hq as evaluate_hq

# Where torch or pydantic is behind it: seconds to import, which the metrics are spared.
_LATER = {
    "runner": ("HqResult", "evaluate", "evaluate_hq"),
    "data_check": ("DataCheck", "Finding", "check_faces"),
    "embedders": ("Embedder", "InputOptions", "embedder_of", "open_embedder"),
    "benches.result": ("BenchResult", "PairResult", "PeopleResult", "RankResult", "TemplateResult"),
}


def __getattr__(name: str) -> Any:
    if name == "benches":
        return importlib.import_module(f"{__name__}.benches")
    for place, names in _LATER.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{place}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
