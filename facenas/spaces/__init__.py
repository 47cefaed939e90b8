"""Architectures and the spaces that searches draw them from. Never imports torch.

`Plain`, `IR`, `Cells` and `Graph` are the spaces of the house; one's own is a subclass of `SearchSpace` in one
file (`facenas.spaces.base` shows one). `MobileFaceNet`, `GhostFaceNet` and `EdgeFace` are
one network each at other widths and depths; `facenas.spaces.named` has those of the literature by name.
"""

from __future__ import annotations

from typing import Any

from facenas.errors import UserError
from facenas.spaces.base import (
    SPACES,
    Architecture,
    GeneSpace,
    ImageFacts,
    SearchSpace,
    fingerprint,
)
from facenas.spaces.cells import CellArchitecture, Cells
from facenas.spaces.edgeface import EdgeFace, EdgeFaceArchitecture
from facenas.spaces.ghostfacenet import GhostFaceNet, GhostFaceNetArchitecture
from facenas.spaces.graph import Graph, GraphArchitecture
from facenas.spaces.ir import IR, IRArchitecture
from facenas.spaces.mobilefacenet import MobileFaceNet, MobileFaceNetArchitecture
from facenas.spaces.plain import Plain, PlainArchitecture

__all__ = [
    "IR",
    "SPACES",
    "Architecture",
    "CellArchitecture",
    "Cells",
    "EdgeFace",
    "EdgeFaceArchitecture",
    "GeneSpace",
    "GhostFaceNet",
    "GhostFaceNetArchitecture",
    "Graph",
    "GraphArchitecture",
    "IRArchitecture",
    "ImageFacts",
    "MobileFaceNet",
    "MobileFaceNetArchitecture",
    "Plain",
    "PlainArchitecture",
    "SearchSpace",
    "fingerprint",
    "from_json",
]


def from_json(tree: dict[str, Any]) -> Architecture:
    """The architecture that `to_json` described, of any registered kind or of one's own (`module:Class`).

    Raises UserError for an unknown kind or a wrong field.
    """
    if not isinstance(tree, dict):
        raise UserError(f"an architecture should be a JSON object, not {tree!r}")
    kind = tree.get("kind", "plain")
    if not isinstance(kind, str):
        raise UserError(f"an architecture's kind should be the name of a search space, not {kind!r}")
    found: Architecture = SPACES.get(kind).Architecture.from_json(tree)
    return found
