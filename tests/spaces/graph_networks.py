"""Small three-level spaces and graphs for tests."""

from __future__ import annotations

import random
from typing import get_args

from facenas.spaces import Graph, ImageFacts
from facenas.spaces.graph import GraphArchitecture, Operation

ALL = get_args(Operation)


def small_space(seed: int, **settings: object) -> Graph:
    """Narrow networks for small images, with bounds, channels, classes and image size of this seed."""
    rng = random.Random(seed)
    drawn = {
        "operations": rng.sample(ALL, rng.randint(1, len(ALL))),
        "widths": rng.sample((2, 3, 4, 5), rng.randint(1, 3)),
        "width_multipliers": rng.choice(((1.0,), (0.5, 1.0), (1.0, 1.5, 0.5))),
        "depth_multipliers": rng.choice(((1.0,), (0.5, 1.0), (1.4, 1.0))),
        "min_blocks": rng.randint(1, 2),
        "max_blocks": rng.randint(2, 3),
        "expansion": rng.randint(1, 3),
    }
    config = Graph.Settings.model_validate({**drawn, **settings})
    return Graph(config).bind(ImageFacts(rng.randint(1, 3), rng.randint(2, 6), rng.choice((8, 9, 12))))


def network(
    *stages: tuple[str, ...], widths: tuple[int, ...] | None = None, stride: int = 1
) -> GraphArchitecture:
    """These stages for grey images and ten classes; channels double from 4 on."""
    widths = widths or tuple(4 * 2**number for number in range(len(stages)))
    return GraphArchitecture("classification", widths, stages, stride, 2, 1, 10)
