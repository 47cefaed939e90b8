"""How long a network takes for one image, in ONNX Runtime on one core of this machine."""

from __future__ import annotations

import statistics
import time

import torch
from torch import nn

from facenas.errors import UserError

_WARM_UP, _REPEATS = 5, 30


def check_packages() -> None:
    """Raises UserError when the packages of the extra `onnx` are missing: before anything is trained."""
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401  (torch exports with it)
    except ImportError as error:
        raise UserError(
            f"latency needs {error.name}, which is not installed: pip install 'facenas[onnx]'"
        ) from None


def measure_latency(network: nn.Module, shape: tuple[int, int, int]) -> float:
    """Milliseconds for one image (channels, height, width): the median of 30 runs after 5 others.

    Other programs on the machine, and other workers of the same search, make it longer. Needs the packages
    that `check_packages` looks for.
    """
    import onnxruntime

    image = torch.zeros(1, *shape)
    program = torch.onnx.export(network.eval(), (image,), dynamo=True, verbose=False)
    assert program is not None
    model = program.model_proto.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(model, options, providers=providers)
    inputs = {session.get_inputs()[0].name: image.numpy()}
    seconds = []
    for _ in range(_WARM_UP + _REPEATS):
        began = time.perf_counter()
        session.run(None, inputs)
        seconds.append(time.perf_counter() - began)
    return 1000 * statistics.median(seconds[_WARM_UP:])
