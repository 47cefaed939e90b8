"""A trained network as an ONNX file: one file with its weights inside, for any number of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from facenas.errors import UserError
from facenas.export.comparison import Floats, Reloaded
from facenas.models.load import TrainedNetwork

_INPUT = "images"
_OPSET = 18


def encode_onnx(trained: TrainedNetwork) -> bytes:
    """Input `images` (n, c, h, w), output `embedding` or `logits` (n, outputs), all float32.

    Raises UserError when the packages of the extra `onnx` are missing.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401  (reads the file back)
        import onnxscript  # noqa: F401  (torch exports with it)
    except ImportError as error:
        raise UserError(
            f"ONNX files need {error.name}, which is not installed: pip install 'facenas[onnx]'"
        ) from None
    program = torch.onnx.export(
        trained.network,
        (torch.zeros(2, *trained.input_shape),),  # torch would take a batch of one for a constant
        input_names=[_INPUT],
        output_names=[trained.output],
        dynamic_shapes=({0: torch.export.Dim("n")},),
        opset_version=_OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    _drop_traces(model.graph)
    onnx.helper.set_model_props(model, trained.metadata())
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def load_onnx(trained: TrainedNetwork, path: Path) -> Reloaded:
    """The file in an onnxruntime session on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(images: Floats) -> Floats:
        outputs: Floats = session.run([trained.output], {_INPUT: images})[0]
        return outputs

    return run


def _drop_traces(graph: Any) -> None:
    """Without the notes at every node of which source lines on this machine made it."""
    for part in (graph.input, graph.output, graph.node, graph.value_info, graph.initializer):
        for entry in part:
            del entry.metadata_props[:]
    del graph.metadata_props[:]
