"""Trained networks on published benches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from facenas.errors import UserError
from facenas.runs import open_run


def evaluate(
    bench: str, model: str, data: Path, pairs: Path | None, runs_dir: Path
) -> dict[str, Any]:
    """Ten-fold verification of the run `model` on `bench`; accuracies in percent."""
    from facenas.device import pick_device, use_threads
    from facenas.evaluation.embedding import embed
    from facenas.evaluation.lfw import find_pairs, read_images, read_pairs
    from facenas.evaluation.verification import tar_at_far, verify
    from facenas.execution import core_count
    from facenas.models.trained import read_trained

    if bench != "lfw":
        raise UserError(f"--bench {bench}: is unknown; there is lfw")
    use_threads(core_count())
    trained = read_trained(open_run(runs_dir, model).folder)
    if trained.output != "embedding":
        raise UserError(f"{model}: is a classification network; verification needs a face network")
    protocol = read_pairs(pairs or find_pairs(data))
    device = pick_device()
    embeddings = embed(device.place(trained.network), read_images(data, protocol.images), device)
    first, second = embeddings[protocol.pairs].swapaxes(0, 1)
    distances = ((first - second) ** 2).sum(1)
    found = verify(distances, protocol.same, protocol.folds)
    return {
        "bench": bench,
        "model": model,
        "pairs": len(protocol.same),
        "accuracy": 100 * found.accuracy,
        "std": 100 * found.std,
        "threshold": float(found.thresholds.mean()),
        "tar_at_far_0.001": 100 * tar_at_far(1 - distances / 2, protocol.same, 0.001),
        "parameters": trained.arch.count_parameters(),
        "macs": trained.arch.count_macs(trained.image_size),
    }
