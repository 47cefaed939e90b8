"""How other projects call the tensors of their networks, and which architecture the shapes tell of.

`LAYOUTS` are tried in order; each says by which names a network is known, and gives the tensors under ours.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from facenas.errors import UserError
from facenas.models.build import skeleton
from facenas.spaces import Architecture
from facenas.spaces.edgeface import NAMED as EDGEFACES
from facenas.spaces.edgeface import EdgeFaceArchitecture
from facenas.spaces.ghostfacenet import GhostFaceNetArchitecture
from facenas.spaces.ir import IRArchitecture
from facenas.spaces.mobilefacenet import MobileFaceNetArchitecture

Weights = dict[str, Tensor]
Color = Literal["BGR", "RGB"]


class Layout:
    """Names of one project for one family.

    project: what people know it as; marks: names that a network of it has; color: order of the channels that it
    is trained on, None: the file has to tell; std: what pixels, from 0 to 1 and less 0.5, are divided by.
    """

    project: str
    marks: tuple[str, ...]
    color: Color | None = "RGB"
    std = 0.5

    def prefixes(self, tensors: Weights) -> list[str]:
        """What stands before the names of each such network."""
        first, *others = self.marks
        found = [key.removesuffix(first) for key in tensors if f".{key}".endswith(f".{first}")]
        return [prefix for prefix in found if all(f"{prefix}{mark}" in tensors for mark in others)]

    def renamed(self, path: Path, weights: Weights) -> Weights:
        """The tensors under our names; raises UserError at one that has no place."""
        raise NotImplementedError

    def architecture(self, path: Path, weights: Weights) -> Architecture:
        """What the shapes say, of tensors under our names; raises KeyError where one is missing."""
        raise NotImplementedError


class AdaFace(Layout):
    """`mk-minchul/AdaFace:net.py` in a Lightning module, whose names are ours.

    CVLface has the same network: `mk-minchul/CVLface:cvlface/research/recognition/code/run_v1/models/iresnet`.
    """

    project = "AdaFace, CVLface"
    marks = ("input_layer.0.weight",)
    color: Color | None = None

    def renamed(self, path: Path, weights: Weights) -> Weights:
        """As they are."""
        return weights

    def architecture(self, path: Path, weights: Weights) -> Architecture:
        """Width, blocks of each stage, kernels, length of z."""
        width, embedding = (weights[f"{name}.weight"].shape[0] for name in ("input_layer.0", "output_layer.3"))
        blocks = 1 + max(int(key.split(".")[1]) for key in weights if key.startswith("body."))
        shapes = [weights[f"body.{i}.res_layer.1.weight"].shape for i in range(blocks)]
        kernels = tuple(shape[3] for shape in shapes)
        stages = [sum(shape[0] == width * 2**stage for shape in shapes) for stage in range(4)]
        if sum(stages) != blocks or 0 in stages or 1 in kernels:
            raise UserError(
                f"{path}: is not four stages of plain blocks (IR-152 and IR-200, of bottlenecks, are not "
                "supported)"
            )
        se = "body.0.res_layer.se_block.fc1.weight" in weights
        arch = IRArchitecture.uniform(width, stages, embedding, se)
        return replace(arch, kernels=kernels, project_first="body.0.shortcut_layer.0.weight" in weights)


class ArcFaceIR(AdaFace):
    """`deepinsight/insightface:recognition/arcface_torch/backbones/iresnet.py`.

    Its stages `layer1` to `layer4` become one body; its last bias moves into the running mean before it.
    """

    project = "arcface_torch"
    color = "RGB"
    block_parts: ClassVar = {
        "bn1": "res_layer.0",
        "conv1": "res_layer.1",
        "bn2": "res_layer.2",
        "prelu": "res_layer.3",
        "conv2": "res_layer.4",
        "bn3": "res_layer.5",
        "downsample": "shortcut_layer",
    }
    outer_parts: ClassVar = {
        "conv1": "input_layer.0",
        "bn1": "input_layer.1",
        "prelu": "input_layer.2",
        "bn2": "output_layer.0",
        "fc": "output_layer.3",
        "features": "output_layer.4",
    }

    def prefixes(self, tensors: Weights) -> list[str]:
        """Blocks have a conv1 too: of a network without its first block, the shortest."""
        first, block = "conv1.weight", "layer1.0.conv1.weight"
        keys = [key for key in tensors if f".{key}".endswith(f".{first}")]
        whole = [key for key in keys if f"{key.removesuffix(first)}{block}" in tensors]
        return [key.removesuffix(first) for key in whole or sorted(keys, key=len)[:1]]

    def renamed(self, path: Path, weights: Weights) -> Weights:
        """Under AdaFace's names."""
        inside = {key: re.fullmatch(r"layer(\d)\.(\d+)\.(\w+)\.(.+)", key) for key in weights}
        blocks = sorted({(int(m[1]), int(m[2])) for m in inside.values() if m})
        ours: Weights = {}
        for key, tensor in weights.items():
            part, _, rest = key.partition(".")
            m = inside[key]
            if m and m[3] in self.block_parts:
                number = blocks.index((int(m[1]), int(m[2])))
                ours[f"body.{number}.{self.block_parts[m[3]]}.{m[4]}"] = tensor
            elif part in self.outer_parts:
                ours[f"{self.outer_parts[part]}.{rest}"] = tensor
            else:
                raise UserError(f"{path}: {key} is no part of an IR network of arcface_torch")
        return _without_last_bias(path, ours)


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


class MobileFaceNets(Layout):
    """MobileFaceNets, in which every project has the same layers.

    outside: our name of each layer that is not a bottleneck's; place: a pattern of the names of those that are.
    """

    outside: ClassVar[dict[str, str]]
    place: str

    def renamed(self, path: Path, weights: Weights) -> Weights:
        """Stem, bottlenecks and output layer, each layer by its number."""
        inside = {key: m for key in weights if (m := re.fullmatch(self.place, key))}
        places = sorted({self._place(m) for m in inside.values()})
        ours: Weights = {}
        for key, tensor in weights.items():
            if m := inside.get(key):
                ours[f"body.{places.index(self._place(m))}.layers.{self._layer(m)}.{m['rest']}"] = tensor
                continue
            part, _, rest = key.rpartition(".")
            if part not in self.outside:
                raise UserError(f"{path}: {key} is no part of a MobileFaceNet of {self.project}")
            name = f"{self.outside[part]}.{rest}"
            ours[name] = tensor.flatten(1) if name == "output_layer.6.weight" else tensor
        return ours

    def architecture(self, path: Path, weights: Weights) -> Architecture:
        """Widths, bottlenecks of each stage, length of z."""
        width, last = (weights[f"{name}.weight"].shape[0] for name in ("input_layer.0", "output_layer.0"))
        count = 1 + max(int(key.split(".")[1]) for key in weights if key.startswith("body."))
        inner = [weights[f"body.{i}.layers.0.weight"].shape[0] for i in range(count)]
        # A stage begins where it is wider inside than the bottleneck before.
        starts = [i for i in range(count) if i == 0 or inner[i] > inner[i - 1]]
        if len(starts) != 3:
            raise UserError(f"{path}: is a MobileFaceNet of {len(starts)} stages, and not of 3")
        first, second, third = (
            end - start - 1 for start, end in zip(starts, [*starts[1:], count], strict=True)
        )
        embedding = weights["output_layer.6.weight"].shape[0]
        return MobileFaceNetArchitecture(width, inner[0], (first, second, third), last, embedding)

    def _place(self, match: re.Match[str]) -> tuple[int, int]:
        """By which bottlenecks are ordered: the one with a stage's stride has no number of its own."""
        return int(match["stage"]), int(match["block"] or -1)

    def _layer(self, match: re.Match[str]) -> int:
        """Its number within our bottleneck."""
        raise NotImplementedError


class ArcFaceMobile(MobileFaceNets):
    """`deepinsight/insightface:recognition/arcface_torch/backbones/mobilefacenet.py` ("mbf")."""

    project = "arcface_torch"
    marks = ("conv_sep.layers.0.weight", "features.layers.2.weight")
    outside: ClassVar = {
        **{f"layers.{i}.layers.{k}": f"input_layer.{3 * i + k}" for i in range(2) for k in range(3)},
        **{f"conv_sep.layers.{k}": f"output_layer.{k}" for k in range(3)},
        **{f"features.layers.0.layers.{k}": f"output_layer.{3 + k}" for k in range(2)},
        **{f"features.layers.{k}": f"output_layer.{4 + k}" for k in (2, 3)},
    }
    place = (
        r"layers\.(?P<stage>[2-9])(\.layers\.(?P<block>\d+))?"
        r"\.layers\.(?P<unit>\d)\.layers\.(?P<k>\d)\.(?P<rest>\w+)"
    )

    def _layer(self, match: re.Match[str]) -> int:
        return 3 * int(match["unit"]) + int(match["k"])


PARTS = ("conv", "bn", "prelu")


class FacePytorch(MobileFaceNets):
    """`wujiyang/Face_Pytorch:backbone/mobilefacenet.py`, the one with published figures on CASIA-WebFace."""

    project = "Face_Pytorch"
    marks = ("dw_conv1.conv.weight", "linear7.conv.weight")
    color = "BGR"
    std = 128 / 255
    outside: ClassVar = {
        **{f"conv1.{part}": f"input_layer.{k}" for k, part in enumerate(PARTS)},
        **{f"dw_conv1.{part}": f"input_layer.{3 + k}" for k, part in enumerate(PARTS)},
        **{f"conv2.{part}": f"output_layer.{k}" for k, part in enumerate(PARTS)},
        **{f"linear7.{part}": f"output_layer.{3 + k}" for k, part in enumerate(PARTS[:2])},
        **{f"linear1.{part}": f"output_layer.{6 + k}" for k, part in enumerate(PARTS[:2])},
    }
    place = r"blocks\.(?P<stage>\d+)(?P<block>)\.conv\.(?P<k>\d)\.(?P<rest>\w+)"

    def _layer(self, match: re.Match[str]) -> int:
        return int(match["k"])


class InsightFacePytorch(MobileFaceNets):
    """`TreB1eN/InsightFace_Pytorch:model.py`; whoever trained one knows whether on RGB."""

    project = "InsightFace_Pytorch"
    marks = ("conv2_dw.conv.weight", "conv_6_sep.conv.weight")
    color = None
    outside: ClassVar = {
        **{f"conv1.{part}": f"input_layer.{k}" for k, part in enumerate(PARTS)},
        **{f"conv2_dw.{part}": f"input_layer.{3 + k}" for k, part in enumerate(PARTS)},
        **{f"conv_6_sep.{part}": f"output_layer.{k}" for k, part in enumerate(PARTS)},
        **{f"conv_6_dw.{part}": f"output_layer.{3 + k}" for k, part in enumerate(PARTS[:2])},
        "linear": "output_layer.6",
        "bn": "output_layer.7",
    }
    # conv_23 has the first stage's stride, conv_3 its other bottlenecks, and so on.
    place = (
        r"conv_(?P<stage>\d+)(\.model\.(?P<block>\d+))?"
        r"\.(?P<unit>conv|conv_dw|project)\.(?P<k>conv|bn|prelu)\.(?P<rest>\w+)"
    )

    def _place(self, match: re.Match[str]) -> tuple[int, int]:
        return int(match["stage"][-1]), int(match["block"] or -1)

    def _layer(self, match: re.Match[str]) -> int:
        return 3 * ("conv", "conv_dw", "project").index(match["unit"]) + PARTS.index(match["k"])


class EdgeFaces(Layout):
    """`otroshi/edgeface:backbones/timmfr.py` around timm's EdgeNeXt; linear layers of low rank, or whole."""

    project = "EdgeFace"
    marks = ("stages.0.blocks.0.conv_dw.weight", "head.norm.weight", "stem.1.weight")
    parts: ClassVar = {"stem": "input_layer", "stages": "body", "head": "output_layer"}

    def prefixes(self, tensors: Weights) -> list[str]:
        """Without attention it is a ConvNeXt."""
        return super().prefixes(tensors) if any("xca.temperature" in key for key in tensors) else []

    def renamed(self, path: Path, weights: Weights) -> Weights:
        """Our names but for the outermost."""
        ours: Weights = {}
        for key, tensor in weights.items():
            part, _, rest = key.partition(".")
            if part not in self.parts:
                raise UserError(f"{path}: {key} is no part of an EdgeFace")
            ours[f"{self.parts[part]}.{rest}"] = tensor
        return ours

    def architecture(self, path: Path, weights: Weights) -> Architecture:
        """Channels and blocks of each stage, heads, rank, length of z."""
        channels = [weights["input_layer.0.weight"].shape[0]]
        channels += [weights[f"body.{i}.downsample.1.weight"].shape[0] for i in (1, 2, 3)]
        numbers = [re.match(r"body\.(\d)\.blocks\.(\d+)\.", key) for key in weights]
        blocks = [1 + max(int(m[2]) for m in numbers if m and int(m[1]) == i) for i in range(4)]
        heads = weights[f"body.1.blocks.{blocks[1] - 1}.xca.temperature"].shape[0]
        first = weights.get("output_layer.fc.linear1.weight")
        last = weights["output_layer.fc.weight" if first is None else "output_layer.fc.linear2.weight"]
        rank = 0.0 if first is None else _part(first.shape[0], min(first.shape[1], last.shape[0]))
        return EdgeFaceArchitecture(_four(channels), _four(blocks), heads, rank, last.shape[0])


def _part(rank: int, side: int) -> float:
    """What part of a layer's lesser side its rank is: of published networks, else the least in hundredths."""
    known = [arch.rank for arch in EDGEFACES.values()] + [part / 100 for part in range(1, 101)]
    return next((part for part in known if int(side * part) == rank), rank / side)


def _four(values: list[int]) -> tuple[int, int, int, int]:
    first, second, third, fourth = values
    return first, second, third, fourth


class GhostFaceNets(Layout):
    """`HamadYA/GhostFaceNets:GhostFaceNets.py`, of Keras: the weights of its model by their names or paths.

    Keras numbers the layers of a class as they were made, and so are ours; the last four have names.
    """

    project = "GhostFaceNets"
    marks = ("GDC_dw", "GDC_batchnorm", "GDC_conv", "pre_embedding")

    def prefixes(self, tensors: Weights) -> list[str]:
        """None."""
        return [""] if {key.partition("/")[0] for key in tensors}.issuperset(self.marks) else []

    def renamed(self, path: Path, weights: Weights) -> Weights:
        """Layer by layer, in torch's order of axes."""
        theirs: dict[str, list[Weights]] = {}
        for layer, tensors in sorted(_keras_layers(weights).items(), key=lambda pair: self._order(pair[0])):
            theirs.setdefault(_keras_class(layer, tensors), []).append(tensors)
        last, embedding = (theirs[kind][-1]["kernel"].shape for kind in ("depthwise", "convolution"))
        arch = self._architecture(last[0], last[2], embedding[3])
        ours: Weights = {}
        for name, module in skeleton(arch).named_modules():
            if (kind := _torch_class(module)) and theirs.get(kind):
                found = theirs[kind].pop(0)
                ours |= {f"{name}.{key}": tensor for key, tensor in _torch_layer(module, found).items()}
        if left := [tensors for layers in theirs.values() for tensors in layers]:
            raise UserError(f"{path}: has {len(left)} layers more than {arch.summary()}")
        return ours

    def architecture(self, path: Path, weights: Weights) -> Architecture:
        """Width and stride by the last map, length of z."""
        embedding, last = weights["output_layer.6.weight"].shape
        return self._architecture(weights["output_layer.3.weight"].shape[3], last, embedding)

    def _architecture(self, side: int, last: int, embedding: int) -> GhostFaceNetArchitecture:
        """Of the least width, in hundredths, that has as many last channels; a map of 4 pixels had a stride."""
        widths = (part / 100 for part in range(1, 6401))
        found = (GhostFaceNetArchitecture(width, 1 if side == 7 else 2, embedding) for width in widths)
        return next(arch for arch in found if arch.last >= last)

    def _order(self, layer: str) -> tuple[bool, int]:
        number = re.search(r"_(\d+)$", layer)
        return layer in self.marks, 0 if layer in self.marks or not number else int(number[1])


def _keras_layers(weights: Weights) -> dict[str, Weights]:
    """Tensors by layer and name; Keras 2 says `:0` behind every name, and tells depthwise kernels apart."""
    layers: dict[str, Weights] = {}
    for key, tensor in weights.items():
        layer, _, name = key.removesuffix(":0").rpartition("/")
        layers.setdefault(layer, {})[name.removeprefix("depthwise_")] = tensor
    return layers


def _keras_class(layer: str, tensors: Weights) -> str:
    if "alpha" in tensors:
        return "prelu"
    if "kernel" not in tensors:
        return "norm"
    return "depthwise" if "depthwise" in layer or layer == "GDC_dw" else "convolution"


def _torch_class(module: nn.Module) -> str | None:
    if isinstance(module, nn.Conv2d):
        return "depthwise" if module.groups > 1 else "convolution"
    kinds = {nn.Linear: "convolution", nn.BatchNorm1d: "norm", nn.BatchNorm2d: "norm", nn.PReLU: "prelu"}
    return kinds.get(type(module))


_NORM = ("weight", "bias", "running_mean", "running_var")


def _torch_layer(module: nn.Module, tensors: Weights) -> Weights:
    """(h, w, in, out) -> (out, in, h, w); (h, w, c, 1) -> (c, 1, h, w); (1, 1, c) -> (c)."""
    if "alpha" in tensors:
        return {"weight": tensors["alpha"].flatten()}
    if "kernel" not in tensors:
        names = dict(zip(("gamma", "beta", "moving_mean", "moving_variance"), _NORM, strict=True))
        found = {names[key]: tensor for key, tensor in tensors.items() if key in names}
        return {**found, "num_batches_tracked": torch.tensor(0)}
    axes = (2, 3, 0, 1) if _torch_class(module) == "depthwise" else (3, 2, 0, 1)
    kernel = tensors["kernel"].permute(axes).contiguous()
    weights = {"weight": kernel.flatten(1) if isinstance(module, nn.Linear) else kernel}
    return weights | ({"bias": tensors["bias"]} if "bias" in tensors else {})


ADAFACE = AdaFace()
LAYOUTS: tuple[Layout, ...] = (
    ArcFaceMobile(),
    FacePytorch(),
    InsightFacePytorch(),
    EdgeFaces(),
    GhostFaceNets(),
    ADAFACE,
    ArcFaceIR(),
)
