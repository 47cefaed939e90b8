"""`evaluation.html`: from what was measured on benches to words, charts and pictures of the worst mistakes."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from facenas.evaluation.benches.result import BenchResult, PeopleResult
from facenas.files import write_text
from facenas.report import evaluation_results as results
from facenas.report import nearest, people, plots
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


def write_evaluation_page(folder: Path, model: dict[str, Any], measured: Sequence[BenchResult]) -> Path:
    """Writes `evaluation.html` into `folder`, which is there, and returns its path.

    model: `name`, and as far as known `parameters`, `macs`, `size` (of the embedding), `color`, `mean` and
    `std` of the input on the 0..255 scale; whatever else it holds is listed. Raises SearchStoppedError when
    the disk is full.
    """
    figures = {f"{one.bench.name}-{kind}": made for one in measured for kind, made in _figures(one)}
    peers = nearest.nearest(measured, model)
    names = [one.bench.name.upper().replace("_", "-") for one in measured]
    shown = {key: fact(one) for key, one in model.items() if key not in _IN_TILES and one is not None}
    text = render(
        "evaluation.html.j2",
        figures,
        model=model,
        tiles=list(_tiles(model)),
        facts=shown.items(),
        benches=[_bench(one) for one in measured],
        average=results.average(measured),
        nearest=peers,
        nearest_heads=("Network", "Trained on", ">Parameters", ">MACs", *(f">{name}" for name in names)),
        notes=list(nearest.sentences(measured, peers)),
    )
    write_text(folder / "evaluation.html", text)
    return folder / "evaluation.html"


def _bench(found: BenchResult) -> dict[str, Any]:
    """What the page shows of one bench; genuine, impostors: how many pairs were scored, None without scores."""
    same, ranking = found.same, found.bench.kind == "ranking"
    mistakes = []
    for one in found.mistakes:
        pictures = [(n, _data_uri(image)) for n, image in zip(one.names, one.images, strict=True)]
        mistakes.append((pictures, one.score, _MISTAKES[ranking, one.same]))
    return {
        "facts": found.bench,
        "result": found.to_json(),
        "measures": list(results.measures(found)),
        "rows": list(results.rows(found)),
        "rates": list(results.rates(found)),
        "identification": list(results.identification(found)),
        "genuine": None if same is None else int(np.count_nonzero(same)),
        "impostors": None if same is None else int(np.count_nonzero(~same)),
        "mistakes": mistakes,
        "people": people.page(found) if isinstance(found, PeopleResult) else None,
    }


def _figures(found: BenchResult) -> Iterator[tuple[str, plots.Figure]]:
    """The charts that the result has the values for, by kind."""
    scores, same = found.scores, found.same
    if scores is not None and same is not None and len(same):
        if same.any() and not same.all():
            yield "roc", plots.roc_plot(scores, same, found.tar_at_far)
        yield "scores", plots.score_plot(scores, same, getattr(found, "threshold_cosine", None))
    if found.cmc is not None and len(found.cmc):
        yield "cmc", plots.cmc_plot(found.cmc)
    if isinstance(found, PeopleResult):
        yield from _people_figures(found)


def _people_figures(found: PeopleResult) -> Iterator[tuple[str, plots.Figure]]:
    if found.calibration:
        yield "reliability", plots.reliability_plot(found.calibration.reliability)
        yield "probability", plots.probability_plot(found.calibration)
    if found.quality:
        yield "discard", plots.discard_plot(found.quality)
    for number, table in enumerate(found.groups):
        for part in people.group_parts(table):
            yield f"{part.error}-{number}", plots.groups_plot(part.rates, part.error)


def _data_uri(pixels: NDArray[np.uint8]) -> str:
    """(height, width, 3) uint8 RGB pixels as a JPEG within the page."""
    jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), _JPEG_QUALITY, "RGB", "420")
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")


def _tiles(model: dict[str, Any]) -> Iterator[Tile]:
    """Size and preprocessing, as far as they are known."""
    known = {key: one for key, one in model.items() if one is not None}
    if "parameters" in known:
        yield "Parameters", short(known["parameters"]), count(known["parameters"])
    if "macs" in known:
        yield "MACs", short(known["macs"]), "multiply-accumulates for one image"
    if "size" in known:
        yield "Embedding", count(known["size"]), "numbers for one face"
    if "color" in known:
        hint = "order of the colors"
        if "mean" in known and "std" in known:
            mean, std = _numbers(known["mean"]), _numbers(known["std"])
            hint = f"(x − {mean}) / {std} of pixel values x, 0 to 255"
        yield "Input assumed", str(known["color"]).upper(), hint


def _numbers(values: float | Sequence[float]) -> str:
    """One number when all channels have the same."""
    each = [f"{one:.4g}" for one in np.atleast_1d(values)]
    return each[0] if len(set(each)) == 1 else f"({', '.join(each)})"
