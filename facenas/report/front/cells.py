"""A cell network drawn: cells from left to right, their pipelines as lanes, their blocks as boxes.

Pure geometry in SVG user units; the template writes it out. A cell's frame narrows where it halves the
resolution and widens where it doubles it. A long network goes on in the next row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from facenas.report.front import cell_words as words
from facenas.report.front.shapes import Box, Drawing, Frame, Symbol
from facenas.spaces import CellArchitecture
from facenas.spaces.cells import PlacedCell

ROW = 1060.0  # width of a full row
MARGIN = 8.0
BLOCK, HEIGHT = 64.0, 36.0  # a box
STEP = BLOCK + 9.0  # from one block to the next
LANE = 56.0  # from one pipeline to the next: a box, and the bow of its skip above it
BOW = 8.0
INNER = 14.0  # from a frame's left edge to its first blocks, which pipelines branch in
PROJECTION = 16.0  # from a frame's last block to a projection behind it
JOIN = 33.0  # from a frame's last block to where several pipelines meet
OUTER = 26.0  # from where they meet to the frame's right edge, with room for a projection
SLANT = 10.0  # by which a frame narrows or widens, above and below
BETWEEN = 16.0  # cells
CAPTION, LINE = 18.0, 18.0  # room for words above and below a frame


@dataclass(frozen=True)
class _Placed:
    """A cell with its number from 1, its left edge and the height of its middle."""

    number: int
    cell: PlacedCell
    x: float
    middle: float

    @property
    def lanes(self) -> list[float]:
        """Heights of the pipelines' middles."""
        first = self.middle - (len(self.cell.pipelines) - 1) * LANE / 2
        return [first + number * LANE for number in range(len(self.cell.pipelines))]

    @property
    def end(self) -> float:
        """Where the longest pipeline ends."""
        longest = max(map(len, self.cell.pipelines))
        return self.x + INNER + (longest - 1) * STEP + BLOCK

    @property
    def join(self) -> float:
        """Where the pipelines meet; a single one goes on."""
        return self.end + (JOIN if len(self.cell.pipelines) > 1 else 0)

    @property
    def right(self) -> float:
        """The right edge."""
        if len(self.cell.pipelines) > 1:
            return self.join + OUTER
        return self.end + (2 * PROJECTION if self.cell.projections() else INNER)


def draw_cells(arch: CellArchitecture, image_size: int | None) -> Drawing:
    """The drawing of `arch` for square images of `image_size` pixels (None: resolutions as fractions)."""
    drawing, top = Drawing((BLOCK, HEIGHT), "front_cells.html.j2"), MARGIN
    cells = list(enumerate(arch.placed(), start=1))
    for row in _rows(cells):
        half = max(len(cell.pipelines) for _, cell in row) * LANE / 2 + SLANT
        middle = top + CAPTION + half
        x = MARGIN
        if row[0][0] == 1:
            drawing.boxes.append(_stem(arch, image_size, x, middle))
            x += BLOCK
        for number, cell in row:
            placed = _Placed(number, cell, x + BETWEEN, middle)
            _draw(drawing, placed, image_size)
            drawing.wires.append(((x, middle), (placed.x, middle)))
            x = placed.right
        drawing.wires.append(((x, middle), (x + BETWEEN, middle)))
        if row[-1] == cells[-1]:
            drawing.boxes.append(_head(arch, x + BETWEEN, middle))
        drawing.width = max(drawing.width, x + BETWEEN + BLOCK + MARGIN)
        top = middle + half + LINE + MARGIN
    drawing.height = top
    return drawing


def _rows(cells: Sequence[tuple[int, PlacedCell]]) -> Iterator[list[tuple[int, PlacedCell]]]:
    """As many cells as a row holds; stem and head stand beside the first and the last one."""
    row: list[tuple[int, PlacedCell]] = []
    x = MARGIN + BLOCK
    for number, cell in cells:
        width = BETWEEN + _Placed(number, cell, 0, 0).right
        if row and x + width + BETWEEN + BLOCK > ROW:
            yield row
            row, x = [], MARGIN
        row.append((number, cell))
        x += width
    yield row


def _draw(drawing: Drawing, placed: _Placed, image_size: int | None) -> None:
    """Adds a cell."""
    cell, middle, join = placed.cell, placed.middle, placed.join
    drawing.frames.append(_frame(placed, image_size))
    for lane, y in enumerate(placed.lanes):
        branch = placed.x + 4
        drawing.wires.append(
            ((placed.x, middle), (branch, middle), (branch, y), (join, y), (join, middle))
        )
        drawing.boxes += _pipeline(placed, lane, y, image_size)
    drawing.wires.append(((join, middle), (placed.right, middle)))
    drawing.symbols += _projections(placed)
    if len(cell.pipelines) > 1:
        title = words.cell_title(placed.number, cell, image_size)
        drawing.symbols.append(Symbol(cell.cell.merge, title, join, middle))


def _pipeline(placed: _Placed, lane: int, y: float, image_size: int | None) -> Iterator[Box]:
    for number, block in enumerate(placed.cell.pipelines[lane]):
        x, top = placed.x + INNER + number * STEP, y - HEIGHT / 2
        place = f"Cell {placed.number}, pipeline {lane + 1}, block {number + 1}"
        side = (STEP - BLOCK) / 2
        ends = x - side, x + BLOCK + side
        bow = ((ends[0], y), (ends[0], top - BOW), (ends[1], top - BOW), (ends[1], y))
        yield Box(
            kind=block.block.operation,
            label=words.label(block),
            marks=words.marks(block),
            title=words.block_title(place, block, image_size),
            x=x,
            y=top,
            bow=bow if block.block.skip else (),
            projected=block.projected,
        )


def _projections(placed: _Placed) -> Iterator[Symbol]:
    """Of what has another number of channels than the cell: pipelines before they are added, or all joined."""
    cell = placed.cell
    joined = cell.cell.merge == "concat"
    for end, y in zip(cell.ends, [placed.middle] if joined else placed.lanes, strict=True):
        if end != cell.cell.channels:
            title = f"Projection: 1×1 convolution, {end} → {cell.cell.channels} channels"
            x = placed.join + 15 if joined else placed.end + PROJECTION
            yield Symbol("projection", title, x, y)


def _frame(placed: _Placed, image_size: int | None) -> Frame:
    cell, middle = placed.cell, placed.middle
    low = len(cell.pipelines) * LANE / 2
    left = low + (0 if cell.cell.role == "up" else SLANT)
    right = low + (0 if cell.cell.role == "down" else SLANT)
    side = words.resolution(image_size, cell.shrink)
    return Frame(
        title=words.cell_title(placed.number, cell, image_size),
        corners=(
            (placed.x, middle - left),
            (placed.right, middle - right),
            (placed.right, middle + right),
            (placed.x, middle + left),
        ),
        above=f"{placed.number} {cell.cell.role}",
        below=f"{side}, {cell.cell.channels} ch",
    )


def _stem(arch: CellArchitecture, image_size: int | None, x: float, middle: float) -> Box:
    width = words.channels(arch.in_channels, arch.stem)
    title = f"Stem: 3×3 convolution, {width}, BatchNorm, ReLU, {words.resolution(image_size, 1)}"
    return Box("stem", "stem 3×3", f"{arch.stem} ch", title, x, middle - HEIGHT / 2)


def _head(arch: CellArchitecture, x: float, middle: float) -> Box:
    title = f"Global average pooling and a linear classifier of {arch.num_classes} classes"
    return Box("head", "pool, fc", f"{arch.num_classes} classes", title, x, middle - HEIGHT / 2)
