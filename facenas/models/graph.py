"""Three-level networks as modules: whatever `facenas.spaces.graph_ops.Dag` describes, executed edge by edge.

Parameters and multiply-accumulates equal the graph's counts exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from facenas.models.ir import SqueezeExcite
from facenas.models.plain import halving
from facenas.spaces.base import check_face_size
from facenas.spaces.graph import GraphArchitecture
from facenas.spaces.graph_ops import (
    Convolution,
    Dag,
    Edge,
    Embedding,
    Gate,
    GlobalConvolution,
    Halving,
    Identity,
    Linear,
    Mean,
    Pooling,
)


def build_module(arch: GraphArchitecture) -> nn.Module:
    """(n, in_channels, h, w) float32 -> logits (n, classes), or z (n, embedding), not normalized.

    Faces: images are (n, 3, 112, 112).
    """
    return GraphNetwork(arch.graph()).apply(initialize)


class GraphNetwork(nn.Module):
    """A graph's edges as modules, run in order; a feature map is freed after its last use.

    make: gives the module of an edge, `edge_module` if left out.
    """

    def __init__(self, graph: Dag, make: Callable[[Edge], nn.Module] | None = None) -> None:
        super().__init__()
        make = make or edge_module
        self.input, self.output = graph.input.name, graph.output.name
        self.edges = nn.ModuleDict({edge.name: make(edge) for edge in graph.edges})
        # A convolution over the whole map fits images of one size alone.
        self.for_faces = any(isinstance(edge.operation, GlobalConvolution) for edge in graph.edges)
        ends = ((edge.source.name, edge.target.name) for edge in graph.edges)
        self.steps = [(*names, last) for names, last in zip(ends, graph.last_uses(), strict=True)]

    def forward(self, images: Tensor) -> Tensor:
        """Images in, what the graph's last node holds out. Raises UserError for faces that are not 112x112."""
        if self.for_faces:
            check_face_size(images.shape[2], images.shape[3])
        maps = {self.input: images}
        for (source, target, last), edge in zip(self.steps, self.edges.values(), strict=True):
            x = maps.pop(source) if last else maps[source]
            # No name for the result: it would keep it alive during the next edge.
            maps[target] = _added(maps.pop(target, None), edge(x))
        return maps[self.output]


def edge_module(edge: Edge) -> nn.Module:
    """What an edge does, with the channels of its ends."""
    before, after = edge.source.channels, edge.target.channels
    match edge.operation:
        case Convolution():
            return _convolution(edge.operation, before, after)
        case GlobalConvolution(kernel):
            convolution = nn.Conv2d(before, after, kernel, groups=before, bias=False)
            return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.Flatten())
        case Pooling("max", stride):
            return nn.MaxPool2d(3, stride, 1)
        case Pooling("avg", stride):
            return nn.AvgPool2d(3, stride, 1, count_include_pad=False)
        case Halving():
            return halving()
        case Gate(squeezed):
            return SqueezeExcite(before, squeezed)
        case Identity():
            return nn.Identity()
        case Mean():
            return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        case Embedding():
            linear = nn.Linear(before, after, bias=False)
            return nn.Sequential(linear, nn.BatchNorm1d(after, affine=False))
        case Linear():
            return nn.Linear(before, after)
    raise TypeError(f"no module for {edge.operation}")


def _convolution(operation: Convolution, before: int, after: int) -> nn.Module:
    kernel, groups = operation.kernel, before if operation.depthwise else 1
    convolution = nn.Conv2d(before, after, kernel, operation.stride, kernel // 2, groups=groups, bias=False)
    # BatchNorm's backward does not need its result: ReLU may work in place.
    relu = [nn.ReLU(inplace=True)] if operation.active else []
    return nn.Sequential(convolution, nn.BatchNorm2d(after), *relu)


def initialize(module: nn.Module) -> None:
    """Kaiming by fan-out for convolutions, as residual networks have it; the rest is torch's default."""
    if isinstance(module, nn.Conv2d):
        # A depthwise convolution feeds one channel from one: its fan-in is right, torch's fan-out counts all.
        mode: Literal["fan_in", "fan_out"] = "fan_in" if module.groups > 1 else "fan_out"
        nn.init.kaiming_normal_(module.weight, mode=mode, nonlinearity="relu")


@torch.no_grad()
def recalibrate(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Sets BatchNorm's running statistics to their mean over `batches` of inputs, for the weights as they are.

    Each batch counts the same; nothing else changes. Leaves the network in evaluation mode. Raises
    ValueError when there is no batch.
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over all batches
        norm.train()
    seen = 0
    try:
        for images in batches:
            network(images)
            seen += 1
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        network.eval()
    if not seen:
        raise ValueError("BatchNorm cannot be recalibrated without images")


def _added(before: Tensor | None, result: Tensor) -> Tensor:
    return result if before is None else before + result
