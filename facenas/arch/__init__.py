"""What an architecture is: frozen descriptions, exact parameter counts, search spaces. Never imports torch."""

from __future__ import annotations

from typing import Any

from facenas.arch.base import Architecture, SearchSpace
from facenas.arch.plain import PlainArchitecture, PlainSpace
from facenas.config import SpaceConfig
from facenas.errors import UserError

_KINDS = {"plain": PlainArchitecture}

__all__ = [
    "Architecture",
    "PlainArchitecture",
    "PlainSpace",
    "SearchSpace",
    "build_space",
    "from_json",
]


def from_json(tree: dict[str, Any]) -> PlainArchitecture:
    """The architecture that `to_json` described; raises UserError for an unknown kind or a wrong field."""
    if not isinstance(tree, dict):
        raise UserError(f"an architecture should be a JSON object, not {tree!r}")
    kind = tree.get("kind", "plain")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise UserError(f"architecture kind {kind!r} is unknown; there are {', '.join(_KINDS)}")
    return _KINDS[kind].from_json(tree)


def build_space(config: SpaceConfig, in_channels: int, num_classes: int) -> PlainSpace:
    """The search space that `config` bounds, for images of `in_channels` and `num_classes` classes."""
    return PlainSpace(config, in_channels, num_classes)
