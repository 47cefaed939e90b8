"""Small cell networks and spaces for tests."""

from __future__ import annotations

import random

from facenas.spaces.cell_block import Block
from facenas.spaces.cell_settings import CellSpaceConfig
from facenas.spaces.cell_space import CellSpace
from facenas.spaces.cells import Cell, CellArchitecture

BARE = Block("identity", 1, False, "none", False)


def small_space(seed: int, **settings: object) -> CellSpace:
    """Narrow networks for small images, with bounds, channels, classes and image size of this seed."""
    rng = random.Random(seed)
    bounds = {"min_cells": 1, "max_cells": rng.randint(1, 4), "max_blocks": rng.randint(1, 3)}
    widths = tuple(rng.sample((2, 3, 4, 5), 2))
    drawn = {**bounds, "max_pipelines": rng.randint(1, 3), "base_widths": widths, "min_side": 2}
    config = CellSpaceConfig.model_validate({**drawn, **settings})
    return CellSpace(config, rng.randint(1, 3), rng.randint(2, 6), rng.choice((8, 9, 11, 12)))


def conv(kernel: int = 3, **options: object) -> Block:
    """A convolution with BatchNorm and ReLU, but for the `options`."""
    plain = {"batch_norm": True, "activation": "relu", "skip": False}
    return Block("conv", kernel, **{**plain, **options})


def network(*cells: Cell, stem: int = 4) -> CellArchitecture:
    """A chain of these cells for grey images and ten classes."""
    return CellArchitecture(stem, cells, 1, 10)
