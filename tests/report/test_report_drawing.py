"""The geometry of the drawing: proportions, rows, captions, words."""

from __future__ import annotations

import pytest

from facenas.report.describing import describe
from facenas.report.drawing import GAP, ROW, Box, draw
from facenas.report.wording import duration, many, ranges, short
from facenas.spaces.plain import PLAIN, PlainArchitecture


def network(depth: int, width: int = 43) -> PlainArchitecture:
    return PlainArchitecture.uniform(depth, width, 3, 10)


@pytest.mark.parametrize("width", [1, 16, 128])
@pytest.mark.parametrize("depth", [1, 2, 3, 5, 10, 26, 60, 100])
def test_heights_follow_resolution_and_widths_channels(depth: int, width: int) -> None:
    arch = network(depth, width)
    stem, *trunk, head = draw(arch, 32).boxes
    assert head.part.kind == "head"
    assert len(trunk) == depth
    for block, layer in zip(trunk, arch.layers(), strict=True):
        assert block.height == pytest.approx(stem.height / layer.shrink)
        assert block.width == pytest.approx(stem.width * layer.out_channels / (2 * width))


@pytest.mark.parametrize("depth", [1, 5, 26, 60, 100])
def test_nothing_overlaps_and_all_is_inside(depth: int) -> None:
    drawing = draw(network(depth), 32)
    for before, after in zip(drawing.boxes, drawing.boxes[1:], strict=False):
        same_row = _middle(before) == pytest.approx(_middle(after))
        if same_row:
            assert after.x == pytest.approx(before.x + before.width + GAP)
        else:
            assert after.y >= before.y + before.height
    assert max(b.x + b.width for b in drawing.boxes) <= drawing.width <= ROW + 16
    assert max(b.y + b.height for b in drawing.boxes) < drawing.height


def _middle(box: Box) -> float:
    return box.y + box.height / 2


def test_every_layer_can_hold_its_label() -> None:
    assert min(b.width for b in draw(network(100, 16), 32).boxes) >= 14
    assert min(b.height for b in draw(network(100, 16), 32).boxes) >= 16


def test_one_row_until_blocks_grow_too_narrow() -> None:
    assert [len(draw(network(depth), 32).axes) for depth in (5, 26, 60, 100)] == [1, 1, 3, 4]


def test_captions_name_stages() -> None:
    lines = [caption.lines for caption in draw(network(26), 28).captions]
    assert lines == [
        ("stem",),  # as much as fits
        ("1–8", "28×28", "43 ch"),
        ("9–17", "14×14", "86 ch"),
        ("18–26", "7×7", "172 ch"),
        ("pool", "10", "classes"),
    ]
    assert draw(network(26), None).captions[2].lines[1] == "1/2 size"


def test_every_stage_of_a_deep_network_is_named() -> None:
    lines = {line for caption in draw(network(100), 32).captions for line in caption.lines}
    assert {"stem", "43 ch", "86 ch", "172 ch", "classes"} <= lines


def test_titles_and_classes_tell_the_layer() -> None:
    arch = network(6, 8).with_operation(2, PLAIN).with_kernel(2, 5)
    block = draw(arch, 32).boxes[3]
    assert (block.part.kind, block.part.label) == ("plain", "5")
    assert block.part.title == "Layer 3: plain 5×5, 8 → 16 channels, stride 2, 16×16"


def test_network_in_words() -> None:
    assert describe(network(5)) == "5 layers, width 43: all separable 3×3"
    arch = network(5).with_operation(0, PLAIN).with_kernel(3, 5).with_kernel(4, 5)
    words = "plain convolutions at layer 1; 5×5 kernels at layers 4, 5; all else separable and 3×3"
    assert describe(arch) == f"5 layers, width 43: {words}"


def test_wording() -> None:
    assert ranges([1, 3, 4, 5, 8, 9]) == "1, 3–5, 8, 9"
    assert [duration(s) for s in (0.25, 59.4, 61, 3599.6, 20935, 200000)] == [
        "0.2 s",
        "59 s",
        "1 min 1 s",
        "1 h 0 min",
        "5 h 49 min",
        "2 d 7 h",
    ]
    assert [short(n) for n in (7, 999, 409714, 999600, 55342102)] == [
        "7",
        "999",
        "410\u00a0k",
        "1\u00a0M",
        "55.3\u00a0M",
    ]
    assert [many(n, "epoch") for n in (0, 1, 1200)] == ["0 epochs", "1 epoch", "1,200 epochs"]
