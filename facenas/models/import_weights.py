"""Checkpoints of other projects, as weights of our face networks.

Key layouts: `mk-minchul/AdaFace:net.py` in a Lightning module (BGR); CVLface, which has the same network
(`mk-minchul/CVLface:cvlface/research/recognition/code/run_v1/models/iresnet`, RGB); arcface_torch
(`deepinsight/insightface:recognition/arcface_torch/backbones/iresnet.py`, RGB).
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from facenas.errors import UserError
from facenas.models.ir import IRNetwork
from facenas.models.safe_load import read_states
from facenas.spaces.ir import IRArchitecture

Weights = dict[str, Tensor]
Color = Literal["BGR", "RGB"]

# Insightface's names and ours; its stages `layer1` to `layer4` become one body.
_BLOCK_PARTS = {
    "bn1": "res_layer.0",
    "conv1": "res_layer.1",
    "bn2": "res_layer.2",
    "prelu": "res_layer.3",
    "conv2": "res_layer.4",
    "bn3": "res_layer.5",
    "downsample": "shortcut_layer",
}
_OUTER_PARTS = {
    "conv1": "input_layer.0",
    "bn1": "input_layer.1",
    "prelu": "input_layer.2",
    "bn2": "output_layer.0",
    "fc": "output_layer.3",
    "features": "output_layer.4",
}


class Foreign(NamedTuple):
    """`backbone` takes RGB, whatever `color` the file was trained on; `kernel` is (embedding, identities)."""

    architecture: IRArchitecture
    backbone: Weights
    kernel: Tensor | None
    color: Color


def load_foreign(path: Path, untold: Color | None = None, wanted: str | None = None) -> Foreign:
    """The network in a checkpoint of AdaFace, CVLface or arcface_torch, for `load_state_dict` of what is built.

    untold: the order of a file whose names do not tell it; wanted: of a file with several networks, what stands
    before the names of one, e.g. `teacher`. Of a file trained on BGR, the input channels of the
    first convolution are swapped. The last bias of arcface_torch moves into the running mean of its
    BatchNorm: z is the same in evaluation, but further training starts without it. Raises UserError when
    the file is torn or unsafe, or holds no such network.
    """
    tensors, prefix, insightface = _chosen(path, read_states(path), wanted)
    color = _color(path, prefix, insightface, untold)
    found = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    weights = {k: v.float() if v.is_floating_point() else v for k, v in found.items()}
    if insightface:
        weights = _without_last_bias(path, _renamed(path, weights))
    arch = _architecture(path, weights)
    _check(path, arch, weights)
    if color == "BGR":
        weights["input_layer.0.weight"] = weights["input_layer.0.weight"].flip(1)
    kernel = tensors.get("head.kernel")
    return Foreign(arch, weights, None if kernel is None else kernel.float(), color)


def _chosen(path: Path, states: dict[str, Weights], wanted: str | None) -> tuple[Weights, str, bool]:
    """(the mapping of the network, what stands before its names there, whether these are insightface's)."""
    found = {
        f"{place}{prefix}": (tensors, prefix, insightface)
        for place, tensors in states.items()
        for prefix, insightface in _prefixes(tensors)
    }
    if not found:
        raise UserError(f"{path}: holds no IR network of AdaFace, CVLface or arcface_torch")
    names = list(found)
    if wanted is not None:
        names = [name for name in found if f".{wanted.strip('.')}." in f".{name}"]
    if len(names) != 1:
        known = ", ".join(name.rstrip(".") or "its own" for name in found)
        fault = f"{len(names)} of its networks are {wanted}" if wanted else f"holds {len(found)} networks"
        raise UserError(f"{path}: {fault}; say by prefix which is meant: {known}")
    return found[names[0]]


def _prefixes(tensors: Weights) -> list[tuple[str, bool]]:
    """What stands before the names of each IR network, and whether these are insightface's."""
    own, first, block = "input_layer.0.weight", "conv1.weight", "layer1.0.conv1.weight"
    found = [(key.removesuffix(own), False) for key in tensors if f".{key}".endswith(f".{own}")]
    if found:
        return found
    keys = [key for key in tensors if f".{key}".endswith(f".{first}")]  # blocks have a conv1 too
    whole = [key for key in keys if f"{key.removesuffix(first)}{block}" in tensors]
    return [(key.removesuffix(first), True) for key in whole or sorted(keys, key=len)[:1]]


def _color(path: Path, prefix: str, insightface: bool, untold: Color | None) -> Color:
    """Order of the channels in training."""
    if prefix.endswith("net."):  # CVLface: settings beside the file may have it flip its input
        beside = (path.parent / name for name in ("model.yaml", "config.yaml", "config.json"))
        texts = [file.read_text(errors="replace") for file in beside if file.is_file()]
        return "BGR" if any(re.search(r"color_space\W+BGR", text) for text in texts) else "RGB"
    if insightface:
        return "RGB"
    if prefix == "model.":
        return "BGR"
    if untold:
        return untold
    raise UserError(
        f"{path}: RGB or BGR cannot be told; give color (rgb or bgr), or keep names as AdaFace (model.*) or "
        "CVLface (net.*) wrote them"
    )


def _renamed(path: Path, weights: Weights) -> Weights:
    """Insightface's names as ours."""
    inside = {key: re.fullmatch(r"layer(\d)\.(\d+)\.(\w+)\.(.+)", key) for key in weights}
    blocks = sorted({(int(m[1]), int(m[2])) for m in inside.values() if m})
    ours: Weights = {}
    for key, tensor in weights.items():
        part, _, rest = key.partition(".")
        m = inside[key]
        if m and m[3] in _BLOCK_PARTS:
            number = blocks.index((int(m[1]), int(m[2])))
            ours[f"body.{number}.{_BLOCK_PARTS[m[3]]}.{m[4]}"] = tensor
        elif part in _OUTER_PARTS:
            ours[f"{_OUTER_PARTS[part]}.{rest}"] = tensor
        else:
            raise UserError(f"{path}: {key} is no part of an IR network of arcface_torch")
    return ours


def _without_last_bias(path: Path, weights: Weights) -> Weights:
    """Our last BatchNorm has no bias: (x - mean) / sd + bias = (x - (mean - bias * sd)) / sd."""
    name = "output_layer.4."
    scale, bias = weights.pop(f"{name}weight", None), weights.pop(f"{name}bias", None)
    if scale is not None and not torch.equal(scale, torch.ones_like(scale)):
        raise UserError(
            f"{path}: the weights of its last BatchNorm should all be 1, as arcface_torch keeps them"
        )
    mean, variance = weights.get(f"{name}running_mean"), weights.get(f"{name}running_var")
    if bias is not None and mean is not None and variance is not None:
        shifted = mean.double() - bias.double() * (variance.double() + 1e-5).sqrt()
        weights[f"{name}running_mean"] = shifted.float()
    return weights


def _architecture(path: Path, weights: Weights) -> IRArchitecture:
    """What the shapes say: width, blocks of each stage, kernels, length of z."""
    try:
        width = weights["input_layer.0.weight"].shape[0]
        embedding = weights["output_layer.3.weight"].shape[0]
        blocks = 1 + max(int(key.split(".")[1]) for key in weights if key.startswith("body."))
        shapes = [weights[f"body.{i}.res_layer.1.weight"].shape for i in range(blocks)]
        kernels = tuple(shape[3] for shape in shapes)
    except (KeyError, ValueError, IndexError):
        raise UserError(f"{path}: its network lacks weights; fetch it again") from None
    stages = [sum(shape[0] == width * 2**stage for shape in shapes) for stage in range(4)]
    if sum(stages) != blocks or 0 in stages or 1 in kernels:
        raise UserError(
            f"{path}: is not four stages of plain blocks (IR-152 and IR-200, of bottlenecks, are not supported)"
        )
    se = "body.0.res_layer.se_block.fc1.weight" in weights
    arch = IRArchitecture.uniform(width, stages, embedding, se)
    return replace(arch, kernels=kernels, project_first="body.0.shortcut_layer.0.weight" in weights)


def _check(path: Path, arch: IRArchitecture, weights: Weights) -> None:
    """Raises UserError at a name or shape that is not the architecture's."""
    with torch.device("meta"):
        wanted = {key: value.shape for key, value in IRNetwork(arch).state_dict().items()}
    for key in sorted(wanted.keys() | weights.keys()):
        if key not in weights or key not in wanted or weights[key].shape != wanted[key]:
            expected, found = wanted.get(key), weights[key].shape if key in weights else None
            raise UserError(
                f"{path}: is not a whole IR network: {key} is {_shape(found)}, but should be {_shape(expected)}"
            )


def _shape(shape: torch.Size | None) -> str:
    return "missing" if shape is None else "x".join(map(str, shape)) or "a number"
