"""ONNX files of many makers: what they take, what is assumed, and one sentence for what cannot be."""

from __future__ import annotations

import json
import logging
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper  # noqa: E402
from onnx_files import SIZE, WEIGHTS, expected, summing, write  # noqa: E402

from facenas.errors import UserError  # noqa: E402
from facenas.evaluation.embedders import InputOptions, open_embedder  # noqa: E402
from facenas.evaluation.embedders.onnx_graph import (  # noqa: E402
    constants,
    read_graph,
    use_fast_prelu,
)

IMAGES = np.random.default_rng(0).integers(0, 256, (11, 112, 112, 3), np.uint8)
MOBILEFACENET = Path(__file__).parents[2].parent / "shared/data/models/mobilefacenet_y1.onnx"
RAW = InputOptions(mean=(0,), std=(1,))


def close(found, wanted):
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


def sentence(path, *arguments, **options):
    with pytest.raises(UserError) as caught:
        open_embedder(path, *arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_nothing_said(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        embedder = open_embedder(summing(tmp_path / "a.onnx"))
    close(embedder(IMAGES), expected(IMAGES))
    facts = embedder.facts
    assert (embedder.name, embedder.size, facts["parameters"]) == (
        "a.onnx",
        SIZE,
        SIZE * 3 * 112**2,
    )
    assert (facts["color"], facts["mean"], facts["values_said_by"]) == ("rgb", [127.5], "assumed")
    assert [r.message for r in caplog.records] == [
        f"{tmp_path / 'a.onnx'}: does not say what it takes; assumed: RGB pixels, (pixel - 127.5) / 127.5; "
        "otherwise give color, mean, std (--input-color, --mean, --std)"
    ]
    assert embedder(IMAGES[:0]).shape == (0, SIZE)


def test_what_the_user_says(tmp_path, caplog):
    path = summing(tmp_path / "a.onnx")
    mean, std = (104.0, 117.0, 123.0), (57.0, 58.0, 59.0)
    with caplog.at_level(logging.WARNING):
        chosen = open_embedder(path, InputOptions("BGR", mean, std))
    close(chosen(IMAGES), expected(IMAGES, np.array(mean), np.array(std), bgr=True))
    assert not caplog.records
    assert (chosen.facts["color"], chosen.facts["mean"]) == ("bgr", list(mean))
    prints = {open_embedder(path, o).fingerprint for o in (None, RAW, InputOptions("bgr"))}
    assert len(prints | {chosen.fingerprint}) == 4


@pytest.mark.parametrize(
    ("before", "mean", "std"),
    [
        ([("Sub", 127.5), ("Mul", 0.0078125)], 127.5, 128),
        ([("Sub", 127.5), ("Div", 128)], 127.5, 128),
        ([("Mul", 1 / 127.5), ("Add", -1)], 127.5, 127.5),
        ([("Div", 255)], 0, 255),
        ([("Sub", np.full((3, 1, 1), 120))], 120, 1),
        ([("Sub", 0.5), ("Div", 0.5)], 127.5, 127.5),  # of 0..1
        ([("Mul", 2), ("Sub", 1)], 127.5, 127.5),
    ],
)
def test_a_graph_that_scales_its_input_itself(before, mean, std, tmp_path):
    embedder = open_embedder(summing(tmp_path / "a.onnx", before))
    close(embedder(IMAGES), expected(IMAGES, mean, std))
    assert embedder.facts["values_said_by"] == "how the graph begins"


def test_metadata(tmp_path):
    said = {"facenas_version": "0", "mean": "[0.4, 0.5, 0.6]", "std": "[0.2, 0.3, 0.4]"}
    said |= {"colour": "RGB", "output": "embedding, not normalised"}
    path = summing(tmp_path / "a.onnx", **said)
    mean, std = (255 * np.array(json.loads(said[key])) for key in ("mean", "std"))
    close(open_embedder(path)(IMAGES), expected(IMAGES, mean, std))
    close(open_embedder(path, RAW)(IMAGES), expected(IMAGES, 0, 1))
    logits = summing(tmp_path / "b.onnx", **said | {"output": "logits, one a class"})
    assert "classification network" in sentence(logits)
    for key, value in {"mean": "[0.4", "std": '"x"', "colour": None}.items():
        torn = said | {key: value} if value else {k: v for k, v in said.items() if k != key}
        assert "metadata is damaged" in sentence(summing(tmp_path / "c.onnx", **torn))


@pytest.mark.parametrize("batch", [None, "n", 1, 3, 16])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("sides", [(112, 112), ("h", "w")])
def test_layouts_and_batches(batch, last, sides, tmp_path):
    shape = (batch, *sides, 3) if last else (batch, 3, *sides)
    embedder = open_embedder(summing(tmp_path / "a.onnx", [("Transpose", None)] if last else (), shape))
    close(embedder(IMAGES), expected(IMAGES))
    close(embedder(IMAGES[:1]), expected(IMAGES[:1]))


@pytest.mark.parametrize("kind", ["uint8", "float16", "float64"])
def test_types(kind, tmp_path):
    number = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    path = summing(tmp_path / "a.onnx", [("Cast", None)], kind=number)
    wanted = expected(IMAGES, 0, 1) if kind == "uint8" else expected(IMAGES)
    found = open_embedder(path)(IMAGES)
    np.testing.assert_allclose(found, wanted, atol=1e-3 * np.abs(wanted).max())
    if kind == "uint8":
        assert "takes pixels as bytes" in sentence(path, InputOptions(mean=(127.5,)))


def test_one_image_at_a_time_though_the_file_says_any(tmp_path):
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["z"], axes=[2, 3], keepdims=0),
        helper.make_node("Reshape", ["z", "s"], ["y"]),
    ]
    constants = {"s": np.array([1, 3])}
    path = write(tmp_path / "a.onnx", nodes, ("n", 3, 112, 112), {"y": [1, 3]}, constants)
    close(open_embedder(path, RAW)(IMAGES), IMAGES.mean((1, 2), dtype=np.float64))


def outputs_file(path, *, unit=True):
    """AdaFace's pair, `feature` of unit length and `norm`, and a feature map `map` when not `unit`."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["z"], axes=[2, 3], keepdims=0),
        helper.make_node("ReduceL2", ["z"], ["norm"], axes=[1], keepdims=1),
        helper.make_node("Div", ["z", "norm"], ["feature"]),
    ]
    outputs = {"feature": [None, 3], "norm": [None, 1]}
    if not unit:
        nodes.append(helper.make_node("Identity", ["z"], ["map"]))
        outputs["map"] = [None, 3]
    return write(path, nodes, ("n", 3, 112, 112), outputs, {})


def test_several_outputs(tmp_path):
    means = IMAGES.mean((1, 2), dtype=np.float64)
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    pair = outputs_file(tmp_path / "a.onnx")
    close(open_embedder(pair, RAW)(IMAGES), means)
    named = InputOptions(mean=(0,), std=(1,), embedding="feature")
    close(open_embedder(pair, named)(IMAGES), means / lengths)
    several = outputs_file(tmp_path / "b.onnx", unit=False)
    assert "feature (2 x 3), norm (2 x 1), map (2 x 3); name the embedding" in sentence(several)
    close(open_embedder(several, InputOptions("rgb", (0,), (1,), "map"))(IMAGES), means)
    assert "no output 'z'" in sentence(several, InputOptions(embedding="z"))
    assert "norm (2 x 1) is no embedding" in sentence(several, InputOptions(embedding="norm"))


def test_output_with_axes_of_one(tmp_path):
    close(open_embedder(summing(tmp_path / "a.onnx", flat=False))(IMAGES), expected(IMAGES))


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        (("n", 3, 160, 160), "takes images of n x 3 x 160 x 160, but faces are aligned to 112x112"),
        ((1, 160, 160, 3), "takes images of 1 x 160 x 160 x 3"),
        (("n", 1, 112, 112), "but should be n x 3 x 112 x 112"),
        (("n", 37632), "its input x is n x 37632"),
        (("n", 3, 112, 96), "takes images of n x 3 x 112 x 96"),
    ],
)
def test_other_inputs(shape, told, tmp_path):
    nodes = [helper.make_node("Flatten", ["x"], ["y"])]
    path = write(tmp_path / "a.onnx", nodes, shape, {"y": [None, None]}, {})
    assert told in sentence(path)


def test_what_is_no_network_of_faces(tmp_path):
    same = [helper.make_node("Relu", ["x"], ["y"])]
    path = write(tmp_path / "a.onnx", same, ("n", 3, 112, 112), {"y": ["n", 3, 112, 112]}, {})
    assert "y (2 x 3 x 112 x 112) is no embedding" in sentence(path)
    whole = [helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)]
    path = write(tmp_path / "b.onnx", whole, ("n", 3, 112, 112), {"y": []}, {})
    assert "give a row for each (its output is y () for 2)" in sentence(path)
    same = [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)]
    path = write(tmp_path / "c.onnx", same, ("n", 3, 112, 112), {"y": [None] * 4}, {}, TensorProto.INT32)
    assert "tensor(int32)" in sentence(path)


def test_damaged_files(tmp_path):
    whole = summing(tmp_path / "a.onnx").read_bytes()
    path = tmp_path / "b.onnx"
    for content in (b"", b"text", whole[: len(whole) // 2], whole[:-30], bytes(200)):
        path.write_bytes(content)
        assert sentence(path).startswith(f"{path}: ")
    unknown = [helper.make_node("Faces", ["x"], ["y"])]
    write(path, unknown, ("n", 3, 112, 112), {"y": [None, 3]}, {})
    assert "its graph is not valid" in sentence(path)


def step(operation, inputs, **settings):
    return helper.make_node(operation, inputs, ["y"], **settings)


EMPTY = helper.make_graph([], "body", [], [])
SIZES = {"big": np.array([1 << 16, 3, 1 << 16, 1], np.int64), "w": np.ones((1, 3, 1, 1), np.float32)}
REFUSED = {
    "a loop": ([step("Loop", ["", "", "x"], body=EMPTY)], "uses Loop; export the network as a plain graph"),
    "a branch": ([step("If", ["x"], then_branch=EMPTY, else_branch=EMPTY)], "uses If"),
    "one input": ([step("PRelu", ["x"])], "its graph is not valid"),
    "a circle": ([step("Add", ["x", "y"])], "its graph is not valid"),
    "another domain": ([step("Gelu", ["x"], domain="com.microsoft")], "uses com.microsoft"),
    "room": ([step("Expand", ["w", "big"])], "numbers and .* multiplications for two images, more than any"),
    "padding": ([step("Conv", ["x", "w"], pads=4 * [50_000])], "more than any network of faces"),
    "unknown": ([step("NonZero", ["x"])], r"how much y \(NonZero\) holds cannot be told before it runs"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_graph_whose_work_has_no_bound_is_not_run(name, tmp_path):
    nodes, words = REFUSED[name]
    path = write(tmp_path / "a.onnx", nodes, ("n", 3, 112, 112), {"y": [None] * 4}, SIZES)
    assert re.search(words, sentence(path))


def test_functions_and_files_elsewhere_are_refused(tmp_path):
    path = summing(tmp_path / "a.onnx")
    model = onnx.load(path)
    model.functions.append(helper.make_function("own", "F", ["a"], ["b"], [], []))
    onnx.save(model, tmp_path / "b.onnx")
    assert "uses functions of its own" in sentence(tmp_path / "b.onnx")
    (tmp_path / "below").mkdir()
    (tmp_path / "weights").write_bytes(WEIGHTS.tobytes())
    for place, told in (("../weights", "in a file beside it"), ("weights", "in a file beside it"), ("w", None)):
        (tmp_path / "below/w").write_bytes(WEIGHTS.tobytes())
        model = onnx.load(path)
        (tensor,) = model.graph.initializer
        onnx.external_data_helper.set_external_data(tensor, place)
        tensor.ClearField("raw_data")
        (tmp_path / "below/b.onnx").write_bytes(model.SerializeToString())
        if told:
            assert told in sentence(tmp_path / "below/b.onnx")
        else:
            close(open_embedder(tmp_path / "below/b.onnx")(IMAGES), expected(IMAGES))
    model = onnx.load(path)
    model.graph.initializer[0].raw_data = b"short"
    (tmp_path / "b.onnx").write_bytes(model.SerializeToString())
    assert "is damaged" in sentence(tmp_path / "b.onnx")


def test_without_the_extra(tmp_path, monkeypatch):
    path = summing(tmp_path / "a.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "pip install 'facenas[onnx]'" in sentence(path)


def prelu_file(path, slopes):
    rng = np.random.default_rng(3)
    channels = len(slopes)
    constants = {
        "w": rng.normal(0, 0.1, (channels, 3, 3, 3)).astype(np.float32),
        "s": np.array(slopes, np.float32).reshape(-1, 1, 1),
        "g": rng.normal(0, 1, (channels, SIZE)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], strides=[2, 2]),
        helper.make_node("PRelu", ["a", "s"], ["b"]),
        helper.make_node("GlobalAveragePool", ["b"], ["c"]),
        helper.make_node("Flatten", ["c"], ["d"]),
        helper.make_node("MatMul", ["d", "g"], ["y"]),
    ]
    return write(path, nodes, ("n", 3, 112, 112), {"y": [None, SIZE]}, constants)


@pytest.mark.parametrize("slopes", [[0.25] * 16, [-2.0, 0.0, 0.3, 1.0, 3.0] * 5, [0.1]])
def test_prelu_is_replaced_without_a_trace(slopes, tmp_path):
    path = prelu_file(tmp_path / "a.onnx", slopes)
    values = np.ascontiguousarray(IMAGES.transpose(0, 3, 1, 2), np.float32)
    wanted = runtime.InferenceSession(path).run(None, {"x": values})[0]
    np.testing.assert_allclose(open_embedder(path, RAW)(IMAGES), wanted, rtol=1e-5, atol=1e-4)
    model = read_graph(path)
    use_fast_prelu(model, constants(model))
    assert any(node.op_type == "PRelu" for node in model.graph.node) == (len(slopes) == 1)


def test_many_threads_at_once(tmp_path):
    embedder = open_embedder(summing(tmp_path / "a.onnx"))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(embedder, [IMAGES] * 8))
    assert all(np.array_equal(rows, found[0]) for rows in found)


@pytest.mark.skipif(not MOBILEFACENET.exists(), reason="needs a network in ../shared")
def test_a_published_network():
    embedder, told = open_embedder(MOBILEFACENET), open_embedder(MOBILEFACENET, RAW)
    values = np.ascontiguousarray(IMAGES.transpose(0, 3, 1, 2), np.float32)
    wanted = runtime.InferenceSession(MOBILEFACENET).run(None, {"data": values})[0]
    np.testing.assert_allclose(embedder(IMAGES), wanted, rtol=1e-5, atol=1e-5)
    assert np.array_equal(embedder(IMAGES), told(IMAGES))
    assert (embedder.size, embedder.fingerprint) == (128, told.fingerprint)
