"""Networks in torch, and plain functions, as embedders; and the pairs that training checks itself by."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from facenas.data.faces.loader import batches_in_order, to_input
from facenas.data.faces.store import SIDE, FaceStore
from facenas.device import Device
from facenas.errors import UserError
from facenas.evaluation.embedders.embedder import (
    CPU_PIECE,
    Embedder,
    Outputs,
    Pixels,
    Rows,
    fingerprint,
    probe,
)
from facenas.evaluation.embedders.preprocessing import (
    FILE,
    USER,
    InputOptions,
    Preprocessing,
    usual,
)
from facenas.evaluation.metrics.checks import Floats
from facenas.evaluation.metrics.ten_fold import squared_distances
from facenas.models.import_weights import Color
from facenas.models.load import TrainedNetwork, load_network

_BATCH = 128


def open_checkpoint(path: Path, options: InputOptions, device: Device) -> Embedder:
    """A run's folder, its `checkpoints/model.pt`, an export as safetensors, or another project's checkpoint.

    Raises UserError when the file is damaged or holds no network of faces.
    """
    if options.embedding is not None:
        raise UserError(f"embedding {options.embedding}: {path} has one output; leave it out")
    colors: dict[str | None, Color] = {"rgb": "RGB", "bgr": "BGR"}
    trained = load_network(path, colors.get(options.color and options.color.lower()))
    device.place(trained)
    file = path / "checkpoints" / "model.pt" if path.is_dir() else path
    return open_trained(trained, options, device, path, file.read_bytes())


def open_trained(
    trained: TrainedNetwork,
    options: InputOptions,
    device: Device,
    path: Path | None = None,
    content: bytes | None = None,
) -> Embedder:
    """A network where it is, such as one that `facenas.load` gave: raw embeddings.

    path: of its file, if it is known, and its content, which is quicker to fingerprint than the weights are.
    """
    arch, place = trained.arch, device.torch_device
    if arch.task != "face":
        where = path or arch.kind
        raise UserError(f"{where}: is a classification network; this needs a network of faces")
    mean, std = (tuple(255 * v for v in values) for values in (trained.mean, trained.std))
    color = "bgr" if trained.turned else trained.color.lower()
    chosen = Preprocessing(color, mean, std, FILE, FILE).changed(options)
    given = chosen.turned() if trained.turned else chosen

    def run(images: Pixels) -> Rows:
        values = network_input(images, given, place)
        return raw_embeddings(trained.network, values, device).numpy()

    gpu = place.type != "cpu"
    precision = "bfloat16" if device.bf16 else "float32"
    found = digest_of(trained) if content is None else content
    return Embedder(
        name=path.name if path else arch.kind,
        fingerprint=fingerprint(found, chosen.identity, color, precision),
        size=arch.embedding,
        facts={
            "format": trained.format,
            "parameters": arch.count_parameters(),
            "macs": arch.count_macs(SIDE),
            **chosen.facts(),
            "precision": precision,
            "device": str(place),
        },
        run=run,
        piece=None if gpu else CPU_PIECE,
        alone=gpu,
    )


def open_module(module: nn.Module, options: InputOptions) -> Embedder:
    """A module in memory that takes (n, 3, 112, 112) float RGB in [-1, 1], unless `options` say otherwise.

    It gives (n, E), or several outputs as a tuple or dict, named 0, 1, ... or by their keys. It runs on its own
    device, in its own dtype, one batch at a time; `evaluation_mode` is its caller's to set. Nothing is kept on
    disk: the code behind the weights may be another tomorrow.
    """
    first = next(module.parameters(), torch.empty(0))
    chosen = usual(said_by=USER).changed(options)

    @torch.inference_mode()
    def outputs(images: Pixels) -> Any:
        return module(network_input(images, chosen, first.device).to(first.dtype))

    facts = {
        "format": "torch module",
        "parameters": sum(p.numel() for p in module.parameters()),
        **chosen.facts(),
        "precision": str(first.dtype).removeprefix("torch."),
        "device": str(first.device),
    }
    piece = CPU_PIECE if first.device.type == "cpu" else None
    identity = digest_of(module), f"{module!r} {chosen.identity}"
    return _in_memory(type(module).__name__, outputs, options, identity, facts, piece)


def open_callable(function: Callable[[Pixels], Any], options: InputOptions) -> Embedder:
    """A function of (n, 112, 112, 3) uint8 RGB that gives (n, E), as an array or a tensor.

    It is called by one thread at a time, and nothing is kept on disk: what it computes may be another tomorrow.
    """
    name = getattr(function, "__qualname__", type(function).__qualname__)
    identity = b"", getattr(function, "__module__", "")
    return _in_memory(name, function, options, identity, {"format": "function"}, None)


def _in_memory(
    name: str,
    function: Callable[[Pixels], Any],
    options: InputOptions,
    identity: tuple[bytes, str],
    facts: dict[str, Any],
    piece: int | None,
) -> Embedder:
    def outputs(images: Pixels) -> Outputs:
        """Arrays by name, of one output or of several in a tuple or dict."""
        found = function(images)
        if not isinstance(found, dict):
            found = dict(enumerate(found if isinstance(found, tuple) else (found,)))
        return {
            str(key): np.asarray(value.detach().float().cpu() if isinstance(value, Tensor) else value)
            for key, value in found.items()
        }

    selection, batch = probe(name, outputs, options.embedding, None)
    return Embedder(
        name=name,
        fingerprint=fingerprint(identity[0], name, identity[1], selection),
        size=selection.size,
        facts=facts,
        run=lambda images: selection(outputs(images)),
        piece=batch or piece,
        fixed=batch is not None,
        alone=True,
        cacheable=False,
    )


def digest_of(module: nn.Module) -> bytes:
    """sha256 of all weights and statistics."""
    found = hashlib.sha256()
    for key, value in module.state_dict().items():
        found.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.digest()


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Within it, the module evaluates; afterwards each part trains or evaluates as before."""
    before = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in before:
            part.training = training


def network_input(images: Pixels, chosen: Preprocessing, device: torch.device) -> Tensor:
    """(m, 112, 112, 3) uint8 RGB -> (m, 3, 112, 112) float32 on `device`, as `chosen` says."""
    if not chosen.unit_range:
        return torch.from_numpy(chosen.apply(images)).to(device)
    pixels = np.require(images, requirements=("C", "W"))  # else torch cannot share the memory
    values = to_input(torch.from_numpy(pixels).to(device))
    return values if chosen.color == "rgb" else values.flip(1)


@torch.inference_mode()
def raw_embeddings(model: nn.Module, values: Tensor, device: Device) -> Tensor:
    """(m, 3, 112, 112) on the device -> (m, E) float32 on the CPU, as the model gives them: not normalized."""
    with device.autocast():
        outputs: Tensor = model(values)
    return outputs.float().cpu()


def pair_distances(model: nn.Module, store: FaceStore, pairs: NDArray[np.int64], device: Device) -> Floats:
    """(n,) squared distances in [0, 4] of pairs (n, 2) of image numbers; each image is embedded once."""
    images, places = np.unique(pairs, return_inverse=True)
    batches = (batch.to(device.torch_device) for batch in batches_in_order(store, images, _BATCH))
    return squared_distances_of(summed_embeddings(model, batches, device), places.reshape(pairs.shape))


@torch.inference_mode()
def summed_embeddings(model: nn.Module, batches: Iterable[Tensor], device: Device) -> Tensor:
    """(n, E) float32 on the device: raw embeddings of each image and of its mirror image, added.

    batches: (m, 112, 112, 3) uint8 RGB, on the device already. Nothing waits for the device; the model is left
    in evaluation mode. Source: `mk-minchul/AdaFace:utils.py`,
    `deepinsight/insightface:.../verification.py`.
    """
    model.eval()
    found = []
    for batch in batches:
        sides = [batch, batch.flip(2)]
        if (
            device.torch_device.type != "cpu"
        ):  # where one large call is faster, and the last bits are others anyway
            sides = [torch.cat(sides)]
        with device.autocast():
            raw = [model(to_input(images)).float() for images in sides]
        plain, mirrored = torch.cat(raw).chunk(2)
        found.append(plain + mirrored)
    return torch.cat(found)


def squared_distances_of(raw: Tensor, pairs: NDArray[np.int64]) -> Floats:
    """(n,) squared distances in [0, 4] of pairs (n, 2) of rows of `raw` (m, E), copied to the host once.

    Rows are brought to unit length only here, so of an image and its mirror image, added, the clearer one
    counts more.
    """
    rows = raw.cpu().double().numpy()
    embeddings = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    first, second = pairs.T
    return squared_distances(embeddings[first], embeddings[second])
