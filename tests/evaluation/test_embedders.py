"""Runs, checkpoints and TorchScript as embedders: the same numbers as the network called by hand."""

from __future__ import annotations

import os
import warnings
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from facenas.device import named_device
from facenas.errors import UserError
from facenas.evaluation.embedders import InputOptions, open_embedder
from facenas.export.safetensors_file import encode_safetensors
from facenas.models.ir import build_ir
from facenas.models.plain import build_module
from facenas.models.trained import read_trained
from facenas.spaces import IRArchitecture, PlainArchitecture

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 112, 112, 3), np.uint8)
ARCH = IRArchitecture.uniform(4, (1, 1, 1, 1), 16, False)
RAW = InputOptions(mean=(0,), std=(1,))


@pytest.fixture(scope="module")
def network():
    made = build_ir(ARCH, seed=3)
    drawn = torch.Generator().manual_seed(5)
    made(
        torch.randn(8, 3, 112, 112, generator=drawn)
    )  # running statistics as no new network has them
    return made.eval()


@torch.inference_mode()
def by_hand(network, mean=127.5, std=127.5, bgr=False):
    ordered = IMAGES[..., ::-1] if bgr else IMAGES
    values = (ordered.astype(np.float32) - np.float32(mean)) / np.float32(std)
    return network(torch.from_numpy(values.transpose(0, 3, 1, 2).copy())).numpy()


def close(found, wanted):
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


def sentence(path, *arguments, **options):
    with pytest.raises(UserError) as caught:
        open_embedder(path, *arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def make_run(folder, network, arch=ARCH, mean=0.5, std=0.5, **more):
    state = {"architecture": arch.to_json(), "model": network.state_dict(), "image_size": 112}
    state |= {"mean": [mean] * 3, "std": [std] * 3, "colour": "RGB"}
    (folder / "checkpoints").mkdir(parents=True)
    torch.save(state | more, folder / "checkpoints" / "model.pt")
    (folder / "run.yaml").write_text("{}\n")
    return folder


def test_a_run(network, tmp_path):
    run = make_run(tmp_path / "run", network)
    embedder = open_embedder(run)
    close(embedder(IMAGES), by_hand(network))
    facts = embedder.facts
    assert (embedder.name, embedder.size) == ("run", 16)
    assert facts["parameters"] == sum(p.numel() for p in network.parameters())
    assert (facts["macs"], facts["colour"]) == (ARCH.count_macs(), "rgb")
    checkpoint = open_embedder(run / "checkpoints" / "model.pt")
    assert checkpoint.fingerprint == embedder.fingerprint
    close(checkpoint(IMAGES[::-1])[::-1], embedder(IMAGES))
    mirrored = embedder(IMAGES[:, :, ::-1])
    assert np.array_equal(mirrored, embedder(np.ascontiguousarray(IMAGES[:, :, ::-1])))


def test_a_run_with_its_own_normalisation(network, tmp_path):
    embedder = open_embedder(make_run(tmp_path / "run", network, mean=0.4, std=0.25))
    close(embedder(IMAGES), by_hand(network, 0.4 * 255, 0.25 * 255))


def test_an_export(network, tmp_path):
    trained = read_trained(make_run(tmp_path / "run", network))
    path = tmp_path / "a.safetensors"
    path.write_bytes(encode_safetensors(trained))
    embedder = open_embedder(path)
    close(embedder(IMAGES), by_hand(network))
    assert embedder.facts["format"] == "facenas safetensors"
    path.write_bytes(path.read_bytes().replace(b'"colour":"RGB"', b'"xolour":"RGB"'))
    close(open_embedder(path)(IMAGES), by_hand(network))
    path.write_bytes(path.read_bytes().replace(b'"image_size"', b'"omage_size"'))
    assert "weights or metadata are damaged" in sentence(path)


def test_checkpoints_of_others(network, tmp_path):
    adaface, cvlface = tmp_path / "adaface.ckpt", tmp_path / "model.pth"
    state = network.state_dict()
    torch.save({"state_dict": {f"model.{k}": v for k, v in state.items()}}, adaface)
    torch.save({f"net.{k}": v for k, v in state.items()}, cvlface)
    embedder = open_embedder(adaface)  # trained on BGR
    close(embedder(IMAGES), by_hand(network, bgr=True))
    assert embedder.facts["colour"] == "bgr"
    close(open_embedder(cvlface)(IMAGES), by_hand(network))
    mean, std = np.array([1.0, 2, 3]), np.array([100.0, 200, 300])
    for colour in ("rgb", "bgr"):
        options = InputOptions(colour, tuple(mean), tuple(std))
        for path in (adaface, cvlface):
            close(
                open_embedder(path, options)(IMAGES), by_hand(network, mean, std, colour == "bgr")
            )


def test_what_is_no_network_of_faces(network, tmp_path):
    plain = PlainArchitecture(4, (0, 0), (3, 3), 1, 10)
    run = make_run(tmp_path / "run", build_module(plain, seed=0), plain)
    assert "is a classification network" in sentence(run)
    assert "has one output" in sentence(run, InputOptions(embedding="z"))
    assert "no such file or run" in sentence(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "facenas train" in sentence(tmp_path / "empty")
    for name in ("a.txt", "a.pt", "a.safetensors"):
        (tmp_path / name).write_text("text")
        assert sentence(tmp_path / name).startswith(f"{tmp_path / name}: ")


class Pair(nn.Module):
    """What AdaFace's networks give."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        z = self.network(images)
        norm = torch.norm(z, 2, 1, True)
        return z / norm, norm


class Named(Pair):
    def forward(self, images):
        z = self.network(images)
        return {"z": z, "map": images}


class One(Pair):
    def forward(self, images):
        return self.network(images).reshape(1, 16)


def script(path, network):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and the check of the size is traced away
        example = torch.zeros(1, 3, 112, 112)
        torch.jit.trace(network, example, strict=False).save(str(path))
    return path


@pytest.mark.parametrize("kind", [None, Pair, Named, One])
def test_torchscript(kind, network, tmp_path):
    path = script(tmp_path / "a.pt", network if kind is None else kind(network).eval())
    embedder = open_embedder(path)
    close(embedder(IMAGES), by_hand(network))
    assert (embedder.size, embedder.facts["format"]) == (16, "TorchScript")
    options = InputOptions("bgr", (10,), (100,))
    close(open_embedder(path, options)(IMAGES), by_hand(network, 10, 100, bgr=True))


def test_torchscript_that_cannot_be_used(network, tmp_path):
    path = script(tmp_path / "a.pt", Named(network).eval())
    assert "no output 'y' (--embedding), but z (2 x 16)" in sentence(
        path, InputOptions(embedding="y")
    )
    assert "map (2 x 3 x 112 x 112) is no embed" in sentence(path, InputOptions(embedding="map"))
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(tmp_path / "b.pt", "w") as torn:
        for name in whole.namelist():
            if not name.endswith("data.pkl"):
                torn.writestr(name, whole.read(name))
    assert "b.pt: is not whole TorchScript" in sentence(tmp_path / "b.pt")
    os.truncate(path, path.stat().st_size // 2)
    assert sentence(path).startswith(f"{path}: ")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wide = torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(9, 2)).eval())
    wide.save(str(tmp_path / "c.pt"))
    assert "does not take images of 112x112 pixels" in sentence(tmp_path / "c.pt")


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"colour": "grey"}, "--input-color grey: should be rgb or bgr"),
        ({"mean": (1, 2)}, "--mean 1 2: should be one number, or three"),
        ({"mean": (float("nan"),)}, "--mean nan: should be finite"),
        ({"std": (0.5,)}, "--std 0.5: is below 1, but counts on pixels of 0..255"),
        ({"std": (0,)}, "--std 0: is below 1"),
    ],
)
def test_options_that_cannot_be(values, told):
    with pytest.raises(UserError, match=told):
        InputOptions(**values)


def test_devices():
    assert str(named_device("cpu").torch_device) == "cpu"
    for name in ("gpu", "cpu:0", "cuda:x", "cuda:-1"):
        with pytest.raises(UserError, match=f"device {name}: should be cpu, cuda"):
            named_device(name)
    with pytest.raises(UserError, match="device cuda:99: torch finds"):
        named_device("cuda:99")


@pytest.mark.parametrize("colour", ["rgb", "bgr"])
def test_a_state_dict_that_does_not_tell_its_colours_takes_the_option(network, tmp_path, colour):
    torch.save(network.state_dict(), tmp_path / "bare.pth")
    assert "give --input-color" in sentence(tmp_path / "bare.pth")
    embedder = open_embedder(tmp_path / "bare.pth", InputOptions(colour=colour))
    close(embedder(IMAGES), by_hand(network, bgr=colour == "bgr"))
