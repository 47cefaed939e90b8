"""Small ONNX files whose output is known: each embedding is a weighted sum of all values of the input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

SIZE = 4
WEIGHTS = np.random.default_rng(1).normal(0, 0.01, (SIZE, 3, 112, 112)).astype(np.float32)


def write(path: Path, nodes, shape, outputs, constants, kind=TensorProto.FLOAT, **metadata) -> Path:
    """A file with the input `x` of this shape and kind, and outputs {name: shape}."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    helper.set_model_props(model, metadata)
    onnx.save(model, path)
    return path


def summing(path: Path, before=(), shape=("n", 3, 112, 112), flat=True, **more) -> Path:
    """The output `y` is the sum; before: (operation, constant) on the input; Cast and Transpose have none."""
    nodes, constants, name = [], {"w": WEIGHTS}, "x"
    for i, (operation, constant) in enumerate(before):
        inputs, settings = [name], {}
        if operation == "Transpose":
            settings = {"perm": [0, 3, 1, 2]}
        elif operation == "Cast":
            settings = {"to": TensorProto.FLOAT}
        else:
            constants[f"c{i}"] = np.float32(constant)
            inputs.append(f"c{i}")
        name = f"t{i}"
        nodes.append(helper.make_node(operation, inputs, [name], **settings))
    nodes.append(helper.make_node("Conv", [name, "w"], ["z" if flat else "y"]))
    if flat:
        nodes.append(helper.make_node("Flatten", ["z"], ["y"]))
    outputs = {"y": [None, SIZE] if flat else [None, SIZE, 1, 1]}
    return write(path, nodes, shape, outputs, constants, **more)


def expected(images: NDArray[np.uint8], mean=127.5, std=127.5, bgr=False) -> NDArray[np.float64]:
    """What `summing` should give for (m, 112, 112, 3) RGB."""
    ordered = images[..., ::-1] if bgr else images
    values = (ordered.astype(np.float64) - mean) / std
    return np.einsum("nhwc,echw->ne", values, WEIGHTS.astype(np.float64))
