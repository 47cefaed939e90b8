"""Graphs: what is not a network is refused, in whatever order it is told; memory follows the execution."""

from __future__ import annotations

import random
import re

import pytest
from graph_networks import network, small_space
from hypothesis import given
from hypothesis import strategies as st

from facenas.errors import UserError
from facenas.spaces.graph_ops import (
    WHOLE,
    Convolution,
    Dag,
    Edge,
    Embedding,
    Gate,
    GlobalConvolution,
    Identity,
    Linear,
    Mean,
    Node,
    Pooling,
)

IMAGE, A, B, OUT = Node("image", 1, 1), Node("a", 4, 1), Node("b", 4, 1), Node("out", 4, WHOLE)
CONV = Convolution(3)
CHAIN = (
    Edge("first", IMAGE, A, CONV),
    Edge("second", A, B, CONV),
    Edge("shortcut", A, B, Identity()),
    Edge("mean", B, OUT, Mean()),
)
NODES = (IMAGE, A, B, OUT)


def refused(words: str, nodes: tuple[Node, ...], edges: tuple[Edge, ...]) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        Dag(nodes, edges)


@given(st.integers(0, 2**32))
def test_any_order_of_nodes_and_edges_is_brought_into_one_that_runs(seed):
    rng = random.Random(seed)
    graph = small_space(seed).sample(rng).graph()
    shuffled = (tuple(rng.sample(part, len(part))) for part in (graph.nodes, graph.edges))
    other = Dag(*shuffled)
    complete = {other.input}
    for number, edge in enumerate(other.edges):
        assert edge.source in complete
        if all(edge.target != later.target for later in other.edges[number + 1 :]):
            complete.add(edge.target)
    assert set(other.nodes) == complete
    assert other.output == graph.output
    assert other.count_parameters() == graph.count_parameters()
    assert Dag(graph.nodes, graph.edges) == graph


def test_a_cycle_is_refused():
    back = Edge("back", B, A, CONV)
    with pytest.raises(UserError, match="has a cycle"):
        Dag(NODES, (*CHAIN, back))
    with pytest.raises(UserError, match="has a cycle"):
        Dag(NODES, (*CHAIN, Edge("self", A, A, Identity())))


def test_nodes_that_lie_on_no_way_are_refused():
    lonely, dead = Node("lonely", 4, 1), Node("dead", 4, 1)
    refused("'lonely'", (*NODES, lonely), CHAIN)
    refused("that no edge leaves", (*NODES, dead), (*CHAIN, Edge("astray", A, dead, CONV)))
    refused("that no edge leads to", (*NODES, lonely), (*CHAIN, Edge("in", lonely, A, CONV)))
    refused("one node", (IMAGE,), ())
    refused("one node", (), ())
    refused("which the graph does not have", NODES[:-1], CHAIN)


def test_names_are_used_once():
    refused("2 nodes with the name 'a'", (*NODES, Node("a", 5, 1)), CHAIN)
    refused("2 edges with the name 'first'", NODES, (*CHAIN, Edge("first", A, B, CONV)))


@pytest.mark.parametrize(
    ("operation", "before", "after"),
    [
        (Identity(), (4, 2), (4, 4)),
        (Identity(), (4, 2), (5, 2)),
        (Pooling("avg", 2), (4, 2), (4, 2)),
        (Pooling("avg"), (4, 2), (5, 2)),
        (Pooling("max"), (4, WHOLE), (4, WHOLE)),
        (CONV, (4, 2), (4, 4)),
        (CONV, (4, WHOLE), (4, WHOLE)),
        (Convolution(3, depthwise=True), (4, 2), (8, 2)),
        (Gate(1), (4, 2), (8, 2)),
        (Mean(), (4, 2), (4, 2)),
        (Mean(), (4, 2), (5, WHOLE)),
        (GlobalConvolution(7), (4, 2), (5, WHOLE)),
        (Linear(), (4, 2), (5, WHOLE)),
        (Embedding(), (4, 2), (5, WHOLE)),
    ],
)
def test_shapes_that_do_not_agree_are_refused(operation, before, after):
    nodes = Node("image", *before), Node("out", *after)
    refused("does not make", nodes, (Edge("edge", *nodes, operation),))


def test_the_input_comes_first_and_the_output_last():
    graph = Dag(NODES[::-1], CHAIN[::-1])
    assert graph.nodes == NODES
    assert (graph.input, graph.output) == (IMAGE, OUT)
    assert [edge.name for edge in graph.edges][::3] == ["first", "mean"]
    assert dict(zip([edge.name for edge in CHAIN], Dag(NODES, CHAIN).last_uses(), strict=True)) == {
        "first": True,
        "second": False,
        "shortcut": True,
        "mean": True,
    }


def test_a_map_kept_for_later_costs_memory():
    """16 pixels: the image stays, and `a` stays for the shortcut while `b` is convolved twice."""
    late = Node("late", 4, 1)
    edges = (
        Edge("first", IMAGE, A, CONV),
        Edge("second", A, B, CONV),
        Edge("third", B, late, CONV),
        Edge("mean", late, OUT, Mean()),
    )
    nodes = (IMAGE, A, B, late, OUT)
    chain, kept = Dag(nodes, edges), Dag(nodes, (*edges, Edge("shortcut", A, late, Identity())))
    assert kept.count_memory(4) - chain.count_memory(4) == 4 * 4 * 16


def test_a_map_that_is_only_passed_on_takes_no_memory():
    edges = (
        Edge("first", IMAGE, A, CONV),
        Edge("same", A, B, Identity()),
        Edge("mean", B, OUT, Mean()),
    )
    direct = Edge("first", IMAGE, A, CONV), Edge("mean", A, OUT, Mean())
    both = Dag(NODES, edges), Dag((IMAGE, A, OUT), direct)
    assert len({graph.count_memory(8) for graph in both}) == 1


def test_sides_round_up():
    sides = {node.name: node.side(9) for node in network(("conv3",), ("conv3",), ("conv3",)).graph().nodes}
    firsts = [sides[f"stage{number}_block1_conv3_second"] for number in (1, 2, 3)]
    assert firsts == [9, 5, 3]
    assert (sides["image"], sides["classifier"]) == (9, 1)
