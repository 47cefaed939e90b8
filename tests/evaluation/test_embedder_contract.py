"""What every embedder keeps, whatever is behind it: shapes, dtype, determinism, images kept apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx_files import summing
from test_embedders import ARCH, make_run

import facenas
from facenas.evaluation.benches.images import EncodedImages
from facenas.evaluation.embedders import Embedder, InputOptions, embedder_of
from facenas.evaluation.embedders.cache import extract
from facenas.export.files import encode_safetensors
from facenas.models.load import read_trained
from facenas.testing import check_embedder

IMAGES = np.random.default_rng(2).integers(0, 256, (11, 112, 112, 3), np.uint8)
OPTIONS = InputOptions("rgb", (127.5,), (127.5,))


def drawn_network():
    network = ARCH.build(7)
    network(torch.randn(4, 3, 112, 112, generator=torch.Generator().manual_seed(1)))
    return network


def safetensors(folder):
    path = folder / "net.safetensors"
    path.write_bytes(encode_safetensors(read_trained(make_run(folder / "run", drawn_network()))))
    return path


def checkpoint(folder):
    state = {f"model.{key}": value for key, value in drawn_network().state_dict().items()}
    torch.save({"state_dict": state}, folder / "net.ckpt")
    return folder / "net.ckpt"


def onnx(folder):
    pytest.importorskip("onnxruntime")
    return summing(folder / "net.onnx")


def onnx_of_three(folder):
    pytest.importorskip("onnxruntime")
    return summing(folder / "net.onnx", shape=(3, 3, 112, 112))


class Embeds:
    """Pixels of a coarse grid, scaled."""

    def embed(self, images):
        return images[:, ::20, ::20].reshape(len(images), -1) / np.float32(255) - 0.5


KINDS = {
    "run": lambda folder: make_run(folder / "run", drawn_network()),
    "checkpoint": checkpoint,
    "safetensors": safetensors,
    "onnx": onnx,
    "onnx of a fixed batch": onnx_of_three,
    "what facenas.load gives": lambda folder: facenas.load(safetensors(folder)),
    "what facenas.load gives of onnx": lambda folder: facenas.load(onnx(folder)),
    "module": lambda folder: drawn_network(),
    "module on floats of 64 bits": lambda folder: drawn_network().double(),
    "function": lambda folder: Embeds().embed,
    "object that embeds": lambda folder: Embeds(),
}


@pytest.fixture(params=KINDS, scope="module")
def embedder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param.replace(" ", "_"))
    options = None if request.param in ("function", "object that embeds") else OPTIONS
    with embedder_of(KINDS[request.param](folder), options) as opened:
        yield opened


def test_the_published_contract(embedder):
    check_embedder(embedder)
    assert isinstance(embedder, Embedder)
    assert "format" in embedder.facts


def test_extraction_gives_the_rows_it_gives(embedder, tmp_path):
    from bench_files import encoded

    items = [encoded(image, "png") for image in IMAGES]
    images = EncodedImages([str(i) for i in range(11)], items.__getitem__, tmp_path, "fingerprint")
    threads = torch.get_num_threads()
    found = extract(embedder, images, batch_size=4, cache=tmp_path)
    wanted = embedder(IMAGES) + embedder(IMAGES[:, :, ::-1])
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())
    assert torch.get_num_threads() == threads
    kept = [path for path in tmp_path.rglob("*.npy") if path.is_file()]
    assert len(kept) == (2 if embedder.cacheable else 0)


def test_what_is_loaded_gives_the_rows_of_its_file(tmp_path):
    for path in (safetensors(tmp_path), checkpoint(tmp_path)):
        with embedder_of(path) as file, embedder_of(facenas.load(path)) as loaded:
            assert np.array_equal(loaded(IMAGES), file(IMAGES))  # raw: templates weigh images by their norms
        unit = file(IMAGES) + file(IMAGES[:, :, ::-1])
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        np.testing.assert_allclose(facenas.load(path).embed(IMAGES), unit, atol=1e-5)
