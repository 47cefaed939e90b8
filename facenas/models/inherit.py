"""A larger network that begins with the weights of a smaller one and computes exactly what that does.

After "Net2Net: Accelerating Learning via Knowledge Transfer" (arXiv 1511.05641) and "Efficient Architecture
Search by Network Transformation" (arXiv 1707.04873), but no channel is copied twice: what is wider keeps its
drawn channels, and only the weights from them to the old ones are zero. So nothing has to be told apart by
noise, and gradients reach those weights from the first step on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional as F

from facenas.errors import UserError
from facenas.files import reading, write_bytes
from facenas.models.build import skeleton
from facenas.spaces import Architecture, from_json
from facenas.spaces.plain import PLAIN, SEPARABLE

Weights = dict[str, Tensor]
_EPS = nn.BatchNorm2d(1).eps
_HEAD = "head."  # of faces: what is trained with the network
_REMEDY = "put the file back as the search wrote it, or start a new run"


def keep(path: Path, key: str, arch: Architecture, network: nn.Module, head: nn.Module | None) -> None:
    """Stores what the trial `key` has trained, of faces with its head, as safetensors, whole or not at all.

    Raises SearchStoppedError when the disk is full.
    """
    states = network.state_dict() | _named_head(head)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in states.items()}
    # One entry: several would be written in any order, and equal weights as unequal files.
    about = {"trial": json.dumps({"key": key, "architecture": arch.to_json()})}
    write_bytes(path, safetensors.torch.save(tensors, about), remedy="make room, and resume the run")


def begin_as(path: Path, key: str, arch: Architecture, network: nn.Module, head: nn.Module | None) -> None:
    """Gives `network`, of `arch` and as it is drawn, and its head the weights that the trial `key` has stored.

    Raises UserError when they are missing, torn, another trial's, or of a network that `arch` does not extend.
    """
    if not path.is_file():
        raise UserError(f"{path}: is missing; a candidate begins with these weights: {_REMEDY}")
    with reading(path, _REMEDY):
        smaller, weights = _read(path, key)
        drawn = {name: tensor.cpu() for name, tensor in network.state_dict().items()}
        if _shapes(weights) != _shapes(skeleton(smaller).state_dict() | _named_head(head)):
            raise ValueError("its tensors are not those of its network")
        of_head = {name: weights.pop(name) for name in _named_head(head)}
        network.load_state_dict(inherited(smaller, weights, arch, drawn))
        if head is not None:
            head.load_state_dict({name.removeprefix(_HEAD): tensor for name, tensor in of_head.items()})


def _shapes(weights: Weights) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in weights.items()}


def _named_head(head: nn.Module | None) -> Weights:
    return {_HEAD + name: tensor for name, tensor in head.state_dict().items()} if head is not None else {}


def _read(path: Path, key: str) -> tuple[Architecture, Weights]:
    with safe_open(path, "pt") as file:
        about = json.loads((file.metadata() or {}).get("trial", "{}"))
        if about.get("key") != key:
            raise UserError(f"{path}: does not hold the weights of this trial; {_REMEDY}")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return from_json(about["architecture"]), tensors


def inherited(smaller: Any, weights: Weights, larger: Any, drawn: Weights) -> Weights:
    """The state of `larger` with which it computes in evaluation what `smaller` does with `weights`.

    drawn: the state of `larger` as it is drawn; new channels keep it. Raises UserError when `larger` does not
    extend `smaller`.
    """
    kind = _KINDS.get(larger.kind)
    if kind is None or not larger.extends(smaller):
        raise UserError(f"a network ({larger.summary()}) cannot begin with the weights of {smaller.summary()}")
    origins = larger.origins(smaller)
    places = {origin: place for place, origin in enumerate(origins) if origin is not None}
    given = {kind.rename(name, places, len(smaller.operations), len(origins)): w for name, w in weights.items()}
    for origin, place in places.items():
        if (smaller.operations[origin], larger.operations[place]) == (SEPARABLE, PLAIN):
            kind.join(given, place)
    state = {name: _cornered(given[name], w) if name in given else w.clone() for name, w in drawn.items()}
    for place, origin in enumerate(origins):
        if origin is None:
            kind.make_identity(state, place)
    return state


def _cornered(old: Tensor, drawn: Tensor) -> Tensor:
    """`drawn` with `old` in its leading rows and columns and in the middle of its kernels.

    What else is in these rows comes from new channels, and is zero. After flattening, columns lie channel by
    channel, so the leading ones are those of the old channels too.
    """
    if not old.dim():
        return old.clone()
    if old.dim() == 4:
        margin = (drawn.shape[3] - old.shape[3]) // 2
        old = F.pad(old, (margin,) * 4)
    grown = drawn.clone()
    grown[: len(old)] = 0
    grown[tuple(map(slice, old.shape))] = old
    return grown


def _join(given: Weights, depthwise: str, pointwise: str, name: str) -> None:
    """One convolution, (o, i, k, k), in place of depthwise (i, 1, k, k) and pointwise (o, i, 1, 1)."""
    given[name] = given.pop(pointwise) * given.pop(depthwise).transpose(0, 1)


# --- plain: (ReLU, convolutions, BatchNorm) a layer, layer i is the child i + 1 of an nn.Sequential


def _rename_layer(name: str, places: dict[int, int], before: int, after: int) -> str:
    child, _, rest = name.partition(".")
    number = int(child)
    if 1 <= number <= before:
        number = places[number - 1] + 1
    elif number > before:
        number += after - before
    return f"{number}.{rest}"


def _join_layer(given: Weights, place: int) -> None:
    prefix = f"{place + 1}"
    _join(given, f"{prefix}.1.weight", f"{prefix}.2.weight", f"{prefix}.1.weight")
    for name in [name for name in given if name.startswith(f"{prefix}.3.")]:
        given[f"{prefix}.2.{name.rpartition('.')[2]}"] = given.pop(name)


def _make_layer_identity(state: Weights, place: int) -> None:
    """The layer gives ReLU(x), and what comes behind it takes the ReLU of that, which changes nothing.

    In training, BatchNorm uses the moments of the batch in place of the running ones. So those are set to what
    they probably are: of a rectified normal variable with mean and variance as the BatchNorm before gives them.
    """
    own, norm_before, norm = f"{place + 1}.", _norm_of(state, place), _norm_of(state, place + 1)
    for name in [name for name in state if name.startswith(own) and state[name].dim() == 4]:
        groups = 1 if state[name].shape[1] > 1 else len(state[name])
        nn.init.dirac_(state[name], groups)
    mean, variance = _rectified(state[f"{norm_before}.bias"], state[f"{norm_before}.weight"])
    state[f"{norm}.running_mean"] = mean
    state[f"{norm}.running_var"] = variance
    state[f"{norm}.bias"] = mean.clone()
    state[f"{norm}.weight"] = (variance + _EPS).sqrt()


def _norm_of(state: Weights, child: int) -> str:
    """Where the BatchNorm of a layer is."""
    found = (name for name in state if name.startswith(f"{child}.") and name.endswith(".running_var"))
    return next(found).removesuffix(".running_var")


def _rectified(mean: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of max(x, 0), x normal, for each channel."""
    m, s = mean.double(), deviation.double().abs().clamp(min=1e-6)
    below = torch.special.ndtr(m / s)
    density = torch.exp(-0.5 * (m / s) ** 2) / math.sqrt(2 * math.pi)
    first = m * below + s * density
    second = (m**2 + s**2) * below + m * s * density
    return first.to(mean.dtype), (second - first**2).clamp(min=0).to(mean.dtype)


# --- ir: x + residual(x) a block


def _rename_block(name: str, places: dict[int, int], _before: int, _after: int) -> str:
    parts = name.split(".")
    if parts[0] == "body":
        parts[1] = str(places[int(parts[1])])
    return ".".join(parts)


def _join_block(given: Weights, place: int) -> None:
    for convolution in (f"body.{place}.res_layer.1", f"body.{place}.res_layer.4"):
        _join(given, f"{convolution}.0.weight", f"{convolution}.1.weight", f"{convolution}.weight")


def _make_block_identity(state: Weights, place: int) -> None:
    """The last BatchNorm of the residual gives 0, also in training; its weight learns first."""
    for name in ("weight", "bias"):
        state[f"body.{place}.res_layer.5.{name}"].zero_()


@dataclass(frozen=True)
class _Kind:
    """How a space's modules call their tensors, and how a new layer or block becomes the identity."""

    rename: Callable[[str, dict[int, int], int, int], str]
    join: Callable[[Weights, int], None]
    make_identity: Callable[[Weights, int], None]


_KINDS = {
    "plain": _Kind(_rename_layer, _join_layer, _make_layer_identity),
    "ir": _Kind(_rename_block, _join_block, _make_block_identity),
}
