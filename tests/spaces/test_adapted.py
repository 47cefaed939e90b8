"""Networks for other images than they were found for: channels, classes, and strides by size."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

import pytest
import torch
from own_space import Dense, DenseSpace

from facenas.errors import UserError
from facenas.models.load import TrainedNetwork
from facenas.models.transfer import begin_with
from facenas.spaces import Architecture, Cells, Graph, GraphArchitecture, ImageFacts, Plain, from_json
from facenas.testing import check_search_space

SIZES = [(8, 1), (32, 1), (63, 1), (64, 2), (127, 2), (128, 4), (224, 4), (256, 8)]


@pytest.mark.parametrize(("size", "stride"), SIZES)
@pytest.mark.parametrize(
    "space", [Plain(), Cells(min_side=2), Graph(widths=(8, 16))], ids=["plain", "cells", "graph"]
)
def test_what_is_behind_the_stem_sees_as_much_at_any_size(space, size, stride):
    """Found there or adapted: the same division, 32 to 63 pixels left; what is on disk has no new key."""
    images = ImageFacts(3, 10, size)
    found = space.bind(images).start()
    adapted = space.bind(ImageFacts(1, 4, 32)).start().adapted(images)
    assert images.stem_stride == stride
    for arch in (found, adapted):
        first = getattr(arch, "first_stride", 1)
        assert arch.stem_stride * first == stride
        assert ("stem_stride" in arch.to_json()) == (arch.stem_stride > 1)
    if not isinstance(found, GraphArchitecture):  # there the first stage may have a stride too
        assert found == adapted


@pytest.mark.parametrize("space", [Plain(), Cells(), Graph()], ids=["plain", "cells", "graph"])
def test_a_search_of_before_has_the_networks_it_had(space):
    """Its run.yaml says nothing of stems, and no network in it has a stride there."""
    old = ImageFacts.of({"in_channels": 3, "classes": 10, "image_size": 224})
    assert old.stem_stride == 1
    for number in range(5):
        assert "stem_stride" not in space.bind(old).sample(Random(number)).to_json()


def test_a_first_stage_without_blocks_leaves_its_stride_to_the_stem():
    found = GraphArchitecture("classification", (4, 8), ((), ("conv3",)), 1, 2, 3, 10)
    adapted = found.adapted(ImageFacts(1, 7, 64))
    assert (adapted.first_stride, adapted.stem_stride, adapted.outputs) == (1, 2, 7)
    with torch.inference_mode():
        assert adapted.build(0).eval()(torch.zeros(1, 1, 64, 64)).shape == (1, 7)
    large = Graph(widths=(4, 8)).bind(ImageFacts(3, 10, 64)).start()
    small = large.adapted(ImageFacts(3, 10, 32))
    assert (large.first_stride, small.first_stride, small.stem_stride) == (2, 1, 1)


def test_images_that_are_too_small_and_strides_that_halve_nothing_are_refused():
    start = Cells().bind(ImageFacts(3, 10, 63)).start()
    deep = replace(start, cells=(replace(start.cells[0], role="down"),) * 5)
    assert deep.adapted(ImageFacts(3, 10, 33)) == deep
    with pytest.raises(
        UserError, match="images of 32 pixels are too small for this network: its strides would"
    ):
        deep.adapted(ImageFacts(3, 10, 32))
    plain = Plain().bind(ImageFacts(3, 10, 32)).start()
    for arch, stride in ((deep, 3), (deep, 0), (plain, 6), (plain, 1 << 40)):
        with pytest.raises(UserError, match=r"not a (plain|cells) architecture"):
            from_json({**arch.to_json(), "stem_stride": stride})


@dataclass(frozen=True)
class Stubborn(Dense):
    """Forgets the classes when it is adapted."""

    def adapted(self, images: ImageFacts) -> Architecture:
        return replace(self, in_channels=images.in_channels, side=images.image_size)


class StubbornSpace(DenseSpace):
    """Of such."""

    Architecture = Stubborn

    def sample(self, rng: Random) -> Stubborn:
        return Stubborn(**vars(super().sample(rng)))

    mutate = None


def test_the_contract_finds_a_network_that_forgets_its_classes(monkeypatch):
    monkeypatch.delattr(DenseSpace, "mutate")
    monkeypatch.delattr(StubbornSpace, "mutate")
    with pytest.raises(AssertionError, match=r"has channels, classes \(1, 5\)"):
        check_search_space(StubbornSpace().bind(ImageFacts(3, 5, 8)), members=3, built=1)


def test_a_kind_that_cannot_be_adapted_keeps_to_its_images():
    own = DenseSpace().bind(ImageFacts(3, 5, 8)).start()
    assert own.adapted(ImageFacts(3, 5, 64)) is own
    with pytest.raises(
        UserError, match=r"takes 3 channels and 5 classes, not 1 and 5; its class has no `adapted`"
    ):
        own.adapted(ImageFacts(1, 5, 8))
    source = TrainedNetwork(own, own.build(0), (0.5,), (0.5,))
    with pytest.raises(UserError, match="not 3 and 6; its class has no `adapted`"):  # which is its classifier?
        begin_with(source, "found", own, ImageFacts(3, 5, 8))
