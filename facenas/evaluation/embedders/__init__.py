"""Any network of faces as a function from images to embeddings, whoever trained it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from facenas.errors import UserError
from facenas.evaluation.embedders.embedder import Embedder
from facenas.evaluation.embedders.preprocessing import ASSUMED, InputOptions

__all__ = ["Embedder", "InputOptions", "embedder_of", "open_embedder"]

log = logging.getLogger(__name__)


def open_embedder(
    model: str | Path,
    options: InputOptions | None = None,
    device: str | None = None,
    precision: str = "fp32",
    tell: bool = True,
) -> Embedder:
    """The network in a run's folder, or in a file: .onnx, .ckpt, .pth, .pt or .safetensors.

    Checkpoints are those of AdaFace, CVLface and arcface_torch. What is said neither by the file nor by
    `options` is assumed, and a warning says so (`tell`). precision: fp32, with which figures and fingerprint
    are the same on every device, or bf16 by autocast, faster on GPUs that compute in it; ONNX computes as it
    was exported. Raises UserError when the file is missing, damaged or no network of faces of 112x112 pixels.
    """
    path, options, bf16 = Path(model).expanduser(), options or InputOptions(), is_bf16(precision)
    if not path.exists():
        raise UserError(f"{path}: there is no such file or run folder")
    if path.suffix.lower() == ".onnx":
        from facenas.evaluation.embedders.onnx import open_onnx

        if bf16:
            raise UserError(
                f"precision bf16: {path} computes in the precision it was exported in; leave it out"
            )
        opened = open_onnx(path, options, device)
    else:
        from facenas.device import named_device
        from facenas.evaluation.embedders.module import open_checkpoint

        opened = open_checkpoint(path, options, replace(named_device(device), bf16=bf16))
    if tell:
        tell_assumed(path, opened.facts)
    return opened


@contextmanager
def embedder_of(
    net: Any,
    options: InputOptions | None = None,
    device: str | None = None,
    precision: str = "fp32",
) -> Iterator[Embedder]:
    """Whatever gives embeddings, as an embedder, for as long as the context lasts.

    net: a file or run folder (`open_embedder`), what `facenas.load` gave, an `Embedder`, an `nn.Module`
    (`open_module`), or an object with a method `embed` or any function of (n, 112, 112, 3) uint8 RGB that gives
    (n, E). A module evaluates meanwhile and is afterwards as it was; `device` is that of files alone: a module
    stays on its own. precision: see `open_embedder`; with fp32 a module runs in its own dtype, and an
    `Embedder` is as it was opened. Raises UserError when it gives no embeddings.
    """
    bf16 = is_bf16(precision)
    if isinstance(net, str | Path):
        yield open_embedder(net, options, device, precision)
        return
    if isinstance(net, Embedder):
        yield net
        return
    from torch import nn

    from facenas.device import Device
    from facenas.evaluation.embedders import module as torch_nets
    from facenas.evaluation.network import Network

    options = options or InputOptions()
    if isinstance(net, Network):  # raw: its own `embed` adds the mirror image, and normalizes
        place = Device(next(net.parameters()).device, bf16)
        with torch_nets.evaluation_mode(net):
            yield torch_nets.open_trained(net.trained, options, place)
        return
    # A module's attribute `embed` may be a layer of its own; a method is what we look for.
    method = getattr(net, "embed", None) if hasattr(type(net), "embed") else None
    if not callable(method or net):
        raise UserError(
            f"{type(net).__name__}: gives no embeddings; give a file, a module, or a function of images"
        )
    module = isinstance(net, nn.Module)
    if bf16 and (method or not module):
        raise UserError(f"precision bf16: {type(net).__name__} computes as it likes; leave it out")
    with torch_nets.evaluation_mode(net) if module else nullcontext():
        if method or not module:
            yield torch_nets.open_callable(method or net, options)
        else:
            yield torch_nets.open_module(net, options, bf16)


def is_bf16(precision: str) -> bool:
    """Whether it is bf16, else fp32; raises UserError for another."""
    if precision not in ("fp32", "bf16"):
        raise UserError(f"precision {precision}: should be fp32 or bf16")
    return precision == "bf16"


def tell_assumed(model: Path, facts: dict[str, Any], setting: str | None = None) -> None:
    """Says what is assumed of a network's input, and what says otherwise: options, or keys of a `setting`."""
    options = {"color": "--input-color", "mean": "--mean", "std": "--std"}
    parts, settings = [], []
    if facts["color_said_by"] == ASSUMED:
        parts, settings = [f"{facts['color'].upper()} pixels"], ["color"]
    if facts["values_said_by"] == ASSUMED:
        mean, std = (" ".join(f"{value:g}" for value in facts[key]) for key in ("mean", "std"))
        parts, settings = [*parts, f"(pixel - {mean}) / {std}"], [*settings, "mean", "std"]
    if parts:
        log.warning(
            "%s: does not say what it takes; assumed: %s; otherwise give %s (%s)",
            *(model, ", ".join(parts), ", ".join(settings)),
            setting or ", ".join(options[name] for name in settings),
        )
