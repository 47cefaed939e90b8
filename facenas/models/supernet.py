"""A supernet: one set of weights for all networks of a three-level space.

It holds every operation of every block at the largest depth and width. A network's path uses the first blocks
of each stage and the first channels of each tensor ("Slimmable Neural Networks", arXiv 1812.08928, section 3.1;
trained path by path: "Single Path One-Shot Neural Architecture Search", arXiv 1904.00420, section 3.2).
A path runs in the very module that the network has when it stands alone, filled with slices of the shared
tensors: so both compute the same.

Operations of a block must agree on what channels mean, or the supernet hardly learns. Two things see to that:
the operations of a block share its shortcut (`facenas.spaces.graph_ops`), and what they add to it begins at
zero (arXiv 1706.02677, section 5.1). Networks that stand alone learn faster when it does not.
"""

from __future__ import annotations

from functools import cache, lru_cache

import torch
from torch import Tensor, nn
from torch.func import functional_call

from facenas.errors import UserError
from facenas.models.build import seeded
from facenas.models.graph import GraphNetwork, edge_module, initialize
from facenas.spaces import Graph
from facenas.spaces.graph import GraphArchitecture
from facenas.spaces.graph_ops import Convolution, Edge


class Supernet(nn.Module):
    """All networks of `space`, with weights drawn from `seed` alone.

    Statistics of BatchNorm are shared too, and so mean nothing for any one path: before a path is judged, its
    `extract` needs `facenas.models.graph.recalibrate`.
    """

    def __init__(self, space: Graph, seed: int) -> None:
        super().__init__()
        graphs = [space.uniform(name).graph() for name in space.settings.operations]
        edges = {edge.name: edge for graph in graphs for edge in graph.edges}
        with seeded(seed):
            modules = {name: edge_module(edge) for name, edge in edges.items()}
            self.edges = nn.ModuleDict(modules)
            self.apply(initialize)
        for name, edge in edges.items():
            if isinstance(edge.operation, Convolution) and edge.operation.added:
                nn.init.zeros_(self.get_parameter(f"edges.{name}.1.weight"))  # of BatchNorm

    def forward(self, images: Tensor, arch: GraphArchitecture) -> Tensor:
        """What the network `arch` makes of (n, in_channels, h, w) images: logits or z.

        Raises UserError when `arch` is larger than the supernet. In training mode this also moves the shared
        statistics of BatchNorm.
        """
        network = _skeleton(arch).train(self.training)
        state = self._slices(network)
        result: Tensor = functional_call(network, state, (images,), strict=True)
        return result

    def path_state(self, arch: GraphArchitecture) -> dict[str, Tensor]:
        """The state of the network that stands alone, as slices of the shared tensors: no copies.

        Gradients flow through them to the shared parameters; changes in place are changes of those.
        """
        return self._slices(_skeleton(arch))

    def extract(self, arch: GraphArchitecture) -> nn.Module:
        """The network that stands alone, with copies of the path's weights; in evaluation mode."""
        network = GraphNetwork(arch.graph()).eval()
        network.load_state_dict(self._slices(network))
        return network

    def _slices(self, network: GraphNetwork) -> dict[str, Tensor]:
        """Of the shared tensors, those that `network` has, by name and shape."""
        shared = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        found = {}
        for name, value in network.state_dict().items():
            whole = shared.get(name)
            if whole is None or any(n > m for n, m in zip(value.shape, whole.shape, strict=True)):
                raise UserError(f"the supernet has no path for this network: it lacks {name}")
            found[name] = whole[tuple(slice(size) for size in value.shape)]
        return found


# Every batch draws new paths, but of the same few edges: a path's module is put together from those that
# earlier paths made, in 1.1 ms on a busy core, where making them anew took 13.
@lru_cache(maxsize=1024)
def _skeleton(arch: GraphArchitecture) -> GraphNetwork:
    """The network's module without any values; its parts are shared, so nobody may keep anything in them."""
    return GraphNetwork(arch.graph(), _edge_skeleton)


@cache
def _edge_skeleton(edge: Edge) -> nn.Module:
    with torch.device("meta"):
        return edge_module(edge)
