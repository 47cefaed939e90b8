"""ONNX graphs on their way to int8: what is done before onnxruntime's quantiser, and the quantiser.

`prepare`, `equalize` and `expand_prelu` change the graph and not what it computes (but for rounding).
`quantize` gives QDQ form: weights int8 and symmetric, a scale for each output channel; activations uint8, one
scale and zero point a tensor; biases int32.
"""

from __future__ import annotations

import copy
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from facenas.evaluation.embedders.onnx_graph import Constants, constants

Ranges = Mapping[str, tuple[float, float]]  # lowest and highest value by tensor, 0 between them

LAYERS = (
    "Conv",
    "Gemm",
    "MatMul",
)  # what is quantised, where its second input is a weight; and sums of two tensors
_ACTIVATIONS = ("PRelu", "Relu", "LeakyRelu")  # f(s x) = s f(x) for s > 0
_OPSET = 13  # the first in which a scale may be one of each channel
_LEAST_PEAK = 1e-3  # of the largest of a tensor's channels: a dead channel must not get an endless scale


def prepare(model: ModelProto, output: str | None = None) -> ModelProto:
    """A copy in opset 13 or later, weights as initializers, a name at every node, BatchNorms folded.

    output: the one that is kept, with what it is computed from, so that nobody needs to name it again; None:
    all.
    """
    opset = max((entry.version for entry in model.opset_import if not entry.domain), default=1)
    made = copy.deepcopy(model) if opset >= _OPSET else onnx.version_converter.convert_version(model, _OPSET)
    if output is not None:
        _keep_output(made, output)
    values = constants(made)
    _set_nodes(made, [node for node in made.graph.node if node.output[0] not in values])
    given = Counter(node.name for node in made.graph.node)
    for node in made.graph.node:  # an empty name would stand for every node without one
        node.name = node.name if given[node.name] == 1 and node.name else f"{node.op_type}:{node.output[0]}"
    _fold_batch_norms(made, values)
    _set_constants(made, values)
    entries = [entry for entry in made.graph.input if entry.name not in values]
    del made.graph.input[:]
    made.graph.input.extend(entries)
    return made


def _keep_output(model: ModelProto, name: str) -> None:
    kept = [output for output in model.graph.output if output.name == name]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    needed, nodes = {name}, []
    for node in reversed(model.graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
            nodes.append(node)
    _set_nodes(model, nodes[::-1])


def _fold_batch_norms(model: ModelProto, values: Constants) -> None:
    """W' = W g / sqrt(v + e), b' = (b - m) g / sqrt(v + e) + beta, where nobody else reads what is between."""
    made_by = {name: node for node in model.graph.node for name in node.output}
    readers = _readers(model)
    kept = []
    for node in model.graph.node:
        layer = made_by.get(node.input[0]) if node.op_type == "BatchNormalization" else None
        if layer is not None and _may_change(layer, values, readers) and len(readers[layer.output[0]]) == 1:
            gain, beta, mean, variance = (values[name].astype(np.float64) for name in node.input[1:5])
            gain = gain / np.sqrt(variance + _attribute(node, "epsilon", 1e-5))
            bias = _bias_name(layer, values)
            _scale_outputs(layer, values, gain)
            values[bias] = np.asarray(values[bias] - mean * gain + beta, np.float32)
            layer.output[0] = node.output[0]
            made_by[node.output[0]] = layer
        else:
            kept.append(node)
    _set_nodes(model, kept)


def _may_change(layer: NodeProto, values: Constants, readers: Mapping[str, list[NodeProto]]) -> bool:
    """Whether its weights are its own, and it has a bias or may get one."""
    own = all(len(readers[name]) == 1 for name in layer.input[1:])
    row = all(values[name].ndim == 1 for name in layer.input[2:] if name in values)
    return _is_layer(layer, values) and layer.op_type != "MatMul" and own and row


def _is_layer(node: NodeProto, values: Constants) -> bool:
    return (
        node.op_type in LAYERS
        and node.input[0] not in values
        and values.get(node.input[1], np.empty(0)).dtype == np.float32
        and all(name in values for name in node.input[2:])
    )


def _bias_name(layer: NodeProto, values: Constants) -> str:
    """Its bias, zeros if there was none."""
    if len(layer.input) < 3:
        layer.input.append(f"{layer.name}/bias")
        outputs = np.moveaxis(values[layer.input[1]], _output_axis(layer), 0).shape[0]
        values[layer.input[2]] = np.zeros(outputs, np.float32)
    return str(layer.input[2])


def _output_axis(layer: NodeProto) -> int:
    """Of its weights."""
    return 0 if layer.op_type == "Conv" or _attribute(layer, "transB", 0) else 1


def _scale_outputs(layer: NodeProto, values: Constants, factors: NDArray[np.float64]) -> None:
    """Weights and bias times a factor (outputs,) of each output."""
    weights, bias = layer.input[1], _bias_name(layer, values)
    scaled = np.moveaxis(
        np.moveaxis(values[weights], _output_axis(layer), -1) * factors, -1, _output_axis(layer)
    )
    values[weights] = np.asarray(scaled, np.float32)
    values[bias] = np.asarray(values[bias] * factors, np.float32)


class Chain(NamedTuple):
    """A convolution, the tensors from its output to what the next one reads, and that, their only reader."""

    first: NodeProto
    tensors: tuple[str, ...]
    second: NodeProto


def chains(model: ModelProto) -> Iterator[Chain]:
    """Pairs of convolutions with nothing but an activation between them, for `equalize`."""
    values, readers = constants(model), _readers(model)
    for node in model.graph.node:
        if node.op_type != "Conv" or not _may_change(node, values, readers):
            continue
        tensors = [node.output[0]]
        while len(after := readers[tensors[-1]]) == 1 and after[0].op_type in _ACTIVATIONS:
            tensors.append(after[0].output[0])
        second = after[0] if len(after) == 1 else node
        ends = second.op_type == "Conv" and second.input[0] == tensors[-1]
        fits = _groups(second) in (1, len(values[second.input[1]])) if ends else False
        if fits and _may_change(second, values, readers):
            yield Chain(node, tuple(tensors), second)


def equalize(model: ModelProto, peaks: Mapping[str, NDArray[np.float32]]) -> ModelProto:
    """The same network with channels between two convolutions brought to like ranges, as one scale serves all.

    peaks: (channels,) usual largest |value| of each tensor of `chains`. Channel c of the first convolution is
    divided by s_c, and what the second does with it multiplied, s_c = r_c / (geometric mean of r) for a
    depthwise second convolution, whose weights have a scale for each channel, and the square root of that for
    another, whose weights of all channels share one; r_c is the largest peak from convolution to activation.
    Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.1, from
    activations.
    """
    made = copy.deepcopy(model)
    values = constants(made)
    for chain in chains(made):
        peak = np.max([peaks[name] for name in chain.tensors], axis=0).astype(np.float64)
        peak = np.maximum(peak, _LEAST_PEAK * peak.max()) if peak.max() > 0 else np.ones_like(peak)
        depthwise = _groups(chain.second) > 1
        scale = peak if depthwise else np.sqrt(peak)
        scale = scale / np.exp(np.log(scale).mean())
        _scale_outputs(chain.first, values, 1 / scale)
        shape = (-1, 1, 1, 1) if depthwise else (1, -1, 1, 1)
        weights = chain.second.input[1]
        values[weights] = np.asarray(values[weights] * scale.reshape(shape), np.float32)
    _set_constants(made, values)
    return made


def expand_prelu(model: ModelProto) -> ModelProto:
    """The same network with PReLU as a x + (1 - a) relu(x).

    onnxruntime has no PReLU of int8, and is slow at float ones between int8 layers: of MobileFaceNet's 34 ms
    they take 26, these four operators 5 (docs/int8.md).
    """
    made = copy.deepcopy(model)
    values, nodes = constants(made), []
    for node in made.graph.node:
        slope = values.get(node.input[1]) if node.op_type == "PRelu" else None
        if slope is None:
            nodes.append(node)
            continue
        x, y = node.input[0], node.output[0]
        values |= {f"{y}/a": slope, f"{y}/1-a": 1 - slope}
        steps = (
            ("Mul", (x, f"{y}/a"), f"{y}/bent"),
            ("Relu", (x,), f"{y}/above"),
            ("Mul", (f"{y}/above", f"{y}/1-a"), f"{y}/rest"),
            ("Add", (f"{y}/bent", f"{y}/rest"), y),
        )
        nodes += [helper.make_node(kind, read, [out], name=f"{node.name}/{out}") for kind, read, out in steps]
    _set_nodes(made, nodes)
    _set_constants(made, values)
    return made


def layers(model: ModelProto) -> list[NodeProto]:
    """What holds the weights: convolutions and products with a constant, in order."""
    values = constants(model)
    return [node for node in model.graph.node if _is_layer(node, values)]


def weight_count(model: ModelProto, layer: NodeProto) -> int:
    """Numbers in a layer's weights."""
    return int(constants(model)[layer.input[1]].size)


def _quantized_nodes(model: ModelProto, in_float: Collection[str] = ()) -> list[NodeProto]:
    """Layers, the ReLU of one, and sums that only such nodes feed: the residual ones."""
    values, readers, found = constants(model), _readers(model), []
    outputs: set[str] = set()
    for node in model.graph.node:
        relu = node.op_type == "Relu" and len(readers[node.input[0]]) == 1
        after = (relu or node.op_type == "Add") and set(node.input) <= outputs
        if after or (_is_layer(node, values) and node.name not in in_float):
            found.append(node)
            outputs.add(node.output[0])
    return found


def quantized_tensors(model: ModelProto) -> list[str]:
    """The activations that `quantize` needs ranges of."""
    values = constants(model)
    names = [name for node in _quantized_nodes(model) for name in (*node.input, *node.output)]
    return [name for name in dict.fromkeys(names) if name not in values]


def quantize(model: ModelProto, ranges: Ranges, in_float: Collection[str] = ()) -> ModelProto:
    """The network in QDQ form by onnxruntime's quantiser, but for the layers named by `in_float`."""
    from onnxruntime.quantization import QDQQuantizer, QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData

    chosen = [node.name for node in _quantized_nodes(model, in_float)]
    if not chosen:  # which the quantiser takes for all
        return copy.deepcopy(model)
    found = {
        name: TensorData(lowest=np.float32(lowest), highest=np.float32(highest))
        for name, (lowest, highest) in ranges.items()
    }
    quantizer = QDQQuantizer(
        copy.deepcopy(model),
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.Percentile, found),
        nodes_to_quantize=chosen,
        nodes_to_exclude=[],
        op_types_to_quantize=[*LAYERS, "Add", "Relu"],
        extra_options={},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    made: ModelProto = quantizer.model.model
    return made


def corrected_biases(
    model: ModelProto, quantized: ModelProto, means: Mapping[str, NDArray[np.float64]]
) -> dict[str, NDArray[np.float32]]:
    """By layer b - (W' - W) E[x], b being its bias: without what the rounded weights W' add on average.

    means: (channels,) E[x] of what each layer reads. Nagel et al., section 4.2; at borders of padded zeros it
    corrects a little too much.
    """
    values, rounded, found = constants(model), constants(quantized), {}
    for node in layers(model):
        weights = node.input[1]
        if f"{weights}_scale" not in rounded or node.op_type == "MatMul":
            continue
        axis = _output_axis(node)
        steps = np.moveaxis(rounded[f"{weights}_quantized"].astype(np.float64), axis, -1)
        change = np.moveaxis(steps * rounded[f"{weights}_scale"], -1, 0)
        change -= np.moveaxis(values[weights], axis, 0)
        change = change.reshape(*change.shape[:2], -1).sum(2)  # (outputs, inputs of the group)
        read = means[node.input[0]]
        groups = _groups(node) if node.op_type == "Conv" else 1
        per_output = np.repeat(read.reshape(groups, -1), len(change) // groups, axis=0)
        bias = values[node.input[2]] if len(node.input) > 2 else 0
        found[node.name] = np.asarray(bias - (change * per_output).sum(1), np.float32)
    return found


def with_biases(model: ModelProto, biases: Mapping[str, NDArray[np.float32]]) -> ModelProto:
    """A copy in which the layers of these names have these biases."""
    made = copy.deepcopy(model)
    values, readers = constants(made), _readers(made)
    for node in layers(made):
        if node.name not in biases:
            continue
        name = _bias_name(node, values)
        if len(readers[name]) > 1:  # other layers keep theirs
            name = node.input[2] = f"{node.name}/bias"
        values[name] = biases[node.name]
    _set_constants(made, values)
    return made


def _groups(node: NodeProto) -> int:
    return int(_attribute(node, "group", 1))


def _attribute(node: NodeProto, name: str, default: float) -> Any:
    found = [helper.get_attribute_value(one) for one in node.attribute if one.name == name]
    return found[0] if found else default


def _readers(model: ModelProto) -> dict[str, list[NodeProto]]:
    """By tensor; outputs of the graph are read by one more, who is nobody."""
    found: dict[str, list[NodeProto]] = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            found[name].append(node)
    for output in model.graph.output:
        found[output.name].append(NodeProto())
    return found


def _set_nodes(model: ModelProto, nodes: list[NodeProto]) -> None:
    copies = [copy.deepcopy(node) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def _set_constants(model: ModelProto, values: Constants) -> None:
    """Those that are read, as initializers."""
    read = Counter(name for node in model.graph.node for name in node.input)
    del model.graph.initializer[:]
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value, order="C"), name)
        for name, value in values.items()
        if read[name]
    )


def with_outputs(model: ModelProto, names: Collection[str]) -> ModelProto:
    """A copy that gives these tensors too."""
    made = copy.deepcopy(model)
    there = {output.name for output in made.graph.output}
    made.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names if name not in there
    )
    return made
