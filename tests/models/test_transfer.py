"""Weights that another training begins with: what is taken, what is fitted, what is refused."""

from __future__ import annotations

from random import Random

import pytest
import torch

from facenas.errors import UserError
from facenas.models.load import TrainedNetwork
from facenas.models.transfer import begin_with, load_beginning
from facenas.spaces import Cells, Graph, ImageFacts, IRArchitecture, Plain

COLOR, GREY = ImageFacts(3, 10, 32), ImageFacts(1, 10, 28)
SPACES = {
    "plain": Plain(min_depth=3, max_depth=4, min_width=2, max_width=4),
    "cells": Cells(max_cells=3, base_widths=[4]),
    "graph": Graph(widths=[4, 6], operations=["skip", "se_bottleneck3", "conv3"]),
}
LAST = {"plain": "{}.", "cells": "classifier.2.", "graph": "edges.classifier."}


def trained(arch):
    """The network with statistics that are not those of a new one."""
    network = arch.build(5)
    with torch.no_grad():
        network.train()(torch.randn(8, arch.in_channels, 32, 32))
    return TrainedNetwork(arch, network, (0.5,), (0.5,))


@pytest.mark.parametrize("kind", SPACES)
@pytest.mark.parametrize(("found", "other"), [(COLOR, GREY), (GREY, COLOR)], ids=["grey", "color"])
def test_a_grey_image_is_seen_as_before(tmp_path, kind, found, other):
    """All is taken but the classifier, though there are as many classes: with it, outputs are the same."""
    arch = SPACES[kind].bind(found).sample(Random(3))
    source, ours = trained(arch), arch.adapted(other)
    beginning = begin_with(source, "found", ours, other)
    last = LAST[kind].format(len(list(source.network.children())) - 1)
    assert beginning.fresh == (f"{last}weight", f"{last}bias")
    assert len(beginning.fitted) == 1
    about = beginning.write(tmp_path / "checkpoints" / "beginning.safetensors")
    network = load_beginning(ours.build(0), tmp_path / "checkpoints" / "beginning.safetensors", about).eval()
    for name in beginning.fresh:
        assert torch.equal(network.state_dict()[name], ours.build(0).state_dict()[name])
        network.get_parameter(name).data.copy_(source.network.get_parameter(name))
    grey = torch.randn(4, 1, 28, 28)
    with torch.inference_mode():
        before, now = (
            source(grey.expand(-1, found.in_channels, -1, -1)),
            network(grey.expand(-1, other.in_channels, -1, -1)),
        )
    torch.testing.assert_close(now, before, rtol=1e-4, atol=1e-5)


def test_larger_images_take_the_stem_as_well_and_faces_all():
    large = ImageFacts(3, 10, 224)
    arch = SPACES["plain"].bind(COLOR).start()
    beginning = begin_with(trained(arch), "found", arch.adapted(large), large)
    assert not beginning.fitted
    assert "0.0.weight" in beginning.taken
    faces = IRArchitecture.uniform(2, (1, 1, 1, 1), 8)
    source = TrainedNetwork(faces, faces.build(0), (0.5,) * 3, (0.5,) * 3)
    assert begin_with(source, "found", faces, ImageFacts(3, 0, 112)).fresh == ()


def test_another_network_is_refused_with_both_described():
    arch = SPACES["plain"].bind(COLOR).start()
    source = trained(arch)
    for other, told in ((arch.with_kernel(0, 5), "they differ in kernels"), (arch.with_width(3), "in width")):
        words = rf"found: holds .* plain \(depth 3, width 4, .*to be trained is plain \(depth 3.*{told}"
        with pytest.raises(UserError, match=words):
            begin_with(source, "found", other, COLOR)
    cells = SPACES["cells"].bind(COLOR).start()
    with pytest.raises(UserError, match=r"plain \(.* to be trained is cells \("):
        begin_with(source, "found", cells, COLOR)


def test_a_beginning_that_changed_or_is_gone_is_told(tmp_path):
    arch, path = SPACES["plain"].bind(COLOR).start(), tmp_path / "beginning.safetensors"
    about = begin_with(trained(arch), "runs/found", arch, COLOR).write(path)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match="is not what the run was made with; start it anew from runs/found"):
        load_beginning(arch.build(0), path, about)
    path.unlink()
    with pytest.raises(UserError, match="is missing"):
        load_beginning(arch.build(0), path, about)
