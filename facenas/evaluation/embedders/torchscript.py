"""TorchScript files. They run their own operations, but hold no Python that loading would run."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from facenas.data.faces.loader import to_input
from facenas.device import Device
from facenas.errors import UserError
from facenas.evaluation.embedders.base import PieceEmbedder, Pixels, first_line
from facenas.evaluation.embedders.options import InputOptions, usual
from facenas.evaluation.embedders.outputs import Candidate, tried
from facenas.evaluation.embedders.torch_networks import Adapted, as_tensor


def is_torchscript(path: Path) -> bool:
    """Whether the file is a .zip with code beside its tensors."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False
    inside = {name.partition("/")[2] for name in names}
    return "constants.pkl" in inside and any(name.startswith("code/") for name in inside)


def open_torchscript(path: Path, options: InputOptions, device: Device) -> PieceEmbedder:
    """Takes (n, 3, 112, 112); gives a tensor, or several as a tuple, list or dict: named 0, 1, ... or by keys.

    Raises UserError when it is damaged or takes or gives something else.
    """
    chosen = usual().changed(options)
    script = _load(path)
    model = device.place(nn.Sequential(Adapted(chosen), script))

    @torch.inference_mode()
    def outputs(images: Pixels) -> dict[str, Any]:
        with device.autocast():
            found = model(to_input(as_tensor(images).to(device.torch_device)))
        return {name: value.float().cpu().numpy() for name, value in _named(found)}

    precision = "bfloat16" if device.bf16 else "float32"
    parameters = sum(p.numel() for p in script.parameters())  # none in a frozen one
    facts = {
        "format": "TorchScript",
        **({"parameters": parameters} if parameters else {}),
        **chosen.facts(),
        "precision": precision,
        "device": str(device.torch_device),
    }
    settings = f"{chosen.identity} {precision}"
    gpu, content = device.torch_device.type != "cpu", path.read_bytes()
    return tried(Candidate(path, outputs, options.embedding, None, content, settings, facts, gpu))


def _load(path: Path) -> nn.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch calls TorchScript deprecated
            loaded = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
    except Exception as error:  # a torn file fails in many ways, deep inside torch
        raise UserError(
            f"{path}: is not whole TorchScript ({first_line(error)}); fetch it again"
        ) from None
    script: nn.Module = loaded.eval().float()
    return script


def _named(found: Any) -> list[tuple[str, Any]]:
    if isinstance(found, dict):
        return [(str(name), value) for name, value in found.items()]
    several = found if isinstance(found, tuple | list) else [found]
    return [(str(number), value) for number, value in enumerate(several)]
