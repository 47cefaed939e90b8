"""Evaluation on a card: the CPU's figures in float32, near them in bf16, no waiting, and memory too small.

pytest -m gpu tests/gpu
"""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "evaluation"))

import verification
from test_embedders import make_run

import facenas
from facenas.device import Device
from facenas.evaluation import ten_fold
from facenas.evaluation.embedders import InputOptions, embedder_of, open_embedder
from facenas.evaluation.embedders.cache import extract
from facenas.evaluation.embedders.module import squared_distances_of, summed_embeddings

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use"),
]
OTHER_INPUT = InputOptions("bgr", (120.0, 110.0, 100.0), (60.0, 70.0, 80.0))


class Shots:
    """The images as a bench has them."""

    fingerprint = "shots"

    def __len__(self):
        return len(verification.shots())

    def read(self, numbers):
        return verification.shots()[numbers]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(
        tmp_path_factory.mktemp("gpu") / "run", verification.network(verification.shots()), verification.ARCH
    )


def rows_of(run, cache, device, precision="fp32", options=None, **more):
    embedder = open_embedder(run, options, device, precision)
    return embedder, extract(embedder, Shots(), cache=cache, keep=False, **more)


def cosines(first, second):
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (first, second)]
    return (unit[0] * unit[1]).sum(1)


def accuracy(rows):
    pairs, same = verification.pairs()
    return ten_fold(*rows[pairs.T], same).accuracy


@pytest.mark.parametrize("options", [None, OTHER_INPUT])
def test_float32_gives_the_figures_of_the_cpu(run, options, tmp_path):
    cpu, wanted = rows_of(run, tmp_path, "cpu", options=options)
    allowed = torch.backends.cudnn.allow_tf32
    gpu, found = rows_of(run, tmp_path, "cuda", options=options)
    assert torch.backends.cudnn.allow_tf32 == allowed
    assert gpu.fingerprint == cpu.fingerprint  # a gallery of the one is good for the other
    assert cosines(found, wanted).min() >= 0.99999
    assert accuracy(found) == pytest.approx(accuracy(wanted), abs=1e-4)
    for more in ({"batch_size": 7, "workers": 3}, {"workers": 1}):  # rows in their order, whoever is first
        _, again = rows_of(run, tmp_path, "cuda", options=options, **more)
        assert cosines(again, found).min() >= 0.99999


def test_bf16_is_near(run, tmp_path):
    _, wanted = rows_of(run, tmp_path, "cpu")
    gpu, found = rows_of(run, tmp_path, "cuda", "bf16")
    assert gpu.facts["precision"] == "bfloat16"
    assert cosines(found, wanted).min() >= 0.999
    assert accuracy(found) == pytest.approx(accuracy(wanted), abs=0.02)


def test_what_is_loaded_embeds_on_the_card_as_on_the_cpu(run):
    crops, network = verification.shots()[:20], facenas.load(run / "checkpoints" / "model.pt")
    wanted = network.embed(crops)
    assert cosines(network.to("cuda").embed(crops), wanted).min() >= 0.99999


def test_a_module_on_the_card(tmp_path):
    network = verification.network(verification.shots())
    with embedder_of(network) as embedder:
        wanted = embedder(verification.shots())
    with embedder_of(network.to("cuda")) as embedder:
        assert embedder.facts["device"] == "cuda:0"
        assert cosines(embedder(verification.shots()), wanted).min() >= 0.99999


@contextmanager
def no_waiting():
    """Within it, whatever makes the host wait for the card raises."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_batch_is_begun_without_waiting(run, precision):
    embedder = open_embedder(run, device="cuda", precision=precision)
    wanted = embedder(verification.shots())  # and cuDNN is loaded
    with no_waiting():
        begun = [embedder.begin(verification.shots(), (False, True)) for _ in range(3)]
    for later in begun:
        assert cosines(later()[0], wanted).min() >= 0.999


@pytest.mark.parametrize("bf16", [False, True])
def test_pairs_of_training_are_not_waited_for(bf16):
    device, (pairs, _) = Device(torch.device("cuda"), bf16), verification.pairs()
    network, batches = (
        verification.network(verification.shots()),
        torch.from_numpy(verification.shots()).split(100),
    )
    wanted = squared_distances_of(
        summed_embeddings(network, batches, Device(torch.device("cpu"), False)), pairs
    )
    device.place(network)
    here = [batch.to("cuda") for batch in batches]
    summed_embeddings(network, here, device)  # cuDNN is loaded
    with no_waiting():
        rows = summed_embeddings(network, here, device)
    np.testing.assert_allclose(squared_distances_of(rows, pairs), wanted, atol=0.2 if bf16 else 0.05)


def test_a_batch_too_large_for_memory_is_halved(run, caplog):
    images = np.concatenate([verification.shots()] * 2)
    embedder = open_embedder(run, device="cuda")
    torch.cuda.reset_peak_memory_stats()
    wanted = embedder(images)
    needed = torch.cuda.max_memory_allocated()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(0.4 * needed / total)  # cuDNN may save some of it by itself
    try:
        with caplog.at_level(logging.WARNING):
            found = embedder(images)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert [record.message.split(": ")[1] for record in caplog.records] == [
        "the memory of cuda:0 is too small for 480 images at a time; half as many are taken"
    ]
    assert cosines(found, wanted).min() >= 0.99999
