"""The registered networks do what timm's callers rely on (after timm's own tests of its models)."""

from __future__ import annotations

import copy
import json
import pickle

import pytest
import timm
import torch
from timm.data import resolve_model_data_config
from timm.models import save_for_hf
from timm.optim import create_optimizer_v2
from trained_runs import FACE_ARCH, PLAIN_ARCH, face_network, make_run, plain_network

import facenas.export.timm_models
from facenas.errors import UserError
from facenas.export import export_run
from facenas.spaces import ImageFacts, PlainArchitecture
from facenas.spaces.ir import NAMED

COLOUR_PLAIN = PlainArchitecture(4, (0, 1, 1, 0, 1), (3, 5, 3, 3, 3), 3, 10)
ARCHS = {"ir": FACE_ARCH, "plain": COLOUR_PLAIN}
SHAPE = {"ir": (3, 112, 112), "plain": (3, 32, 32)}
FEATURES = {"ir": 32, "plain": 16}

both = pytest.mark.parametrize("kind", ["ir", "plain"])


def create(kind, **options):
    return timm.create_model("facenas_found", architecture=ARCHS[kind].to_json(), **options)


def images(kind, count=2):
    return torch.randn(count, *SHAPE[kind], generator=torch.Generator().manual_seed(1))


def run(network, *inputs):
    with torch.no_grad():
        return network.eval()(*inputs)


def test_all_names_are_registered():
    names = {f"facenas_{name}" for name in NAMED}
    assert set(timm.list_models("facenas_*")) == names | {"facenas_found"}
    assert all(hasattr(facenas.export.timm_models, name) for name in names)
    assert not timm.list_models("facenas_*", pretrained=True)


@pytest.mark.parametrize("name", sorted(NAMED))
def test_parameters_of_the_named_networks(name):
    network, arch = timm.create_model(f"facenas_{name}", num_classes=3), NAMED[name]
    head = 3 * (arch.embedding + 1)
    assert sum(p.numel() for p in network.parameters()) == arch.count_parameters() + head
    network.reset_classifier(0)
    assert sum(p.numel() for p in network.parameters()) == arch.count_parameters()


def test_a_named_network():
    network = timm.create_model("facenas_ir18")
    assert run(network, images("ir")).shape == (2, 512)
    assert (network.num_features, network.num_classes) == (512, 0)
    expected = {"input_size": (3, 112, 112), "mean": (0.5,) * 3, "std": (0.5,) * 3}
    assert network.default_cfg.items() >= expected.items()
    assert resolve_model_data_config(network).items() >= (expected | {"crop_pct": 1.0}).items()


@both
def test_features_head_and_classifier(kind):
    network = create(kind, num_classes=5).eval()
    x = images(kind)
    with torch.no_grad():
        features = network.forward_features(x)
        logits, before = network.forward_head(features), network.forward_head(features, True)
        assert features.shape[1] == network.num_features == FEATURES[kind]
        assert before.shape == (2, network.head_hidden_size)
        assert torch.equal(logits, network(x))
        assert torch.equal(logits, network.get_classifier()(before))
    assert (logits.shape, network.num_classes) == ((2, 5), 5)
    network.reset_classifier(0)
    assert torch.equal(run(network, x), before)
    network.reset_classifier(7)
    assert run(network, x).shape == (2, 7)
    network.reset_classifier(0, "")
    assert torch.equal(run(network, x), features)
    network.reset_classifier(3, "avg")
    assert run(network, x).shape == (2, 3)
    with pytest.raises(UserError, match="global_pool='max'"):
        network.reset_classifier(3, "max")


@both
def test_every_parameter_learns(kind):
    network = create(kind, num_classes=42, drop_rate=0.1).train()
    network(images(kind, 4)).mean().backward()
    missing = [name for name, p in network.named_parameters() if p.grad is None]
    assert not missing
    create_optimizer_v2(network, "sgd", lr=0.1, weight_decay=5e-4).step()


@both
def test_the_layers_that_the_configuration_names_exist(kind):
    network = create(kind, num_classes=2)
    first = network.get_submodule(network.default_cfg["first_conv"])
    assert isinstance(first, torch.nn.Conv2d)
    assert network.get_submodule(network.default_cfg["classifier"]) is network.get_classifier()
    assert next(iter(network.state_dict())) == network.default_cfg["first_conv"] + ".weight"


@pytest.mark.parametrize(
    ("kind", "sides"), [("ir", [112, 56, 28, 14, 7]), ("plain", [32, 16, 8])]
)  # fmt: skip
def test_maps_of_every_size(kind, sides):
    network = create(kind, features_only=True).eval()
    maps = run(network, images(kind))
    assert [m.shape[2] for m in maps] == sides
    assert [m.shape[1] for m in maps] == network.feature_info.channels()
    assert [SHAPE[kind][1] // r for r in network.feature_info.reduction()] == sides
    assert len(run(create(kind, features_only=True, out_indices=(1,)), images(kind))) == 1


def test_maps_behind_a_stem_for_large_images():
    tree = COLOUR_PLAIN.adapted(ImageFacts(3, 10, 224)).to_json()
    network = timm.create_model("facenas_found", architecture=tree, features_only=True)
    assert [m.shape[2] for m in run(network, torch.zeros(1, 3, 224, 224))] == [56, 28, 14]
    assert network.feature_info.reduction() == [4, 8, 16]


def test_faces_of_another_size_have_maps_but_no_embedding():
    network = create("ir", features_only=True)
    assert run(network, torch.zeros(1, 3, 224, 224))[-1].shape == (1, 32, 14, 14)
    with pytest.raises(UserError, match="112x112 pixels, not img_size"):
        create("ir", img_size=224)
    with pytest.raises(UserError, match="3 channels, not in_chans=1"):
        create("ir", in_chans=1)


@both
def test_pickle_copy_and_state_dict(kind):
    network, x = create(kind, num_classes=4), images(kind)
    expected = run(network, x)
    for again in (pickle.loads(pickle.dumps(network)), copy.deepcopy(network)):
        assert torch.equal(run(again, x), expected)
        again.reset_classifier(0)
    other = create(kind, num_classes=4)
    assert not torch.equal(run(other, x), expected)
    other.load_state_dict(network.state_dict())
    assert torch.equal(run(other, x), expected)


@both
def test_weights_come_from_torch_s_generator(kind):
    made = []
    for _ in range(2):
        torch.manual_seed(3)
        made.append(create(kind).state_dict())
    assert all(torch.equal(first, second) for first, second in zip(*map(dict.values, made), strict=True))


@pytest.mark.parametrize("kind", ["ir", "plain"])
def test_an_exported_file_loads(kind, tmp_path):
    trained = {"ir": face_network, "plain": plain_network}[kind]()
    arch = {"ir": FACE_ARCH, "plain": PLAIN_ARCH}[kind].to_json()
    file = export_run(make_run(tmp_path / "run", kind, trained), "safetensors")["file"]
    x = images("ir") if kind == "ir" else torch.randn(2, 1, 12, 12)
    network = timm.create_model("facenas_found", architecture=arch, checkpoint_path=file)
    assert torch.equal(run(network, x), run(trained, x))
    tuned = timm.create_model(
        "facenas_found",
        True,
        architecture=arch,
        num_classes=6,
        pretrained_cfg_overlay={"file": file},
    )
    assert run(tuned, x).shape == (2, 6)
    first = network.default_cfg["first_conv"] + ".weight"
    assert torch.equal(tuned.state_dict()[first], trained.state_dict()[first])


@both
def test_timm_s_own_folder_format(kind, tmp_path):
    network = create(kind, num_classes=3)
    save_for_hf(network, tmp_path / "saved", safe_serialization=True)
    again = timm.create_model(f"local-dir:{tmp_path / 'saved'}", pretrained=True)
    assert torch.equal(run(again, images(kind)), run(network, images(kind)))


def test_a_found_architecture_from_its_files(tmp_path):
    best, alone = tmp_path / "best.json", tmp_path / "net.json"
    best.write_text(json.dumps({"architecture": FACE_ARCH.to_json(), "parameters": 1}))
    alone.write_text(json.dumps(FACE_ARCH.to_json()))
    for source in (str(best), alone, FACE_ARCH.to_json()):
        network = timm.create_model("facenas_found", architecture=source)
        assert sum(p.numel() for p in network.parameters()) == FACE_ARCH.count_parameters()
    with pytest.raises(UserError, match=r"none\.json: cannot be read"):
        timm.create_model("facenas_found", architecture=tmp_path / "none.json")
    with pytest.raises(UserError, match="'unheard of' is unknown"):
        timm.create_model("facenas_found", architecture={"kind": "unheard of"})
