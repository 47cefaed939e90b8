"""`evaluation.html`: from what was measured on benches to words, charts and pictures of the worst mistakes."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from facenas.evaluation.benches.result import BenchResult
from facenas.files import write_text
from facenas.report import evaluation_results as results
from facenas.report import plots
from facenas.report.format import count, fact, short
from facenas.report.html import Tile, render

_JPEG_QUALITY = 85  # to look at only: half the bytes of the quality that images are stored with
_IN_TILES = ("name", "parameters", "macs", "size", "color", "mean", "std")
_MISTAKES = {  # by whether a gallery was ranked, and whether it is one person
    (False, True): "rejected, but it is one person",
    (False, False): "accepted, but these are two people",
    (True, True): "not found first, but it is this person",
    (True, False): "found first, but it is another person",
}


def write_evaluation_page(
    folder: Path, model: dict[str, Any], measured: Sequence[BenchResult]
) -> Path:
    """Writes `evaluation.html` into `folder`, which is there, and returns its path.

    model: `name`, and as far as known `parameters`, `macs`, `size` (of the embedding), `color`, `mean` and
    `std` of the input on the 0..255 scale; whatever else it holds is listed. Raises SearchStoppedError when
    the disk is full.
    """
    figures = {
        f"{one.bench.name}-{kind}": figure for one in measured for kind, figure in _figures(one)
    }
    text = render(
        "evaluation.html.j2",
        figures,
        model=model,
        tiles=list(_tiles(model)),
        facts=[(k, fact(v)) for k, v in model.items() if k not in _IN_TILES and v is not None],
        benches=[_bench(one, figures) for one in measured],
        average=results.average(measured),
    )
    write_text(folder / "evaluation.html", text)
    return folder / "evaluation.html"


def _bench(found: BenchResult, figures: dict[str, Any]) -> dict[str, Any]:
    """What the page shows of one bench; genuine, impostors: how many pairs were scored, None without scores."""
    facts, same, result = found.bench, found.same, found.to_json()
    pictures = [
        [(n, _data_uri(image)) for n, image in zip(one.names, one.images, strict=True)]
        for one in found.mistakes
    ]
    words = [_MISTAKES[facts.kind == "ranking", one.same] for one in found.mistakes]
    scores = [one.score for one in found.mistakes]
    return {
        **{"name": facts.name, "title": facts.title, "kind": facts.kind, "formula": facts.formula},
        "result": result,
        "measures": list(results.measures(result)),
        "rows": list(results.rows(found)),
        "rates": list(results.rates(result)),
        "identification": list(results.identification(result)),
        "genuine": None if same is None else int(np.count_nonzero(same)),
        "impostors": None if same is None else int(np.count_nonzero(~same)),
        "charts": [kind for kind in ("roc", "scores", "cmc") if f"{facts.name}-{kind}" in figures],
        "mistakes": list(zip(pictures, scores, words, strict=True)),
    }


def _figures(found: BenchResult) -> Iterator[tuple[str, plots.Figure]]:
    """The charts that the found has the values for, by kind."""
    scores, same = found.scores, found.same
    if scores is not None and same is not None and len(same):
        if same.any() and not same.all():
            yield "roc", plots.roc_plot(scores, same, found.tar_at_far)
        yield "scores", plots.score_plot(scores, same, found.to_json().get("threshold_cosine"))
    if found.cmc is not None and len(found.cmc):
        yield "cmc", plots.cmc_plot(found.cmc)


def _data_uri(pixels: NDArray[np.uint8]) -> str:
    """(height, width, 3) uint8 RGB pixels as a JPEG within the page."""
    jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), _JPEG_QUALITY, "RGB", "420")
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")


def _tiles(model: dict[str, Any]) -> Iterator[Tile]:
    """Size and preprocessing, as far as they are known."""
    if model.get("parameters") is not None:
        yield "Parameters", short(model["parameters"]), count(model["parameters"])
    if model.get("macs") is not None:
        yield "MACs", short(model["macs"]), "multiply-accumulates for one image"
    if model.get("size") is not None:
        yield "Embedding", count(model["size"]), "numbers for one face"
    if model.get("color") is not None:
        hint = "order of the colors"
        if model.get("mean") is not None and model.get("std") is not None:
            mean, std = _numbers(model["mean"]), _numbers(model["std"])
            hint = f"(x − {mean}) / {std} of pixel values x, 0 to 255"
        yield "Input assumed", str(model["color"]).upper(), hint


def _numbers(values: float | Sequence[float]) -> str:
    """One number when all channels have the same."""
    each = [values] if isinstance(values, int | float) else list(values)
    distinct = list(dict.fromkeys(f"{one:.4g}" for one in each))
    return distinct[0] if len(distinct) == 1 else f"({', '.join(f'{one:.4g}' for one in each)})"
