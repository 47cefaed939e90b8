"""A trained network as one file: encoded, written, loaded back and compared, all or nothing.

`_FORMATS` has two functions for each format: the file's bytes, and the file as a function of images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray

from facenas.errors import SearchStoppedError, UserError
from facenas.files import write_atomically
from facenas.models.load import TrainedNetwork, read_trained
from facenas.models.onnx_weights import FOLDED, folded

Floats = NDArray[np.float32]
# (n, c, h, w) normalized images -> (n, outputs).
Reloaded = Callable[[Floats], Floats]

MIN_COSINE = 0.99999
# 64 images. A batch of one and batches of two other sizes: the number of images must be free.
_BATCHES = (1, 31, 32)
_SEED = 64
_INPUT, _OPSET = "images", 18


def export_run(run_folder: Path, format: str, out: Path | None = None) -> dict[str, Any]:
    """Writes the trained network of a run to `out`, by default `<run>/export/<run>.<format>`.

    Returns the file, its format and bytes, and how well the network loaded from it agrees. Raises
    UserError when the format is unknown, the run is not trained, `out` cannot be made or a package is missing,
    SearchStoppedError when the file does not give what the network gives or the disk is full; then no
    file is left, or the one that was there before.
    """
    if format not in _FORMATS:
        raise UserError(f"format {format!r} is unknown; there are {', '.join(_FORMATS)}")
    encode, load = _FORMATS[format]
    trained = read_trained(run_folder)
    content = encode(trained)
    agreements: list[Agreement] = []

    def write_and_compare(temporary: Path) -> None:
        temporary.write_bytes(content)
        agreements.append(require_agreement(trained, load(trained, temporary)))

    path = out or run_folder / "export" / f"{run_folder.resolve().name}.{format}"
    make_room(path)
    write_atomically(path, write_and_compare)
    return {
        "file": str(path),
        "format": format,
        "bytes": len(content),
        "images_compared": agreements[0].images,
        "min_cosine": agreements[0].min_cosine,
        "max_abs_difference": agreements[0].max_abs_difference,
    }


def make_room(path: Path) -> None:
    """Makes the folder of a file to be; raises UserError when it cannot be, or the file is a folder."""
    if path.is_dir():
        raise UserError(f"{path}: is a folder; choose the name of a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path.parent}: cannot be made ({error.strerror}); choose another file") from None


def encode_onnx(trained: TrainedNetwork) -> bytes:
    """Input `images` (n, c, h, w), output `embedding` or `logits` (n, outputs), all float32.

    One file with the weights inside, for any number of images. Raises UserError when the packages of the extra
    `onnx` are missing.
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
    model: Any = program.model_proto
    graph = model.graph
    # Without the notes at every node of which source lines on this machine made it.
    for part in (graph.input, graph.output, graph.node, graph.value_info, graph.initializer):
        for entry in part:
            del entry.metadata_props[:]
    del graph.metadata_props[:]
    lost = folded(model, trained.network.state_dict())
    onnx.helper.set_model_props(model, {**trained.metadata(), FOLDED: lost})
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def load_onnx(trained: TrainedNetwork, path: Path) -> Reloaded:
    """The file in an onnxruntime session on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: session.run([trained.output], {_INPUT: images})[0]  # type: ignore[no-any-return]


def encode_safetensors(trained: TrainedNetwork) -> bytes:
    """The state dict with floats as float32, under the names of the module, and the metadata."""
    state = {name: weights.contiguous() for name, weights in trained.network.state_dict().items()}
    return safetensors.torch.save(state, trained.metadata())


def load_safetensors(trained: TrainedNetwork, path: Path) -> Reloaded:
    """The file's weights in a network built anew."""
    network = trained.arch.build(1)
    network.load_state_dict(safetensors.torch.load_file(path))
    network.eval()
    return lambda images: _run(network, images)


_FORMATS = {
    "onnx": (encode_onnx, load_onnx),
    "safetensors": (encode_safetensors, load_safetensors),
}


@dataclass(frozen=True)
class Agreement:
    """How well two networks agree: the worst image's cosine, the largest difference of any output."""

    images: int
    min_cosine: float
    max_abs_difference: float


def require_agreement(trained: TrainedNetwork, reloaded: Reloaded) -> Agreement:
    """Compares outputs on 64 random images, the same ones every time.

    Raises SearchStoppedError when the cosine of any image is not above MIN_COSINE.
    """
    batches = list(_random_images(trained))
    expected = np.concatenate([_run(trained.network, batch) for batch in batches]).astype(float)
    found = np.concatenate([reloaded(batch) for batch in batches]).astype(float)
    norms = np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1)
    with np.errstate(invalid="ignore"):  # an output of zeros has no direction: not-a-number
        cosine = float(((expected * found).sum(axis=1) / norms).min())
    if not cosine > MIN_COSINE:  # so written, not-a-number fails too
        raise SearchStoppedError(
            f"the exported network does not give what the trained one gives: cosine {cosine:.6f} on the worst "
            f"of {len(found)} images, where more than {MIN_COSINE} is required; no file was written"
        )
    return Agreement(len(found), cosine, float(np.abs(expected - found).max()))


def _random_images(trained: TrainedNetwork) -> Iterator[Floats]:
    """Batches of uniformly random pixels, normalized as the network expects."""
    rng = np.random.default_rng(_SEED)
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (trained.mean, trained.std))
    for count in _BATCHES:
        pixels = rng.integers(0, 256, (count, *trained.input_shape)).astype(np.float32)
        yield ((pixels / 255 - mean) / std).astype(np.float32)


@torch.inference_mode()
def _run(network: torch.nn.Module, images: Floats) -> Floats:
    outputs: Floats = network(torch.from_numpy(images)).numpy()
    return outputs
