"""Every named light network: builds, runs, learns everywhere, counts as told, exports to ONNX alike."""

from __future__ import annotations

import pytest
import torch

from facenas.export.files import encode_onnx, load_onnx, require_agreement
from facenas.models.build import count_macs, count_parameters
from facenas.models.load import TrainedNetwork
from facenas.spaces import ImageFacts, from_json, ghostfacenet
from facenas.spaces.named import NAMED
from facenas.spaces.scaled import ScaledArchitecture
from facenas.testing import check_module

LIGHT = [name for name, arch in NAMED.items() if isinstance(arch, ScaledArchitecture)]
FAMILIES = {type(NAMED[name]): name for name in LIGHT}.values()  # torch takes seconds to export
HALF = (0.5, 0.5, 0.5)


def small(name: str) -> ScaledArchitecture:
    """The same layers, few and narrow."""
    return NAMED[name].scaled(width=0.2, depth=1 if "ghost" in name else 0.2, embedding=8)


@pytest.mark.parametrize("name", LIGHT)
def test_formulas_count_what_torch_counts(name):
    arch = NAMED[name]
    assert arch.count_parameters() == count_parameters(arch)
    assert arch.count_macs(112) == count_macs(arch, 112)


@pytest.mark.parametrize("name", LIGHT)
def test_it_trains_and_travels(name):
    """Finite outputs, a gradient for every parameter, weights of the seed alone."""
    arch = small(name)
    assert from_json(arch.to_json()) == arch
    check_module(arch, ImageFacts(3, 0, 112))


@pytest.mark.parametrize("name", LIGHT)
def test_it_runs_channels_last_in_bfloat16_as_in_float32(name):
    network = small(name).build(0).eval()
    images = torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.inference_mode():
        expected = network(images)
        network.to(memory_format=torch.channels_last)
        found = network(images.to(memory_format=torch.channels_last))
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.cosine_similarity(network(images).float(), expected).min() > 0.9


@pytest.mark.parametrize("name", FAMILIES)
def test_onnx_gives_what_the_network_gives(name, tmp_path, monkeypatch):
    # Of GhostFaceNets a bottleneck with a stride and one without have all that there is.
    monkeypatch.setattr(ghostfacenet, "TABLE", ghostfacenet.TABLE[3:5])
    arch = NAMED[name].scaled(width=0.2, depth=1 if "ghost" in name else 0.1, embedding=8)
    trained = TrainedNetwork(arch, arch.build(0), HALF, HALF)
    path = tmp_path / "network.onnx"
    path.write_bytes(encode_onnx(trained))
    require_agreement(trained, load_onnx(trained, path))
