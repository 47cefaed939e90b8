"""The built face network: names of its tensors, what it computes, gradients, weights from the seed alone."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from facenas.errors import UserError
from facenas.models.ir import IRNetwork
from facenas.spaces import IRArchitecture
from facenas.spaces.ir import NAMED

MIXED = IRArchitecture(4, (1, 2, 1, 1), (1, 0, 1, 0, 1), (3, 5, 5, 3, 3), 6, se=True)
IMAGES = torch.rand(3, 3, 112, 112, generator=torch.Generator().manual_seed(5)) * 2 - 1

# Tensors of the whole network, and the places of blocks with a projected shortcut.
LAYOUTS = {
    "ir18": (179, [2, 4, 6]),
    "ir34": (323, [3, 7, 13]),
    "ir50": (467, [3, 7, 21]),
    "ir101": (917, [3, 16, 46]),
}


def skeleton(arch: IRArchitecture) -> nn.Module:
    with torch.device("meta"):
        return IRNetwork(arch)


def restated(weights: dict[str, torch.Tensor], arch: IRArchitecture) -> torch.Tensor:
    """The evaluation of `arch` on IMAGES, written once more over its state dict."""

    def norm(x: torch.Tensor, at: str) -> torch.Tensor:
        mean, var = weights[f"{at}.running_mean"], weights[f"{at}.running_var"]
        scale, shift = weights.get(f"{at}.weight"), weights.get(f"{at}.bias")
        return F.batch_norm(x, mean, var, scale, shift)

    def convolve(x: torch.Tensor, at: str, kernel: int, stride: int) -> torch.Tensor:
        if f"{at}.weight" in weights:
            return F.conv2d(x, weights[f"{at}.weight"], stride=stride, padding=kernel // 2)
        depthwise, pointwise = weights[f"{at}.0.weight"], weights[f"{at}.1.weight"]
        x = F.conv2d(x, depthwise, stride=stride, padding=kernel // 2, groups=x.shape[1])
        return F.conv2d(x, pointwise)

    x = convolve(IMAGES, "input_layer.0", 3, 1)
    x = F.prelu(norm(x, "input_layer.1"), weights["input_layer.2.weight"])
    firsts = [sum(arch.stages[:stage]) for stage in range(4)]
    for i, kernel in enumerate(arch.kernels):
        at, stride = f"body.{i}.res_layer", 2 if i in firsts else 1
        y = norm(convolve(norm(x, f"{at}.0"), f"{at}.1", kernel, 1), f"{at}.2")
        y = convolve(F.prelu(y, weights[f"{at}.3.weight"]), f"{at}.4", kernel, stride)
        y = norm(y, f"{at}.5")
        if arch.se:
            gate = F.relu(F.conv2d(y.mean((2, 3), True), weights[f"{at}.se_block.fc1.weight"]))
            y = y * torch.sigmoid(F.conv2d(gate, weights[f"{at}.se_block.fc2.weight"]))
        shortcut = f"body.{i}.shortcut_layer"
        x = x[:, :, ::stride, ::stride]
        if f"{shortcut}.0.weight" in weights:
            x = norm(F.conv2d(x, weights[f"{shortcut}.0.weight"]), f"{shortcut}.1")
        x = x + y
    x = norm(x, "output_layer.0").reshape(len(x), -1)
    x = F.linear(x, weights["output_layer.3.weight"], weights["output_layer.3.bias"])
    return norm(x, "output_layer.4")


def trained(arch: IRArchitecture) -> nn.Module:
    """A network none of whose tensors has the value it began with."""
    network, drawn = arch.build(1), torch.Generator().manual_seed(2)
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            value.add_(torch.rand(value.shape, generator=drawn), alpha=0.1)
            if name.endswith("running_var"):
                value.add_(1)
    return network.eval()


@pytest.mark.parametrize("name", LAYOUTS)
def test_tensors_are_named_as_in_published_checkpoints(name):
    tensors, projected = LAYOUTS[name]
    found = skeleton(NAMED[name]).state_dict()
    assert len(found) == tensors
    assert [i for i in range(60) if f"body.{i}.shortcut_layer.0.weight" in found] == projected
    outer = {key for key in found if not key.startswith("body.")}
    norm = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
    assert outer == {
        *("input_layer.0.weight", "input_layer.2.weight"),
        *(f"input_layer.1.{k}" for k in norm),
        *(f"output_layer.0.{k}" for k in norm),
        *("output_layer.3.weight", "output_layer.3.bias"),
        *(f"output_layer.4.{k}" for k in norm - {"weight", "bias"}),
    }
    block = {key.removeprefix("body.1.res_layer.") for key in found if key.startswith("body.1.")}
    norms = {f"{i}.{k}" for i in (0, 2, 5) for k in norm}
    assert block == {*norms, "1.weight", "3.weight", "4.weight"}


def test_buffers_and_parts_of_ir18():
    network = skeleton(NAMED["ir18"])
    assert sum(buffer.numel() for buffer in network.buffers()) == 14_622
    parts = (network.input_layer, network.body, network.output_layer)
    counts = [sum(p.numel() for p in part.parameters()) for part in parts]
    assert counts == [1_920, 11_171_840, 12_846_592]


def test_squeeze_and_excitation_adds_two_convolutions_a_block():
    found = skeleton(NAMED["irse50"]).state_dict()
    assert found["body.0.res_layer.se_block.fc1.weight"].shape == (4, 64, 1, 1)
    assert found["body.23.res_layer.se_block.fc2.weight"].shape == (512, 32, 1, 1)
    assert len(found) == 467 + 2 * 24


@pytest.mark.parametrize(
    "arch",
    [
        IRArchitecture.uniform(4, (1, 2, 1, 1), 6),
        MIXED,
        IRArchitecture(4, (1, 1, 1, 1), (1,) * 4, (3,) * 4, 6, project_first=True),
    ],
    ids=["plain", "mixed", "projected"],
)
def test_it_computes_what_the_description_says(arch):
    network = trained(arch)
    expected = restated(network.state_dict(), arch)
    with torch.inference_mode():
        z = network(IMAGES)
    assert z.shape == (3, 6)
    torch.testing.assert_close(z, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("se", [False, True])
def test_every_parameter_gets_a_gradient(se):
    arch = IRArchitecture(4, (2, 1, 1, 1), (1, 0, 1, 0, 1), (3, 5, 5, 3, 3), 6, se=se)
    network = arch.build(3)
    with torch.no_grad():
        for name, value in network.named_parameters():
            if "fc" in name:
                value.abs_()  # so that no unit inside squeeze-and-excitation is dead for all images
    (network(IMAGES) * torch.arange(6)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        if name != "output_layer.3.bias":  # BatchNorm takes it away again
            assert parameter.grad.any(), name


def test_initial_weights_follow_the_fan_out():
    arch = IRArchitecture(32, (1, 1, 1, 1), (1, 0, 1, 1), (3, 5, 3, 3), 64)
    found = arch.build(4).state_dict()
    for name, fan in {
        "input_layer.0.weight": 32 * 9,
        "body.0.res_layer.4.weight": 32 * 9,
        "body.3.shortcut_layer.0.weight": 256,
        "body.1.res_layer.4.0.weight": 25,  # depthwise: one channel feeds one
        "body.1.res_layer.4.1.weight": 64,
        "output_layer.3.weight": 64,
    }.items():
        assert found[name].std().item() == pytest.approx((2 / fan) ** 0.5, rel=0.07), name
    assert not found["output_layer.3.bias"].any()
    assert (found["input_layer.2.weight"] == 0.25).all()
    assert (found["body.2.res_layer.5.weight"] == 1).all()


def test_dropout_acts_in_training_alone():
    network = MIXED.build(6)
    network.train()
    assert not torch.equal(network(IMAGES), network(IMAGES))
    network.eval()
    torch.testing.assert_close(network(IMAGES)[:1], network(IMAGES[:1]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(64, 64), (112, 96), (224, 224)])
def test_other_image_sizes_are_told_in_a_sentence(size):
    with pytest.raises(UserError, match="112x112"):
        MIXED.build(7)(torch.zeros(1, 3, *size))
