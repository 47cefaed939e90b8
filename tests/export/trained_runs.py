"""Run folders with a small trained-looking network: what the exports start from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from facenas.spaces import IRArchitecture, PlainArchitecture

FACE_ARCH = IRArchitecture(4, (1, 1, 1, 1), (1, 0, 1, 0), (3, 5, 5, 3), embedding=32, se=True)
PLAIN_ARCH = PlainArchitecture(4, (0, 1, 1, 0), (3, 5, 3, 3), 1, 10)
NORMALISATION = {"ir": ([0.5] * 3, [0.5] * 3), "plain": ([0.31], [0.27])}


def lived_in(network: nn.Module, shape: tuple[int, int, int]) -> nn.Module:
    """With running statistics and biases as no new network has them, in evaluation mode."""
    generator = torch.Generator().manual_seed(5)
    for _ in range(3):
        network(torch.randn(8, *shape, generator=generator) * 1.5 + 0.2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return network.eval()


def face_network() -> nn.Module:
    return lived_in(FACE_ARCH.build(3), (3, 112, 112))


def plain_network() -> nn.Module:
    return lived_in(PLAIN_ARCH.build(3), (1, 12, 12))


def make_run(folder: Path, kind: str, network: nn.Module, **changes: Any) -> Path:
    """A run folder with the `model.pt` that a full training writes."""
    mean, std = NORMALISATION[kind]
    state = {"mean": mean, "std": std, "model": network.state_dict()}
    if kind == "ir":
        state |= {"architecture": FACE_ARCH.to_json(), "colour": "RGB", "image_size": 112}
        state |= {"embedding": 32, "identities": 7}
    else:
        state |= {"architecture": PLAIN_ARCH.to_json(), "colour": "grey", "image_size": 12}
        state |= {"classes": [f"class {i}" for i in range(10)]}
    (folder / "checkpoints").mkdir(parents=True)
    torch.save(state | changes, folder / "checkpoints" / "model.pt")
    return folder
