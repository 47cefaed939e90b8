"""Contracts of what people extend, as functions that raise AssertionError with a sentence; without pytest.

from facenas.spaces import ImageFacts
from facenas.testing import check_search_space

check_search_space(MySpace().bind(ImageFacts(in_channels=3, num_classes=10, image_size=32)))
"""

from __future__ import annotations

import json
import pickle
import random
from itertools import pairwise
from typing import Any

# --- SearchSpace -----------------------------------------------------------------------------------------


def check_search_space(space: Any, members: int = 20, built: int = 3, seed: int = 0) -> None:
    """Whether `space`, bound to images, and its architectures keep what strategies and trainings rest on.

    members: how many are drawn, changed and described; built: how many of them become modules, which must count
    as told, give finite outputs of the right shape, draw their weights from the seed alone, and give every
    parameter a gradient.
    """
    from facenas.spaces import SPACES

    name = SPACES.name_of(type(space))
    assert SPACES.get(name) is type(space), f"{name} is not what the registry finds by that name"
    assert pickle.loads(pickle.dumps(space)) == space, f"{space} is another one after pickling"
    state = random.getstate()
    assert space.start() == space.start(), "start gives another architecture each time"
    drawn = [space.start(), *(_draw(space, random.Random(f"{seed} {i}")) for i in range(members))]
    found = [*drawn, *_changed(space, drawn, seed)]
    assert random.getstate() == state, "the space draws from the global random source"
    for arch in found:
        check_architecture(space, arch)
    chosen = sorted(found, key=lambda arch: arch.count_parameters())
    for number in range(built):
        check_module(chosen[number * (len(chosen) - 1) // max(1, built - 1)], space.images)


def _draw(space: Any, rng: random.Random) -> Any:
    state = rng.getstate()
    arch = space.sample(rng)
    rng.setstate(state)
    assert space.sample(rng) == arch, "sample does not depend on its rng alone"
    return arch


def _changed(space: Any, drawn: list[Any], seed: int) -> list[Any]:
    """What mutation and crossover make of members, where the space has them."""
    found = []
    for number, (one, other) in enumerate(pairwise(drawn)):
        for move, parents in (("mutate", (one,)), ("crossover", (one, other))):
            if hasattr(space, move):
                children = [
                    getattr(space, move)(*parents, random.Random(f"{seed} {move} {number}"))
                    for _ in range(2)
                ]
                assert children[0] == children[1], f"{move} does not depend on its rng alone"
                found.append(children[0])
    if hasattr(space, "mutate"):
        assert any(m not in drawn for m in found), "mutation never leaves what was drawn"
    return found


def check_architecture(space: Any, arch: Any) -> None:
    """Whether `arch` is a member of `space`, and describes itself as JSON and for other processes."""
    from facenas.spaces import fingerprint, from_json

    images = space.images
    assert isinstance(arch, space.Architecture), f"{arch} is no {space.Architecture.__name__}"
    assert arch.task == images.task, f"{arch} is for {arch.task}, the images for {images.task}"
    ends = (arch.in_channels, arch.num_classes)
    assert ends == (images.in_channels, images.num_classes), f"{arch} has channels, classes {ends}"
    tree = arch.to_json()
    again = from_json(json.loads(json.dumps(tree, allow_nan=False)))
    assert again == arch, f"{arch} is another one after a journey through JSON: {again}"
    assert hash(again) == hash(arch), f"{arch} and its equal have different hashes"
    assert fingerprint(again.to_json()) == fingerprint(tree), f"{arch}: its fingerprint changes"
    assert pickle.loads(pickle.dumps(arch)) == arch, f"{arch} is another one after pickling"
    assert arch.summary(), f"{arch} has no summary"
    if hasattr(space, "encode"):
        row, (lower, upper) = space.encode(arch), space.bounds()
        within = all(a <= gene <= b for a, gene, b in zip(lower, row, upper, strict=True))
        assert within, f"{arch}: its row {row} leaves the bounds"
        assert space.decode(row) == arch, f"{arch}: its row means another architecture"


def check_module(arch: Any, images: Any) -> None:
    """Whether the network of `arch` is what `arch` says, and can be trained on such images."""
    import torch
    from torch.nn import functional as F

    state = torch.get_rng_state()
    module, again, other = (arch.build(seed) for seed in (1, 1, 2))
    assert torch.equal(state, torch.get_rng_state()), f"{arch}: build moves torch's own generator"
    weights, same, others = (dict(net.named_parameters()) for net in (module, again, other))
    for name, value in weights.items():
        assert torch.equal(value, same[name]), f"{arch}: {name} does not depend on the seed alone"
    moved = any(not torch.equal(value, others[name]) for name, value in weights.items())
    assert moved, f"{arch}: another seed gives the same weights"
    _check_counts(arch, images.image_size)

    outputs = images.num_classes or arch.embedding
    shape = (4, images.in_channels, images.image_size, images.image_size)
    batch = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    batch = batch.to(memory_format=torch.channels_last)
    result = module.train()(batch)
    assert result.shape == (4, outputs), f"{arch} gives {tuple(result.shape)}, not (4, {outputs})"
    F.cross_entropy(result, torch.arange(4) % outputs).backward()  # type: ignore[no-untyped-call]
    for name, value in weights.items():
        assert value.grad is not None, f"{arch}: {name} gets no gradient"
        assert torch.isfinite(value.grad).all(), (
            f"{arch}: {name} gets a gradient that is not finite"
        )
    torch.optim.SGD(module.parameters(), lr=0.01).step()
    with torch.inference_mode():
        result, alone = module.eval()(batch), module(batch[:1])
    assert torch.isfinite(result).all(), f"{arch} gives what is not finite after a step of training"
    close = torch.allclose(result[:1], alone, rtol=1e-3, atol=1e-3)
    assert close, f"{arch}: images of a batch see each other in evaluation"


def _check_counts(arch: Any, image_size: int) -> None:
    from facenas.models import build

    told, counted = arch.count_parameters(), build.count_parameters(arch)
    assert told == counted, f"{arch} tells {told} parameters, its module has {counted}"
    told, counted = arch.count_macs(image_size), build.count_macs(arch, image_size)
    assert told == counted, f"{arch} tells {told} multiply-accumulates, its module does {counted}"
    told, counted = arch.count_memory(image_size), build.count_memory(arch, image_size)
    # Squeeze-and-excitation and sums hold small vectors that a formula may leave out.
    assert abs(told - counted) <= 0.01 * counted, (
        f"{arch} tells {told} bytes, measured are {counted}"
    )
