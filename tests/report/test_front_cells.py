"""The drawing of a cell network: nothing overlaps, all is inside, everything is told."""

from __future__ import annotations

import random
from itertools import combinations

import pytest

from facenas.report.front.cells import BLOCK, BOW, HEIGHT, ROW, Drawing, Frame, draw_cells
from facenas.spaces import CellArchitecture, Cells, ImageFacts
from facenas.spaces.cells import Block, Cell

LARGEST = {"min_cells": 6, "min_pipelines": 3, "min_blocks": 3}
CONV = Block("conv", 3, True, "relu", False)
SKIPPING = Block("separable", 5, False, "silu", True)
IDENTITY = Block("identity", 1, True, "none", False)


def sampled(seed: int) -> CellArchitecture:
    bounds = LARGEST if seed % 5 == 0 else {}
    config = Cells.Settings.model_validate({"min_cells": 2, "min_side": 2, **bounds})
    return Cells(config).bind(ImageFacts(3, 10, 32)).sample(random.Random(seed))


def _left(frame: Frame) -> float:
    return frame.corners[0][0]


def _inside(drawing: Drawing, frame: Frame) -> list[tuple[float, float]]:
    """Upper left corners of the boxes whose middle lies in the frame."""
    (left, top), (right, other), (_, bottom), (_, low) = frame.corners
    return [
        (box.x, box.y)
        for box in drawing.boxes
        if left < box.x + BLOCK / 2 < right and min(top, other) < box.y < max(bottom, low)
    ]


def _edge(frame: Frame, x: float, upper: bool) -> float:
    """The height of a frame's upper or lower edge at `x`."""
    first, last = (frame.corners[0], frame.corners[1])
    if not upper:
        first, last = frame.corners[3], frame.corners[2]
    return first[1] + (last[1] - first[1]) * (x - first[0]) / (last[0] - first[0])


@pytest.mark.parametrize("seed", range(30))
def test_nothing_overlaps_and_all_is_inside(seed: int) -> None:
    arch = sampled(seed)
    drawing = draw_cells(arch, 32)
    blocks = sum(len(pipeline) for cell in arch.cells for pipeline in cell.pipelines)
    assert len(drawing.boxes) == blocks + 2
    for a, b in combinations(drawing.boxes, 2):
        assert abs(a.x - b.x) >= BLOCK or abs(a.y - b.y) >= HEIGHT
    for a, b in combinations(drawing.frames, 2):
        aside = a.corners[1][0] < _left(b) or b.corners[1][0] < _left(a)
        heights = [[y for _, y in frame.corners] for frame in (a, b)]
        assert aside or max(heights[0]) < min(heights[1]) or max(heights[1]) < min(heights[0])
    for frame, cell in zip(drawing.frames, arch.cells, strict=True):
        boxes = _inside(drawing, frame)
        assert len(boxes) == sum(map(len, cell.pipelines))
        for x, y in boxes:
            for side in (x, x + BLOCK):
                assert _edge(frame, side, True) <= y - BOW
                assert y + HEIGHT <= _edge(frame, side, False)
    for x, y in [point for wire in drawing.wires for point in wire]:
        assert 0 < x < drawing.width
        assert 0 < y < drawing.height
    assert max(box.x + BLOCK for box in drawing.boxes) <= drawing.width <= ROW + 40


def test_frames_follow_the_role() -> None:
    cells = [Cell(role, "add", 8, ((CONV,),)) for role in ("down", "up", "same")]
    drawing = draw_cells(CellArchitecture(4, tuple(cells), 1, 10), 28)
    growth = []
    for frame in drawing.frames:
        left, right = (frame.corners[3 - i][1] - frame.corners[i][1] for i in (0, 1))
        growth.append((right > left) - (right < left))
    assert growth == [-1, 1, 0]
    assert [frame.above for frame in drawing.frames] == ["1 down", "2 up", "3 same"]
    assert [frame.below for frame in drawing.frames] == [
        "14×14, 8 ch",
        "28×28, 8 ch",
        "28×28, 8 ch",
    ]
    assert (
        draw_cells(CellArchitecture(4, (cells[0],), 1, 10), None).frames[0].below
        == "1/2 size, 8 ch"
    )


def test_words_of_a_block() -> None:
    cell = Cell("down", "add", 8, ((SKIPPING, CONV), (IDENTITY,)))
    boxes = {box.label: box for box in draw_cells(CellArchitecture(4, (cell,), 1, 10), 28).boxes}
    assert set(boxes) == {"stem 3×3", "sep 5×5", "conv 3×3", "identity", "pool, fc"}
    assert boxes["sep 5×5"].title == (
        "Cell 1, pipeline 2, block 1: 5×5 separable convolution, 4 → 8 channels, stride 2, SiLU, "
        "skip over a 1×1 convolution, 14×14"
    )
    assert boxes["identity"].title.endswith("4 channels, mean over 2×2 pixels, BatchNorm, 14×14")
    assert [boxes[name].marks for name in ("sep 5×5", "conv 3×3", "identity")] == [
        "SiLU",
        "BN ReLU",
        "BN",
    ]
    assert boxes["sep 5×5"].bow
    assert boxes["sep 5×5"].projected
    assert not boxes["conv 3×3"].bow


def _symbols(merge: str, *pipelines: tuple[Block, ...]) -> list[str]:
    cell = Cell("same", merge, 8, pipelines)
    return sorted(s.kind for s in draw_cells(CellArchitecture(4, (cell,), 1, 10), 28).symbols)


def test_merges_and_projections() -> None:
    assert _symbols("add", (CONV,)) == []
    assert _symbols("add", (IDENTITY,)) == ["projection"]
    assert _symbols("add", (CONV,), (SKIPPING,)) == ["add"]
    assert _symbols("add", (CONV,), (IDENTITY,)) == ["add", "projection"]
    assert _symbols("concat", (CONV,), (CONV,)) == ["concat", "projection"]
    assert _symbols("concat", (IDENTITY,), (IDENTITY,)) == ["concat"]
