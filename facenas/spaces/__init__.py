"""What an architecture is: frozen descriptions, exact parameter counts, search spaces. Never imports torch."""

from __future__ import annotations

from typing import Any

from facenas.errors import UserError
from facenas.spaces.base import Architecture, SearchSpace
from facenas.spaces.cell_settings import CellSpaceConfig
from facenas.spaces.cell_space import CellSpace
from facenas.spaces.cells import CellArchitecture
from facenas.spaces.graph import GraphArchitecture
from facenas.spaces.graph_settings import GraphSpaceConfig
from facenas.spaces.graph_space import GraphSpace
from facenas.spaces.ir import IRArchitecture, IRSpace
from facenas.spaces.plain import PlainArchitecture, PlainSpace
from facenas.spaces.settings import IRSpaceConfig, SpaceConfig

AnyArchitecture = PlainArchitecture | IRArchitecture | CellArchitecture | GraphArchitecture
AnySpace = PlainSpace | IRSpace | CellSpace | GraphSpace
SpaceSettings = SpaceConfig | IRSpaceConfig | CellSpaceConfig | GraphSpaceConfig

_KINDS: dict[str, type[AnyArchitecture]] = {
    "plain": PlainArchitecture,
    "ir": IRArchitecture,
    "cells": CellArchitecture,
    "graph": GraphArchitecture,
}

__all__ = [
    "AnyArchitecture",
    "AnySpace",
    "Architecture",
    "CellArchitecture",
    "CellSpace",
    "GraphArchitecture",
    "GraphSpace",
    "IRArchitecture",
    "IRSpace",
    "PlainArchitecture",
    "PlainSpace",
    "SearchSpace",
    "SpaceSettings",
    "build_space",
    "from_json",
    "is_face",
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
    config: SpaceSettings, in_channels: int, num_classes: int, image_size: int
) -> AnySpace:
    """The search space that `config` bounds, for such images; no classes: they are faces."""
    if isinstance(config, IRSpaceConfig):
        return IRSpace(config)
    if isinstance(config, CellSpaceConfig):
        return CellSpace(config, in_channels, num_classes, image_size)
    if isinstance(config, GraphSpaceConfig):
        task = "classification" if num_classes else "face"
        return GraphSpace(config, in_channels, num_classes, image_size, task)
    return PlainSpace(config, in_channels, num_classes)


def is_face(arch: AnyArchitecture) -> bool:
    """Whether its network gives an embedding of a face, not logits of classes."""
    return isinstance(arch, IRArchitecture) or (
        isinstance(arch, GraphArchitecture) and arch.task == "face"
    )
