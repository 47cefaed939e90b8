"""The drawing of any architecture."""

from __future__ import annotations

from facenas.report.drawing import Drawing as ChainDrawing
from facenas.report.drawing import draw
from facenas.report.front.cells import draw_cells
from facenas.report.front.graphs import draw_graph
from facenas.report.front.shapes import Drawing
from facenas.spaces import (
    Architecture,
    CellArchitecture,
    GraphArchitecture,
    IRArchitecture,
    PlainArchitecture,
)


def drawing_of(arch: Architecture, image_size: int | None) -> ChainDrawing | Drawing:
    """The drawing for square images of `image_size` pixels (None: resolutions as fractions)."""
    if isinstance(arch, CellArchitecture):
        return draw_cells(arch, image_size)
    if isinstance(arch, GraphArchitecture):
        return draw_graph(arch, image_size)
    assert isinstance(arch, PlainArchitecture | IRArchitecture)
    return draw(arch, image_size)
