"""Batches on their way to a device and back: through the same code on the CPU, and on a fake GPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_embedders import ARCH, IMAGES
from torch._subclasses import FakeTensorMode

from facenas.device import Device, pick_device
from facenas.evaluation.embedders.module import squared_distances_of, summed_embeddings


@pytest.fixture(scope="module")
def network():
    made = ARCH.build(3)
    made(torch.randn(8, 3, 112, 112, generator=torch.Generator().manual_seed(5)))
    return made.eval()


def test_pairs_of_images_that_are_on_the_device(network):
    batches = torch.from_numpy(IMAGES).split(4)
    pairs = np.array([[0, 9], [3, 3], [5, 1]])
    found = squared_distances_of(summed_embeddings(network.train(), iter(batches), pick_device()), pairs)
    assert not network.training
    with torch.inference_mode():
        values = torch.from_numpy(IMAGES).permute(0, 3, 1, 2) / 127.5 - 1
        rows = torch.nn.functional.normalize(network(values) + network(values.flip(3)), dim=1).double().numpy()
    wanted = [((rows[a] - rows[b]) ** 2).sum() for a, b in pairs]
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_pairs_stay_on_a_gpu_until_all_are_embedded():
    """A fake GPU: an operation over two devices, or one that the host must wait for, would raise."""
    with FakeTensorMode(), torch.device("cuda"):
        model = ARCH.build(0)
        batches = [torch.zeros(count, 112, 112, 3, dtype=torch.uint8) for count in (6, 3)]
        found = summed_embeddings(model, batches, Device(torch.device("cuda"), False))
    assert (found.shape, str(found.device), found.dtype) == ((9, 16), "cuda:0", torch.float32)
