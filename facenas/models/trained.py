"""The network that a full training left behind, and what one has to know to use it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from facenas import __version__
from facenas.errors import UserError
from facenas.models.cells import build_cells
from facenas.models.graph import build_graph
from facenas.models.ir import build_ir
from facenas.models.plain import build_module
from facenas.spaces import (
    AnyArchitecture,
    CellArchitecture,
    GraphArchitecture,
    IRArchitecture,
    from_json,
    is_face,
)


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """A network with trained weights, in float32 on the CPU, in evaluation mode.

    mean, std: per channel in the order of `colour`, on the 0..1 scale; image_size: side in pixels;
    classes: their names in the order of the logits, none for faces.
    """

    arch: AnyArchitecture
    network: nn.Module
    mean: tuple[float, ...]
    std: tuple[float, ...]
    colour: str
    image_size: int
    classes: tuple[str, ...]

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return self.arch.in_channels, self.image_size, self.image_size

    @property
    def output(self) -> str:
        """What the network gives: embedding or logits."""
        return "embedding" if is_face(self.arch) else "logits"

    def metadata(self) -> dict[str, str]:
        """What an exported file says about itself; lists and the architecture as JSON."""
        meanings = {
            "embedding": "embedding, not normalised: divide it by its L2 norm before you compare",
            "logits": "logits, one a class, in the order of classes",
        }
        facts = {
            "facenas_version": __version__,
            "architecture": json.dumps(self.arch.to_json()),
            "mean": json.dumps(self.mean),
            "std": json.dumps(self.std),
            "colour": self.colour,
            "image_size": str(self.image_size),
            "layout": "NCHW float32, (pixel / 255 - mean) / std",
            "output": meanings[self.output],
        }
        return facts | ({"classes": json.dumps(self.classes)} if self.classes else {})


def build_network(arch: AnyArchitecture, seed: int) -> nn.Module:
    """The network that an architecture of any kind describes, with weights drawn from `seed`."""
    if isinstance(arch, IRArchitecture):
        return build_ir(arch, seed)
    if isinstance(arch, CellArchitecture):
        return build_cells(arch, seed)
    if isinstance(arch, GraphArchitecture):
        return build_graph(arch, seed)
    return build_module(arch, seed)


def read_trained(run_folder: Path) -> TrainedNetwork:
    """The trained network of a run, from its `checkpoints/model.pt`.

    Raises UserError when the run is not trained yet or the file is damaged.
    """
    path = run_folder / "checkpoints" / "model.pt"
    if not path.is_file():
        raise UserError(
            f"{path}: is missing; `facenas train {run_folder}` trains the network first"
        )
    try:
        return _trained(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # whatever a damaged file makes torch.load or load_state_dict raise
        raise UserError(
            f"{path}: is damaged ({type(error).__name__}: {str(error).splitlines()[0]}); remove the run's "
            "train.json and train it again"
        ) from None


def _trained(state: dict[str, Any]) -> TrainedNetwork:
    arch = from_json(state["architecture"])
    network = build_network(arch, seed=0)
    network.load_state_dict(state["model"])
    return TrainedNetwork(
        arch,
        network.float().eval(),
        tuple(state["mean"]),
        tuple(state["std"]),
        state["colour"],
        int(state["image_size"]),
        tuple(state.get("classes", ())),
    )
