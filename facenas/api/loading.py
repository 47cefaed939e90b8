"""`facenas.load`, `export_int8` and `export_latency`: what is made of networks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from facenas.api.folders import RUNS, open_named
from facenas.api.searching import SearchResult
from facenas.api.settings import Settings, anchored, configure, data_facts, data_name
from facenas.api.training import TrainResult, weights_path
from facenas.errors import UserError

if TYPE_CHECKING:
    from facenas.evaluation.embedders import Embedder, InputOptions
    from facenas.evaluation.network import Network


def load(
    source: str | Path | SearchResult | TrainResult, *, runs_dir: Any = None, prefix: str | None = None
) -> Network | Embedder:
    """A trained network with its preprocessing: `.embed(images)` of faces, `.predict(images)` of classes.

    source: a trained run (name, folder, or what `train` gave), a checkpoint of AdaFace, CVLface or
    arcface_torch, an ONNX file, or a safetensors file that `facenas export` wrote. The network is an
    `nn.Module` on the CPU, but for ONNX. prefix: which network of a checkpoint that has several. Raises
    UserError when there is no such thing, it is not trained yet, or the file is damaged; nothing in it is run.
    """
    from facenas.evaluation.network import Network

    path = weights_path(source, runs_dir)
    if path.suffix.lower() == ".onnx":
        from facenas.evaluation.embedders import open_embedder

        return open_embedder(path)
    from facenas.models.load import load_network

    return Network(load_network(path, prefix=prefix))


def export_int8(
    source: str | Path | SearchResult | TrainResult,
    calibrate: str | Path,
    out: str | Path | None = None,
    *,
    tolerance: float = 0.1,
    pairs: str | Path | None = None,
    pairs_data: str | Path | None = None,
    threshold: float | None = None,
    input: InputOptions | None = None,
    runs_dir: str | Path | None = None,
) -> dict[str, Any]:
    """Writes a network of faces as an int8 ONNX file that loses at most `tolerance` points of accuracy.

    source: as in `load`. calibrate: typical crops, a store, a folder or a .zip; 256 are used, 32 needed. out:
    by default `<run>/export/<run>-int8.onnx`. pairs: a list whose images lie in `pairs_data`, or a .bin, folder
    or .zip that has its own: accuracy is measured on them before and after, and the file has their threshold.
    Without, a mean cosine of 1 - 0.05 tolerance to the float network stands for it, and `threshold`, a cosine
    of the float network's, is moved into the file. input: what an ONNX file takes, if it does not say. Returns
    what was chosen and measured, the speed too. The same arguments give the same file. Raises UserError for bad
    input, SearchStoppedError when the tolerance cannot be kept; then nothing is written.
    """
    from facenas.export.int8 import PairsGiven, export_int8

    path = weights_path(source, runs_dir)
    if out is None and not path.is_dir():
        raise UserError(f"{path}: is no run, in whose folder the int8 file could lie; give out")
    if pairs is None and pairs_data is not None:
        raise UserError(f"pairs_data {pairs_data}: holds images for a list of pairs; give pairs")
    given = None if pairs is None else PairsGiven(Path(pairs), None if pairs_data is None else Path(pairs_data))
    place = path / "export" / f"{path.resolve().name}-int8.onnx" if out is None else Path(out)
    return export_int8(
        *(path, Path(calibrate), place),
        tolerance=tolerance,
        pairs=given,
        threshold=threshold,
        options=input,
    )


def export_latency(
    target: str | Path,
    out: str | Path,
    *,
    networks: int = 20,
    blocks: int = 2000,
    draws: int = 2000,
    data: Any = None,
    settings: Settings = (),
    runs_dir: str | Path | None = None,
) -> dict[str, Any]:
    """Writes a zip that measures networks on another machine; its `latency.json` is `latency` of `search`.

    target: a run, whose candidates come first (its front, then all others), or a preset, whose space alone is
    known. networks: that are measured whole, filled up by random ones of the space; blocks: distinct parts of
    networks, those of most networks first, out of up to `draws` random ones. data, settings: of a preset, as in
    `search`. Returns what the zip holds. Raises UserError for wrong arguments or data.
    """
    from facenas.export.latency import candidates_of, export_latency

    if any((folder / "run.yaml").is_file() for folder in (Path(runs_dir or RUNS, target), Path(target))):
        run = open_named(target, runs_dir)
        if data is not None or settings:
            raise UserError(f"{target}: is a run, which has data and settings of its own; give a preset")
        space, candidates = run.config.build_space(run.about["data"]), candidates_of(run)
    else:
        config = anchored(configure(target, settings, {"data.name": data_name(data)}, ()))
        space, candidates = config.build_space(data_facts(config)), []
    return export_latency(space, candidates, Path(out), networks, blocks, draws)
