"""What an ONNX graph says of itself, and the one change that makes it faster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from facenas.errors import UserError, first_line

Constants = dict[str, NDArray[Any]]
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
_PASSING = ("Cast", "Identity", "Transpose", "Reshape")


def read_graph(path: Path) -> onnx.ModelProto:
    """The file with its weights, also those in files beside it; raises UserError when it is damaged."""
    try:
        model = onnx.load(path)
        if not model.graph.node:
            raise ValueError("it holds no graph")
    except Exception as error:  # protobuf's, the file system's and onnx's own
        reason = first_line(error)
        raise UserError(f"{path}: is no whole ONNX file ({reason}); fetch it again") from None
    return model


def constants(model: onnx.ModelProto) -> Constants:
    """Weights, and what nodes of kind Constant hold, by name."""
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                found[node.output[0]] = numpy_helper.to_array(attribute.t)
    return found


def count_parameters(model: onnx.ModelProto) -> int:
    """Numbers in floating-point weights, without the running statistics of BatchNorms that are left."""
    statistics = {
        name for node in model.graph.node if node.op_type == "BatchNormalization" for name in node.input[3:]
    }
    return sum(
        int(np.prod(tensor.dims))
        for tensor in model.graph.initializer
        if tensor.data_type in _FLOATS and tensor.name not in statistics
    )


def takes_raw(model: onnx.ModelProto, name: str, values: Constants) -> bool | None:
    """Whether what the graph first does to its input suits pixels of 0..255, not 0..1; None: it does nothing.

    That is (x - shift) * scale by the constants that the input `name` meets before anything else, of several
    channels their means. Published networks of insightface begin with (x - 127.5) * 0.0078125.
    """
    shift, scale, found = 0.0, 1.0, False
    while len(users := [node for node in model.graph.node if name in node.input]) == 1:
        node = users[0]
        others = [values[other] for other in node.input if other != name and other in values]
        if node.op_type in ("Sub", "Add", "Mul", "Div") and others:
            constant, found = float(np.mean(others[0])), True
            if node.op_type in ("Mul", "Div"):
                scale *= constant if node.op_type == "Mul" else 1 / (constant or 1.0)
            else:
                shift += (constant if node.op_type == "Sub" else -constant) / (scale or 1.0)
        elif node.op_type not in _PASSING:
            break
        name = node.output[0]
    return scale < 0.1 or abs(shift) > 2 if found else None


def use_fast_prelu(model: onnx.ModelProto, values: Constants) -> None:
    """Changes the graph to have PReLU as relu(x) + (-slope) * relu(-x): the same values to the last bit.

    On a CPU, onnxruntime's PRelu is slow and breaks its blocked layout; 1x1 depthwise convolutions stay in
    it: MobileFaceNet takes 0.45 of the time, half of what makes LFW's 157 images a second out of 44
    (docs/results.md, "Evaluation: speed"). NaN would become 0, so a network with one in its weights is left
    as it is.
    """
    floats = (value for value in values.values() if value.dtype.kind == "f")
    if not all(np.isfinite(value).all() for value in floats):
        return
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        slope = values.get(node.input[1]) if node.op_type == "PRelu" else None
        if slope is not None and _per_channel(slope):
            model.graph.node.extend(_prelu(model, node, slope))
        else:
            model.graph.node.append(node)


def _per_channel(slope: NDArray[Any]) -> bool:
    """(C, 1, 1) or (1, C, 1, 1), of an input that is then surely (n, C, h, w)."""
    *before, channels, height, width = (0, 0, 0, *slope.shape)
    whole = before in ([0, 0, 0], [0, 0, 0, 1]) and (height, width) == (1, 1)
    return whole and channels > 1 and slope.dtype == np.float32


def _prelu(model: onnx.ModelProto, node: onnx.NodeProto, slope: NDArray[np.float32]) -> list[onnx.NodeProto]:
    x, y, slope = node.input[0], node.output[0], slope.reshape(-1, 1, 1, 1)
    minus, below, above, bent = (f"{y}/{part}" for part in ("minus", "below", "above", "bent"))
    weights = {f"{y}/-1": -np.ones_like(slope), f"{y}/-slope": -slope}
    model.graph.initializer.extend(numpy_helper.from_array(w, key) for key, w in weights.items())
    depthwise: dict[str, Any] = {"group": len(slope), "kernel_shape": [1, 1]}
    return [
        helper.make_node("Conv", [x, f"{y}/-1"], [minus], **depthwise),
        helper.make_node("Relu", [minus], [below]),
        helper.make_node("Relu", [x], [above]),
        helper.make_node("Conv", [below, f"{y}/-slope"], [bent], **depthwise),
        helper.make_node("Add", [bent, above], [y]),
    ]
