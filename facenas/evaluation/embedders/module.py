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
from facenas.evaluation.embedders.device_batches import DeviceBatches, network_input
from facenas.evaluation.embedders.embedder import (
    BATCH,
    CPU_PIECE,
    GPU_BATCH,
    Embedder,
    Outputs,
    Pixels,
    at_once,
    fingerprint,
    floats,
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
from facenas.models.import_layouts import Color
from facenas.models.load import TrainedNetwork, load_network

_BATCH = 128


def open_checkpoint(path: Path, options: InputOptions, device: Device) -> Embedder:
    """A run's folder, its `checkpoints/model.pt`, an export as safetensors, or another project's checkpoint.

    Raises UserError when the file is damaged or holds no network of faces.
    """
    if options.embedding is not None:
        raise UserError(f"embedding {options.embedding}: {path} has one output; leave it out")
    colors: dict[str | None, Color] = {"rgb": "RGB", "bgr": "BGR"}
    trained = load_network(path, colors.get(options.color and options.color.lower()), options.prefix)
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

    name, gpu = path.name if path else arch.kind, place.type != "cpu"
    precision = "bfloat16" if device.bf16 else "float32"
    found = digest_of(trained) if content is None else content
    # One file may hold several networks. Without a prefix the key is what it was before there were any.
    chosen_of = (options.prefix,) if options.prefix else ()
    return Embedder(
        name=name,
        fingerprint=fingerprint(found, chosen.identity, color, precision, *chosen_of),
        size=arch.embedding,
        facts={
            "format": trained.format,
            "parameters": arch.count_parameters(),
            "macs": arch.count_macs(SIDE),
            **chosen.facts(),
            "precision": precision,
            "device": str(place),
        },
        run=DeviceBatches(name, trained.network, given, device),
        piece=None if gpu else CPU_PIECE,
        alone=gpu,
        batch=GPU_BATCH if gpu else BATCH,
    )


def open_module(module: nn.Module, options: InputOptions, bf16: bool = False) -> Embedder:
    """A module in memory that takes (n, 3, 112, 112) float RGB in [-1, 1], unless `options` say otherwise.

    It gives (n, E), or several outputs as a tuple or dict, named 0, 1, ... or by their keys. It runs on its own
    device, one batch at a time, in its own dtype or by autocast in bf16; `evaluation_mode` is its caller's to
    set. Nothing is kept on disk: the code behind the weights may be another tomorrow.
    """
    name, first = type(module).__name__, next(module.parameters(), torch.empty(0))
    chosen, device = usual(said_by=USER).changed(options), Device(first.device, bf16)

    def outputs(values: Tensor) -> dict[str, Tensor]:
        return {key: value.float() for key, value in _named(module(values.to(first.dtype))).items()}

    @torch.inference_mode()
    def tried(images: Pixels) -> Outputs:
        found = outputs(network_input(torch.from_numpy(images).to(first.device), chosen))
        return {key: value.cpu().numpy() for key, value in found.items()}

    selection, batch = probe(name, tried, options.embedding, None)
    dtype = "bfloat16" if bf16 else str(first.dtype).removeprefix("torch.")
    identity, cpu = f"{module!r} {chosen.identity}", first.device.type == "cpu"
    return Embedder(
        name=name,
        fingerprint=fingerprint(digest_of(module), name, identity, selection, *(["bf16"] if bf16 else [])),
        size=selection.size,
        facts={
            "format": "torch module",
            "parameters": sum(p.numel() for p in module.parameters()),
            **chosen.facts(),
            "precision": dtype,
            "device": str(first.device),
        },
        run=DeviceBatches(
            name, lambda values: selection(outputs(values)), chosen, device, fixed=batch is not None
        ),
        piece=batch or (CPU_PIECE if cpu else None),
        fixed=batch is not None,
        alone=True,
        batch=BATCH if cpu else GPU_BATCH,
        cacheable=False,
    )


def open_callable(function: Callable[[Pixels], Any], options: InputOptions) -> Embedder:
    """A function of (n, 112, 112, 3) uint8 RGB that gives (n, E), as an array or a tensor.

    It is called by one thread at a time, and nothing is kept on disk: what it computes may be another tomorrow.
    """
    name = getattr(function, "__qualname__", type(function).__qualname__)

    def outputs(images: Pixels) -> Outputs:
        return {
            key: floats(value.detach().float().cpu() if isinstance(value, Tensor) else value)
            for key, value in _named(function(images)).items()
        }

    selection, batch = probe(name, outputs, options.embedding, None)
    return Embedder(
        name=name,
        fingerprint=fingerprint(b"", name, getattr(function, "__module__", ""), selection),
        size=selection.size,
        facts={"format": "function"},
        run=at_once(lambda images: selection(outputs(images))),
        piece=batch,
        fixed=batch is not None,
        alone=True,
        cacheable=False,
    )


def _named(found: Any) -> dict[str, Any]:
    """One output, or several in a tuple or dict, by name."""
    if not isinstance(found, dict):
        found = dict(enumerate(found if isinstance(found, tuple) else (found,)))
    return {str(key): value for key, value in found.items()}


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


def pair_distances(model: nn.Module, store: FaceStore, pairs: NDArray[np.int64], device: Device) -> Floats:
    """(n,) squared distances in [0, 4] of pairs (n, 2) of image numbers; each image is embedded once."""
    images, places = np.unique(pairs, return_inverse=True)
    return squared_distances_of(store_embeddings(model, store, images, device), places.reshape(pairs.shape))


def store_embeddings(model: nn.Module, store: FaceStore, images: NDArray[np.int64], device: Device) -> Tensor:
    """`summed_embeddings` of the images of these numbers."""
    batches = (batch.to(device.torch_device) for batch in batches_in_order(store, images, _BATCH))
    return summed_embeddings(model, batches, device)


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
        if batch.device.type != "cpu":  # one large call is faster there; on a CPU it would change the last bits
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
