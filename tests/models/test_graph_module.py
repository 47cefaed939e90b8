"""Built three-level networks: whatever the space draws builds, counts and takes memory as told, and trains."""

from __future__ import annotations

import json
import random
from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from live_tensors import LiveTensors
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from facenas.errors import UserError
from facenas.models.graph import GraphNetwork, recalibrate
from facenas.spaces import Graph, ImageFacts
from facenas.spaces.graph import GraphArchitecture, Operation
from facenas.spaces.graph_ops import (
    WHOLE,
    Convolution,
    Dag,
    Edge,
    Gate,
    Identity,
    Linear,
    Mean,
    Node,
)

ALL = get_args(Operation)
NARROW = Graph.Settings(operations=ALL, widths=(2, 4, 6), max_blocks=2, embedding=6)
FACES = Graph(NARROW.model_copy(update={"widths": (2, 3, 4, 4)})).bind(ImageFacts(3, 0, 112))


def drawn(seed: int, *shape: int) -> torch.Tensor:
    images = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return images.to(memory_format=torch.channels_last)


def count_macs(module: nn.Module) -> list[int]:
    """A list to which every convolution and linear layer adds the multiply-accumulates of each forward."""
    found: list[int] = []

    def add(layer: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        found.append(output[0].numel() * layer.weight[0].numel())

    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(add)
    return found


def check_counts_and_a_step(arch: GraphArchitecture, seed: int, size: int) -> None:
    module = arch.build(seed).to(memory_format=torch.channels_last)
    assert sum(p.numel() for p in module.parameters()) == arch.count_parameters()
    macs, images = count_macs(module), drawn(seed, 4, arch.in_channels, size, size)
    result = module(images)
    assert result.shape == (4, arch.outputs)
    assert sum(macs) == arch.count_macs(size)

    F.cross_entropy(result, torch.arange(4)).backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    torch.optim.SGD(module.parameters(), lr=0.025, momentum=0.9).step()
    assert torch.isfinite(module(images)).all()


@pytest.mark.parametrize("seed", range(300))
def test_a_drawn_network_builds_counts_and_trains(seed):
    rng = random.Random(seed)
    size = rng.choice((8, 9, 11, 12))
    space = Graph(NARROW).bind(ImageFacts(rng.randint(1, 3), 5, size))
    arch = space.decode([rng.randint(*pair) for pair in zip(*space.bounds(), strict=True)])
    assert space.decode(space.encode(arch)) == arch
    assert GraphArchitecture.from_json(json.loads(json.dumps(arch.to_json()))) == arch
    check_counts_and_a_step(arch, seed, size)


@pytest.mark.parametrize("seed", range(12))
def test_a_drawn_face_network_builds_counts_and_trains(seed):
    check_counts_and_a_step(FACES.sample(random.Random(seed)), seed, 112)


@pytest.mark.parametrize("operation", ALL)
@pytest.mark.parametrize(
    "space", [Graph(Graph.Settings(operations=ALL)).bind(ImageFacts(3, 10, 32)), FACES]
)
def test_networks_of_full_size_count_as_torch_counts(operation, space):
    arch, size = space.uniform(operation), space.images.image_size
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        module = GraphNetwork(arch.graph()).eval()
        module(torch.zeros(1, 3, size, size))
    assert sum(p.numel() for p in module.parameters()) == arch.count_parameters()
    assert counter.get_total_flops() == 2 * arch.count_macs(size)


def measured_memory(module: nn.Module, image: torch.Tensor) -> int:
    """Bytes of the image, of all that the module holds, and of all that lives at once while it runs."""
    with torch.inference_mode(), LiveTensors() as live:
        module(image)
    return image.nbytes + sum(value.nbytes for value in module.state_dict().values()) + live.peak


@pytest.mark.parametrize("seed", range(24))
def test_memory_is_what_is_measured(seed):
    rng = random.Random(seed)
    size = rng.choice((28, 32, 64))
    space = Graph(Graph.Settings(operations=ALL, max_blocks=3)).bind(
        ImageFacts(rng.randint(1, 3), 10, size)
    )
    arch = (space.sample(rng), space.uniform(ALL[seed % len(ALL)], largest=False))[seed % 2]
    module = arch.build(seed).eval().to(memory_format=torch.channels_last)
    measured = measured_memory(module, drawn(seed, 1, arch.in_channels, size, size))
    assert arch.count_memory(size) == pytest.approx(measured, rel=0.01)


@pytest.mark.parametrize("seed", range(4))
def test_memory_of_faces_is_what_is_measured(seed):
    arch = FACES.sample(random.Random(seed))
    module = arch.build(seed).eval()
    measured = measured_memory(module, drawn(seed, 1, 3, 112, 112))
    assert arch.count_memory(112) == pytest.approx(measured, rel=0.01)


def test_any_graph_can_be_built():
    """Two branches that cross: a and b of the image, c = conv(a) + b, out of the gated c and a."""
    image, a, b, c, d = (Node(n, 3, 1) for n in ("image", "a", "b", "c", "d"))
    vector, out = Node("vector", 3, WHOLE), Node("out", 2, WHOLE)
    edges = (
        Edge("to_a", image, a, Convolution(3, active=True)),
        Edge("to_b", image, b, Convolution(1)),
        Edge("a_to_c", a, c, Convolution(5)),
        Edge("b_to_c", b, c, Identity()),
        Edge("gate", c, d, Gate(2)),
        Edge("a_to_d", a, d, Identity()),
        Edge("mean", d, vector, Mean()),
        Edge("classifier", vector, out, Linear()),
    )
    graph = Dag((image, a, b, c, d, vector, out), edges[::-1])
    module, x = GraphNetwork(graph), drawn(0, 2, 3, 5, 5)
    e = module.edges
    in_a = F.relu(e["to_a"][1](e["to_a"][0](x)))
    in_c = e["a_to_c"][1](e["a_to_c"][0](in_a)) + e["to_b"][1](e["to_b"][0](x))
    means = in_c.mean((2, 3))
    gate = F.relu(means @ e["gate"].fc1.weight[:, :, 0, 0].T) @ e["gate"].fc2.weight[:, :, 0, 0].T
    in_d = in_c * torch.sigmoid(gate)[:, :, None, None] + in_a
    expected = in_d.mean((2, 3)) @ e["classifier"].weight.T + e["classifier"].bias
    torch.testing.assert_close(module(x), expected)
    module(x).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in module.parameters())
    assert graph.count_memory(5) == pytest.approx(measured_memory(module.eval(), x[:1]), rel=0.1)


def test_the_mean_pool_does_not_count_what_lies_outside():
    arch = GraphArchitecture("classification", (2,), (("avg_pool3",),), 1, 1, 1, 2)
    pool = arch.build(0).edges["stage1_block1_avg_pool"]
    assert torch.equal(pool(torch.ones(1, 2, 3, 3)), torch.ones(1, 2, 3, 3))


def test_recalibration_takes_the_mean_of_the_batches():
    arch = Graph(NARROW).bind(ImageFacts(1, 5, 8)).uniform("bottleneck3")
    module, batches = arch.build(0), [drawn(seed, 6, 1, 8, 8) for seed in range(3)]
    module.train()
    module(100 * drawn(9, 6, 1, 8, 8))  # statistics to be forgotten
    weights = {name: p.clone() for name, p in module.named_parameters()}
    recalibrate(module, iter(batches))
    convolution, norm, _ = module.edges["stem"]
    outputs = [convolution(batch).transpose(0, 1).flatten(1) for batch in batches]
    means, variances = (
        torch.stack([getattr(torch, f)(o, dim=1) for o in outputs]).mean(0) for f in ("mean", "var")
    )
    torch.testing.assert_close(norm.running_mean, means)
    torch.testing.assert_close(norm.running_var, variances)
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {(n.momentum, int(n.num_batches_tracked), n.training) for n in norms} == {
        (0.1, 3, False)
    }
    assert not module.training
    assert all(torch.equal(p, weights[name]) for name, p in module.named_parameters())
    assert all(p.grad is None for p in module.parameters())


def test_recalibrated_on_one_batch_evaluation_gives_what_training_gives():
    arch = Graph(NARROW).bind(ImageFacts(1, 5, 8)).sample(random.Random(1))
    module, batch = arch.build(0), drawn(0, 512, 1, 8, 8)
    expected = module.train()(batch)
    recalibrate(module, [batch])
    # Running variances divide by n - 1, a batch's own by n.
    torch.testing.assert_close(module(batch), expected, rtol=0.01, atol=0.01)
    with pytest.raises(ValueError, match="without images"):
        recalibrate(module, [])


def test_weights_depend_on_the_seed_alone():
    arch = FACES.sample(random.Random(8))
    torch.manual_seed(123)
    first = arch.build(4).state_dict()
    torch.manual_seed(456)
    again, other = (arch.build(seed).state_dict() for seed in (4, 5))
    assert all(torch.equal(weights, again[name]) for name, weights in first.items())
    drawn_weights = [name for name, weights in first.items() if weights.dim() > 1]
    assert drawn_weights
    assert not any(torch.equal(first[name], other[name]) for name in drawn_weights)


def test_the_global_random_sources_are_left_alone():
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    FACES.start().build(6)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    np.testing.assert_array_equal(before[2], np.random.get_state()[1])


def test_faces_of_another_size_are_refused():
    with pytest.raises(UserError, match="112x112"):
        FACES.start().build(0)(torch.zeros(2, 3, 96, 96))
