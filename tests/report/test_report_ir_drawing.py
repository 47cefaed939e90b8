"""Face networks drawn and told: true to scale over 112 to 7 pixels, every stage named."""

from __future__ import annotations

from itertools import pairwise

import pytest

from facenas.report.describing import describe, special_units
from facenas.report.drawing import CAPTION, ROW, Box, Drawing, draw
from facenas.report.parts import LETTER
from facenas.spaces import IRArchitecture
from facenas.spaces.ir import NAMED, share_out

SMALL = IRArchitecture.uniform(6, (1, 1, 2, 1), 64)
SIDES = ("112×112", "56×56", "28×28", "14×14", "7×7")
NETWORKS = {
    **NAMED,
    "smallest": IRArchitecture.uniform(4, (1, 1, 1, 1), 64, se=True),
    "small": SMALL,
    "deepest": IRArchitecture.uniform(32, share_out(49, (1, 2, 4, 1))),
}
every_network = pytest.mark.parametrize("arch", NETWORKS.values(), ids=NETWORKS.keys())


@every_network
def test_heights_follow_resolution_and_widths_channels(arch: IRArchitecture) -> None:
    stem, *trunk, head = draw(arch, 112).boxes
    assert (stem.part.kind, head.part.kind) == ("stem", "head")
    for box, block in zip(trunk, arch.blocks(), strict=True):
        assert box.height == pytest.approx(stem.height / block.shrink)
        assert box.width == pytest.approx(stem.width * block.out_channels / arch.width)


@every_network
def test_boxes_and_captions_do_not_overlap(arch: IRArchitecture) -> None:
    drawing = draw(arch, 112)
    for row in _rows(drawing):
        for before, after in pairwise(row):
            assert after.x > before.x + before.width
        end = row[-1].x + row[-1].width
        bottom = max(box.y + box.height for box in row)
        captions = [c for c in drawing.captions if bottom < c.y < bottom + CAPTION]
        edges = [*(caption.x for caption in captions[1:]), end + LETTER]
        for caption, edge in zip(captions, edges, strict=True):
            assert caption.x + LETTER * max(map(len, caption.lines)) <= edge
    assert max(b.x + b.width for b in drawing.boxes) <= drawing.width <= ROW + 16
    assert min(b.height for b in drawing.boxes) >= 14
    assert min(b.width for b in drawing.boxes) >= 14


def _rows(drawing: Drawing) -> list[list[Box]]:
    rows: list[list[Box]] = []
    for box in drawing.boxes:
        if rows and rows[-1][0].y + rows[-1][0].height / 2 == pytest.approx(box.y + box.height / 2):
            rows[-1].append(box)
        else:
            rows.append([box])
    return rows


@every_network
def test_every_stage_is_named(arch: IRArchitecture) -> None:
    lines = {line for caption in draw(arch, 112).captions for line in caption.lines}
    widths = {f"{arch.width * 2**stage} ch" for stage in range(4)}
    assert lines >= {"stem", *SIDES, *widths, "output", f"{arch.embedding}-d"}


def test_titles_tell_the_block() -> None:
    arch = IRArchitecture(6, (1, 1, 2, 1), (1, 1, 0, 1, 1), (3, 3, 3, 5, 3), 64, se=True)
    boxes = draw(arch, 112).boxes
    assert [box.part.title for box in boxes[3:5]] == [
        "Block 3: two separable 3×3 convolutions, 12 → 24 channels, stride 2, 14×14, "
        "squeeze-and-excitation, projected shortcut",
        "Block 4: two plain 5×5 convolutions, 24 → 24 channels, stride 1, 14×14, "
        "squeeze-and-excitation",
    ]
    assert [(b.part.kind, b.part.label) for b in boxes[3:5]] == [("separable", "3"), ("plain", "5")]
    assert [box.part.squeezed for box in boxes] == [False, *[True] * 5, False]
    assert boxes[-1].part.title == "Linear layer: 7×7, 48 channels → embedding of 64 numbers"


def test_network_in_words() -> None:
    assert describe(NAMED["r34_512"]) == (
        "34 layers (blocks 2, 4, 8, 2), width 64, embedding 512: all plain 3×3"
    )
    assert "embedding 512, squeeze-and-excitation: all plain" in describe(NAMED["irse50"])
    arch = SMALL.with_operation(2, 0).with_operation(3, 0).with_operation(4, 0).with_kernel(3, 5)
    assert describe(arch) == (
        "12 layers (blocks 1, 1, 2, 1), width 6, embedding 64: separable convolutions at blocks 3–5; "
        "5×5 kernels at block 4; all else plain and 3×3"
    )
    assert special_units(SMALL) == ""
    assert special_units(arch) == "separable at 3–5; 5×5 at 4"
