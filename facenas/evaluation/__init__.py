"""How good an embedding is: exact metrics of arrays, and what benches and models are read with.

The metrics named here are pure functions, numpy in and numbers out, with the definitions of the published
tables; importing them brings in nothing but numpy.
"""

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

__all__ = [
    "FUSIONS",
    "Identification",
    "MergedIdentification",
    "Ranking",
    "Roc",
    "Subjects",
    "TemplateVerification",
    "Templates",
    "TenFold",
    "auc",
    "eer",
    "identify_templates",
    "identify_templates_merged",
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
