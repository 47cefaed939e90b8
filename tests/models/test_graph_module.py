"""Built three-level networks: whatever the space draws builds, counts and takes memory as told, and trains."""

from __future__ import annotations

import random
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from facenas.errors import UserError
from facenas.models.build import LiveTensors
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


def measured_memory(module: nn.Module, image: torch.Tensor) -> int:
    """Bytes of the image, of all that the module holds, and of all that lives at once while it runs."""
    with torch.inference_mode(), LiveTensors() as live:
        module(image)
    return image.nbytes + sum(value.nbytes for value in module.state_dict().values()) + live.peak


@pytest.mark.parametrize("seed", range(24))
def test_memory_is_what_is_measured(seed):
    rng = random.Random(seed)
    size = rng.choice((28, 32, 64))
    space = Graph(Graph.Settings(operations=ALL, max_blocks=3)).bind(ImageFacts(rng.randint(1, 3), 10, size))
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
    assert {(n.momentum, int(n.num_batches_tracked), n.training) for n in norms} == {(0.1, 3, False)}
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


def test_faces_of_another_size_are_refused():
    with pytest.raises(UserError, match="112x112"):
        FACES.start().build(0)(torch.zeros(2, 3, 96, 96))
