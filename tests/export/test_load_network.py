"""Networks out of a run, its checkpoint, an export, and files of other projects: the same outputs each time."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from trained_runs import face_network, make_run, plain_network

from facenas.errors import UserError
from facenas.evaluation.network import Network
from facenas.export import export_run
from facenas.models.load import load_network
from facenas.models.onnx_weights import FOLDED
from facenas.spaces import IRArchitecture

NETWORKS = {"ir": face_network(), "plain": plain_network()}


@pytest.mark.parametrize("kind", ["ir", "plain"])
def test_a_run_its_checkpoint_and_its_export_give_one_network(tmp_path, kind):
    folder = make_run(tmp_path / "run", kind, NETWORKS[kind])
    (folder / "run.yaml").touch()
    exported = export_run(folder, "safetensors")["file"]
    loaded = [load_network(p) for p in (folder, folder / "checkpoints" / "model.pt", exported)]
    images = torch.rand(2, *loaded[0].input_shape)
    with torch.no_grad():
        expected = NETWORKS[kind](images)
        for network in loaded:
            assert torch.equal(network(images), expected)
            assert network.metadata() == loaded[0].metadata()
            assert not network.training


def test_faces_give_unit_embeddings_of_image_and_mirror_image(tmp_path):
    network = Network(load_network(make_run(tmp_path / "run", "ir", NETWORKS["ir"])))
    images = torch.randint(0, 256, (3, 112, 112, 3), dtype=torch.uint8)
    x = (images.permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    with torch.no_grad():
        raw = NETWORKS["ir"](x) + NETWORKS["ir"](x.flip(3))
    found = torch.from_numpy(network.embed(images))
    torch.testing.assert_close(found, raw / raw.norm(dim=1, keepdim=True))
    with pytest.raises(UserError, match="knows no classes"):
        network.predict(images)


def test_classes_have_probabilities(tmp_path):
    network = Network(load_network(make_run(tmp_path / "run", "plain", NETWORKS["plain"])))
    labels, found = network.predict(torch.randint(0, 256, (4, 12, 12, 1), dtype=torch.uint8))
    assert found.shape == (4, len(network.classes))
    assert labels == [network.classes[i] for i in found.argmax(1)]
    torch.testing.assert_close(torch.from_numpy(found).sum(1), torch.ones(4))
    with pytest.raises(UserError, match="gives no embeddings"):
        network.embed(torch.zeros(1, 12, 12, 1, dtype=torch.uint8))


def test_a_checkpoint_of_another_project(tmp_path):
    theirs = IRArchitecture.uniform(4, (1, 1, 1, 1), 8).build(0).eval()
    state = {f"net.{name}": value for name, value in theirs.state_dict().items()}
    torch.save(state, tmp_path / "model.pt")
    network, images = load_network(tmp_path / "model.pt"), torch.rand(2, 3, 112, 112)
    with torch.no_grad():
        assert torch.equal(network(images), theirs(images))
    assert (network.color, network.image_size, network.mean) == ("RGB", 112, (0.5, 0.5, 0.5))


def test_what_is_no_network_is_told(tmp_path):
    with pytest.raises(UserError, match="is missing; `facenas train"):
        load_network(tmp_path)
    with pytest.raises(UserError, match=r"nothing\.pt: cannot be read"):
        load_network(tmp_path / "nothing.pt")


def test_an_onnx_export_gives_the_weights_back(tmp_path):
    """BatchNorm is folded in it; the metadata undo that, also of a channel that it scaled by 0."""
    network = face_network()
    with torch.no_grad():
        network.input_layer[1].weight[1] = 0
    file = export_run(make_run(tmp_path / "run", "ir", network), "onnx")["file"]
    found = load_network(file)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(found.network.state_dict()[name], value, rtol=1e-6, atol=0)
    assert found.metadata() == load_network(tmp_path / "run").metadata()


def test_another_onnx_file_is_refused_with_the_reason(tmp_path):
    file = Path(export_run(make_run(tmp_path / "run", "plain", NETWORKS["plain"]), "onnx")["file"])
    model = onnx.load(file)
    entries = {entry.key: entry for entry in model.metadata_props}
    faults = {FOLDED: "lacks the weights that were folded", "facenas_version": "was not exported by facenas"}
    for removed, told in faults.items():
        model.metadata_props.remove(entries[removed])
        onnx.save(model, file)
        with pytest.raises(UserError, match=rf"run\.onnx: {told}"):
            load_network(file)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match="is no whole ONNX file"):
        load_network(file)
