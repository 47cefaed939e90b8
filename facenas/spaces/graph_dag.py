"""A network as a directed acyclic graph: feature maps joined by operations. What is not one is refused.

Builder, counters, memory and drawing all read this one description. Where several edges end in one node,
their results are added.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from facenas.errors import UserError
from facenas.spaces.graph_operations import Identity, Node, Operation

BYTES = 4  # of a float32


@dataclass(frozen=True)
class Edge:
    """An operation from one feature map to another."""

    name: str
    source: Node
    target: Node
    operation: Operation


@dataclass(frozen=True)
class Graph:
    """Edges in the order in which they are executed, nodes in the order in which they are complete.

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
