"""A network drawn as blocks: height = resolution, width = channels, colour = operation, number = kernel.

Pure geometry in SVG user units; the template writes it out. A deep network goes on in the next row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from facenas.arch.plain import PLAIN, PlainArchitecture
from facenas.report.wording import many, ranges

ROW = 1060.0  # width of a full row
TALLEST = 128.0  # height of a block at input resolution
GAP = 3.0
MARGIN = 8.0
CAPTION = 52.0  # room under a row for its three lines of caption
NARROWEST, WIDEST = 14.0, 52.0  # of a block with as many channels as the network's width
HEAD_WIDTH, HEAD_HEIGHT = 48.0, 24.0  # pooling and classifier, not to scale
LEAST_CAPTION = 52.0  # a part of a stage narrower than this has no caption of its own
LETTER = 7.0  # width of a caption's letter, on average


@dataclass(frozen=True)
class Part:
    """A block before it has a place; `relative_width` in widths of the network, 0 for the head."""

    kind: str
    label: str
    title: str
    caption: tuple[str, str, str]
    number: int
    relative_width: float
    shrink: int


@dataclass(frozen=True)
class Block:
    """A placed block: (x, y) is its upper left corner."""

    part: Part
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Caption:
    """Lines of text under the blocks from x on."""

    x: float
    y: float
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Drawing:
    """All that the SVG shows; `axes` are (x1, x2, y) of the line behind each row."""

    width: float
    height: float
    blocks: tuple[Block, ...]
    captions: tuple[Caption, ...]
    axes: tuple[tuple[float, float, float], ...]


def draw(arch: PlainArchitecture, image_size: int | None) -> Drawing:
    """The drawing of `arch` for square images of `image_size` pixels (None: resolutions as fractions)."""
    parts = list(_parts(arch, image_size))
    unit = _unit(parts)
    blocks: list[Block] = []
    captions: list[Caption] = []
    axes: list[tuple[float, float, float]] = []
    top = MARGIN
    for row in _rows(parts, unit):
        placed = _place(row, unit, top)
        middle = placed[0].y + placed[0].height / 2
        bottom = max(b.y + b.height for b in placed)
        captions += _captions(placed, bottom + 15)
        axes.append((placed[0].x, placed[-1].x + placed[-1].width, middle))
        blocks += placed
        top = bottom + CAPTION + 8
    width = max(b.x + b.width for b in blocks) + MARGIN
    return Drawing(width, top - 8, tuple(blocks), tuple(captions), tuple(axes))


def describe(arch: PlainArchitecture) -> str:
    """The network in one sentence, layers counted from 1."""
    plain = [i for i, op in enumerate(arch.operations, start=1) if op == PLAIN]
    special = [f"plain convolutions at {_layers(plain)}"] if plain else []
    for kernel in sorted(set(arch.kernels) - {3}):
        places = [i for i, k in enumerate(arch.kernels, start=1) if k == kernel]
        special.append(f"{kernel}×{kernel} kernels at {_layers(places)}")
    rest = "all else separable and 3×3" if special else "all separable 3×3"
    return f"{many(arch.depth, 'layer')}, width {arch.width}: " + "; ".join([*special, rest])


def _layers(numbers: Sequence[int]) -> str:
    return f"layer{'s' if len(numbers) > 1 else ''} {ranges(numbers)}"


def _parts(arch: PlainArchitecture, image_size: int | None) -> Iterator[Part]:
    side = _side(image_size, 1)
    stem = 2 * arch.width
    title = f"Stem: 3×3 convolution, {arch.in_channels} → {stem} channels, {side}"
    yield Part("stem", "3", title, ("stem", side, f"{stem} ch"), 0, 2.0, 1)
    for number, layer in enumerate(arch.layers(), start=1):
        side = _side(image_size, layer.shrink)
        kind = "plain" if layer.operation == PLAIN else "separable"
        title = (
            f"Layer {number}: {kind} {layer.kernel}×{layer.kernel}, "
            f"{layer.in_channels} → {layer.out_channels} channels, stride {layer.stride}, {side}"
        )
        caption = ("layers", side, f"{layer.out_channels} ch")
        width = layer.out_channels / arch.width
        yield Part(kind, str(layer.kernel), title, caption, number, width, layer.shrink)
    title = f"Global average pooling and a linear classifier of {arch.num_classes} classes"
    caption = ("pool", f"{arch.num_classes}", "classes")
    yield Part("head", "fc", title, caption, arch.depth + 1, 0, 1)


def _side(image_size: int | None, shrink: int) -> str:
    """The resolution behind `shrink`; strides round up, as the convolutions do."""
    if image_size is None:
        return "full size" if shrink == 1 else f"1/{shrink} size"
    side = -(-image_size // shrink)
    return f"{side}×{side}"


def _unit(parts: Sequence[Part]) -> float:
    """Width of a block with the network's width, in as few rows as leave it wide enough to read."""
    total, widest = sum(p.relative_width for p in parts), max(p.relative_width for p in parts)
    rows, unit = 0, 0.0
    while unit < NARROWEST:
        rows += 1
        room = rows * ROW - HEAD_WIDTH - GAP * len(parts)
        unit = room / (total + (rows - 1) * widest)  # a row may end that much too early
    return min(WIDEST, unit)


def _rows(parts: Sequence[Part], unit: float) -> Iterator[list[Part]]:
    row: list[Part] = []
    x = 0.0
    for part in parts:
        width = _width(part, unit)
        if row and x + width > ROW + 0.01:
            yield row
            row, x = [], 0.0
        row.append(part)
        x += width + GAP
    yield row


def _width(part: Part, unit: float) -> float:
    return part.relative_width * unit or HEAD_WIDTH


def _place(row: Sequence[Part], unit: float, top: float) -> list[Block]:
    heights = [HEAD_HEIGHT if p.kind == "head" else TALLEST / p.shrink for p in row]
    x, middle, blocks = MARGIN, top + max(heights) / 2, []
    for part, height in zip(row, heights, strict=True):
        width = _width(part, unit)
        blocks.append(Block(part, x, middle - height / 2, width, height))
        x += width + GAP
    return blocks


def _captions(row: Sequence[Block], y: float) -> Iterator[Caption]:
    """Stem, stages and head, named where their blocks begin. A stage that a row breaks is named in both rows,
    unless one of them holds too little of it.
    """
    for (name, *lines), group in groupby(row, key=lambda block: block.part.caption):
        blocks = list(group)
        first, last = blocks[0], blocks[-1]
        if name == "layers":
            broken = first is row[0] or last is row[-1]
            if broken and last.x + last.width - first.x < LEAST_CAPTION:
                continue
            name = ranges(range(first.part.number, last.part.number + 1))
        room = last.x + last.width + GAP - first.x
        fitting = (line for line in (name, *lines) if LETTER * len(line) <= room)
        yield Caption(first.x, y, tuple(fitting))
