"""The drawing of any architecture that there is one for."""

from __future__ import annotations

from facenas.arch import AnyArchitecture, CellArchitecture
from facenas.report.describing import Chain
from facenas.report.drawing import Drawing as ChainDrawing
from facenas.report.drawing import draw
from facenas.report.front.cells import Drawing as CellDrawing
from facenas.report.front.cells import draw_cells


def drawing_of(arch: AnyArchitecture, image_size: int | None) -> ChainDrawing | CellDrawing | None:
    """The drawing for square images of `image_size` pixels (None: resolutions as fractions)."""
    if isinstance(arch, Chain):
        return draw(arch, image_size)
    if isinstance(arch, CellArchitecture):
        return draw_cells(arch, image_size)
    return None
