"""Foreign checkpoints that are unsafe, torn or something else: one sentence, and nothing of them is run."""

from __future__ import annotations

import os
import pickle
import sys
import zipfile
from argparse import Namespace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from facenas.errors import UserError
from facenas.models.import_weights import load_foreign
from facenas.spaces import IRArchitecture

NETWORK = IRArchitecture.uniform(4, (1, 1, 1, 1), 8).build(0)


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


def weights(prefix: str = "model.") -> dict[str, Tensor]:
    return {f"{prefix}{k}": v for k, v in NETWORK.state_dict().items()}


def saved(folder: Path, tree: object, **options: object) -> Path:
    torch.save(tree, folder / "weights.ckpt", **options)
    return folder / "weights.ckpt"


def refused(path: Path, *words: str) -> None:
    with pytest.raises(UserError) as error:
        load_foreign(path)
    message = str(error.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_checkpoint_that_would_run_a_command_is_refused(tmp_path, zipped):
    mark = tmp_path / "ran"
    tree = {"state_dict": weights(), "hyper_parameters": Evil(f"touch {mark}")}
    path = saved(tmp_path, tree, _use_new_zipfile_serialization=zipped)
    refused(path, *(["posix.system"] if zipped else []), "safetensors")
    assert not mark.exists()


def test_a_bare_pickle_is_refused(tmp_path):
    mark, path = tmp_path / "ran", tmp_path / "model.pt"
    path.write_bytes(pickle.dumps(Evil(f"touch {mark}"), protocol=2))
    refused(path, "safetensors")
    assert not mark.exists()


def test_settings_that_lightning_leaves_are_passed_over(tmp_path, monkeypatch):
    """Dotdict and callbacks by their class, as AdaFace's checkpoints have them; neither module is imported."""
    modules = {name: ModuleType(name) for name in ("utils", "pytorch_lightning", "pytorch_lightning.callbacks")}
    kinds = {
        "utils": type("dotdict", (dict,), {"__module__": "utils"}),
        "pytorch_lightning.callbacks": type(
            "ModelCheckpoint", (), {"__module__": "pytorch_lightning.callbacks"}
        ),
    }
    with monkeypatch.context() as patch:
        for name, module in modules.items():
            patch.setitem(sys.modules, name, module)
        for name, kind in kinds.items():
            setattr(modules[name], kind.__name__, kind)
        tree = {
            "state_dict": weights(),
            "hyper_parameters": kinds["utils"](lr=0.1, arch="ir_18"),
            "callbacks": {kinds["pytorch_lightning.callbacks"]: {"best_model_score": torch.ones(1)}},
            "args": Namespace(m=0.4, h=0.333),
        }
        path = saved(tmp_path, tree)
    foreign = load_foreign(path)
    assert foreign.architecture.stages == (1, 1, 1, 1)
    assert not {"utils", "pytorch_lightning"} & set(sys.modules)


CONTAINERS = {
    "state_dict_backbone": lambda net: {"epoch": 3, "state_dict_backbone": net, "state_dict_softmax_fc": {}},
    "model": lambda net: {"model": net, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}},
    "backbone": lambda net: {"backbone": net, "best": np.float64(99.5), "at": np.int64(3)},
    "numpy": lambda net: {"state_dict": net, "accuracies": np.array([0.5, 0.75]), "lr": np.float32(0.1)},
    "nested": lambda net: {"a": {"b": {"module": net}}},
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", CONTAINERS)
def test_weights_are_found_wherever_a_training_put_them(tmp_path, name, zipped):
    if not zipped and name == "numpy":
        pytest.skip("arrays in a file from before torch 1.6")
    path = saved(tmp_path, CONTAINERS[name](weights("net.")), _use_new_zipfile_serialization=zipped)
    assert load_foreign(path).architecture.stages == (1, 1, 1, 1)


def test_of_two_networks_in_a_file_one_is_asked_for(tmp_path):
    flat = {**weights("student.net."), **{k: v + 1 for k, v in weights("teacher.net.").items()}}
    for tree in (flat, {"student": weights("net."), "teacher": {k: v + 1 for k, v in weights("net.").items()}}):
        path = saved(tmp_path, tree)
        refused(path, "holds 2 networks; say by prefix which is meant: student.net, teacher.net")
        for wanted in ("teacher", "teacher.net."):
            found = load_foreign(path, wanted=wanted).backbone["output_layer.3.bias"]
            assert torch.equal(found, NETWORK.state_dict()["output_layer.3.bias"] + 1)
        with pytest.raises(UserError, match="0 of its networks are ema; say by prefix"):
            load_foreign(path, wanted="ema")


def test_what_only_claims_to_be_large_is_refused(tmp_path):
    huge = torch.ones(1, dtype=torch.float16).expand(1 << 20, 1 << 20)
    refused(saved(tmp_path, weights() | {"model.input_layer.0.weight": huge}), "is no plain tensor")
    path = saved(tmp_path, {"state_dict": weights()})
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("weights/data/999", bytes(10_000_000))
    refused(path, "packed to a small part of its size")


@pytest.mark.parametrize("tree", [[], {}, 7, {"state_dict": [1]}, {"state_dict": {1: torch.ones(1)}}])
def test_a_checkpoint_of_something_else_holds_no_network(tmp_path, tree):
    refused(saved(tmp_path, tree), "holds no face network")
    (tmp_path / "weights.ckpt").write_bytes(b"")
    refused(tmp_path / "weights.ckpt", "not a whole checkpoint")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_truncated_file_is_told_in_a_sentence(tmp_path, share, zipped):
    path = saved(tmp_path, {"state_dict": weights()}, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    refused(path)


def test_a_truncated_safetensors_file_is_told_in_a_sentence(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "model.safetensors"
    save_file(weights("net."), path)
    path.write_bytes(path.read_bytes()[:5000])
    refused(path, "not a whole checkpoint")


def test_files_that_are_something_else(tmp_path):
    refused(tmp_path / "missing.ckpt", "cannot be read")
    refused(tmp_path, "cannot be read")
    text = tmp_path / "text.ckpt"
    text.write_text("not a checkpoint")
    refused(text)


def test_checkpoints_of_other_networks(tmp_path):
    refused(saved(tmp_path, {"state_dict": {"fc.weight": torch.ones(2)}}), "no face network")
    refused(saved(tmp_path, [torch.ones(2)]), "no face network")
    resnet = {"conv1.weight": torch.ones(64, 3, 7, 7), "layer1.0.bn4.weight": torch.ones(64)}
    refused(saved(tmp_path, resnet), "layer1.0.bn4.weight")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"body.1.res_layer.4.weight": None},
            "body.1.res_layer.4.weight is missing, but should be 8x8x3x3",
        ),
        ({"body.1.res_layer.4.weight": (8, 8, 5, 5)}, "is 8x8x5x5, but should be 8x8x3x3"),
        ({"body.1.res_layer.1.weight": None}, "lacks weights"),
        ({"body.1.res_layer.1.weight": (8, 4)}, "lacks weights"),
        ({"body.1.res_layer.1.weight": (8, 4, 1, 1)}, "bottlenecks"),
        ({"body.1.res_layer.1.weight": (16, 4, 3, 3)}, "four stages"),
        ({"body.x.weight": (1,)}, "lacks weights"),
        ({"extra.weight": (2, 2)}, "extra.weight is 2x2, but should be missing"),
        ({"output_layer.3.weight": None}, "lacks weights"),
        ({"output_layer.4.running_mean": ()}, "is a number, but should be 8"),
    ],
)
def test_networks_that_are_not_whole(tmp_path, change, words):
    tree = weights()
    for key, shape in change.items():
        tree.pop(f"model.{key}", None)
        if shape is not None:
            tree[f"model.{key}"] = torch.ones(shape)
    refused(saved(tmp_path, {"state_dict": tree}), words)


def test_names_that_do_not_tell_the_colours(tmp_path):
    refused(saved(tmp_path, weights("")), "RGB or BGR")


def test_an_insightface_network_with_a_scaled_last_norm(tmp_path):
    tree = {"conv1.weight": torch.ones(4, 3, 3, 3), "features.weight": torch.full((8,), 2.0)}
    refused(saved(tmp_path, tree), "should all be 1")
