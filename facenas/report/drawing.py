"""A network drawn as boxes: height = resolution, width = channels, colour = operation, number = kernel.

Pure geometry in SVG user units; the template writes it out. A deep network goes on in the next row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, groupby
from typing import ClassVar

from facenas.report.describing import Chain
from facenas.report.parts import LETTER, Part, parts
from facenas.report.wording import ranges

ROW = 1060.0  # width of a full row
TALLEST, LOWEST = (
    128.0,
    14.0,
)  # heights: of input resolution, more where the last stage would get too low
GAP = 3.0
MARGIN = 8.0
CAPTION = 52.0  # room under a row for its three lines of caption
NARROWEST, WIDEST = 14.0, 52.0  # of a box with as many channels as the network's width
WIDEST_BOX = 8 * 39.0
HEAD_WIDTH, HEAD_HEIGHT = 48.0, 24.0  # what follows the last stage, not to scale
LEAST_CAPTION = 52.0  # a part of a stage narrower than this has no caption of its own


@dataclass(frozen=True)
class Box:
    """A placed part: (x, y) is its upper left corner."""

    part: Part
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Caption:
    """Lines of text under the boxes from x on."""

    x: float
    y: float
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Drawing:
    """All that the SVG shows; `axes` are (x1, x2, y) of the line behind each row."""

    width: float
    height: float
    boxes: tuple[Box, ...]
    captions: tuple[Caption, ...]
    axes: tuple[tuple[float, float, float], ...]
    template: ClassVar[str] = "network.html.j2"


def draw(arch: Chain, image_size: int | None) -> Drawing:
    """The drawing of `arch` for square images of `image_size` pixels (None: resolutions as fractions)."""
    chain = list(parts(arch, image_size))
    unit, tallest = _unit(chain), max(TALLEST, LOWEST * max(part.shrink for part in chain))
    boxes: list[Box] = []
    captions: list[Caption] = []
    axes: list[tuple[float, float, float]] = []
    top = MARGIN
    for row in _rows(chain, unit):
        placed = _place(row, unit, tallest, top)
        middle = placed[0].y + placed[0].height / 2
        bottom = max(b.y + b.height for b in placed)
        captions += _captions(placed, bottom + 15)
        axes.append((placed[0].x, placed[-1].x + placed[-1].width, middle))
        boxes += placed
        top = bottom + CAPTION + 8
    width = max(b.x + b.width for b in boxes) + MARGIN
    return Drawing(width, top - 8, tuple(boxes), tuple(captions), tuple(axes))


def _unit(chain: Sequence[Part]) -> float:
    """Width of a box with the network's width: the largest that fits into as few rows as can be."""
    largest = min(WIDEST, WIDEST_BOX / max(part.relative_width for part in chain))
    units = [largest - step / 2 for step in range(int(2 * (largest - NARROWEST)) + 1)]
    for rows in count(1):
        for unit in units:
            if sum(1 for _ in _rows(chain, unit)) <= rows:
                return unit
    raise AssertionError("some number of rows is enough")


def _rows(chain: Sequence[Part], unit: float) -> Iterator[list[Part]]:
    row: list[Part] = []
    x = 0.0
    for part in chain:
        if row and x + _width(part, unit) > ROW + 0.01:
            yield row
            row, x = [], 0.0
        row.append(part)
        x += _step(part, unit)
    yield row


def _width(part: Part, unit: float) -> float:
    return part.relative_width * unit or HEAD_WIDTH


def _step(part: Part, unit: float) -> float:
    """From a part's left edge to that of the next."""
    return max(_width(part, unit), part.room) + GAP


def _place(row: Sequence[Part], unit: float, tallest: float, top: float) -> list[Box]:
    heights = [HEAD_HEIGHT if p.kind == "head" else tallest / p.shrink for p in row]
    x, middle, boxes = MARGIN, top + max(heights) / 2, []
    for part, height in zip(row, heights, strict=True):
        boxes.append(Box(part, x, middle - height / 2, _width(part, unit), height))
        x += _step(part, unit)
    return boxes


def _captions(row: Sequence[Box], y: float) -> Iterator[Caption]:
    """Stem, stages and head, named where their boxes begin. A stage that a row breaks is named in both rows,
    unless one of them holds too little of it.
    """
    for (name, *lines), group in groupby(row, key=lambda box: box.part.caption):
        boxes = list(group)
        first, last = boxes[0], boxes[-1]
        end = last.x + max(last.width, last.part.room)
        if name == "units":
            broken = first is row[0] or last is row[-1]
            if broken and end - first.x < LEAST_CAPTION:
                continue
            name = ranges(range(first.part.number, last.part.number + 1))
        room = end + GAP - first.x
        fitting = (line for line in (name, *lines) if LETTER * len(line) <= room)
        yield Caption(first.x, y, tuple(fitting))
