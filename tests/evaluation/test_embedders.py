"""Runs, checkpoints, modules and functions as embedders: the same numbers as the network called by hand."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from facenas.device import named_device
from facenas.errors import UserError
from facenas.evaluation.embedders import InputOptions, embedder_of, open_embedder
from facenas.export.files import encode_safetensors
from facenas.models.load import read_trained
from facenas.spaces import IRArchitecture, PlainArchitecture

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 112, 112, 3), np.uint8)
ARCH = IRArchitecture.uniform(4, (1, 1, 1, 1), 16, False)


@pytest.fixture(scope="module")
def network():
    made = ARCH.build(3)
    drawn = torch.Generator().manual_seed(5)
    made(torch.randn(8, 3, 112, 112, generator=drawn))  # running statistics as no new network has them
    return made.eval()


@torch.inference_mode()
def by_hand(network, mean=127.5, std=127.5, bgr=False, images=IMAGES):
    ordered = images[..., ::-1] if bgr else images
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
    assert (facts["macs"], facts["color"]) == (ARCH.count_macs(), "rgb")
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
    assert "image_size: Field required; export it again" in sentence(path)


def test_checkpoints_of_others(network, tmp_path):
    adaface, cvlface = tmp_path / "adaface.ckpt", tmp_path / "model.pth"
    state = network.state_dict()
    torch.save({"state_dict": {f"model.{k}": v for k, v in state.items()}}, adaface)
    torch.save({f"net.{k}": v for k, v in state.items()}, cvlface)
    embedder = open_embedder(adaface)  # trained on BGR
    close(embedder(IMAGES), by_hand(network, bgr=True))
    assert embedder.facts["color"] == "bgr"
    close(open_embedder(cvlface)(IMAGES), by_hand(network))
    mean, std = np.array([1.0, 2, 3]), np.array([100.0, 200, 300])
    for color in ("rgb", "bgr"):
        options = InputOptions(color, tuple(mean), tuple(std))
        for path in (adaface, cvlface):
            close(open_embedder(path, options)(IMAGES), by_hand(network, mean, std, color == "bgr"))


def test_what_is_no_network_of_faces(network, tmp_path):
    plain = PlainArchitecture(4, (0, 0), (3, 3), 1, 10)
    run = make_run(tmp_path / "run", plain.build(0), plain)
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


@pytest.mark.parametrize("kind", [None, Pair, Named, One])
def test_modules(kind, network):
    module = network if kind is None else kind(network)
    with embedder_of(module) as embedder:
        close(embedder(IMAGES), by_hand(network))
        assert (embedder.size, embedder.facts["format"]) == (16, "torch module")
    with embedder_of(module, InputOptions("bgr", (10,), (100,))) as embedder:
        close(embedder(IMAGES), by_hand(network, 10, 100, bgr=True))


def test_a_module_is_left_as_it_was(network):
    module = nn.Sequential(network, nn.Dropout(0.5))
    module.train()
    module[0].eval()
    threads = torch.get_num_threads()
    with embedder_of(module) as embedder:
        close(embedder(IMAGES), by_hand(network))  # no dropout meanwhile
    assert [part.training for part in (module, *module)] == [True, False, True]
    assert torch.get_num_threads() == threads
    network.eval()


def test_functions_and_objects_that_embed(network):
    class Embeds:
        def embed(self, images):
            return by_hand(network, images=images).tolist()

    def function(images):
        return torch.from_numpy(by_hand(network, images=images))

    for net in (function, Embeds(), lambda images: {"z": by_hand(network, images=images)}):
        with embedder_of(net) as embedder:
            close(embedder(IMAGES), by_hand(network))
            assert embedder.size == 16


@pytest.mark.parametrize(
    ("net", "told"),
    [
        (3, "int: gives no embeddings; give a file, a module, or a function of images"),
        (lambda images: images, r"<lambda>: its output 0 \(2 x 112 x 112 x 3\) is no embedding"),
        (
            lambda images: np.zeros((7, 3)),
            r"lambda>: does not .* \(its output is 0 \(7 x 3\) for 2",
        ),
        (nn.Linear(3, 3), "Linear: does not take images of 112x112 pixels"),
    ],
)
def test_what_gives_no_embeddings(net, told):
    with pytest.raises(UserError, match=told) as caught, embedder_of(net):
        pass
    assert "\n" not in str(caught.value)


def test_torchscript_is_refused_in_one_sentence(network, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated
        traced = torch.jit.trace(network, torch.zeros(1, 3, 112, 112), strict=False)
    traced.save(str(tmp_path / "a.pt"))
    assert "is TorchScript, which" in sentence(tmp_path / "a.pt")
    assert "torch.onnx.export, or save its state_dict as safetensors" in sentence(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"color": "grey"}, "color grey: should be rgb or bgr"),
        ({"mean": (1, 2)}, "mean 1 2: should be one number, or three"),
        ({"mean": (float("nan"),)}, "mean nan: should be finite"),
        ({"std": (0.5,)}, "std 0.5: is below 1, but counts on pixels of 0..255"),
        ({"std": (0,)}, "std 0: is below 1"),
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


@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_a_state_dict_that_does_not_tell_its_colors_takes_the_option(network, tmp_path, color):
    torch.save(network.state_dict(), tmp_path / "bare.pth")
    assert "give color (rgb or bgr)" in sentence(tmp_path / "bare.pth")
    embedder = open_embedder(tmp_path / "bare.pth", InputOptions(color=color))
    close(embedder(IMAGES), by_hand(network, bgr=color == "bgr"))
