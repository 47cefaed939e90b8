"""Outcomes as an evaluation hands them to the page, of random scores and generated images."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from facenas.evaluation import tar_at_fars, tar_at_nearest_fars, ten_fold_of
from facenas.evaluation.benches import find_bench
from facenas.evaluation.benches.result import Mistake, PairResult, RankResult, TemplateResult
from facenas.evaluation.metrics.roc import worst_mistakes

MODEL = {
    "name": "some_network.onnx",
    "parameters": 1_200_512,
    "macs": 229_000_000,
    "size": 256,
    "color": "rgb",
    "mean": [127.5, 127.5, 127.5],
    "std": [128.0, 128.0, 128.0],
    "format": "ONNX",
}


def spread(pairs: int, apart: float = 2.5, share: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """(scores, same) of pairs, the genuine ones `apart` standard deviations more alike."""
    rng = np.random.default_rng(0)
    same = rng.permutation(pairs) < share * pairs
    return np.clip(0.1 * rng.normal(size=pairs) + 0.1 * apart * same, -1, 1), same


def faces(count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(1).integers(0, 256, (count, 112, 112, 3), np.uint8))


def pair_outcome(bench: str = "lfw", pairs: int = 600, **changes: Any) -> PairResult:
    """Of a pair bench, with its ten worst mistakes."""
    scores, same = spread(pairs)
    found = ten_fold_of(2 - 2 * scores, same)
    worst = worst_mistakes(scores, same, found.threshold_cosine)
    shown = [
        Mistake(float(scores[i]), bool(same[i]), (f"left_{i}", f"right_{i}"), tuple(faces(2))) for i in worst
    ]
    result = PairResult(
        bench=find_bench(bench),
        accuracy=found.accuracy,
        std=found.std,
        threshold_cosine=found.threshold_cosine,
        threshold_squared=found.threshold_squared,
        accuracies=found.accuracies,
        tar_at_far=found.tar_at_far,
        pairs=pairs,
        scores=scores,
        same=same,
        mistakes=tuple(shown),
    )
    return replace(result, **changes)


def template_outcome(pairs: int) -> TemplateResult:
    scores, same = spread(pairs, share=0.01)
    fars = [10.0**power for power in range(-6, 0)]
    kept, nearest = (find(scores, same, fars) for find in (tar_at_fars, tar_at_nearest_fars))
    return TemplateResult(
        bench=find_bench("ijbc"),
        pairs=pairs,
        genuine=int(same.sum()),
        templates=10,
        keep_norm=True,
        use_detector_score=False,
        rank={1: 0.9},
        tpir_at_fpir={0.01: 0.8},
        merged={"rank_1": 0.875, "recall_by_share": {0.01: 0.75}},
        tar_at_far=kept,
        tar_at_nearest_far=nearest,
        scores=scores,
        same=same,
    )


def ranking_outcome(gallery: int = 1000) -> RankResult:
    cmc = 1 - 0.5 / np.arange(1, gallery + 1)
    return RankResult(
        bench=find_bench("tinyface"),
        rank={k: float(cmc[k - 1]) for k in (1, 5, 20) if k <= gallery},
        map=0.4,
        probes=10,
        gallery=gallery,
        probes_without_mate=0,
        probes_with_tie=0,
        warnings=("these crops are <others>",),
        cmc=cmc,
        mistakes=(Mistake(0.7, False, ("probe 3", "gallery 5"), tuple(faces(2))),),
    )
