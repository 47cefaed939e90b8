"""Trained weights as the beginning of another training of the same network: without its classifier, for other
channels if need be.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor, nn

from facenas.errors import UserError
from facenas.files import write_atomically
from facenas.models.build import skeleton
from facenas.models.load import TrainedNetwork
from facenas.models.safe_load import read_tensors
from facenas.spaces import Architecture, ImageFacts
from facenas.spaces.base import FACE

Weights = dict[str, Tensor]

CLASS_MEANS = "class means"


@dataclass(frozen=True)
class Beginning:
    """Weights that a training begins with: by name `taken`, of which `fitted` are for other channels.

    source: where they come from; fresh: names of what is drawn, such as the classifier; head: of faces, where
    the columns of the head begin (`facenas.training.class_means`).
    """

    source: str
    taken: Weights
    fitted: tuple[str, ...]
    fresh: tuple[str, ...]
    head: str | None = None

    def write(self, path: Path) -> dict[str, Any]:
        """Stores the weights at `path` as safetensors; returns what describes them, as JSON, with a sha256."""
        content = safetensors.torch.save({name: tensor.contiguous() for name, tensor in self.taken.items()})
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, lambda temporary: temporary.write_bytes(content))
        return {
            "source": self.source,
            "fingerprint": hashlib.sha256(content).hexdigest(),
            "taken": len(self.taken),
            "fitted": list(self.fitted),
            "fresh": list(self.fresh),
            **({"head": self.head} if self.head else {}),
        }

    def summary(self) -> str:
        """What was taken and what was not, in a sentence."""
        fitted = f", {', '.join(self.fitted)} fitted to other channels" if self.fitted else ""
        fresh = f"; drawn anew: {', '.join(self.fresh)}" if self.fresh else ""
        tensors = f"{len(self.taken)} of {len(self.taken) + len(self.fresh)} tensors taken"
        head = f"; the head begins at the {self.head}" if self.head else ""
        return f"weights of {self.source}: {tensors}{fitted}{fresh}{head}"


def begin_with(source: TrainedNetwork, name: str, arch: Architecture, images: ImageFacts) -> Beginning:
    """What `source`, called `name`, gives a network `arch` for such images.

    All tensors of the same shape but the classifier's. A first layer for other channels answers a grey image as
    before: the sum of its weights over the channels is shared out among those there are now (for one channel as
    `huggingface/pytorch-image-models:timm/models/_manipulate.py`, adapt_input_conv). Raises UserError when they
    are different networks.
    """
    _check_same(name, source.arch, arch, images)
    classifier, given = _classifier(arch, images), source.network.state_dict()
    taken, fitted = {}, []
    for key, wanted in skeleton(arch).state_dict().items():
        tensor = given.get(key)
        if tensor is None or key in classifier:
            continue
        if tensor.shape != wanted.shape:
            if (tensor := _for_channels(tensor, wanted)) is None:
                continue
            fitted.append(key)
        taken[key] = tensor
    fresh = [key for key in skeleton(arch).state_dict() if key not in taken]
    head = CLASS_MEANS if arch.task == FACE else None
    return Beginning(name, taken, tuple(fitted), tuple(fresh), head)


def load_beginning(network: nn.Module, path: Path, about: dict[str, Any]) -> nn.Module:
    """`network` with the weights that `Beginning.write` stored; raises UserError when they are others."""
    if not path.is_file():
        raise UserError(
            f"{path}: is missing; the training begins with it: start it anew from {about.get('source')}"
        )
    if hashlib.sha256(path.read_bytes()).hexdigest() != about["fingerprint"]:
        raise UserError(f"{path}: is not what the run was made with; start it anew from {about.get('source')}")
    network.load_state_dict(read_tensors(path), strict=False)
    return network


def _check_same(name: str, theirs: Architecture, ours: Architecture, images: ImageFacts) -> None:
    if theirs == ours:
        return
    if (theirs.kind, theirs.task) == (ours.kind, ours.task):
        one, other = (arch.adapted(images).to_json() for arch in (theirs, ours))
        if one == other:
            return
        differ = f"; they differ in {', '.join(key for key in other if one.get(key) != other[key])}"
    else:
        differ = ""
    raise UserError(
        f"{name}: holds the weights of another network, {_described(theirs)}; to be trained is "
        f"{_described(ours)}{differ}"
    )


def _described(arch: Architecture) -> str:
    return f"{arch.kind} ({arch.summary()}, {arch.count_parameters():,} parameters)"


def _classifier(arch: Architecture, images: ImageFacts) -> set[str]:
    """Names of the tensors whose shape the number of classes decides; none of faces, whose head is apart."""
    if not images.num_classes:
        return set()
    more = arch.adapted(replace(images, num_classes=images.num_classes + 1))
    shapes = {key: value.shape for key, value in skeleton(more).state_dict().items()}
    ours = skeleton(arch).state_dict().items()
    return {key for key, value in ours if shapes.get(key, value.shape) != value.shape}


def _for_channels(weight: Tensor, wanted: Tensor) -> Tensor | None:
    """(o, c, h, w) -> (o, c', h, w); None when it is not the channels alone that differ."""
    shape, goal = weight.shape, wanted.shape
    if weight.dim() != 4 or (shape[0], *shape[2:]) != (goal[0], *goal[2:]):
        return None
    channels = goal[1]
    return (weight.sum(1, keepdim=True) / channels).expand(-1, channels, -1, -1).contiguous()
