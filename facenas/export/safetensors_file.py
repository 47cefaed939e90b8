"""A trained network as a safetensors file: weights under their names, and what they mean."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save

from facenas.export.comparison import Floats, Reloaded
from facenas.models.load import TrainedNetwork


def encode_safetensors(trained: TrainedNetwork) -> bytes:
    """The state dict with floats as float32, and the metadata."""
    state = trained.network.state_dict()
    return save({name: weights.contiguous() for name, weights in state.items()}, trained.metadata())


def load_safetensors(trained: TrainedNetwork, path: Path) -> Reloaded:
    """The file's weights in a network built anew."""
    network = trained.arch.build(1)
    network.load_state_dict(load_file(path))
    network.eval()

    def run(images: Floats) -> Floats:
        with torch.inference_mode():
            outputs: Floats = network(torch.from_numpy(images)).numpy()
        return outputs

    return run
