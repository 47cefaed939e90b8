"""From a bench's files and a network to an outcome: one function for each kind of bench.

The long part, the embeddings, is `extract`'s; the metrics behind it take seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facenas.errors import UserError
from facenas.evaluation.arrays import Floats, unit_rows
from facenas.evaluation.benches import bench_facts
from facenas.evaluation.metrics.identification import identify_templates, identify_templates_merged
from facenas.evaluation.metrics.ranking import rank_k
from facenas.evaluation.metrics.roc import auc, eer, tar_at_nearest_fars
from facenas.evaluation.metrics.templates import Fusion, Templates, pool_templates, verify_pooled
from facenas.evaluation.metrics.ten_fold import squared_distances, ten_fold_of
from facenas.evaluation.mistakes import worst_mistakes
from facenas.evaluation.outcome import Mistake, Outcome
from facenas.evaluation.protocols import Images, read_pairs, read_tinyface
from facenas.evaluation.protocols.ijb import TemplateProtocol, read_ijb

Extract = Callable[[Images], Floats]  # raw embeddings (n, E) of all images, in order
FARS = (1e-4, 1e-3)  # of 3,000 impostors, the smaller one allows none
_SHOWN = 10
_FEW_TIES = 0.01  # of the probes


def measure(
    bench: str, data: Path, pairs: Path | None, extract: Extract, fusion: Fusion
) -> Outcome:
    """The outcome of `bench` on the files at `data`.

    pairs: the list of an LFW-like bench, when it does not lie with its images; fusion: what an image
    weighs in its template, of IJB alone. Raises UserError when files are missing, damaged, or say
    nothing that can be measured.
    """
    kind = bench_facts(bench).kind
    if pairs is not None and kind != "pairs":
        raise UserError(f"--pairs {pairs}: {bench} has no list of pairs; leave it out")
    try:
        if kind == "pairs":
            return _pairs(bench, data, pairs, extract)
        if kind == "templates":
            return _templates(bench, data, extract, fusion)
        return _ranking(bench, data, extract)
    except ValueError as error:  # of a metric, in one sentence
        raise UserError(f"{data}: {bench} cannot be measured: {error}") from None


def _pairs(bench: str, data: Path, pairs: Path | None, extract: Extract) -> Outcome:
    protocol = read_pairs(bench, data, pairs)
    embeddings = unit_rows(np.asarray(extract(protocol.images), np.float64), "embeddings")
    first, second = embeddings[protocol.pairs].swapaxes(0, 1)
    distances = squared_distances(first, second)
    found = ten_fold_of(distances, protocol.same, protocol.folds)
    scores = 1 - distances / 2
    result: dict[str, Any] = {
        "bench": bench,
        "accuracy": found.accuracy,
        "std": found.std,
        "threshold_cosine": found.threshold_cosine,
        "threshold_squared": found.threshold_squared,
        "accuracies": found.accuracies.tolist(),
        "tar_at_far": _by_far(found.tar_at_far),
        "tar_at_nearest_far": _by_far(tar_at_nearest_fars(scores, protocol.same, FARS)),
        "eer": eer(scores, protocol.same),
        "auc": auc(scores, protocol.same),
        "pairs": len(protocol.same),
        "images": len(protocol.images),
    }
    wrong = worst_mistakes(scores, protocol.same, found.threshold_cosine, _SHOWN)
    shown = [
        _mistake(scores[i], protocol.same[i], protocol.images, protocol.pairs[i], protocol.names)
        for i in wrong
    ]
    return Outcome(bench_facts(bench), result, scores, protocol.same, mistakes=shown)


def _templates(bench: str, data: Path, extract: Extract, fusion: Fusion) -> Outcome:
    protocol = read_ijb(bench, data)
    pooled = pool_templates(
        extract(protocol.images),
        protocol.templates,
        protocol.media,
        detector_scores=protocol.detector_scores if fusion["use_detector_score"] else None,
        keep_norm=fusion["keep_norm"],
    )
    found = verify_pooled(pooled, protocol.pairs, protocol.same)
    result: dict[str, Any] = {
        "bench": bench,
        "tar_at_far": _by_far(found.tar_at_far),
        "tar_at_nearest_far": _by_far(found.tar_at_nearest_far),
        "eer": eer(found.scores, protocol.same),
        "auc": auc(found.scores, protocol.same),
        **fusion,
        "pairs": len(protocol.same),
        "genuine": int(protocol.same.sum()),
        "templates": len(pooled.ids),
        "images": len(protocol.images),
        "warnings": list(protocol.warnings),
    }
    if protocol.probes is not None:
        try:
            result |= _identification(pooled, protocol)
        except ValueError as error:  # 1:1 does not need the lists
            result["warnings"].append(f"1:N is left out: {error}")
    shown = _worst_templates(protocol, found.scores)
    return Outcome(bench_facts(bench), result, found.scores, protocol.same, mistakes=shown)


def _identification(pooled: Templates, protocol: TemplateProtocol) -> dict[str, Any]:
    assert protocol.probes is not None
    found = identify_templates(pooled, protocol.galleries, protocol.probes)
    merged = identify_templates_merged(pooled, protocol.galleries, protocol.probes)
    return {
        **{f"rank_{k}": share for k, share in found.rank.items()},
        "tpir_at_fpir": _by_far(found.tpir),
        "merged": {
            **{f"rank_{k}": share for k, share in merged.rank.items()},
            "recall_by_share": _by_far(merged.recall_by_share),
        },
    }


def _ranking(bench: str, data: Path, extract: Extract) -> Outcome:
    protocol = read_tinyface(data)
    probe, gallery = (
        unit_rows(np.asarray(extract(images), np.float32), "embeddings")
        for images in (protocol.probe, protocol.gallery)
    )
    ranking = rank_k(probe, gallery, protocol.probe_ids, protocol.gallery_ids)
    result: dict[str, Any] = {
        "bench": bench,
        **{f"rank_{k}": share for k, share in ranking.rank.items()},
        "map": ranking.mean_average_precision,
        "probes": len(probe),
        "gallery": len(gallery),
        "probes_without_mate": ranking.probes_without_mate,
        "probes_with_tie": ranking.probes_with_tie,
        "images": len(probe) + len(gallery),
        "warnings": list(protocol.warnings),
    }
    if ranking.probes_with_tie > _FEW_TIES * len(probe):  # ranks count ties for the network
        result["warnings"].append(
            f"{ranking.probes_with_tie} of {len(probe)} probes score others exactly as their mate: the "
            "embeddings hardly differ, and the ranks mean nothing"
        )
    shown = []
    for number in np.argsort(-ranking.ranks, kind="stable")[:_SHOWN]:
        if ranking.ranks[number] > 1:
            scores = gallery @ probe[number]
            scores[protocol.gallery_ids == protocol.probe_ids[number]] = -np.inf
            first = int(scores.argmax())
            images = [
                protocol.probe.read(np.array([number])),
                protocol.gallery.read(np.array([first])),
            ]
            names = (f"probe {number}, mate at rank {ranking.ranks[number]}", f"gallery {first}")
            shown.append(Mistake(float(scores[first]), False, names, (images[0][0], images[1][0])))
    return Outcome(bench_facts(bench), result, cmc=ranking.cmc, mistakes=shown)


def _worst_templates(protocol: TemplateProtocol, scores: NDArray[np.float64]) -> list[Mistake]:
    """Of each template its first image; wrong at the threshold where genuine and impostor errors are equal."""
    impostors = scores[~protocol.same]
    threshold = float(np.quantile(impostors, 1 - eer(scores, protocol.same)))
    ids, first = np.unique(protocol.templates, return_index=True)
    shown = []
    for i in worst_mistakes(scores, protocol.same, threshold, _SHOWN):
        pair = first[np.searchsorted(ids, protocol.pairs[i])]
        shown.append(_mistake(scores[i], protocol.same[i], protocol.images, pair, protocol.names))
    return shown


def _mistake(
    score: float,
    same: bool,
    images: Images,
    pair: NDArray[np.int64],
    names: Sequence[str] | NDArray[np.str_],
) -> Mistake:
    left, right = images.read(pair)
    return Mistake(
        float(score), bool(same), (str(names[pair[0]]), str(names[pair[1]])), (left, right)
    )


def _by_far(rates: dict[float, float]) -> dict[str, float]:
    """With keys as JSON has them: "0.001"."""
    return {f"{far:g}": rate for far, rate in rates.items()}
