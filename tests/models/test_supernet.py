"""The supernet: a path is the extracted network, shares its weights with others, and trains nothing else."""

from __future__ import annotations

import random
from collections import Counter
from typing import get_args

import pytest
import torch
import torch.nn.functional as F

from facenas.errors import UserError
from facenas.models.graph import recalibrate
from facenas.models.supernet import Supernet
from facenas.spaces import Graph, ImageFacts
from facenas.spaces.graph import Operation

CONFIG = Graph.Settings(operations=get_args(Operation), widths=(4, 8, 12), max_blocks=2, embedding=8)
SPACE = Graph(CONFIG).bind(ImageFacts(1, 5, 9))


def drawn(seed: int, count: int = 4, *shape: int) -> torch.Tensor:
    shape = shape or (1, 9, 9)
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


def lived(space: Graph = SPACE) -> Supernet:
    """A supernet none of whose tensors has the value it began with."""
    supernet, generator = Supernet(space, 1), torch.Generator().manual_seed(2)
    for name, value in supernet.state_dict().items():
        if value.is_floating_point():
            value.add_(torch.rand(value.shape, generator=generator), alpha=0.1)
            if name.endswith("running_var"):
                value.add_(1)
    return supernet


SUPERNET = lived().eval()


@pytest.mark.parametrize("seed", range(40))
def test_a_path_gives_what_the_extracted_network_gives(seed):
    arch, images = SPACE.sample(random.Random(seed)), drawn(seed)
    alone = SUPERNET.extract(arch)
    assert sum(p.numel() for p in alone.parameters()) == arch.count_parameters()
    assert alone.state_dict().keys() == arch.build(0).state_dict().keys()
    with torch.no_grad():
        torch.testing.assert_close(SUPERNET(images, arch), alone(images), rtol=0, atol=1e-6)


def test_a_path_in_training_gives_what_the_extracted_network_gives():
    supernet, images = lived().train(), drawn(0)
    for seed in range(8):
        arch = SPACE.sample(random.Random(seed))
        alone = supernet.extract(arch).train()
        torch.testing.assert_close(supernet(images, arch), alone(images), rtol=0, atol=1e-6)


def test_faces_have_a_supernet_too():
    config = CONFIG.model_copy(update={"widths": (2, 3, 4, 4)})
    space = Graph(config).bind(ImageFacts(3, 0, 112))
    supernet, arch, images = (
        lived(space).eval(),
        space.sample(random.Random(0)),
        drawn(0, 2, 3, 112, 112),
    )
    z = supernet(images, arch)
    assert z.shape == (2, 8)
    torch.testing.assert_close(z, supernet.extract(arch)(images), rtol=0, atol=1e-6)


def test_every_member_has_a_path_of_the_first_channels():
    shared = SUPERNET.state_dict()
    for seed in range(60):
        for name, value in SUPERNET.path_state(SPACE.sample(random.Random(seed))).items():
            assert value.data_ptr() == shared[name].data_ptr()  # no copy
            assert torch.equal(value, shared[name][tuple(slice(size) for size in value.shape)])


@pytest.mark.parametrize("seed", range(10))
def test_gradients_reach_the_path_alone(seed):
    supernet, arch = lived().train(), SPACE.sample(random.Random(seed))
    F.cross_entropy(supernet(drawn(seed), arch), torch.arange(4)).backward()
    shapes = {name: value.shape for name, value in supernet.path_state(arch).items()}
    alone = arch.build(0)
    alone.load_state_dict(lived().path_state(arch))
    F.cross_entropy(alone.train()(drawn(seed)), torch.arange(4)).backward()
    gradients = {name: p.grad for name, p in alone.named_parameters()}
    for name, shared in supernet.named_parameters():
        if name not in shapes:
            assert shared.grad is None
            continue
        inside = tuple(slice(size) for size in shapes[name])
        torch.testing.assert_close(shared.grad[inside], gradients[name])
        outside = shared.grad.clone()
        outside[inside] = 0
        assert not outside.any()


def test_changes_of_one_path_are_seen_by_another():
    supernet = Supernet(SPACE, 0).train()
    largest, smallest = SPACE.largest(), SPACE.uniform("conv5", largest=False)
    before, images = supernet(drawn(0), smallest), drawn(1)
    optimizer = torch.optim.SGD(supernet.parameters(), lr=0.1)
    F.cross_entropy(supernet(images, largest), torch.arange(4)).backward()
    optimizer.step()
    assert not torch.equal(supernet(drawn(0), smallest), before)


def test_the_extracted_network_is_a_copy():
    supernet, arch = Supernet(SPACE, 0).eval(), SPACE.sample(random.Random(4))
    before = supernet(drawn(0), arch)
    alone = supernet.extract(arch)
    assert not alone.training
    recalibrate(alone, [drawn(1, 64)])
    with torch.no_grad():
        for parameter in alone.parameters():
            parameter.zero_()
    assert torch.equal(supernet(drawn(0), arch), before)


def test_training_lowers_the_loss_of_paths():
    """Images of four brightnesses; by the sandwich rule: largest, smallest and one random path a step."""
    space = Graph(Graph.Settings(widths=(8, 8), max_blocks=1, operations=("conv3", "separable3"))).bind(
        ImageFacts(1, 4, 8)
    )
    supernet, rng = Supernet(space, 0), random.Random(0)
    optimizer = torch.optim.SGD(supernet.parameters(), lr=0.1, momentum=0.9)
    images, labels = drawn(0, 32, 1, 8, 8), torch.arange(32) % 4
    images += labels[:, None, None, None]
    for _ in range(40):
        optimizer.zero_grad()
        for arch in (space.largest(), space.smallest(), space.sample(rng)):
            F.cross_entropy(supernet(images, arch), labels).backward()
        optimizer.step()
    for arch in (space.largest(), space.smallest()):
        alone = supernet.extract(arch)
        recalibrate(alone, [images])
        assert (alone(images).argmax(1) == labels).float().mean() > 0.8


def test_what_blocks_add_to_their_shortcuts_begins_at_zero():
    fresh, images = Supernet(SPACE, 0).eval(), drawn(0)
    shortcuts = fresh(images, SPACE.uniform("skip"))
    for operation in set(SPACE.settings.operations) - {"avg_pool3", "max_pool3"}:
        assert torch.equal(fresh(images, SPACE.uniform(operation)), shortcuts)


def test_the_seed_decides():
    one, same, other = (Supernet(SPACE, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(value, same[name]) for name, value in one.items())
    assert not torch.equal(one["edges.stem.0.weight"], other["edges.stem.0.weight"])


def test_the_state_goes_round():
    other = Supernet(SPACE, 7).eval()
    other.load_state_dict(SUPERNET.state_dict())
    arch = SPACE.sample(random.Random(0))
    assert torch.equal(other(drawn(0), arch), SUPERNET(drawn(0), arch))


def test_every_operation_of_every_block_has_weights_of_its_own_but_a_common_shortcut():
    blocks = Counter(name.rsplit("_", 1)[0] for name in SUPERNET.edges)
    for place in (f"stage{stage}_block{block}" for stage in (1, 2, 3) for block in (1, 2, 3)):
        # The shortcut and the two pools; then what each convolution has.
        assert blocks[f"{place}"] == 1
        assert blocks[f"{place}_avg"] == blocks[f"{place}_max"] == 1
        for operation in set(SPACE.settings.operations) - {"skip", "avg_pool3", "max_pool3"}:
            assert blocks[f"{place}_{operation}"] > 1


def test_networks_from_elsewhere_are_refused():
    larger = Graph(CONFIG.model_copy(update={"max_blocks": 3})).bind(ImageFacts(1, 5, 9)).largest()
    wider = Graph(CONFIG.model_copy(update={"widths": (4, 8, 20)})).bind(ImageFacts(1, 5, 9)).largest()
    coloured = Graph(CONFIG).bind(ImageFacts(3, 5, 9)).largest()
    for arch in (larger, wider, coloured):
        with pytest.raises(UserError, match="no path for this network: it lacks edges"):
            SUPERNET(drawn(0), arch)
