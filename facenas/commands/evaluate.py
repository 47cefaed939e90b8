"""Trained networks on published benches."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from facenas.arch import IRArchitecture
from facenas.errors import UserError
from facenas.runs import open_run

if TYPE_CHECKING:  # torch takes a second to import
    from torch import nn

_CHECKPOINTS = (".ckpt", ".pt", ".pth", ".safetensors")


def evaluate(
    bench: str, model: str, data: Path, pairs: Path | None, runs_dir: Path
) -> dict[str, Any]:
    """Ten-fold verification of `model` on `bench`; accuracies in percent.

    `model`: a trained run, or a checkpoint file of AdaFace, CVLface or arcface_torch.
    """
    from facenas.device import pick_device, use_threads
    from facenas.evaluation.embedding import distances_of, embed
    from facenas.evaluation.lfw import find_pairs, read_images, read_pairs
    from facenas.evaluation.verification import tar_at_far, verify
    from facenas.execution import core_count

    if bench != "lfw":
        raise UserError(f"--bench {bench}: is unknown; there is lfw")
    use_threads(core_count())
    arch, network = _read_network(model, runs_dir)
    protocol = read_pairs(pairs or find_pairs(data))
    device = pick_device()
    embeddings = embed(device.place(network), read_images(data, protocol.images), device)
    distances = distances_of(embeddings, protocol.pairs)
    found = verify(distances, protocol.same, protocol.folds)
    return {
        "bench": bench,
        "model": model,
        "pairs": len(protocol.same),
        "accuracy": 100 * found.accuracy,
        "std": 100 * found.std,
        "threshold": float(found.thresholds.mean()),
        "tar_at_far_0.001": 100 * tar_at_far(1 - distances / 2, protocol.same, 0.001),
        "parameters": arch.count_parameters(),
        "macs": arch.count_macs(),
    }


def _read_network(model: str, runs_dir: Path) -> tuple[IRArchitecture, nn.Module]:
    from facenas.models.foreign import load_foreign
    from facenas.models.ir import build_ir
    from facenas.models.trained import read_trained

    if model.endswith(_CHECKPOINTS):
        foreign = load_foreign(Path(model))
        network = build_ir(foreign.architecture, seed=0)
        network.load_state_dict(foreign.backbone)
        return foreign.architecture, network
    trained = read_trained(open_run(runs_dir, model).folder)
    if not isinstance(trained.arch, IRArchitecture):
        raise UserError(f"{model}: is a classification network; verification needs a face network")
    return trained.arch, trained.network
