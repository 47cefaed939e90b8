"""What an ONNX graph says of itself, and the one change that makes it faster."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from facenas.data.faces.store import SIDE
from facenas.errors import UserError, first_line
from facenas.files import reading

Constants = dict[str, NDArray[Any]]
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
_SMALL = 1024  # numbers; constants of that size may be shapes
_MOST_NUMBERS = 1 << 29  # for two images, all steps together; IR-100 needs a fifth of it
_MOST_MULTIPLICATIONS = 10**12  # for two images, about a minute; IR-100 needs 2.4e10
_PASSING = ("Cast", "Identity", "Transpose", "Reshape")


def read_graph(path: Path) -> onnx.ModelProto:
    """The file with its weights, also those in files beside it, once the graph is found to be harmless.

    Raises UserError when it is damaged, names files elsewhere, or could compute without an end: see `_check`.
    """
    with reading(path, "fetch it again"):
        try:
            model = onnx.load(path, load_external_data=False)
        except Exception as error:  # protobuf's own
            raise UserError(f"{path}: is no whole ONNX file ({first_line(error)}); fetch it again") from None
        if not model.graph.node:
            raise UserError(f"{path}: is no whole ONNX file (it holds no graph); fetch it again")
        for tensor in _tensors(model):
            if tensor.data_location == TensorProto.EXTERNAL:
                _check_place(path, tensor)
        _check(path, model)
        onnx.load_external_data_for_model(model, str(path.parent))
        return model


def weight_files(path: Path) -> list[Path]:
    """The files beside a graph that `read_graph` takes which hold its weights; none where it has all itself."""
    told = [tensor.external_data for tensor in _tensors(onnx.load(path, load_external_data=False))]
    places = {entry.value for entries in told for entry in entries if entry.key == "location"}
    return [path.parent / place for place in sorted(places)]


def _tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    yield from model.graph.initializer
    for node in model.graph.node:
        for attribute in node.attribute:
            yield from [attribute.t, *attribute.tensors]


def _check_place(path: Path, tensor: TensorProto) -> None:
    """Weights may lie in files beside the graph, and nowhere else."""
    said = {entry.key: entry.value for entry in tensor.external_data}
    place = (path.parent / said.get("location", "")).resolve()
    if path.parent.resolve() not in place.parents or not place.is_file():
        raise UserError(f"{path}: its weights {tensor.name} should lie in a file beside it, not in {place}")


def _check(path: Path, model: onnx.ModelProto) -> None:
    """Raises UserError for a graph that is not valid, or whose work cannot be told before it runs.

    Loops and branches, functions of the file's own and operators from elsewhere are refused, and so is what
    needs more numbers or multiplications than any network of faces: by the shapes that onnx infers for two
    images.
    """
    strange = {node.domain for node in model.graph.node} - {"", "ai.onnx"}
    graphs = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
    controls = {n.op_type for n in model.graph.node if any(a.type in graphs for a in n.attribute)}
    if model.functions or strange or controls:
        what = "functions of its own" if model.functions else ", ".join(sorted(controls or strange))
        raise UserError(f"{path}: uses {what}; export the network as a plain graph of ONNX's own operators")
    plan = _without_weights(model)
    try:
        onnx.checker.check_model(plan)
        for output in plan.graph.output:
            output.type.tensor_type.ClearField("shape")  # to be found out, not believed
        inferred = onnx.shape_inference.infer_shapes(plan, data_prop=True).graph
    except Exception as error:  # both have errors of their own
        raise UserError(f"{path}: its graph is not valid ({first_line(error)}); export it again") from None
    entries = [*inferred.initializer, *inferred.input, *inferred.value_info, *inferred.output]
    shapes = {entry.name: _shape(entry) for entry in entries}
    numbers = multiplications = 0
    for node in inferred.node:
        for name in filter(None, node.output):
            shape = shapes.get(name)
            if shape is None:
                raise UserError(
                    f"{path}: how much {name} ({node.op_type}) holds cannot be told before it runs; export the "
                    "network for a fixed number of images"
                )
            numbers += math.prod(shape)
            multiplications += math.prod(shape) * _terms(node, shapes)
    if numbers > _MOST_NUMBERS or multiplications > _MOST_MULTIPLICATIONS:
        amount = f"{numbers:.1e} numbers and {multiplications:.1e} multiplications"
        raise UserError(f"{path}: needs {amount} for two images, more than any network of faces; refused")


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A light copy: large weights as inputs, of the shape alone; inputs of two images."""
    plan = onnx.ModelProto(ir_version=max(4, model.ir_version), opset_import=model.opset_import)
    graph, plan.graph.name = model.graph, "plan"
    plan.graph.node.extend(graph.node)
    for tensor in graph.initializer:
        if math.prod(tensor.dims) <= _SMALL and tensor.data_location != TensorProto.EXTERNAL:
            plan.graph.initializer.append(tensor)
        else:
            entry = helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            plan.graph.input.append(entry)
    weights = {tensor.name for tensor in graph.initializer}
    for entry in graph.input:
        if entry.name not in weights:
            plan.graph.input.append(entry)
            dims = plan.graph.input[-1].type.tensor_type.shape.dim
            usual = (2, SIDE, SIDE, 3) if len(dims) == 4 and dims[3].dim_value == 3 else (2, 3, SIDE, SIDE)
            for dim, size in zip(dims, usual, strict=False):
                dim.dim_value = dim.dim_value or size
    plan.graph.output.extend(graph.output)
    return plan


def _shape(entry: Any) -> list[int] | None:
    """Of a tensor or what is told of one; None when it is not known whole."""
    if isinstance(entry, TensorProto):
        return list(entry.dims)
    if not entry.type.tensor_type.HasField("shape"):
        return None
    sizes = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in entry.type.tensor_type.shape.dim]
    return None if min(sizes, default=0) < 0 else sizes


def _terms(node: onnx.NodeProto, shapes: dict[str, list[int] | None]) -> int:
    """How many products make one number of its output."""
    of = shapes.get(node.input[1 if "Conv" in node.op_type else 0]) if node.input else None
    if not of:
        return 1
    if "Conv" in node.op_type:  # (out, in / groups, height, width)
        return math.prod(of[1:])
    return math.prod(of) if node.op_type == "Einsum" else max(of) if node.op_type in ("MatMul", "Gemm") else 1


def constants(model: onnx.ModelProto) -> Constants:
    """Weights, and what nodes of kind Constant hold, by name."""
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                found[node.output[0]] = numpy_helper.to_array(attribute.t)
    return found


def count_parameters(model: onnx.ModelProto) -> int:
    """Numbers in weights, quantised ones too, but for statistics of BatchNorms that are left, and scales."""
    nodes, quantizing = model.graph.node, ("QuantizeLinear", "DequantizeLinear")
    others = {name for node in nodes if node.op_type == "BatchNormalization" for name in node.input[3:]}
    others |= {name for node in nodes if node.op_type in quantizing for name in node.input[1:]}
    rounded = {node.input[0] for node in nodes if node.op_type == "DequantizeLinear"}
    return sum(
        int(np.prod(tensor.dims))
        for tensor in model.graph.initializer
        if (tensor.data_type in _FLOATS or tensor.name in rounded) and tensor.name not in others
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
