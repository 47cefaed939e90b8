"""facenas networks in timm's registry: importing this module is all it takes.

    import timm
    import facenas.export.timm_models

    network = timm.create_model("facenas_ir18")  # (n, 3, 112, 112) -> embeddings (n, 512)
    network = timm.create_model("facenas_found", architecture="runs/casia/best.json")

Weights keep the names that they have in facenas: `checkpoint_path` takes what `facenas export --format
safetensors` wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from timm.models import (
    PretrainedCfg,
    build_model_with_cfg,
    generate_default_cfgs,
    register_model,
)
from torch import Tensor, nn
from torch.nn import functional as F

from facenas.errors import UserError
from facenas.files import read_json
from facenas.spaces import IRArchitecture, PlainArchitecture, from_json
from facenas.spaces.base import FACE_SIZE
from facenas.spaces.ir import NAMED
from facenas.spaces.plain import PLAIN

Supported = PlainArchitecture | IRArchitecture  # timm knows what lies where in these alone


class TimmNetwork(nn.Module):
    """A facenas network as timm's callers expect one, of any kind of architecture.

    Faces: the features are the embedding z, not normalised; a linear `classifier` comes on top when there
    are classes. Classification: features are a map (n, c, h, w), the network's own last layer classifies.
    Weights are drawn from torch's global generator, as for timm's own networks. Raises UserError for
    images that the architecture does not take.
    """

    def __init__(
        self,
        architecture: Supported,
        num_classes: int,
        in_chans: int,
        img_size: int | Sequence[int] = FACE_SIZE,
        drop_rate: float = 0.0,
        global_pool: str = "avg",
    ) -> None:
        super().__init__()
        _check_input(architecture, in_chans, img_size)
        self.in_chans, self.drop_rate = in_chans, drop_rate
        self.feature_info = _maps(architecture)
        seed = int(torch.randint(2**62, (), device="cpu"))
        for name, child in architecture.build(seed).named_children():
            self.add_module(name, child)
        names = list(self._modules)
        if isinstance(architecture, IRArchitecture):
            self._features, self._pool, self._classifier = names, [], "classifier"
            self.num_features = architecture.embedding
        else:
            self._features, self._pool, self._classifier = names[:-3], names[-3:-1], names[-1]
            self.num_features = list(architecture.layers())[-1].out_channels
        self.head_hidden_size = self.num_features
        self.global_pool = global_pool
        self.reset_classifier(num_classes, global_pool)

    def forward_features(self, images: Tensor) -> Tensor:
        """(n, c, h, w) float32, normalised -> (n, num_features), or a map (n, num_features, h', w')."""
        return self._through(self._features, images)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Features -> logits (n, num_classes); with `pre_logits`, or without classes, (n, num_features)."""
        if self.global_pool == "":
            return features
        pooled = self._through(self._pool, features)
        pooled = F.dropout(pooled, self.drop_rate, self.training)
        return pooled if pre_logits else self._through([self._classifier], pooled)

    def forward(self, images: Tensor) -> Tensor:
        """(n, c, h, w) float32, normalised -> logits, or what comes before when there are no classes."""
        return self.forward_head(self.forward_features(images))

    def get_classifier(self) -> nn.Module:
        """The last linear layer; nn.Identity without classes."""
        return self.get_submodule(self._classifier)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new last layer; `global_pool=""` leaves out pooling and classifier, None leaves it as it is.

        Raises UserError for other pooling than "avg"; faces have none.
        """
        if global_pool not in (None, "", "avg"):
            raise UserError(f"global_pool={global_pool!r}: there is 'avg', or '' for no pooling")
        self.num_classes = num_classes
        self.global_pool = self.global_pool if global_pool is None else global_pool
        weight = next(self.parameters())
        layer = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        self.add_module(self._classifier, layer.to(weight.device, weight.dtype))

    def _through(self, names: list[str], x: Tensor) -> Tensor:
        for name in names:
            x = self.get_submodule(name)(x)
        return x


def _check_input(arch: Supported, in_chans: int, img_size: int | Sequence[int]) -> None:
    if in_chans != arch.in_channels:
        raise UserError(f"the network takes {arch.in_channels} channels, not in_chans={in_chans}")
    sides = {img_size} if isinstance(img_size, int) else set(img_size)
    if isinstance(arch, IRArchitecture) and sides != {FACE_SIZE}:
        raise UserError(f"face networks take {FACE_SIZE}x{FACE_SIZE} pixels, not img_size={img_size}")


def _maps(arch: Supported) -> list[dict[str, Any]]:
    """What `features_only=True` gives: the last map of every size, from the largest down."""
    return list(_face_maps(arch) if isinstance(arch, IRArchitecture) else _plain_maps(arch))


def _face_maps(arch: IRArchitecture) -> Iterator[dict[str, Any]]:
    """Of the stem, and of the last block of every stage."""
    yield _map(arch.width, 1, "input_layer.2")
    blocks = list(arch.blocks())
    for i, block in enumerate(blocks):
        if block is blocks[-1] or blocks[i + 1].stride > 1:
            yield _map(block.out_channels, block.shrink, f"body.{i}")


def _plain_maps(arch: PlainArchitecture) -> Iterator[dict[str, Any]]:
    """After the ReLU that the next layer begins with: it works in place."""
    layers = list(arch.layers())
    channels, shrink = 2 * arch.width, arch.stem_stride
    for i, layer in enumerate(layers):
        if layer.stride > 1:
            yield _map(channels, shrink, f"{i + 1}.0")
        channels, shrink = layer.out_channels, layer.shrink
    norm = 2 if layers[-1].operation == PLAIN else 3
    yield _map(channels, shrink, f"{len(layers)}.{norm}")


def _map(channels: int, reduction: int, module: str) -> dict[str, Any]:
    return {"num_chs": channels, "reduction": reduction, "module": module}


def _describe(arch: Supported) -> PretrainedCfg:
    """What timm tells callers of the input and of the layers that it may replace."""
    half = (0.5,) * arch.in_channels
    about: dict[str, Any] = {"crop_pct": 1.0, "mean": half, "std": half}
    if isinstance(arch, IRArchitecture):
        about |= {"input_size": (3, FACE_SIZE, FACE_SIZE), "fixed_input_size": True}
        about |= {"first_conv": "input_layer.0", "classifier": "classifier"}
    else:
        # 32 pixels are a suggestion: these networks take any size.
        about |= {"input_size": (arch.in_channels, 32, 32), "pool_size": (8, 8)}
        about |= {"first_conv": "0.0", "classifier": str(arch.depth + 3)}
    return PretrainedCfg(num_classes=arch.num_classes, **about)


def _build(name: str, arch: Supported, pretrained: bool, **options: Any) -> nn.Module:
    feature_cfg = {"out_indices": tuple(range(len(_maps(arch)))), "flatten_sequential": True}
    network: nn.Module = build_model_with_cfg(
        TimmNetwork, name, pretrained, feature_cfg=feature_cfg, architecture=arch, **options
    )
    return network


def facenas_found(
    architecture: dict[str, Any] | str | Path, pretrained: bool = False, **options: Any
) -> nn.Module:
    """Any network from its description: a `best.json`, an architecture file, or the JSON object itself.

    Raises UserError when there is no such file or it describes no architecture.
    """
    tree = architecture if isinstance(architecture, dict) else read_json(Path(architecture))
    arch = from_json(tree.get("architecture", tree))
    if not isinstance(arch, Supported):
        raise UserError(
            f"networks of kind {arch.kind} are not made for timm; build them by their own "
            "architecture.build(seed)"
        )
    options["pretrained_cfg"] = options.get("pretrained_cfg") or asdict(_describe(arch))
    return _build("facenas_found", arch, pretrained, **options)


def _entry_point(name: str, arch: IRArchitecture) -> Callable[..., nn.Module]:
    def build(pretrained: bool = False, **options: Any) -> nn.Module:
        return _build(name, arch, pretrained, **options)

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"`{name}`: {arch.count_parameters():,} parameters, embedding of {arch.embedding}."
    return build


# timm finds entry points and their descriptions by name in the module that registers them.
_NETWORKS = {f"facenas_{name}": arch for name, arch in NAMED.items()}
default_cfgs = generate_default_cfgs({name: _describe(arch) for name, arch in _NETWORKS.items()})
for _name, _arch in _NETWORKS.items():
    globals()[_name] = register_model(_entry_point(_name, _arch))
register_model(facenas_found)
