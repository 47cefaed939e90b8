"""A graph network drawn: stages as columns from left to right, their blocks as boxes from top to bottom.

Pure geometry in SVG user units; the template writes it out. A frame narrows where its stage halves the
resolution, and has a mark for every block that skips. A stage of many blocks goes on in the next column.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from facenas.report.front import graph_words as words
from facenas.report.front.cell_words import channels
from facenas.report.front.shapes import Box, Drawing, Frame, Symbol, Wire
from facenas.spaces import GraphArchitecture

MARGIN = 8.0
BLOCK, HEIGHT = 104.0, 36.0  # a box
STEP = HEIGHT + 24.0  # from one block to the next below it
BOW = 9.0  # from a box to its skip
ARM = 6.0  # from a box to where its skip leaves and joins the wire
LEFT, RIGHT = 18.0, 10.0  # from a frame's edges to its boxes; skips are at the left
LEAD = 14.0  # from where a column is entered down to its first box, and from its last box to where it is left
SLANT = 8.0  # by which a frame narrows, above and below
BETWEEN = 18.0  # columns
CAPTION, LINE = 18.0, 18.0  # room for words above and below a frame
MOST = 8  # blocks in a column

TOP = MARGIN + CAPTION + SLANT + 4  # where columns are entered


@dataclass(frozen=True)
class _Column:
    """Boxes below each other from the left edge `x` on."""

    x: float
    count: int

    @property
    def box(self) -> float:
        """The left edge of its boxes."""
        return self.x + LEFT

    @property
    def middle(self) -> float:
        """Of its boxes."""
        return self.box + BLOCK / 2

    @property
    def right(self) -> float:
        """The right edge."""
        return self.box + BLOCK + RIGHT

    @property
    def end(self) -> float:
        """How low it is left."""
        return self.height(max(self.count, 1) - 1) + HEIGHT + LEAD

    def height(self, number: int) -> float:
        """The upper edge of a box, numbers from 0."""
        return TOP + LEAD + number * STEP


def draw_graph(arch: GraphArchitecture, image_size: int | None) -> Drawing:
    """The drawing of `arch` for square images of `image_size` pixels (None: resolutions as fractions)."""
    drawing = Drawing((BLOCK, HEIGHT), "front_graph.html.j2")
    stages = list(words.stages(arch))
    columns = [_Column(MARGIN - LEFT, 1)]  # stem and head have no frame and need no room for one
    _draw_ends(drawing, columns[0], "stem", [words.stem(arch, image_size)])
    for stage in stages:
        for part in _parts(stage.blocks):
            columns.append(_Column(columns[-1].right + BETWEEN, len(part)))
            drawing.frames.append(_frame(columns[-1], stage, part, image_size))
            _draw_blocks(drawing, columns[-1], part, image_size)
    head = list(words.head(arch, stages[-1]))
    columns.append(_Column(columns[-1].right + BETWEEN - LEFT, len(head)))
    _draw_ends(drawing, columns[-1], "head", head)
    drawing.wires.append(_wire(columns))
    drawing.width = columns[-1].box + BLOCK + MARGIN
    drawing.height = max(column.end for column in columns) + SLANT + LINE + MARGIN
    return drawing


def _parts(blocks: Sequence[words.Block]) -> list[Sequence[words.Block]]:
    """The blocks by column, as even as can be; a stage without blocks has a column too."""
    count = max(1, -(-len(blocks) // MOST))
    size = -(-len(blocks) // count)
    return [blocks[number * size : (number + 1) * size] for number in range(count)]


def _wire(columns: Sequence[_Column]) -> Wire:
    """From the stem through every column to the head: down in it, and up again before the next."""
    points = [(columns[0].middle, columns[0].height(0))]
    for before, after in pairwise(columns):
        aside = before.right + BETWEEN / 2
        points += [(before.middle, before.end), (aside, before.end), (aside, TOP)]
        points.append((after.middle, TOP))
    last = columns[-1]
    return (*points, (last.middle, last.height(last.count - 1)))


def _draw_ends(
    drawing: Drawing, column: _Column, kind: str, told: Sequence[tuple[str, str, str]]
) -> None:
    for number, (label, marks, title) in enumerate(told):
        drawing.boxes.append(Box(kind, label, marks, title, column.box, column.height(number)))


def _draw_blocks(
    drawing: Drawing, column: _Column, blocks: Sequence[words.Block], image_size: int | None
) -> None:
    for number, block in enumerate(blocks):
        drawing.boxes.append(_box(column, number, block, image_size))
    drawing.symbols += _projections(column, blocks)


def _box(column: _Column, number: int, block: words.Block, image_size: int | None) -> Box:
    top, aside = column.height(number), column.box - BOW
    ends = top - ARM, top + HEIGHT + ARM
    bow = (
        (column.middle, ends[0]),
        (aside, ends[0]),
        (aside, ends[1]),
        (column.middle, ends[1]),
    )
    return Box(
        kind=block.kind,
        label=block.label,
        marks=block.marks,
        title=block.title(image_size),
        x=column.box,
        y=top,
        bow=bow if block.skips else (),
        projected=block.projected,
        squeezed=block.squeezed,
    )


def _projections(column: _Column, blocks: Sequence[words.Block]) -> Iterator[Symbol]:
    """The 1x1 convolution behind a pool that changes the shape."""
    for number, block in enumerate(blocks):
        if block.projected and not block.skips:
            widths = channels(block.before, block.channels)
            y = column.height(number) + HEIGHT + ARM
            yield Symbol("projection", f"Projection: 1×1 convolution, {widths}", column.middle, y)


def _frame(
    column: _Column, stage: words.Stage, part: Sequence[words.Block], image_size: int | None
) -> Frame:
    goes_on = bool(part) and part[0].number > 1
    slant = 0.0 if goes_on or stage.stride == 1 else SLANT
    top, bottom = TOP - 4, column.end + 4
    remark = ", continued" if goes_on else "" if part else ", no block"
    return Frame(
        title=stage.title(image_size),
        corners=(
            (column.x, top - slant),
            (column.right, top),
            (column.right, bottom),
            (column.x, bottom + slant),
        ),
        above=f"stage {stage.number}{remark}",
        below=stage.size(image_size),
    )
