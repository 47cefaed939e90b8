"""Exported files: loaded back here by other means than the export's own, they give what the network gives."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load, load_file, save
from trained_runs import FACE_ARCH, PLAIN_ARCH, face_network, make_run, plain_network

from facenas import __version__
from facenas.errors import SearchStoppedError, UserError
from facenas.export import export_run, files
from facenas.spaces import from_json

NETWORKS = {"ir": face_network(), "plain": plain_network()}
OUTPUT = {"ir": "embedding", "plain": "logits"}
SIDE = {"ir": 112, "plain": 12}


@pytest.fixture
def run(tmp_path, kind):
    return make_run(tmp_path / "casia", kind, NETWORKS[kind])


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """What export_run returned, by (kind, format): an ONNX export takes seconds, so each is made once."""

    @cache
    def export(kind, format):
        folder = tmp_path_factory.mktemp("runs") / "casia"
        return export_run(make_run(folder, kind, NETWORKS[kind]), format)

    return export


both = pytest.mark.parametrize("kind", ["ir", "plain"])
formats = pytest.mark.parametrize("format", ["onnx", "safetensors"])
faces = pytest.mark.parametrize("kind", ["ir"])


def pixels(kind, count):
    """(n, h, w, c) uint8 images, as a user has them."""
    channels = 3 if kind == "ir" else 1
    shape = (count, SIDE[kind], SIDE[kind], channels)
    return np.random.default_rng(count).integers(0, 256, shape, dtype=np.uint8)


def prepared(images, metadata):
    """(n, c, h, w) float32, by what the file says and nothing else."""
    assert metadata["layout"] == "NCHW float32, (pixel / 255 - mean) / std"
    mean, std = json.loads(metadata["mean"]), json.loads(metadata["std"])
    assert images.shape[1] == int(metadata["image_size"])
    return ((images / 255 - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)


def expected(kind, images):
    x = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    mean, std = (0.5, 0.5) if kind == "ir" else (0.31, 0.27)
    with torch.no_grad():
        return NETWORKS[kind]((x - mean) / std).numpy()


@both
@pytest.mark.parametrize("count", [1, 5])
def test_onnx_by_onnxruntime(exported, kind, count):
    file = exported(kind, "onnx")["file"]
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    images = pixels(kind, count)
    (found,) = session.run([OUTPUT[kind]], {"images": prepared(images, metadata)})
    np.testing.assert_allclose(found, expected(kind, images), rtol=1e-3, atol=1e-4)


@both
def test_safetensors_in_a_network_built_from_its_metadata(exported, kind):
    path = exported(kind, "safetensors")["file"]
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    arch = from_json(json.loads(metadata["architecture"]))
    network = arch.build(9)
    weights = load_file(path)
    network.load_state_dict(weights)
    assert {w.dtype for n, w in weights.items() if "num_batches" not in n} == {torch.float32}
    images = pixels(kind, 4)
    with torch.no_grad():
        found = network.eval()(torch.from_numpy(prepared(images, metadata))).numpy()
    np.testing.assert_allclose(found, expected(kind, images), rtol=1e-5, atol=1e-5)


@both
@formats
def test_what_the_command_tells(exported, kind, format):
    result = dict(exported(kind, format))
    file = Path(result["file"])
    assert (file.parent.parent.name, file.parent.name) == ("casia", "export")
    assert file.name == f"casia.{format}"
    assert result.pop("min_cosine") > 0.99999
    assert 0 <= result.pop("max_abs_difference") < 1e-3
    assert result == {
        "file": str(file),
        "format": format,
        "bytes": file.stat().st_size,
        "images_compared": 64,
    }
    assert list(file.parent.iterdir()) == [file]


@both
@formats
def test_metadata(exported, kind, format):
    file = exported(kind, format)["file"]
    if format == "onnx":
        metadata = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
    else:
        with safe_open(file, "pt") as opened:
            metadata = opened.metadata()
    arch = FACE_ARCH if kind == "ir" else PLAIN_ARCH
    assert from_json(json.loads(metadata["architecture"])) == arch
    assert metadata["facenas_version"] == __version__
    assert metadata["colour"] == ("RGB" if kind == "ir" else "grey")
    assert metadata["output"].startswith(OUTPUT[kind])
    assert ("L2 norm" in metadata["output"]) == (kind == "ir")
    if kind == "plain":
        assert json.loads(metadata["classes"])[3] == "class 3"


def test_the_onnx_file_is_whole_current_and_tells_nothing_of_this_machine(exported):
    path = Path(exported("ir", "onnx")["file"])
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [(o.domain, o.version >= 17) for o in model.opset_import] == [("", True)]
    (entry,), (out,) = model.graph.input, model.graph.output
    sizes = [d.dim_param or d.dim_value for d in entry.type.tensor_type.shape.dim]
    assert (entry.name, sizes) == ("images", ["n", 3, 112, 112])
    sizes = [d.dim_param or d.dim_value for d in out.type.tensor_type.shape.dim]
    assert (out.name, sizes) == ("embedding", ["n", 32])
    assert b"site-packages" not in path.read_bytes()
    assert b".py" not in path.read_bytes()


def tampered_onnx(content):
    model = onnx.load_from_string(content)
    weights = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    values = onnx.numpy_helper.to_array(weights).copy()
    values[0] = -values[0] - 1
    weights.raw_data = values.tobytes()
    return model.SerializeToString()


def tampered_safetensors(content):
    weights = load(content)
    largest = max(weights.values(), key=lambda tensor: tensor.numel())
    largest[0] = -largest[0] - 1
    return save(weights)


TAMPERED = {"onnx": tampered_onnx, "safetensors": tampered_safetensors}


@both
@formats
@pytest.mark.parametrize("earlier", [False, True], ids=["first", "again"])
def test_a_tampered_weight_fails_and_leaves_no_file(exported, run, kind, format, earlier, monkeypatch):
    content = Path(exported(kind, format)["file"]).read_bytes()
    file = run / "export" / f"casia.{format}"
    if earlier:
        file.parent.mkdir()
        file.write_bytes(b"an earlier export")
    tampered, load_back = TAMPERED[format](content), files._FORMATS[format][1]
    monkeypatch.setitem(files._FORMATS, format, (lambda trained: tampered, load_back))
    with pytest.raises(SearchStoppedError, match=r"cosine \S+ on the worst of 64 images"):
        export_run(run, format)
    assert list(file.parent.iterdir()) == [file] * earlier
    assert not earlier or file.read_bytes() == b"an earlier export"


def test_weights_that_are_not_numbers_fail(tmp_path):
    weights = {name: w.clone() for name, w in NETWORKS["ir"].state_dict().items()}
    next(iter(weights.values()))[0] = float("nan")
    broken = make_run(tmp_path / "broken", "ir", NETWORKS["ir"], model=weights)
    with pytest.raises(SearchStoppedError, match="cosine nan"):
        export_run(broken, "safetensors")
    assert not list(broken.glob("export/*"))


def test_an_untrained_run(tmp_path):
    with pytest.raises(UserError, match=r"model\.pt: is missing; `facenas train"):
        export_run(tmp_path, "onnx")
    assert not list(tmp_path.iterdir())


@faces
def test_a_truncated_model(run):
    path = run / "checkpoints" / "model.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"model\.pt: is damaged"):
        export_run(run, "onnx")


def test_weights_of_another_architecture(tmp_path):
    other = FACE_ARCH.with_width(8).to_json()
    run = make_run(tmp_path / "casia", "ir", NETWORKS["ir"], architecture=other)
    with pytest.raises(UserError, match=r"model\.pt: holds 64,546 numbers, too few for"):
        export_run(run, "onnx")


@faces
@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_extra(run, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    sentence = rf"{package}, which is not installed: pip install 'facenas\[onnx\]'"
    with pytest.raises(UserError, match=sentence):
        export_run(run, "onnx")
    assert not (run / "export").exists()


@faces
def test_a_file_of_ones_own_choice(run, tmp_path):
    out = tmp_path / "models" / "mine.bin"
    assert export_run(run, "safetensors", out)["file"] == str(out)
    assert load_file(out).keys() == NETWORKS["ir"].state_dict().keys()
    with pytest.raises(UserError, match="models: is a folder"):
        export_run(run, "safetensors", tmp_path / "models")
    with pytest.raises(UserError, match=r"mine\.bin: cannot be made"):
        export_run(run, "safetensors", out / "below.safetensors")


@faces
def test_a_full_disk_leaves_no_file(run):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(SearchStoppedError, match="cannot be written"):
            export_run(run, "safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list((run / "export").iterdir())


@pytest.mark.parametrize(
    ("module", "heavy"),
    [("facenas.cli", "torch timm onnx onnxruntime"), ("facenas.export", "timm onnx onnxruntime")],
)
def test_heavy_packages_are_imported_late(module, heavy):
    code = f"import {module}, sys; print([name for name in '{heavy}'.split() if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
