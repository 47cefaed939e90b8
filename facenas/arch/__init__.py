"""What an architecture is: frozen descriptions, exact parameter counts, search spaces. Never imports torch."""

from __future__ import annotations

from typing import Any

from facenas.arch.base import Architecture, SearchSpace
from facenas.arch.cell_space import CellSpace
from facenas.arch.cells import CellArchitecture
from facenas.arch.ir import IRArchitecture, IRSpace
from facenas.arch.plain import PlainArchitecture, PlainSpace
from facenas.config import CellSpaceConfig, IRSpaceConfig, SpaceConfig
from facenas.errors import UserError

AnyArchitecture = PlainArchitecture | IRArchitecture | CellArchitecture
AnySpace = PlainSpace | IRSpace | CellSpace

_KINDS: dict[str, type[AnyArchitecture]] = {
    "plain": PlainArchitecture,
    "ir": IRArchitecture,
    "cells": CellArchitecture,
}

__all__ = [
    "AnyArchitecture",
    "AnySpace",
    "Architecture",
    "CellArchitecture",
    "CellSpace",
    "IRArchitecture",
    "IRSpace",
    "PlainArchitecture",
    "PlainSpace",
    "SearchSpace",
    "build_space",
    "from_json",
]


def from_json(tree: dict[str, Any]) -> AnyArchitecture:
    """The architecture that `to_json` described; raises UserError for an unknown kind or a wrong field."""
    if not isinstance(tree, dict):
        raise UserError(f"an architecture should be a JSON object, not {tree!r}")
    kind = tree.get("kind", "plain")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise UserError(f"architecture kind {kind!r} is unknown; there are {', '.join(_KINDS)}")
    return _KINDS[kind].from_json(tree)


def build_space(
    config: SpaceConfig | IRSpaceConfig | CellSpaceConfig,
    in_channels: int,
    num_classes: int,
    image_size: int,
) -> AnySpace:
    """The search space that `config` bounds; channels, classes and pixels are those of the images."""
    if isinstance(config, IRSpaceConfig):
        return IRSpace(config)
    if isinstance(config, CellSpaceConfig):
        return CellSpace(config, in_channels, num_classes, image_size)
    return PlainSpace(config, in_channels, num_classes)
