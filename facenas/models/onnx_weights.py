"""Trained weights out of the ONNX files that `facenas export` writes.

torch's exporter folds BatchNorm into the convolution or linear layer before it; the graph holds the products
alone. So the file's metadata carry what is lost: the vectors of these layers, and by what each channel was
scaled (nothing: it was not).
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from facenas.errors import UserError, first_line
from facenas.files import reading

FOLDED = "folded"  # the key of the metadata
_SCALE = "scale of "


def folded(model: Any, state: dict[str, Tensor]) -> str:
    """What the graph does not hold of a state dict, as text: a few percent of it at most.

    Scaled weights come back to float32's rounding (1e-6 of each), all else to the bit.
    """
    there, kept = _initializers(model), dict[str, Tensor]()
    for name, tensor in state.items():
        value, found = tensor.cpu().numpy(), there.get(name)
        if found is None or found.shape != value.shape:
            kept[name] = tensor.cpu().contiguous()
        elif np.array_equal(found, value):
            kept[_SCALE + name] = torch.empty(0)
        else:
            scale = _scale(found, value)
            fits = np.allclose(_unscaled(found, scale), value, rtol=1e-6, atol=0)
            kept |= {_SCALE + name: torch.from_numpy(scale)} if fits else {name: tensor.cpu().contiguous()}
    return base64.b64encode(safetensors.torch.save(kept)).decode()


def read_onnx(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """(metadata, state dict) of a file that `facenas export` wrote; raises UserError for any other."""
    try:
        import onnx
    except ImportError:
        raise UserError("ONNX files need onnx, which is not installed: pip install 'facenas[onnx]'") from None
    with reading(path, "export it again"):
        try:
            model = onnx.load(path, load_external_data=False)
        except Exception as error:  # protobuf's own
            raise UserError(f"{path}: is no whole ONNX file ({first_line(error)}); export it again") from None
        said = {item.key: item.value for item in model.metadata_props}
        if "facenas_version" not in said:
            raise UserError(
                f"{path}: was not exported by facenas, and a graph alone does not say which network its "
                "weights are of; give the checkpoint that it was exported from"
            )
        if FOLDED not in said:
            raise UserError(
                f"{path}: lacks the weights that were folded into others when it was exported, as files in "
                "int8 do; give the run, its checkpoint, or its export in float32, made anew"
            )
        kept = safetensors.torch.load(base64.b64decode(said.pop(FOLDED), validate=True))
        there = _initializers(model)
        state = {}
        for key, tensor in kept.items():
            name = key.removeprefix(_SCALE)
            whole = key == name
            state[name] = tensor if whole else torch.from_numpy(_unscaled(there[name], tensor.numpy()))
        return said, state


def _initializers(model: Any) -> dict[str, NDArray[Any]]:
    from onnx import numpy_helper

    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def _scale(found: NDArray[Any], value: NDArray[Any]) -> NDArray[np.float32]:
    """(channels,) by what each channel's weights were multiplied; 1 where they are all 0."""
    rows, of = (array.reshape(len(array), -1).astype(np.float64) for array in (found, value))
    squares = (of**2).sum(1)
    return np.where(squares > 0, (rows * of).sum(1) / np.maximum(squares, 1e-300), 1).astype(np.float32)


def _unscaled(found: NDArray[Any], scale: NDArray[np.float32]) -> NDArray[Any]:
    if not scale.size:
        return found.copy()
    with np.errstate(divide="ignore", invalid="ignore"):  # a channel that was scaled by 0 is kept as it was
        return (found / scale.reshape(-1, *[1] * (found.ndim - 1))).astype(np.float32)
