"""What three-level networks are made of: feature maps, the operations between them, and whole graphs of both.

A `Dag` is one description of a network that builder, counters, memory and drawing all read. Every operation
knows its own numbers: parameters, multiply-accumulates, and how many values it holds while it works, run one
after another as PyTorch runs them in inference. The last section says which edges each operation of a block
adds to a network's graph.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from facenas.errors import UserError
from facenas.spaces.ir import REDUCTION

WHOLE = 0  # the `shrink` of a vector: one pixel, whatever the size of the image
BYTES = 4  # of a float32


@dataclass(frozen=True)
class Node:
    """A feature map; an image is `shrink` times larger, rounded up, or the map is a vector (`WHOLE`)."""

    name: str
    channels: int
    shrink: int

    def side(self, image_size: int) -> int:
        """Pixels of a side."""
        return 1 if self.shrink == WHOLE else -(-image_size // self.shrink)

    def pixels(self, image_size: int) -> int:
        """Pixels of one channel."""
        return self.side(image_size) ** 2

    def values(self, image_size: int) -> int:
        """Numbers that it holds."""
        return self.channels * self.pixels(image_size)


class Operation:
    """What an edge does between the feature maps `before` and `after`.

    stride: by how much a side is divided, `WHOLE` for what makes a vector of a map. takes: "map" or "vector",
    if it cannot take both. norm: the BatchNorm that follows, "affine" or without parameters ("plain"), if any.
    """

    stride: int = 1
    takes: ClassVar[str] = ""
    norm: ClassVar[str] = ""

    @property
    def keeps_channels(self) -> bool:
        """Whether the result has as many channels as the input."""
        return True

    def fits(self, before: Node, after: Node) -> bool:
        """Whether it makes a map of the shape of `after` out of one of `before`."""
        return (
            self.takes in ("", "vector" if before.shrink == WHOLE else "map")
            and after.shrink == before.shrink * self.stride
            and (not self.keeps_channels or after.channels == before.channels)
        )

    def weights(self, before: Node, after: Node) -> int:
        """Weights of its convolutions or linear layers, without biases."""
        return 0

    def count_parameters(self, before: Node, after: Node) -> int:
        """All that is trained; two for a channel of BatchNorm."""
        return self.weights(before, after) + (2 * after.channels if self.norm == "affine" else 0)

    def count_statistics(self, after: Node) -> int:
        """Running means and variances of BatchNorm: two for a channel."""
        return 2 * after.channels if self.norm else 0

    def count_macs(self, before: Node, after: Node, image_size: int) -> int:
        """Multiply-accumulates for one image of this side: all weights at every pixel of the result."""
        return self.weights(before, after) * after.pixels(image_size)

    def count_scratch(self, before: Node, after: Node, image_size: int) -> int:
        """Numbers that it holds for a while, besides its input and its result: the result before BatchNorm."""
        return after.values(image_size) if self.norm else 0


@dataclass(frozen=True)
class Convolution(Operation):
    """Convolution without bias, BatchNorm, and ReLU (in place) if `active`.

    depthwise: each channel by itself; added: the result is what a block adds to its shortcut.
    """

    kernel: int
    stride: int = 1
    depthwise: bool = False
    active: bool = False
    added: bool = False

    takes = "map"
    norm = "affine"

    @property
    def keeps_channels(self) -> bool:
        """A depthwise one does."""
        return self.depthwise

    def weights(self, before: Node, after: Node) -> int:
        """kernel^2 for every pair of channels that it joins."""
        return (1 if self.depthwise else before.channels) * after.channels * self.kernel**2


@dataclass(frozen=True)
class Pooling(Operation):
    """Mean or maximum ("avg", "max") over 3x3 pixels; what lies outside of the map does not count."""

    what: str
    stride: int = 1

    takes = "map"


@dataclass(frozen=True)
class Halving(Operation):
    """Maximum over 2x2 pixels that do not overlap; of an odd side the last ones alone."""

    stride = 2
    takes = "map"


@dataclass(frozen=True)
class Gate(Operation):
    """Squeeze-and-excitation: scales each channel by a factor that the means of all channels decide."""

    squeezed: int

    def weights(self, before: Node, after: Node) -> int:
        """Two linear layers without bias."""
        return 2 * before.channels * self.squeezed

    def count_macs(self, before: Node, after: Node, image_size: int) -> int:
        """They see one vector, not every pixel."""
        return self.weights(before, after)

    def count_scratch(self, before: Node, after: Node, image_size: int) -> int:
        """Means and factors."""
        return 2 * before.channels


@dataclass(frozen=True)
class Identity(Operation):
    """The map itself: a shortcut. Takes no memory."""


@dataclass(frozen=True)
class Mean(Operation):
    """The mean over all pixels of a channel."""

    stride = WHOLE
    takes = "map"


@dataclass(frozen=True)
class GlobalConvolution(Mean):
    """One depthwise convolution over the whole map, then BatchNorm: a mean of pixels with learnt weights.

    Source: "MobileFaceNets", arXiv 1804.07573, section 3.1. Fits images of one size alone.
    """

    kernel: int

    norm = "affine"

    def weights(self, before: Node, after: Node) -> int:
        """kernel^2 for a channel."""
        return after.channels * self.kernel**2


@dataclass(frozen=True)
class Linear(Operation):
    """A linear layer over a vector, with bias."""

    takes = "vector"
    keeps_channels = False
    biased: ClassVar[bool] = True

    def weights(self, before: Node, after: Node) -> int:
        """One for every pair."""
        return before.channels * after.channels

    def count_parameters(self, before: Node, after: Node) -> int:
        """The weights and the bias."""
        return self.weights(before, after) + (after.channels if self.biased else 0)


@dataclass(frozen=True)
class Embedding(Linear):
    """A linear layer without bias and a BatchNorm without parameters, as face networks end."""

    biased = False
    norm = "plain"


@dataclass(frozen=True)
class Edge:
    """An operation from one feature map to another."""

    name: str
    source: Node
    target: Node
    operation: Operation


@dataclass(frozen=True)
class Dag:
    """A network as a directed acyclic graph: edges in the order of execution, nodes in that of completion.

    Both may be given in any order; edges that may run keep the order given. Raises UserError for an edge
    whose operation does not make its target's shape, for a cycle, for a node that nothing leads to or that
    leads to nothing, and for names that are used twice.
    """

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]

    def __post_init__(self) -> None:
        _check_names([node.name for node in self.nodes], "nodes")
        _check_names([edge.name for edge in self.edges], "edges")
        for edge in self.edges:
            _check_edge(edge, self.nodes)
        edges = _in_order(self.edges)
        _check_ends(self.nodes, edges)
        last = {edge.target: number for number, edge in enumerate(edges)}  # the input has none
        nodes = sorted(self.nodes, key=lambda node: last.get(node, -1))
        object.__setattr__(self, "edges", edges)
        object.__setattr__(self, "nodes", tuple(nodes))

    @property
    def input(self) -> Node:
        """The image."""
        return self.nodes[0]

    @property
    def output(self) -> Node:
        """What the network gives."""
        return self.nodes[-1]

    def last_uses(self) -> list[bool]:
        """Of every edge, whether no later one needs its source: the map can be freed."""
        seen: set[Node] = set()
        found = []
        for edge in reversed(self.edges):
            found.append(edge.source not in seen)
            seen.add(edge.source)
        return found[::-1]

    def count_parameters(self) -> int:
        """Exact number of trainable parameters of the built module."""
        return sum(e.operation.count_parameters(e.source, e.target) for e in self.edges)

    def count_macs(self, image_size: int) -> int:
        """Multiply-accumulates of convolutions and linear layers for one image of this side."""
        return sum(e.operation.count_macs(e.source, e.target, image_size) for e in self.edges)

    def count_memory(self, image_size: int) -> int:
        """Bytes that inference on one float32 image of this side takes: weights and peak activations.

        Weights: parameters and BatchNorm's running statistics. Peak: the most that lives at once when the
        edges run one after another as PyTorch runs them, with BatchNorm not folded into its convolution; a
        feature map is freed after its last use, the image stays. What a kernel takes for itself while it
        runs, such as the unrolled windows of some convolutions, is not counted: each library differs there.
        """
        statistics = sum(edge.operation.count_statistics(edge.target) for edge in self.edges)
        activations = max(self._held(image_size))
        return BYTES * (self.count_parameters() + statistics + activations)

    def _held(self, image_size: int) -> Iterator[int]:
        """Numbers held during each edge."""
        image, holder = self.input, self._holders()
        alive = {image}  # maps that a coming edge needs, and sums that are not complete yet
        for edge, last in zip(self.edges, self.last_uses(), strict=True):
            held = {holder[node] for node in (*alive, image)}
            yield sum(node.values(image_size) for node in held) + _new(edge, alive, image_size)
            alive.add(edge.target)
            if last:
                alive.discard(edge.source)

    def _holders(self) -> dict[Node, Node]:
        """The node whose memory a node is: another one's where only an identity leads to it."""
        incoming = Counter(edge.target for edge in self.edges)
        found = {self.input: self.input}
        for edge in self.edges:
            shared = isinstance(edge.operation, Identity) and incoming[edge.target] == 1
            found[edge.target] = found[edge.source] if shared else edge.target
        return found


def _new(edge: Edge, alive: set[Node], image_size: int) -> int:
    """Numbers that running an edge adds to those held before."""
    operation, target = edge.operation, edge.target
    result = 0 if isinstance(operation, Identity) else target.values(image_size)
    running = result + operation.count_scratch(edge.source, target, image_size)
    adding = result + target.values(image_size) if target in alive else 0
    return max(running, adding)


def _check_names(names: Sequence[str], what: str) -> None:
    name, count = Counter(names).most_common(1)[0] if names else ("", 0)
    if count > 1:
        raise UserError(f"the graph has {count} {what} with the name {name!r}")


def _check_edge(edge: Edge, nodes: Sequence[Node]) -> None:
    for node in (edge.source, edge.target):
        if node not in nodes:
            raise UserError(f"edge {edge.name!r} ends in {node}, which the graph does not have")
    if not edge.operation.fits(edge.source, edge.target):
        raise UserError(
            f"edge {edge.name!r}: {edge.operation} does not make {edge.target} out of {edge.source}"
        )


def _check_ends(nodes: Sequence[Node], edges: Sequence[Edge]) -> None:
    """One input and one output; without cycles, all nodes then lie on a way between the two."""
    targets, sources = {edge.target for edge in edges}, {edge.source for edge in edges}
    for what, reached in (("that no edge leads to", targets), ("that no edge leaves", sources)):
        ends = [node.name for node in nodes if node not in reached]
        if not edges or len(ends) != 1:
            raise UserError(f"the graph should have one node {what}, not {len(ends)}: {ends}")


def _in_order(edges: Sequence[Edge]) -> tuple[Edge, ...]:
    """Edges so that every source is complete before it is used; raises UserError when a cycle forbids it."""
    awaited = Counter(edge.target for edge in edges)
    pending, found = list(edges), []
    while pending:
        edge = next((edge for edge in pending if not awaited[edge.source]), None)
        if edge is None:
            names = ", ".join(repr(edge.name) for edge in pending)
            raise UserError(f"the graph has a cycle: none of the edges {names} can come first")
        pending.remove(edge)
        awaited[edge.target] -= 1
        found.append(edge)
    return tuple(found)


SKIP, AVERAGE = "skip", "avg_pool3"
POOLS = {AVERAGE: "avg", "max_pool3": "max"}
_FAMILIES = ("separable", "bottleneck", "se_bottleneck", "conv")
OPERATIONS = (*POOLS, *(f"{family}{kernel}" for family in _FAMILIES for kernel in (3, 5)))


class Sketch:
    """A graph on its way: edges and nodes so far."""

    def __init__(self, image: Node) -> None:
        self.nodes, self.edges = [image], list[Edge]()

    def add(self, name: str, source: Node, operation: Operation, channels: int) -> Node:
        """An edge to a new node of the same name."""
        self.nodes.append(Node(name, channels, source.shrink * operation.stride))
        self.edges.append(Edge(name, source, self.nodes[-1], operation))
        return self.nodes[-1]

    def graph(self) -> Dag:
        """The finished graph."""
        return Dag(tuple(self.nodes), tuple(self.edges))


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


def add_block(sketch: Sketch, operation: str, place: Place) -> Node:
    """Draws the block that does `operation`, one of `OPERATIONS`, and returns its result.

    Every block but a pool adds what it finds to a shortcut, and ends without an activation, as the linear
    bottlenecks of MobileNetV2 (arXiv 1801.04381, section 3.2) and the IR blocks do. Where the shape changes,
    the shortcut is average pooling and a 1x1 convolution (ResNet-D, arXiv 1812.01187, section 4.2). It has the
    same name whatever the block does: in a supernet all operations of a block share it, and so agree on what
    channels mean.
    """
    source, shortcut = place.source, f"{place.name}_shortcut"
    keeps_shape = place.stride == 1 and place.channels == source.channels

    def pooled(what: str) -> Node:
        pooling = Pooling(what, place.stride)
        return sketch.add(f"{place.name}_{what}_pool", source, pooling, source.channels)

    if operation in POOLS:
        x = pooled(POOLS[operation])
        return x if keeps_shape else sketch.add(shortcut, x, Convolution(1), place.channels)
    x = source
    for part, does, channels in _parts(operation[:-1], int(operation[-1]), place):
        x = sketch.add(f"{place.name}_{operation}_{part}", x, does, channels)
    if keeps_shape:
        sketch.edges.append(Edge(shortcut, source, x, Identity()))
    else:
        sketch.edges.append(Edge(shortcut, pooled("avg"), x, Convolution(1)))
    return x


def _parts(family: str, kernel: int, place: Place) -> Iterator[tuple[str, Operation, int]]:
    """(name, operation, channels of the result) of what a block adds to its shortcut."""
    if family == "conv":  # the basic block of ResNet
        yield "first", Convolution(kernel, place.stride, active=True), place.channels
        yield "second", Convolution(kernel, added=True), place.channels
        return
    inside = place.source.channels
    if family != "separable":  # the inverted bottleneck of MobileNetV2, or with a gate that of MobileNetV3
        inside *= place.expansion
        yield "expand", Convolution(1, active=True), inside
    yield "depthwise", Convolution(kernel, place.stride, depthwise=True, active=True), inside
    if family == "se_bottleneck":
        yield "gate", Gate(max(1, inside // REDUCTION)), inside
    yield "project", Convolution(1, added=True), place.channels
