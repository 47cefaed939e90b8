"""The drawing of a graph network: nothing overlaps, all is inside, everything is as the graph has it."""

from __future__ import annotations

import json
import random
from itertools import combinations
from pathlib import Path

import pytest
from report_page_reader import read_page
from report_run_folders import make_run

from facenas.report.front.graph_words import Block, stages
from facenas.report.front.graphs import BLOCK, BOW, HEIGHT, MOST, draw_graph
from facenas.spaces import Graph, GraphArchitecture, ImageFacts
from facenas.spaces.graph_ops import OPERATIONS, Convolution, Gate, Identity

SMALL = GraphArchitecture(
    "classification", (16, 32), (("conv3", "se_bottleneck5"), ("max_pool3",)), 1, 4, 3, 10
)
FACE = GraphArchitecture(
    "face", (8, 16, 16), (("avg_pool3",), ("bottleneck3",) * 11, ("separable5",)), 2, 6, 3, 64
)


def sampled(seed: int) -> GraphArchitecture:
    bounds = {"operations": [*OPERATIONS, "skip"], "max_blocks": 12 if seed % 5 == 0 else 4}
    config = Graph.Settings.model_validate({"widths": [8, 16, 24], **bounds})
    images = (ImageFacts(3, 10, 32), ImageFacts(3, 0, 112))[seed % 2]
    return Graph(config).bind(images).sample(random.Random(seed))


def blocks(arch: GraphArchitecture) -> list[Block]:
    return [block for stage in stages(arch) for block in stage.blocks]


@pytest.mark.parametrize("seed", range(30))
def test_nothing_overlaps_and_all_is_inside(seed: int) -> None:
    arch = sampled(seed)
    drawing = draw_graph(arch, 32)
    assert len(drawing.boxes) == len(blocks(arch)) + (4 if arch.task == "face" else 2)
    for a, b in combinations(drawing.boxes, 2):
        assert abs(a.x - b.x) >= BLOCK or abs(a.y - b.y) >= HEIGHT
    for a, b in combinations(drawing.frames, 2):
        assert a.corners[1][0] < b.corners[0][0]  # in order, from left to right
    held = 0
    for frame in drawing.frames:
        (left, _), (right, top), (_, bottom), _ = frame.corners  # the right side is the lower one
        inside = [box for box in drawing.boxes if left < box.x and box.x + BLOCK < right]
        assert all(top < box.y and box.y + HEIGHT < bottom for box in inside)
        assert all(left < x for box in inside for x, _ in box.bow)
        assert len(inside) <= MOST
        held += len(inside)
    assert held == len(blocks(arch))
    (wire,) = drawing.wires
    bows = [point for box in drawing.boxes for point in box.bow]
    for x, y in (*wire, *bows):
        assert 0 < x < drawing.width
        assert 0 < y < drawing.height
    assert max(box.x + BLOCK for box in drawing.boxes) < drawing.width


@pytest.mark.parametrize("seed", range(30))
def test_blocks_are_those_of_the_graph(seed: int) -> None:
    arch = sampled(seed)
    edges = arch.graph().edges
    for block in blocks(arch):
        prefix = f"stage{block.stage}_block{block.number}_"
        mine = [edge for edge in edges if edge.name.startswith(prefix)]
        (result,) = {e.target for e in mine} - {e.source for e in mine}
        (source,) = {e.source for e in mine} - {e.target for e in mine}
        assert (source.channels, result.channels) == (block.before, block.channels)
        assert (source.shrink * block.stride, result.shrink) == (block.shrink, block.shrink)
        what = [edge.operation for edge in mine]
        assert block.squeezed == any(isinstance(one, Gate) for one in what)
        shortcuts = [edge.operation for edge in mine if edge.name == f"{prefix}shortcut"]
        assert block.projected == any(isinstance(one, Convolution) for one in shortcuts)
        kept = any(isinstance(one, Identity) for one in shortcuts)
        assert kept == (block.skips and not block.projected)
        if block.kind == "bottleneck":
            inside = max(edge.target.channels for edge in mine if edge.target != result)
            assert str(inside) in block.marks


def test_words_of_the_parts() -> None:
    drawing = draw_graph(SMALL, 32)
    assert [(box.kind, box.label, box.marks) for box in drawing.boxes] == [
        ("stem", "stem 3×3", "32×32, 16 ch"),
        ("conv", "2 conv 3×3", "16 ch"),
        ("bottleneck", "bottleneck 5×5", "16→64→16 ch"),
        ("max_pool", "max pool 3×3", "16→32 ch"),
        ("head", "pool, fc", "10 classes"),
    ]
    assert [box.squeezed for box in drawing.boxes] == [False, False, True, False, False]
    assert drawing.boxes[2].title == (
        "Stage 1, block 2: bottleneck with a 5×5 depthwise convolution, 16 channels, 64 inside, "
        "squeeze-and-excitation, skip, 32×32"
    )
    assert drawing.boxes[3].title == (
        "Stage 2, block 1: 3×3 max pooling, 16 → 32 channels, stride 2, then a 1×1 convolution, 16×16"
    )
    assert [bool(box.bow) for box in drawing.boxes] == [False, True, True, False, False]
    assert [symbol.kind for symbol in drawing.symbols] == ["projection"]
    assert [frame.above for frame in drawing.frames] == ["stage 1", "stage 2"]
    assert [frame.below for frame in drawing.frames] == ["32×32, 16 ch", "16×16, 32 ch"]
    assert draw_graph(SMALL, None).frames[1].below == "1/2 size, 32 ch"


def test_face_heads_and_long_stages() -> None:
    drawing = draw_graph(FACE, 112)
    head = [(box.label, box.marks) for box in drawing.boxes if box.kind == "head"]
    assert head == [("conv 1×1", "16→64 ch"), ("depthwise 14×14", "64 ch"), ("linear", "z of 64")]
    above = [frame.above for frame in drawing.frames]
    assert above == ["stage 1", "stage 2", "stage 2, continued", "stage 3"]
    slants = [frame.corners[0][1] < frame.corners[1][1] for frame in drawing.frames]
    assert slants == [True, True, False, True]
    assert drawing.boxes[2].projected  # over its skip, which is dashed
    assert drawing.boxes[2].bow[1][0] == drawing.boxes[2].x - BOW


def test_a_stage_that_only_skips() -> None:
    arch = GraphArchitecture("classification", (8, 16), ((), ("conv3",)), 1, 4, 1, 10)
    drawing = draw_graph(arch, 28)
    assert [frame.above for frame in drawing.frames] == ["stage 1, no block", "stage 2"]
    assert len(drawing.boxes) == 3


def test_training_of_a_given_graph_network(tmp_path: Path) -> None:
    config = {"space": {"kind": "graph"}, "search": {"strategy": "nsga2"}}
    run = make_run(tmp_path / "run", [], config)
    tree = {"architecture": SMALL.to_json(), "parameters": 1, "macs": 2}
    (run / "best.json").write_text(json.dumps(tree))
    page = read_page(run)
    assert "Training of a given network on cifar10" in page.text()
    assert len(page.find("svg", class_="network framed")) == 1
    assert len(page.find("rect", class_="squeezed")) == 1
    assert "squeeze-and-excitation" in page.text()
    assert "How far the supernet" not in page.text()
