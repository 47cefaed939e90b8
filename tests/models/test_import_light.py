"""Checkpoints of light networks of other projects, as their authors' own code names and computes them.

`foreign_networks.json.gz` has, for each, names and shapes of all tensors, and what the authors' module gives
for `image()` when its tensors are `drawn()`: the first numbers of z. MobileFaceNets and EdgeFaces by torch 2.14
(EdgeNeXt of timm 1.0.31), GhostFaceNets by Keras 3.15 with the hard sigmoid of Keras 2.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from facenas.errors import UserError
from facenas.models.load import load_network
from facenas.spaces.named import NAMED

FOREIGN = json.loads(gzip.decompress((Path(__file__).parent / "foreign_networks.json.gz").read_bytes()))
NETWORKS = {
    "arcface_torch": NAMED["mbf"],
    "Face_Pytorch": NAMED["mobilefacenet"],
    "InsightFace_Pytorch": replace(NAMED["mobilefacenet"], embedding=512),
    "EdgeFace-XXS": NAMED["edgeface_xxs"],
    "EdgeFace-XS(0.6)": NAMED["edgeface_xs"],
    "GhostFaceNetV1-1.3-1": NAMED["ghostfacenet_1.3_1"],
    "GhostFaceNetV1-1.3-2": NAMED["ghostfacenet_1.3_2"],
}


def noise(count: int, number: int) -> np.ndarray:
    """Float64 within -0.5 and 0.5, the same on every machine."""
    waves = np.sin(np.arange(count) * 12.9898 + number * 78.233) * 43758.5453
    return waves - np.floor(waves) - 0.5


def drawn(shapes: dict[str, list[int]]) -> dict[str, np.ndarray]:
    """A float32 array a tensor, such that signals neither grow nor fade."""
    found = {}
    for number, (name, shape) in enumerate(shapes.items()):
        values = noise(int(np.prod(shape)), number).reshape(shape)
        kind = name.removesuffix(":0").replace("/", ".").rpartition(".")[2]
        if "var" in kind or len(shape) == 3 or (len(shape) == 1 and kind in ("weight", "gamma", "gamma_xca")):
            values = 1 + 0.6 * values
        elif kind == "num_batches_tracked":
            values = np.zeros(shape)
        elif len(shape) > 1:
            depthwise = "depthwise" in name or "GDC_dw" in name
            fan = shape[0] * shape[1] if depthwise else values.size / max(shape[0], shape[-1])
            values = values * (12 / fan) ** 0.5
        found[name] = np.asarray(values, np.float32, order="C")
    return found


def image() -> np.ndarray:
    """(1, 3, 112, 112) float32 within -1 and 1."""
    return (2 * noise(3 * 112 * 112, 0)).reshape(1, 3, 112, 112).astype(np.float32)


def saved(name: str, folder: Path, prefix: str = "") -> Path:
    """A file with the tensors of `name`."""
    tensors = {f"{prefix}{key}": torch.tensor(value) for key, value in drawn(FOREIGN[name]["tensors"]).items()}
    if "Ghost" in name:
        path = folder / "weights.safetensors"
        safetensors.torch.save_file(tensors, path)
    else:
        path = folder / "model.pt"
        torch.save({"epoch": 3, "net_state_dict": tensors}, path)
    return path


@pytest.mark.parametrize("name", NETWORKS)
def test_it_computes_what_its_authors_code_does(name, tmp_path):
    color = "BGR" if name == "InsightFace_Pytorch" else None
    found = load_network(saved(name, tmp_path), color)
    assert found.arch == NETWORKS[name]
    assert found.turned == (name in ("Face_Pytorch", "InsightFace_Pytorch"))
    assert found.std == ((128 / 255 if name == "Face_Pytorch" else 0.5,) * 3)
    seen = torch.tensor(image())
    with torch.inference_mode():
        z = found(seen.flip(1) if found.turned else seen)[0]  # theirs take BGR, ours RGB
    expected = torch.tensor(FOREIGN[name]["z"])
    torch.testing.assert_close(z[: len(expected)], expected, rtol=0, atol=1e-5 * expected.norm().item())


def test_a_prefix_and_another_length_of_z(tmp_path):
    shapes = FOREIGN["arcface_torch"]["tensors"]
    for key in shapes:
        if key.startswith(("features.layers.2", "features.layers.3")) and shapes[key]:
            shapes[key] = [256, *shapes[key][1:]]
    assert load_network(saved("arcface_torch", tmp_path, "module.")).arch == replace(
        NAMED["mbf"], embedding=256
    )


def test_colors_that_nobody_tells_are_asked_for(tmp_path):
    with pytest.raises(UserError, match="RGB or BGR cannot be told"):
        load_network(saved("InsightFace_Pytorch", tmp_path))


@pytest.mark.parametrize(
    ("name", "lost", "words"),
    [
        (
            "Face_Pytorch",
            "blocks.3.conv.4.weight",
            r"kind mobilefacenet: body\.3\.layers\.4\.weight is missing",
        ),
        ("Face_Pytorch", "conv2.conv.weight", "lacks weights"),
        ("EdgeFace-XXS", "model.stages.1.blocks.1.xca.temperature", "lacks weights"),
        ("GhostFaceNetV1-1.3-2", "activation_99/alpha:0", "not a whole network of kind ghostfacenet"),
        (
            "GhostFaceNetV1-1.3-2",
            "GDC_conv/kernel:0",
            "holds no face network of arcface_torch, .*GhostFaceNets",
        ),
    ],
)
def test_a_network_that_lacks_something(name, lost, words, tmp_path, monkeypatch):
    shapes = FOREIGN[name]["tensors"]
    assert lost in shapes
    monkeypatch.setitem(FOREIGN[name], "tensors", {key: shape for key, shape in shapes.items() if key != lost})
    with pytest.raises(UserError, match=words):
        load_network(saved(name, tmp_path))


@pytest.mark.parametrize("name", ["arcface_torch", "EdgeFace-XXS", "GhostFaceNetV1-1.3-2"])
def test_tensors_of_odd_shapes_are_told_in_a_sentence(name, tmp_path):
    shapes, path = FOREIGN[name]["tensors"], tmp_path / "weights.safetensors"
    for odd in [*list(shapes)[:: len(shapes) // 4], list(shapes)[-5]]:
        changed = shapes | {odd: [] if shapes[odd] else [2]}
        tensors = {key: torch.zeros(shape) for key, shape in changed.items()}
        safetensors.torch.save_file(tensors, path)
        with pytest.raises(UserError, match=r"weights\.safetensors: .*(should be|lacks weights)"):
            load_network(path)
