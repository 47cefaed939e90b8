"""Any network of faces as a function from images to embeddings, whoever trained it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from facenas.device import named_device, use_threads
from facenas.errors import UserError
from facenas.evaluation.embedders.base import Embedder, PieceEmbedder
from facenas.evaluation.embedders.options import ASSUMED, InputOptions

__all__ = ["Embedder", "InputOptions", "open_embedder"]

log = logging.getLogger(__name__)


def open_embedder(
    model: Path,
    options: InputOptions | None = None,
    device: str | None = None,
    threads: int = 1,
) -> Embedder:
    """The network in a run's folder, or in a file: .onnx, TorchScript, .ckpt, .pth, .pt or .safetensors.

    Checkpoints are those of AdaFace, CVLface and arcface_torch. What is said neither by the file nor by
    `options` is assumed, and a warning says so. threads: of one call, and of torch in this process; many
    calls at once, of one thread each, are faster. Raises UserError when the file is missing, damaged or no
    network of faces of 112x112 pixels.
    """
    options = options or InputOptions()
    if not model.exists():
        raise UserError(f"{model}: there is no such file or run folder")
    opened = _open(model, options, device, threads)
    _tell_assumed(model, opened.facts)
    return opened


def _tell_assumed(model: Path, facts: dict[str, Any]) -> None:
    parts, flags = [], []
    if facts["colour_said_by"] == ASSUMED:
        parts, flags = [f"{facts['colour'].upper()} pixels"], ["--input-color"]
    if facts["values_said_by"] == ASSUMED:
        mean, std = (" ".join(f"{value:g}" for value in facts[key]) for key in ("mean", "std"))
        parts, flags = [*parts, f"(pixel - {mean}) / {std}"], [*flags, "--mean", "--std"]
    if parts:
        log.warning(
            "%s: does not say what it takes; assumed: %s; otherwise give %s",
            *(model, ", ".join(parts), ", ".join(flags)),
        )


def _open(model: Path, options: InputOptions, device: str | None, threads: int) -> PieceEmbedder:
    if model.suffix.lower() == ".onnx":
        from facenas.evaluation.embedders.onnx_models import open_onnx

        return open_onnx(model, options, device, threads)
    from facenas.evaluation.embedders.torch_networks import open_network
    from facenas.evaluation.embedders.torchscript import is_torchscript, open_torchscript

    place = named_device(device)
    use_threads(threads)
    if is_torchscript(model):
        return open_torchscript(model, options, place)
    return open_network(model, options, place)
