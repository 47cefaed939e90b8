"""Larger networks that begin with the weights of smaller ones: the same function, and weights that learn."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from facenas.errors import UserError
from facenas.models.inherit import begin_as, inherited, keep
from facenas.spaces import IRArchitecture, PlainArchitecture
from facenas.spaces.plain import KERNELS, OPERATIONS

SIZES = {PlainArchitecture: 16, IRArchitecture: 112}
PLAIN = PlainArchitecture(4, (0, 1, 0, 0, 0, 0), (3, 5, 3, 3, 5, 3), 1, 7)
FACES = IRArchitecture(2, (1, 2, 1, 1), (0, 1, 0, 0, 1), (3, 3, 5, 3, 3), 8, se=True)


def trained(arch, seed: int) -> nn.Module:
    """A network in evaluation: BatchNorms and PReLUs with values of both signs, and statistics of images."""
    network, rng = arch.build(seed).train(), torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = None  # statistics are those of the one batch
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() == 1:
                parameter.normal_(generator=rng)
        network(images(arch, 8))
    return network.eval()


def images(arch, count: int = 4) -> Tensor:
    return torch.randn(
        count, arch.in_channels, *[SIZES[type(arch)]] * 2, generator=torch.Generator().manual_seed(5)
    )


def grown(smaller, network: nn.Module, larger) -> nn.Module:
    made = larger.build(9).eval()
    made.load_state_dict(inherited(smaller, network.state_dict(), larger, made.state_dict()))
    return made


def check_same(smaller, larger) -> None:
    network = trained(smaller, 1)
    with torch.no_grad():
        given, found = (one(images(smaller)) for one in (network, grown(smaller, network, larger)))
    assert given.std(0).max() > 1e-3 * given.abs().max(), "the outputs hang on the images"
    torch.testing.assert_close(found, given, rtol=1e-5, atol=1e-5 * float(given.abs().max()))


DEEPER = replace(PLAIN, operations=(0, 1, 0, 1, 0, 0, 1, 0), kernels=(3, 5, 3, 5, 3, 5, 3, 3))
TALLER = replace(
    FACES, stages=(2, 2, 1, 3), operations=(0, 1, 1, 0, 0, 1, 0, 1), kernels=(3, 5, 3, 5, 3, 3, 5, 3)
)
LARGER = {
    "plain, deeper": (PLAIN, DEEPER),
    "plain, wider": (PLAIN, PLAIN.with_width(7)),
    "plain, both": (PLAIN, DEEPER.with_width(5)),
    "plain, larger kernels": (PLAIN, replace(PLAIN, kernels=(5, 5, 3, 5, 7, 3))),
    "plain, in place of separable": (PLAIN, replace(PLAIN, operations=(1,) * 6)),
    "ir, deeper": (FACES, TALLER),
    "ir, wider": (FACES, FACES.with_width(3)),
    "ir, both": (FACES, TALLER.with_width(5)),
    "ir, squeezed less": (FACES, FACES.with_width(9)),
    "ir, other operations": (FACES, replace(FACES, operations=(1,) * 5, kernels=(5,) * 5)),
}


@pytest.mark.parametrize("case", LARGER)
def test_the_larger_network_computes_what_the_smaller_does(case):
    smaller, larger = LARGER[case]
    assert larger.extends(smaller)
    assert not smaller.extends(larger)
    check_same(smaller, larger)


def drawn(rng: random.Random, stages: list[int]) -> list[list[tuple[int, int]]]:
    return [[(rng.choice(OPERATIONS), rng.choice(KERNELS)) for _ in range(count)] for count in stages]


@given(st.integers(0, 2**32), st.integers(3, 9), st.integers(0, 4), st.integers(1, 5), st.integers(0, 4))
@settings(max_examples=40, deadline=None)
def test_whatever_extends_computes_the_same(seed, depth, deeper, width, wider):
    """Random pairs, of which every layer of the smaller one stands somewhere in its stage of the larger one."""
    rng = random.Random(seed)
    stages = PlainArchitecture.uniform(depth, 1, 1, 5).by_stage()
    genes = drawn(rng, [len(stage) for stage in stages])
    larger = [list(stage) for stage in genes]
    wanted = [len(stage) for stage in PlainArchitecture.uniform(depth + deeper, 1, 1, 5).by_stage()]
    for stage, count in zip(larger, wanted, strict=True):
        while len(stage) < count:
            stage.insert(rng.randint(1, max(1, len(stage) - 1)), (rng.choice(OPERATIONS), rng.choice(KERNELS)))

    def arch(stages, width):
        operations, kernels = zip(*(gene for stage in stages for gene in stage), strict=True)
        return PlainArchitecture(width, operations, kernels, 1, 5)

    one, other = arch(genes, width), arch(larger, width + wider)
    if len(genes[2]) == 1 < len(larger[2]):  # behind the last layer is no ReLU
        assert not other.extends(one) or other.origins(one)[-1] is not None
    else:
        assert other.extends(one) == (one != other)
    if other.extends(one):
        check_same(one, other)


@pytest.mark.parametrize(
    "other",
    [
        PLAIN,
        replace(PLAIN, num_classes=8),
        replace(PLAIN, in_channels=3),
        PLAIN.with_operation(1, 0),
        PLAIN.with_kernel(4, 3),
        DEEPER.with_operation(7, 1).with_width(3),
        FACES,
        PlainArchitecture.uniform(4, 9, 1, 7),
    ],
)
def test_what_is_no_larger_version_of_it_does_not_extend(other):
    assert not other.extends(PLAIN)


def test_a_last_stage_of_one_layer_grows_in_width_alone():
    three = PlainArchitecture.uniform(3, 4, 1, 5)
    assert three.with_width(6).extends(three)
    assert not PlainArchitecture.uniform(4, 4, 1, 5).extends(three)


@pytest.mark.parametrize("case", ["plain, both", "ir, both"])
def test_every_weight_learns(case):
    smaller, larger = (replace(arch, se=False) if arch.kind == "ir" else arch for arch in LARGER[case])
    network = grown(smaller, trained(smaller, 1), larger).train()
    optimizer = torch.optim.SGD(network.parameters(), 0.01)
    for _ in range(3):  # what leads to a zero learns once that has
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images(larger)), torch.arange(4)).backward()
        optimizer.step()
    assert all(parameter.grad.any() for parameter in network.parameters())


def test_a_deeper_network_begins_near_the_smaller_one_in_training_too():
    smaller = PlainArchitecture.uniform(6, 8, 1, 5)
    network = trained(smaller, 1)
    made = grown(smaller, network, PlainArchitecture.uniform(9, 8, 1, 5)).train()
    drawn_anew = PlainArchitecture.uniform(9, 8, 1, 5).build(3).train()
    batch = images(smaller, 64)
    with torch.no_grad():
        expected, found, other = (one.train()(batch) for one in (network, made, drawn_anew))

    def alike(logits: Tensor) -> float:
        return float(torch.corrcoef(torch.stack([logits.flatten(), expected.flatten()]))[0, 1])

    assert alike(found) > 0.9 > alike(other)


def test_kept_weights_are_read_as_they_were(tmp_path):
    network, head = trained(FACES, 1), nn.Linear(8, 3)
    keep(path := tmp_path / "weights" / "a.safetensors", "a", FACES, network, head)
    larger, other_head = TALLER.build(2), nn.Linear(8, 3)
    begin_as(path, "a", TALLER, larger.eval(), other_head)
    with torch.no_grad():
        given, found = network(images(FACES, 2)), larger(images(FACES, 2))
    torch.testing.assert_close(found, given, rtol=1e-5, atol=1e-5 * float(given.abs().max()))
    assert torch.equal(head.weight, other_head.weight)


FAULTS = {
    "missing": (lambda path: path.unlink(), "a", DEEPER, "is missing; .* put the file back"),
    "torn": (lambda path: path.write_bytes(path.read_bytes()[:-50]), "a", DEEPER, "is damaged .* a new run"),
    "empty": (lambda path: path.write_bytes(b""), "a", DEEPER, "is damaged .* a new run"),
    "of another trial": (lambda path: None, "b", DEEPER, "does not hold the weights of this trial"),
    "of no smaller network": (lambda path: None, "a", FACES.with_width(4), "cannot begin with the weights of"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_weights_that_cannot_be_had_are_told(tmp_path, fault):
    spoil, key, larger, told = FAULTS[fault]
    keep(path := tmp_path / "a.safetensors", "a", PLAIN, trained(PLAIN, 1), None)
    spoil(path)
    with pytest.raises(UserError, match=told):
        begin_as(path, key, larger, larger.build(0), None)
