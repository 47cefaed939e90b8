"""Any ONNX file, run by onnxruntime."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from facenas.data.faces.store import SIDE
from facenas.device import named_device
from facenas.errors import UserError, first_line
from facenas.evaluation.embedders.embedder import (
    CPU_PIECE,
    Embedder,
    Outputs,
    Pixels,
    at_once,
    fingerprint,
    floats,
    probe,
)
from facenas.evaluation.embedders.preprocessing import (
    ASSUMED,
    FILE,
    GRAPH,
    InputOptions,
    Preprocessing,
    usual,
)
from facenas.files import reading
from facenas.spaces import from_json

if TYPE_CHECKING:
    import torch  # seconds to import
    from onnx import ModelProto  # of the extra

_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
}
_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_ERRORS_ONLY = 3


class Entry(NamedTuple):
    """dtype: of the values it takes; last: channels come last; batch: the one number of images, if any."""

    name: str
    dtype: Any
    last: bool
    batch: int | None

    def feed(self, images: Pixels, takes: Preprocessing) -> dict[str, NDArray[Any]]:
        """What a session is given of (m, 112, 112, 3) uint8 RGB."""
        pixels = takes.apply(images)
        ordered = pixels.transpose(0, 2, 3, 1) if self.last else pixels
        return {self.name: np.ascontiguousarray(ordered, self.dtype)}


def open_onnx(path: Path, options: InputOptions, device: str | None) -> Embedder:
    """The network with what its metadata, its graph and the user say of its input.

    Raises UserError when the extra `onnx` is missing, the file is damaged, or it is no network of faces.
    """
    if options.prefix is not None:
        raise UserError(f"prefix {options.prefix}: {path} holds one network; leave it out")
    runtime = _runtime()
    with reading(path, "export it again"):
        return _open(path, options, device, runtime)


def _open(path: Path, options: InputOptions, device: str | None, runtime: Any) -> Embedder:
    from facenas.evaluation.embedders import onnx_graph

    provider, place = _provider(runtime, device)
    model = onnx_graph.read_graph(path)
    values, said = onnx_graph.constants(model), _metadata(model)
    if "threshold_cosine" in said:  # it decides no embedding: a gallery goes on when it is measured later
        kept = [item for item in model.metadata_props if item.key != "threshold_cosine"]
        del model.metadata_props[:]
        model.metadata_props.extend(kept)
    content = model.SerializeToString(deterministic=True)
    facts = {"format": "ONNX", "parameters": onnx_graph.count_parameters(model)}
    if provider == _CPU:
        onnx_graph.use_fast_prelu(model, values)
    session = open_session(path, model, provider, place.index)
    entry, chosen = entry_of(path, model, session, options)
    names = [output.name for output in session.get_outputs()]

    def run(images: Pixels) -> Outputs:
        found = session.run(names, entry.feed(images, chosen))
        return dict(zip(names, map(floats, found), strict=True))

    selection, batch = probe(path, run, options.embedding, entry.batch)
    gpu = provider != _CPU
    facts |= {**_counts(said), **_int8(path, said), **chosen.facts()}
    facts |= {"device": str(place), "output": selection.embedding}
    return Embedder(
        name=path.name,
        fingerprint=fingerprint(content, f"{chosen.identity} {provider}", selection),
        size=selection.size,
        facts=facts,
        run=at_once(lambda images: selection(run(images))),
        piece=batch or (None if gpu else CPU_PIECE),
        fixed=batch is not None,
        alone=gpu,
    )


def open_session(path: Path, model: ModelProto, provider: str = _CPU, card: int | None = None) -> Any:
    """The graph in onnxruntime, on one thread; raises UserError, naming `path`, when it cannot run it.

    card: number of the GPU, where the provider is for one.
    """
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    # Many calls at once, of one thread each, are faster than one call of many.
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    settings.log_severity_level = _ERRORS_ONLY
    try:
        chosen = [provider] if card is None else [(provider, {"device_id": card})]
        return onnxruntime.InferenceSession(model.SerializeToString(), settings, chosen)
    except Exception as error:  # onnxruntime's own kinds
        raise UserError(f"{path}: onnxruntime cannot run it ({first_line(error)})") from None


def entry_of(path: Path, model: ModelProto, session: Any, options: InputOptions) -> tuple[Entry, Preprocessing]:
    """Its input, and what that wants of pixels by options, metadata and graph; raises UserError for no network
    of faces.
    """
    from facenas.evaluation.embedders import onnx_graph

    entry = _input(path, session)
    takes_bytes = entry.dtype == np.uint8
    takes_raw = onnx_graph.takes_raw(model, entry.name, onnx_graph.constants(model))
    chosen = _preprocessing(path, _metadata(model), takes_bytes, takes_raw).changed(options)
    if takes_bytes and (set(chosen.mean), set(chosen.std)) != ({0.0}, {1.0}):
        raise UserError(f"{path}: takes pixels as bytes; leave out mean and std")
    return entry, chosen


def _metadata(model: ModelProto) -> dict[str, str]:
    """Ours; others' says nothing that we know."""
    said = {item.key: item.value for item in model.metadata_props}
    return said if "facenas_version" in said else {}


def _runtime() -> Any:
    try:
        import onnx  # noqa: F401  (reads the graph)
        import onnxruntime
    except ImportError as error:
        raise UserError(
            f"ONNX files need {error.name}, which is not installed: pip install 'facenas[onnx]'"
        ) from None
    return onnxruntime


def _provider(runtime: Any, device: str | None) -> tuple[str, torch.device]:
    """A GPU where torch and onnxruntime both have one, else the CPU; and which device that is."""
    place = named_device(device).torch_device
    if place.type == "cpu":
        return _CPU, place
    if _CUDA in runtime.get_available_providers():
        return _CUDA, place
    if device is not None:
        raise UserError(
            f"device {device}: this onnxruntime runs on the CPU alone; pip install onnxruntime-gpu in its "
            "place, or take the device cpu"
        )
    return _CPU, named_device("cpu").torch_device


def _input(path: Path, session: Any) -> Entry:
    """Its one input of images; raises UserError when that is not 112x112 and three channels."""
    entries = session.get_inputs()
    if len(entries) != 1:
        names = ", ".join(entry.name for entry in entries) or "none"
        raise UserError(f"{path}: should have one input, the images, but has {len(entries)} ({names})")
    entry, axes = entries[0], " x ".join(str(size) for size in entries[0].shape)
    if entry.type not in _TYPES:
        raise UserError(f"{path}: its input {entry.name} takes {entry.type}, not float or uint8 pixels")
    shape = [size if isinstance(size, int) and size > 0 else None for size in entry.shape]
    if len(shape) != 4 or not {shape[1], shape[3]} & {3, None}:
        raise UserError(
            f"{path}: its input {entry.name} is {axes}, but should be n x 3 x {SIDE} x {SIDE} or n x {SIDE} x "
            f"{SIDE} x 3"
        )
    last = shape[3] == 3 and shape[1] != 3
    sides = shape[1:3] if last else shape[2:]
    if set(sides) - {None, SIDE} or (not last and shape[1] not in (3, None)):
        raise UserError(
            f"{path}: takes images of {axes}, but faces are aligned to {SIDE}x{SIDE} in color; give a network "
            "of that size"
        )
    return Entry(entry.name, _TYPES[entry.type], last, shape[0])


def _preprocessing(
    path: Path, said: dict[str, str], takes_bytes: bool, takes_raw: bool | None
) -> Preprocessing:
    """From our metadata, else from how the graph begins."""
    if not said.get("output", "embedding").startswith("embedding"):
        raise UserError(f"{path}: is a classification network; this needs a network of faces")
    if said:
        try:
            mean, std = (tuple(255 * float(v) for v in json.loads(said[key])) for key in ("mean", "std"))
            return Preprocessing(said["colour"].lower(), mean, std, FILE, FILE)
        except (KeyError, ValueError, TypeError) as error:
            raise UserError(f"{path}: its metadata is damaged ({first_line(error)}); export it again") from None
    if takes_bytes:
        return Preprocessing("rgb", (0.0,), (1.0,), ASSUMED, FILE)
    if takes_raw is None:
        return usual()
    return Preprocessing("rgb", (0.0,), (1.0 if takes_raw else 255.0,), ASSUMED, GRAPH)


def _int8(path: Path, said: dict[str, str]) -> dict[str, Any]:
    """How an int8 file of ours came to be, and its threshold, if it has one."""
    try:
        return {key: json.loads(said[key]) for key in ("int8", "threshold_cosine") if key in said}
    except ValueError as error:
        raise UserError(f"{path}: its metadata is damaged ({first_line(error)}); export it again") from None


def _counts(said: dict[str, str]) -> dict[str, int]:
    """Of a network of ours, whose export folds some weights into others."""
    try:
        arch = from_json(json.loads(said["architecture"]))
    except (KeyError, ValueError, UserError):  # it runs all the same
        return {}
    return {"parameters": arch.count_parameters(), "macs": arch.count_macs(SIDE)}
