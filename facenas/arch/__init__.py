"""What an architecture is: frozen descriptions, exact parameter counts, search spaces. Never imports torch."""

from __future__ import annotations

from typing import Any

from facenas.arch.base import Architecture, SearchSpace
from facenas.arch.ir import IRArchitecture, IRSpace
from facenas.arch.plain import PlainArchitecture, PlainSpace
from facenas.config import IRSpaceConfig, SpaceConfig
from facenas.errors import UserError

AnyArchitecture = PlainArchitecture | IRArchitecture
AnySpace = PlainSpace | IRSpace

_KINDS: dict[str, type[AnyArchitecture]] = {"plain": PlainArchitecture, "ir": IRArchitecture}

__all__ = [
    "AnyArchitecture",
    "AnySpace",
    "Architecture",
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
    config: SpaceConfig | IRSpaceConfig, in_channels: int, num_classes: int
) -> AnySpace:
    """The search space that `config` bounds; channels and classes are those of a classification set."""
    if isinstance(config, IRSpaceConfig):
        return IRSpace(config)
    return PlainSpace(config, in_channels, num_classes)
