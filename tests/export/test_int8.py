"""int8 files: opened as any ONNX file, near to the float network, always the same, or refused with figures."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import facenas
from facenas.errors import SearchStoppedError, UserError
from facenas.evaluation.embedders import InputOptions, open_embedder
from facenas.export import int8_graph
from facenas.export.calibration import Histogram
from facenas.export.int8 import Accuracy, _calibration_images, _Found, _Network, cosines


def crops(folder: Path, count: int) -> Path:
    """Smooth random pictures, two of each person alike."""
    rng = np.random.default_rng(count)
    for number in range(count):
        if number % 2 == 0:
            coarse = rng.integers(0, 256, (7, 7, 3), np.uint8)
        noisy = np.clip(coarse + rng.normal(0, 12, coarse.shape), 0, 255).astype(np.uint8)
        picture = Image.fromarray(noisy).resize((112, 112), Image.Resampling.BICUBIC)
        (folder / f"p{number // 2}").mkdir(parents=True, exist_ok=True)
        picture.save(folder / f"p{number // 2}" / f"{number}.png")
    return folder


def mobile(path: Path, blocks: int = 4) -> Path:
    """A small MobileFaceNet as published files are: no names, raw pixels, BatchNorms, steep PReLUs."""
    rng = np.random.default_rng(3)
    nodes, values, channels = [], {}, 3

    def layer(x, kind, out, after, **settings):
        names = []
        for number, shape in enumerate(after):
            names.append(f"{x}/{kind}/{number}")
            fan = np.prod(shape[1:]) if len(shape) > 1 else 1
            value = rng.normal(0, 1 / np.sqrt(fan), shape) if len(shape) > 1 else rng.uniform(0.5, 3, shape)
            values[names[-1]] = value.astype(np.float32)
        nodes.append(helper.make_node(kind, [x, *names], [out], **settings))
        return out

    values |= {"half": np.float32(127.5), "scale": np.float32(1 / 128)}
    nodes.append(helper.make_node("Sub", ["x", "half"], ["x0"]))
    nodes.append(helper.make_node("Mul", ["x0", "scale"], ["x1"]))
    x = "x1"
    convolutions = [(8, 1, 3, 4), (8, 8, 3, 2), (16, 1, 1, 1), (16, 16, 3, 2)][:blocks]
    side = 112
    for number, (width, groups, kernel, stride) in enumerate(convolutions):
        side //= stride
        shape = (width, channels // groups, kernel, kernel)
        settings = {
            "kernel_shape": [kernel] * 2,
            "strides": [stride] * 2,
            "pads": [kernel // 2] * 4,
            "group": groups,
        }
        x = layer(x, "Conv", f"c{number}", [shape], **settings)
        x = layer(x, "BatchNormalization", f"b{number}", [(width,)] * 4)
        x, channels = layer(x, "PRelu", f"p{number}", [(width, 1, 1)]), width
    nodes.append(helper.make_node("Flatten", [x], ["flat"]))
    x = layer("flat", "Gemm", "g", [(channels * side**2, 8), (8,)])
    x = layer(x, "BatchNormalization", "y", [(8,)] * 4)
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 112, 112])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 8])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=8), path)
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The small network's file, its folder of crops, and what an export in int8 gave."""
    folder = tmp_path_factory.mktemp("int8")
    data = crops(folder / "crops", 48)
    out = folder / "net8.onnx"
    return mobile(folder / "net.onnx"), data, facenas.export_int8(folder / "net.onnx", data, out, tolerance=0.5)


def test_the_file_is_an_embedder_near_to_the_float_one(made, tmp_path):
    source, _, told = made
    file = Path(told["file"])
    before, after = open_embedder(source), open_embedder(file)
    images = np.stack([np.asarray(Image.open(path)) for path in crops(tmp_path, 10).rglob("*.png")])
    assert cosines(before(images), after(images)).mean() > 0.98
    assert told["bytes"] == file.stat().st_size < 0.7 * told["float_bytes"]
    assert (told["images_calibrated"], told["images_compared"], told["threshold_cosine"]) == (24, 12, None)
    assert 0.975 < told["cosine_least"] <= told["cosine_mean"] <= 1
    assert after.facts["int8"]["percentile"] == told["percentile"]
    # It tells its input itself: raw pixels, as the graph of the original begins. BatchNorms are folded.
    assert (after.facts["mean"], after.facts["std"], after.facts["color_said_by"]) == ([0], [1], "the file")
    assert after.facts["parameters"] == pytest.approx(before.facts["parameters"], rel=0.05)


def test_every_layer_of_the_file_computes_in_int8(made):
    graph = onnx.load(made[2]["file"]).graph
    onnx.checker.check_model(onnx.load(made[2]["file"]), full_check=True)
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    read = {
        node.output[0]: types.get(node.input[0]) for node in graph.node if node.op_type == "DequantizeLinear"
    }
    weights = [read[node.input[1]] for node in graph.node if node.op_type in ("Conv", "Gemm")]
    assert weights == [TensorProto.INT8] * 5
    assert not [node for node in graph.node if node.op_type in ("PRelu", "BatchNormalization")]
    scales = {tensor.name: list(tensor.dims) for tensor in graph.initializer if tensor.name.endswith("_scale")}
    assert scales["x1/Conv/0_scale"] == [8]


def test_the_same_arguments_give_the_same_file_and_a_threshold_is_moved(made, tmp_path):
    source, data, told = made
    again = facenas.export_int8(source, data, tmp_path / "b.onnx", tolerance=0.5)
    assert Path(again["file"]).read_bytes() == Path(told["file"]).read_bytes()
    moved = facenas.export_int8(source, data, tmp_path / "c.onnx", tolerance=0.5, threshold=0.4)
    assert moved["threshold_cosine"] == pytest.approx(0.4, abs=0.03)
    assert open_embedder(tmp_path / "c.onnx").facts["threshold_cosine"] == moved["threshold_cosine"]
    other = facenas.export_int8(source, data, tmp_path / "d.onnx", tolerance=0.5, threshold=0.5)
    assert other["threshold_cosine"] != moved["threshold_cosine"]
    assert len({open_embedder(tmp_path / name).fingerprint for name in ("c.onnx", "d.onnx")}) == 1


def test_pairs_are_measured_and_layers_stay_in_float_where_much_is_wanted(made, tmp_path):
    source, data, _ = made
    names = sorted(path.relative_to(data).as_posix() for path in data.rglob("*.png"))
    same = [f"{names[i]} {names[i + 1]} 1" for i in range(0, 40, 2)]
    other = [f"{names[i]} {names[(i + 5) % 48]} 0" for i in range(0, 40, 2)]
    pairs = tmp_path / "pairs.txt"
    pairs.write_text("\n".join(line for both in zip(same, other, strict=True) for line in both) + "\n")
    told = facenas.export_int8(source, data, tmp_path / "p.onnx", tolerance=0.03, pairs=pairs, pairs_data=data)
    assert told["pairs"] == 40
    table = tmp_path / "pairs.csv"
    table.write_text("image1,image2,same\n" + pairs.read_text().replace(" ", ","))
    again = facenas.export_int8(source, data, tmp_path / "c.onnx", tolerance=0.03, pairs=table, pairs_data=data)
    assert (tmp_path / "c.onnx").read_bytes() == (tmp_path / "p.onnx").read_bytes()
    assert again["pairs"] == 40
    assert told["float_accuracy"] - told["accuracy"] <= 0.0003
    assert told["float_layers"], "a cosine of 0.9985 is tried first"
    assert 1 <= told["rounds"] <= 3
    assert -1 < told["threshold_cosine"] < 1
    graph = onnx.load(told["file"]).graph
    floats = {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
    assert [n.name for n in graph.node if n.op_type in ("Conv", "Gemm") and n.input[1] in floats]


def test_a_network_without_two_convolutions_in_a_row(made, tmp_path):
    told = facenas.export_int8(mobile(tmp_path / "a.onnx", 1), made[1], tmp_path / "b.onnx", tolerance=1)
    assert (told["float_layers"], told["cosine_mean"] > 0.95) == ([], True)


def refused(made, out, error, match, **more):
    with pytest.raises(error, match=match):
        facenas.export_int8(more.pop("source", made[0]), more.pop("data", made[1]), out, **more)
    assert not out.parent.exists() or list(out.parent.iterdir()) == []


def test_a_tolerance_that_is_missed_is_told_with_figures_and_nothing_is_written(made, tmp_path):
    match = (
        r"loses more in int8 .* of 0\.0001 points \(cosine 0\.\d{4}, the least 0\.\d{4}\).*no file was written"
    )
    refused(made, tmp_path / "new" / "a.onnx", SearchStoppedError, match, tolerance=0.0001)


def test_the_model_itself_is_not_written_over(made, tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    model, link = mobile(folder / "net.onnx"), tmp_path / "link.onnx"
    link.symlink_to(model)
    content = model.read_bytes()
    for out in (model, link, folder / ".." / "own" / "net.onnx"):
        with pytest.raises(UserError, match=r"is the model itself.*give another out"):
            facenas.export_int8(model, made[1], out, tolerance=0.5)
    assert model.read_bytes() == content


def with_length(source: Path, path: Path, second: bool) -> Path:
    """The network with a unit vector and its length as outputs, as AdaFace's; second: and another vector."""
    model = onnx.load(source)
    graph = model.graph
    graph.node.append(helper.make_node("ReduceL2", ["y"], ["length"], axes=[1], keepdims=1))
    graph.node.append(helper.make_node("Div", ["y", "length"], ["unit"]))
    graph.node.append(helper.make_node("Neg", ["y"], ["other"]))
    del graph.output[:]
    for name, size in (("unit", 8), ("length", 1), ("other", 8))[: 3 if second else 2]:
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size]))
    onnx.save(model, path)
    return path


def test_a_network_with_several_outputs(made, tmp_path):
    two = with_length(mobile(tmp_path / "a.onnx", 1), tmp_path / "two.onnx", second=False)
    told = facenas.export_int8(two, made[1], tmp_path / "two8.onnx", tolerance=1)
    images = np.stack([np.asarray(Image.open(path)) for path in sorted(made[1].rglob("*.png"))[:4]])
    before, after = open_embedder(two)(images), open_embedder(told["file"])(images)
    assert cosines(before, after).min() > 0.95
    np.testing.assert_allclose(np.linalg.norm(after, axis=1), np.linalg.norm(before, axis=1), rtol=0.1)

    three = with_length(tmp_path / "a.onnx", tmp_path / "three.onnx", second=True)
    with pytest.raises(UserError, match=r"three.onnx: has the outputs .*name the embedding"):
        facenas.export_int8(three, made[1], tmp_path / "no.onnx", tolerance=1)
    told = facenas.export_int8(
        three, made[1], tmp_path / "b.onnx", tolerance=1, input=InputOptions(embedding="unit")
    )
    graph = onnx.load(told["file"]).graph
    assert [output.name for output in graph.output] == ["unit"]
    assert "Neg" not in {node.op_type for node in graph.node}
    assert cosines(before, open_embedder(told["file"])(images)).min() > 0.95


def test_a_loss_of_exactly_the_tolerance_is_no_more_than_it():
    for right in range(6, 6001):
        found = _Found(None, 1, 1, Accuracy((right - 6) / 6000, 0, 6000))
        assert found.lost(Accuracy(right / 6000, 0, 6000)) == 0.1


def test_layers_left_in_float_keep_their_own_biases(made):
    images = _calibration_images(made[1])
    network = _Network(made[0], open_embedder(made[0]), InputOptions(), images)
    assert network.biases_corrected
    assert network._quantized([node.name for node in int8_graph.layers(network.model)])[1] > 1 - 1e-9
    assert network._quantized(())[1] == network.cosine


def test_a_bias_that_two_layers_share_is_corrected_for_each(tmp_path):
    prepared = int8_graph.prepare(onnx.load(mobile(tmp_path / "a.onnx")))
    one, two = int8_graph.layers(prepared)[:2]
    two.input[2] = one.input[2]
    biases = {one.name: np.full(8, 1, np.float32), two.name: np.full(8, 2, np.float32)}
    given = int8_graph.with_biases(prepared, biases)
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in given.graph.initializer}
    found = {node.name: values[node.input[2]] for node in int8_graph.layers(given)}
    assert [found[name][0] for name in biases] == [1, 2]


def test_a_network_whose_activations_are_not_finite(made, tmp_path):
    model = onnx.load(made[0])
    for tensor in model.graph.initializer:
        if tensor.name == "c0/BatchNormalization/0":
            tensor.CopyFrom(numpy_helper.from_array(np.full(8, 1e37, np.float32), tensor.name))
    onnx.save(model, tmp_path / "endless.onnx")
    out = tmp_path / "o" / "a.onnx"
    refused(made, out, UserError, "not finite .*check the network", source=tmp_path / "endless.onnx")


def test_faults_of_images_and_files(made, tmp_path):
    out = tmp_path / "out" / "a.onnx"
    few = crops(tmp_path / "few", 5)
    refused(made, out, UserError, "holds 5 images; calibration needs 32 or more", data=few)
    (tmp_path / "none").mkdir()
    refused(made, out, UserError, "holds no images", data=tmp_path / "none")
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(made[0].read_bytes()[:900])
    refused(made, out, UserError, "is no whole ONNX file", source=damaged)
    refused(made, out, UserError, "tolerance 0: should be above 0", tolerance=0)
    listed = tmp_path / "own.txt"
    listed.write_text("p0/0.png p0/1.png 1\n")
    refused(made, out, UserError, "own.txt: is a list of pairs; .*--pairs-data", pairs=listed)


def test_a_full_disk(made, tmp_path, monkeypatch):
    def full(self, data):
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    refused(
        made, tmp_path / "o" / "a.onnx", SearchStoppedError, "No space left on device.*make room", tolerance=0.5
    )


def test_without_the_extra(made, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    refused(made, tmp_path / "o" / "a.onnx", UserError, r"pip install 'facenas\[onnx\]'")


def test_histograms_give_percentiles_of_all_that_was_added():
    rng = np.random.default_rng(0)
    parts = [rng.normal(0.5, scale, 50_000).astype(np.float32) for scale in (0.1, 1, 30)]
    found = Histogram()
    for part in parts:
        found.add(part)
    values = np.concatenate(parts)
    assert found.counts.sum() == len(values)
    for percentile in (99.99, 99, 90):
        cut = (100 - percentile) / 2
        expected = np.percentile(values, [cut, 100 - cut])
        np.testing.assert_allclose(found.range(percentile), expected, rtol=0.01, atol=2 * found.width)
    assert found.range(100) == (values.min(), values.max())


def test_what_precedes_the_quantiser_changes_no_result(made):
    import onnxruntime

    model = onnx.load(made[0])
    prepared = int8_graph.prepare(model)
    assert len({node.name for node in prepared.graph.node}) == len(prepared.graph.node)
    rng = np.random.default_rng(1)
    peaks = {
        name: rng.uniform(0.1, 9, len(onnx.numpy_helper.to_array(weights))).astype(np.float32)
        for chain in int8_graph.chains(prepared)
        for name in chain.tensors
        for weights in prepared.graph.initializer
        if weights.name == chain.first.input[1]
    }
    assert len(peaks) == 6, "three pairs of convolutions, before and after the activation"
    changed = int8_graph.expand_prelu(int8_graph.equalize(prepared, peaks))
    images = rng.uniform(0, 255, (3, 3, 112, 112)).astype(np.float32)
    before, after = (
        onnxruntime.InferenceSession(one.SerializeToString(), providers=["CPUExecutionProvider"]).run(
            None, {"x": images}
        )[0]
        for one in (model, changed)
    )
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4 * np.abs(before).max())


def test_the_command_and_its_exit_codes(made, tmp_path, capsys):
    from facenas.cli import main

    source, data, out = str(made[0]), str(made[1]), str(tmp_path / "a.onnx")

    def export(*words):
        with pytest.raises(SystemExit) as done:
            main(["export", source, "--runs-dir", str(tmp_path), *words])
        return done.value.code or 0, capsys.readouterr()

    code, told = export(
        "--int8", "--calibrate", data, "--out", out, "--tolerance", "0.5", "--input-color", "rgb", "--json"
    )
    assert (code, json.loads(told.out)["bytes"]) == (0, Path(out).stat().st_size)
    assert "assumed" not in told.err
    code, told = export("--int8", "--out", str(tmp_path / "b.onnx"))
    assert (code, "add --calibrate DATA" in told.err) == (2, True)
    code, told = export("--calibrate", data)
    assert (code, "add --int8" in told.err) == (2, True)
    code, told = export(
        "--int8", "--calibrate", data, "--out", str(tmp_path / "b.onnx"), "--tolerance", "0.0001"
    )
    assert (code, "no file was written" in told.err) == (1, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx"]
