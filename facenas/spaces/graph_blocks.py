"""What each operation of a block is: the edges that it adds to a network's graph.

Every block but a pool adds what it finds to a shortcut, and ends without an activation, as the linear
bottlenecks of MobileNetV2 (arXiv 1801.04381, section 3.2) and the IR blocks do. Where the shape changes, the
shortcut is average pooling and a 1x1 convolution (ResNet-D, arXiv 1812.01187, section 4.2). It has the same
name whatever the block does: in a supernet all operations of a block share it, and so agree on what channels
mean.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from facenas.spaces.graph_dag import Edge, Graph
from facenas.spaces.graph_operations import (
    Convolution,
    Gate,
    Identity,
    Node,
    Operation,
    Pooling,
)

SKIP, AVERAGE = "skip", "avg_pool3"
POOLS = {AVERAGE: "avg", "max_pool3": "max"}
REDUCTION = 16  # squeeze-and-excitation works on a sixteenth of the channels


@dataclass
class Sketch:
    """A graph on its way: edges and nodes so far."""

    image: Node
    nodes: list[Node] = field(init=False)
    edges: list[Edge] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.nodes = [self.image]

    def add(
        self, name: str, source: Node, operation: Operation, channels: int, shrink: int
    ) -> Node:
        """An edge to a new node of the same name."""
        self.nodes.append(Node(name, channels, shrink))
        self.edges.append(Edge(name, source, self.nodes[-1], operation))
        return self.nodes[-1]

    def graph(self) -> Graph:
        """The finished graph."""
        return Graph(tuple(self.nodes), tuple(self.edges))


@dataclass(frozen=True)
class Place:
    """Where a block lies: what its names begin with, its input, the channels of its result, its stride.

    expansion: how many times wider than its input a bottleneck is inside.
    """

    name: str
    source: Node
    channels: int
    stride: int
    expansion: int

    @property
    def shrink(self) -> int:
        """Of the result."""
        return self.source.shrink * self.stride

    @property
    def keeps_shape(self) -> bool:
        """Whether the result has the shape of the input."""
        return self.stride == 1 and self.channels == self.source.channels


def add_block(sketch: Sketch, operation: str, place: Place) -> Node:
    """Draws the block that does `operation`, one of `OPERATIONS`, and returns its result."""
    if operation in POOLS:
        return _pool(sketch, POOLS[operation], place)
    family, kernel = operation[:-1], int(operation[-1])
    result = _FAMILIES[family](sketch, f"{place.name}_{operation}", kernel, place)
    _add_shortcut(sketch, place, result)
    return result


def _add_shortcut(sketch: Sketch, place: Place, result: Node) -> None:
    name, source = f"{place.name}_shortcut", place.source
    if place.keeps_shape:
        sketch.edges.append(Edge(name, source, result, Identity()))
    else:
        pooled = _pooled(sketch, "avg", place)
        sketch.edges.append(Edge(name, pooled, result, Convolution(1)))


def _pool(sketch: Sketch, what: str, place: Place) -> Node:
    """Pooling over 3x3; where the shape changes, in place of the shortcut's own."""
    x = _pooled(sketch, what, place)
    if place.keeps_shape:
        return x
    return sketch.add(f"{place.name}_shortcut", x, Convolution(1), place.channels, x.shrink)


def _pooled(sketch: Sketch, what: str, place: Place) -> Node:
    name, pooling = f"{place.name}_{what}_pool", Pooling(what, place.stride)
    return sketch.add(name, place.source, pooling, place.source.channels, place.shrink)


def _convolutions(sketch: Sketch, name: str, kernel: int, place: Place) -> Node:
    """Two plain convolutions, the first with the stride: the basic block of ResNet."""
    first = Convolution(kernel, place.stride, active=True)
    x = sketch.add(f"{name}_first", place.source, first, place.channels, place.shrink)
    return sketch.add(f"{name}_second", x, Convolution(kernel, added=True), x.channels, x.shrink)


def _separable(sketch: Sketch, name: str, kernel: int, place: Place) -> Node:
    """A depthwise convolution and a 1x1."""
    return _depthwise_and_project(sketch, name, kernel, place, place.source, gated=False)


def _bottleneck(sketch: Sketch, name: str, kernel: int, place: Place, gated: bool = False) -> Node:
    """The inverted bottleneck of MobileNetV2: a 1x1 convolution widens, a depthwise follows, a 1x1 narrows."""
    source = place.source
    inside = source.channels * place.expansion
    x = sketch.add(f"{name}_expand", source, Convolution(1, active=True), inside, source.shrink)
    return _depthwise_and_project(sketch, name, kernel, place, x, gated)


def _gated_bottleneck(sketch: Sketch, name: str, kernel: int, place: Place) -> Node:
    """The same with squeeze-and-excitation before the last 1x1, as in MobileNetV3."""
    return _bottleneck(sketch, name, kernel, place, gated=True)


def _depthwise_and_project(
    sketch: Sketch, name: str, kernel: int, place: Place, source: Node, gated: bool
) -> Node:
    depthwise = Convolution(kernel, place.stride, depthwise=True, active=True)
    x = sketch.add(f"{name}_depthwise", source, depthwise, source.channels, place.shrink)
    if gated:
        gate = Gate(max(1, x.channels // REDUCTION))
        x = sketch.add(f"{name}_gate", x, gate, x.channels, x.shrink)
    last = Convolution(1, added=True)
    return sketch.add(f"{name}_project", x, last, place.channels, x.shrink)


_FAMILIES = {
    "separable": _separable,
    "bottleneck": _bottleneck,
    "se_bottleneck": _gated_bottleneck,
    "conv": _convolutions,
}
OPERATIONS = (*POOLS, *(f"{family}{kernel}" for family in _FAMILIES for kernel in (3, 5)))
