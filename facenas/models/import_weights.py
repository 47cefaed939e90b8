"""Checkpoints of other projects, as weights of our face networks.

`facenas.models.import_layouts` has their names: AdaFace's in a Lightning module (BGR), CVLface's, which has the
same network (RGB), arcface_torch's (RGB), and those of the light networks.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from facenas.errors import UserError
from facenas.models.build import skeleton
from facenas.models.import_layouts import ADAFACE, LAYOUTS, Color, Layout, Weights
from facenas.models.safe_load import read_states
from facenas.spaces import Architecture


class Foreign(NamedTuple):
    """`backbone` takes RGB, whatever `color` the file was trained on; `kernel` is (embedding, identities).

    std: what pixels, from 0 to 1 and less 0.5, are divided by.
    """

    architecture: Architecture
    backbone: Weights
    kernel: Tensor | None
    color: Color
    std: float


def load_foreign(path: Path, untold: Color | None = None, wanted: str | None = None) -> Foreign:
    """The network in a checkpoint of another project, for `load_state_dict` of what is built.

    untold: the order of a file whose names do not tell it; wanted: of a file with several networks, what stands
    before the names of one, e.g. `teacher`. Of a file trained on BGR, the input channels of the
    first convolution are swapped. The last bias of arcface_torch moves into the running mean of its
    BatchNorm: z is the same in evaluation, but further training starts without it. Raises UserError when
    the file is torn or unsafe, or holds no such network.
    """
    tensors, prefix, layout = _chosen(path, read_states(path), wanted)
    color = _color(path, prefix, layout, untold)
    found = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    floats = {k: v.float() if v.is_floating_point() else v for k, v in found.items()}
    try:
        weights = layout.renamed(path, floats)
        arch = layout.architecture(path, weights)
    except (KeyError, ValueError, IndexError, RuntimeError, StopIteration):  # of shapes that fit nothing
        raise UserError(f"{path}: its network lacks weights; fetch it again") from None
    _check(path, arch, weights)
    if color == "BGR":
        weights["input_layer.0.weight"] = weights["input_layer.0.weight"].flip(1)
    kernel = tensors.get("head.kernel")
    return Foreign(arch, weights, None if kernel is None else kernel.float(), color, layout.std)


def _chosen(path: Path, states: dict[str, Weights], wanted: str | None) -> tuple[Weights, str, Layout]:
    """(the mapping of the network, what stands before its names there, whose names these are)."""
    found = {
        f"{place}{prefix}": (tensors, prefix, layout)
        for place, tensors in states.items()
        for prefix, layout in _prefixes(tensors)
    }
    if not found:
        known = ", ".join(dict.fromkeys(layout.project for layout in LAYOUTS))
        raise UserError(f"{path}: holds no face network of {known}")
    names = list(found)
    if wanted is not None:
        names = [name for name in found if f".{wanted.strip('.')}." in f".{name}"]
    if len(names) != 1:
        known = ", ".join(name.rstrip(".") or "its own" for name in found)
        fault = f"{len(names)} of its networks are {wanted}" if wanted else f"holds {len(found)} networks"
        raise UserError(f"{path}: {fault}; say by prefix which is meant: {known}")
    return found[names[0]]


def _prefixes(tensors: Weights) -> list[tuple[str, Layout]]:
    """What stands before the names of each network, and whose these are; of the first project that fits."""
    for layout in LAYOUTS:
        if found := layout.prefixes(tensors):
            return [(prefix, layout) for prefix in found]
    return []


def _color(path: Path, prefix: str, layout: Layout, untold: Color | None) -> Color:
    """Order of the channels in training."""
    if layout.color:
        return layout.color
    # CVLface: settings beside the file may have it flip its input.
    if layout is ADAFACE and prefix.endswith("net."):
        beside = (path.parent / name for name in ("model.yaml", "config.yaml", "config.json"))
        texts = [file.read_text(errors="replace") for file in beside if file.is_file()]
        return "BGR" if any(re.search(r"color_space\W+BGR", text) for text in texts) else "RGB"
    if layout is ADAFACE and prefix == "model.":
        return "BGR"
    if untold:
        return untold
    raise UserError(
        f"{path}: RGB or BGR cannot be told; give color (rgb or bgr), or keep names as AdaFace (model.*) or "
        "CVLface (net.*) wrote them"
    )


def _check(path: Path, arch: Architecture, weights: Weights) -> None:
    """Raises UserError at a name or shape that is not the architecture's."""
    wanted = {key: value.shape for key, value in skeleton(arch).state_dict().items()}
    for key in sorted(wanted.keys() | weights.keys()):
        if key not in weights or key not in wanted or weights[key].shape != wanted[key]:
            expected, found = wanted.get(key), weights[key].shape if key in weights else None
            raise UserError(
                f"{path}: is not a whole network of kind {arch.kind}: {key} is {_shape(found)}, but should be "
                f"{_shape(expected)}"
            )


def _shape(shape: torch.Size | None) -> str:
    return "missing" if shape is None else "x".join(map(str, shape)) or "a number"
