"""What drawings of framed boxes are made of, in SVG user units; one template writes them all out."""

from __future__ import annotations

from dataclasses import dataclass, field

Point = tuple[float, float]
Wire = tuple[Point, ...]


@dataclass(frozen=True)
class Box:
    """A block, the stem or the head; (x, y) is its upper left corner. `bow`: corners of its skip, if any.

    kind: names its colour; projected: the skip changes the shape; squeezed: with squeeze-and-excitation.
    """

    kind: str
    label: str
    marks: str
    title: str
    x: float
    y: float
    bow: Wire = ()
    projected: bool = False
    squeezed: bool = False


@dataclass(frozen=True)
class Symbol:
    """add or concat where pipelines meet, or a 1x1 projection; (x, y) is its middle."""

    kind: str
    title: str
    x: float
    y: float


@dataclass(frozen=True)
class Frame:
    """Corners around boxes, clockwise from the upper left, with words above and below them."""

    title: str
    corners: tuple[Point, Point, Point, Point]
    above: str
    below: str


@dataclass
class Drawing:
    """All that the SVG shows; `wires` are the corners of lines, behind everything but the frames.

    box: width and height of every box; template: writes the drawing out with its legend.
    """

    box: Point
    template: str
    width: float = 0.0
    height: float = 0.0
    boxes: list[Box] = field(default_factory=list)
    symbols: list[Symbol] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    wires: list[Wire] = field(default_factory=list)
