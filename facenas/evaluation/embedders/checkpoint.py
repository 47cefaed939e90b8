"""Our own networks, and those of AdaFace, CVLface and arcface_torch, in torch."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import NamedTuple

from torch import nn

from facenas.data.faces.store import SIDE
from facenas.device import Device, named_device
from facenas.errors import UserError
from facenas.evaluation.embedders.embedder import (
    CPU_PIECE,
    PieceEmbedder,
    Pixels,
    Rows,
    fingerprint,
)
from facenas.evaluation.embedders.module import digest_of, network_input, raw_embeddings
from facenas.evaluation.embedders.preprocessing import FILE, InputOptions, Preprocessing, usual
from facenas.models.import_weights import Color, load_foreign
from facenas.models.load import TrainedNetwork, read_exported, read_trained
from facenas.spaces import Architecture


class _Opened(NamedTuple):
    """turned: from BGR to RGB, which the network takes, while `preprocessing` records what the file was for."""

    network: nn.Module
    architecture: Architecture
    preprocessing: Preprocessing
    format: str
    turned: bool = False


def open_checkpoint(path: Path, options: InputOptions, device: Device) -> PieceEmbedder:
    """A run's folder, its `checkpoints/model.pt`, an export as safetensors, or another project's checkpoint.

    Raises UserError when the file is damaged or holds no network of faces.
    """
    if options.embedding is not None:
        raise UserError(f"embedding {options.embedding}: {path} has one output; leave it out")
    opened = _open(path, options.color)
    device.place(opened.network.eval())
    file = path / "checkpoints" / "model.pt" if path.is_dir() else path
    return _embedder(path.name, opened, file.read_bytes(), options, device)


def open_trained(trained: TrainedNetwork, options: InputOptions) -> PieceEmbedder:
    """A network that `facenas.load` gave, where it is: raw embeddings, as `open_checkpoint` gives them."""
    opened = _ours(trained.arch.kind, trained, "facenas network")
    device = named_device(str(next(trained.parameters()).device))
    return _embedder(trained.arch.kind, opened, digest_of(trained), options, device)


def _embedder(
    name: str, opened: _Opened, content: bytes, options: InputOptions, device: Device
) -> PieceEmbedder:
    model, arch, recorded, kind, turned = opened
    chosen, place = recorded.changed(options), device.torch_device

    def run(images: Pixels) -> Rows:
        return raw_embeddings(model, network_input(images, chosen, place, turned), device).numpy()

    gpu = place.type != "cpu"
    precision = "bfloat16" if device.bf16 else "float32"
    return PieceEmbedder(
        name=name,
        fingerprint=fingerprint(content, chosen.identity, recorded.color, precision),
        size=arch.embedding,
        facts={
            "format": kind,
            "parameters": arch.count_parameters(),
            "macs": arch.count_macs(SIDE),
            **chosen.facts(),
            "precision": precision,
            "device": str(place),
        },
        run=run,
        piece=None if gpu else CPU_PIECE,
        alone=gpu,
    )


def _open(path: Path, color: str | None) -> _Opened:
    if path.is_dir():
        return _ours(path, read_trained(path), "run")
    if path.parent.name == "checkpoints" and (path.parents[1] / "run.yaml").is_file():
        return _ours(path, read_trained(path.parents[1]), "run")
    _refuse_torchscript(path)
    exported = read_exported(path)
    if exported is not None:
        return _ours(path, exported, "facenas safetensors")
    untold: dict[str | None, Color] = {"rgb": "RGB", "bgr": "BGR"}
    foreign = load_foreign(path, untold.get(color and color.lower()))
    network = foreign.architecture.build(0)
    network.load_state_dict(foreign.backbone)
    recorded = usual(foreign.color.lower(), FILE)
    turned = foreign.color == "BGR"
    return _Opened(network, foreign.architecture, recorded, "checkpoint", turned)


def _refuse_torchscript(path: Path) -> None:
    """A .zip with code beside its tensors: loading it would run operations that its author chose."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return
    if any("/code/" in name for name in names):
        raise UserError(
            f"{path}: is TorchScript, which torch has given up and which runs its author's code; export the "
            "network by torch.onnx.export, or save its state_dict as safetensors"
        )


def _ours(where: object, trained: TrainedNetwork, kind: str) -> _Opened:
    if trained.arch.task != "face":
        raise UserError(f"{where}: is a classification network; this needs a network of faces")
    mean, std = (tuple(255 * v for v in values) for values in (trained.mean, trained.std))
    recorded = Preprocessing(trained.color.lower(), mean, std, FILE, FILE)
    return _Opened(trained.network, trained.arch, recorded, kind)
