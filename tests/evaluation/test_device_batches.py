"""Batches on their way to a device and back: through the same code on the CPU, and on a fake GPU."""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
import verification
from onnx_files import summing
from test_cache import Faces, Network
from test_embedders import ARCH, IMAGES, make_run
from torch._subclasses import FakeTensorMode

from facenas.device import Device
from facenas.errors import UserError
from facenas.evaluation import ten_fold
from facenas.evaluation.embedders import InputOptions, embedder_of, open_embedder
from facenas.evaluation.embedders.cache import extract
from facenas.evaluation.embedders.device_batches import DeviceBatches, scaled
from facenas.evaluation.embedders.module import squared_distances_of, summed_embeddings
from facenas.evaluation.embedders.preprocessing import Preprocessing, usual

CPU, GPU = Device(torch.device("cpu"), False), Device(torch.device("cuda"), False)


@pytest.fixture(scope="module")
def network():
    made = ARCH.build(3)
    made(torch.randn(8, 3, 112, 112, generator=torch.Generator().manual_seed(5)))
    return made.eval()


def test_pairs_of_images_that_are_on_the_device(network):
    batches = torch.from_numpy(IMAGES).split(4)
    pairs = np.array([[0, 9], [3, 3], [5, 1]])
    found = squared_distances_of(summed_embeddings(network.train(), iter(batches), CPU), pairs)
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
        found = summed_embeddings(model, batches, GPU)
    assert (found.shape, str(found.device), found.dtype) == ((9, 16), "cuda:0", torch.float32)


def as_on_a_gpu(batches):
    """The same, but calls the network as on a GPU; the upload is the CPU's, or a fake GPU's."""
    batches._uploads, batches._uploaded = "a stream", lambda part: part.to(batches._place)
    return batches


@pytest.mark.parametrize("mirrored", [(False,), (True,), (False, True)])
def test_one_call_for_image_and_mirror_image(network, mirrored):
    apart = DeviceBatches("net", network, usual(), CPU)
    together = as_on_a_gpu(DeviceBatches("net", network, usual(), CPU))
    wanted = apart(IMAGES, mirrored)()
    found = together._rows(torch.from_numpy(IMAGES), mirrored).reshape(len(mirrored), 10, 16)
    assert len(wanted) == len(mirrored)
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())
    if mirrored == (False, True):
        (turned,) = apart(IMAGES[:, :, ::-1], (False,))()
        assert np.array_equal(wanted[1], turned)


@pytest.mark.parametrize("color", ["rgb", "bgr"])
@pytest.mark.parametrize(("mean", "std"), [((10.0,), (99.0,)), ((1.0, 2.0, 3.0), (100.0, 200.0, 300.0))])
def test_pixels_are_normalised_on_the_device(color, mean, std, monkeypatch):
    chosen = Preprocessing(color, mean, std, "", "")
    assert np.array_equal(scaled(torch.from_numpy(IMAGES), chosen), chosen.apply(IMAGES))
    monkeypatch.setattr(torch.cuda, "Stream", lambda place: None)
    with FakeTensorMode(), torch.device("cuda"):
        batches = as_on_a_gpu(DeviceBatches("net", ARCH.build(0).eval(), chosen, GPU))
        rows = batches._rows(torch.zeros(5, 112, 112, 3, dtype=torch.uint8, device="cpu"), (False, True))
    assert (rows.shape, str(rows.device)) == ((10, 16), "cuda:0")


class Card:
    """What `torch.cuda` would be told; tensors stay where they are. `told`: in words, in order."""

    def __init__(self, monkeypatch):
        self.told = told = []

        class Stream:
            def __init__(self, place=None):
                self.name = "computing" if place is None else f"uploads of {place}"

            def wait_stream(self, other):
                told.append(f"{self.name} waits for {other.name}")

        class Event:
            def __init__(self, blocking):
                assert blocking

            def record(self, stream):
                told.append(f"event on {stream.name}")

            def synchronize(self):
                told.append("waits for the event")

        @contextmanager
        def within(what):
            told.append(f"in {getattr(what, 'name', what)}")
            yield
            told.append("out")

        def to(tensor, place, non_blocking=False):
            assert non_blocking
            told.append(f"{tensor.dtype} to {place}")
            return tensor

        cuda = {"Stream": Stream, "Event": Event, "stream": within, "device": within}
        for name, stand_in in {**cuda, "current_stream": lambda place: Stream()}.items():
            monkeypatch.setattr(torch.cuda, name, stand_in)
        monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: told.append("pinned") or tensor)
        monkeypatch.setattr(
            torch.Tensor, "record_stream", lambda _, stream: told.append(f"kept for {stream.name}")
        )
        monkeypatch.setattr(torch.Tensor, "is_cuda", True)
        monkeypatch.setattr(torch.Tensor, "to", to)


def test_what_a_card_is_told(network, monkeypatch):
    """Nothing waits before the rows are asked for; TF32 is off meanwhile, and afterwards as before."""
    wanted = DeviceBatches("net", network, usual(), CPU)(IMAGES, (False, True))()
    tf32 = [torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32]
    card, seen = Card(monkeypatch), []

    def forward(values):
        seen.append((len(values), torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32))
        card.told.append("computes")
        return network(values)

    later = DeviceBatches("net", forward, usual(), Device(torch.device("cuda:1"), False))(IMAGES, (False, True))
    upload = ["in uploads of cuda:1", "torch.uint8 to cuda:1", "out"]
    handed = ["computing waits for uploads of cuda:1", "kept for computing", "computes"]
    back = ["torch.float32 to cpu", "event on computing", "out"]
    assert card.told == ["in cuda:1", "pinned", *upload, *handed, *back]
    np.testing.assert_allclose(later(), wanted, atol=1e-5 * np.abs(wanted).max())
    assert card.told[-1] == "waits for the event"
    assert seen == [(20, False, False)]
    assert [torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32] == tf32


class SmallMemory:
    """A network on a device that holds `room` images."""

    def __init__(self, network, room):
        self.network, self.room, self.counts = network, room, []

    def __call__(self, values):
        self.counts.append(len(values))
        if len(values) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return self.network(values)


def test_a_batch_too_large_for_memory_is_halved_until_it_fits(network, caplog):
    small = SmallMemory(network, 3)
    embedder = replace(
        open_like(network), run=DeviceBatches("net", small, usual(), CPU), piece=None, alone=True
    )
    wanted = network(torch.from_numpy(usual().apply(IMAGES))).detach()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            np.testing.assert_allclose(embedder(IMAGES), wanted, atol=1e-5 * wanted.abs().max())
    assert small.counts == [10, 5, 2, 2, 2, 2, 2, *[2] * 5]  # what fitted is kept, and not tried anew
    (record,) = caplog.records
    assert (
        record.message == "net: the memory of cpu is too small for 10 images at a time; half as many are taken"
    )


@pytest.mark.parametrize("fixed", [False, True])
def test_no_memory_for_what_cannot_be_halved(network, fixed):
    batches = DeviceBatches("net", SmallMemory(network, 0), usual(), CPU, fixed)
    with pytest.raises(UserError, match="net: the memory of cpu is too small for it; free some") as caught:
        batches(IMAGES, (False,))
    assert "\n" not in str(caught.value)


def open_like(network):
    with embedder_of(network) as embedder:
        return embedder


def test_batches_are_handed_on_before_the_first_is_waited_for(tmp_path):
    """As a GPU needs it: while it computes, the next batches are decoded and handed to it."""
    third, begun, waited = threading.Event(), [], []

    class Gpu(Network):
        def begin(self, images, mirrored):
            begun.append(len(images))
            if len(begun) == 3:
                third.set()
            rows = super().begin(images, mirrored)

            def later():
                waited.append(third.wait(20))
                return rows()

            return later

    found = extract(Gpu(), Faces(20), batch_size=4, workers=2, cache=tmp_path / "gpu")
    assert (begun, waited) == ([4] * 5, [True] * 5)
    assert np.array_equal(found, extract(Network(), Faces(20), batch_size=4, cache=tmp_path / "cpu"))


def test_bf16_when_it_is_asked_for(tmp_path):
    images, (pairs, same) = verification.shots(), verification.pairs()
    run = make_run(tmp_path / "run", verification.network(images), verification.ARCH)
    exact, fast = (open_embedder(run, device="cpu", precision=precision) for precision in ("fp32", "bf16"))
    assert open_embedder(run, device="cpu").fingerprint == exact.fingerprint != fast.fingerprint
    assert [one.facts["precision"] for one in (exact, fast)] == ["float32", "bfloat16"]
    rows = [one(images) for one in (exact, fast)]
    unit = [given / np.linalg.norm(given, axis=1, keepdims=True) for given in rows]
    assert 0.999 < (unit[0] * unit[1]).sum(1).min() < 0.999999
    accuracies = [ten_fold(*given[pairs.T], same).accuracy for given in rows]
    assert 0.75 < accuracies[0] < 1
    assert accuracies[1] == pytest.approx(accuracies[0], abs=0.02)


def test_precision_of_what_has_its_own(network, tmp_path):
    onnx = summing(tmp_path / "sum.onnx")
    for net, told in (
        (onnx, f"precision bf16: {onnx} computes in the precision it was exported in; leave it out"),
        (lambda images: images, "precision bf16: function computes as it likes; leave it out"),
    ):
        with pytest.raises(UserError) as caught, embedder_of(net, precision="bf16"):
            pass
        assert str(caught.value) == told
    with pytest.raises(UserError, match="precision fp16: should be fp32 or bf16"):
        open_embedder(onnx, InputOptions(), precision="fp16")
    with embedder_of(network, precision="bf16") as fast, embedder_of(network) as exact:
        assert (fast.facts["precision"], exact.facts["precision"]) == ("bfloat16", "float32")
        assert fast.fingerprint != exact.fingerprint
        assert not np.array_equal(fast(IMAGES), exact(IMAGES))
