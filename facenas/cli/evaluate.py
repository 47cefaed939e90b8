"""`facenas eval`: a network on the published benches, or on one's own."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from facenas.cli.model_options import ModelOptions, with_model
from facenas.cli.output import Json, show
from facenas.errors import UserError

if TYPE_CHECKING:
    from facenas.evaluation.benches.result import BenchResult
    from facenas.evaluation.embedders import Embedder

log = logging.getLogger(__name__)
HQ = "hq"  # the five benches of high quality together


@with_model
def eval(
    bench: Annotated[
        str,
        typer.Option(
            help="lfw, cfp_fp, agedb_30, calfw, cplfw, hq (these five), cfp_ff, ijbb, ijbc or tinyface; pairs "
            "for your own people; or a YAML file of your own, see eval_protocols/README.md."
        ),
    ],
    model: ModelOptions,
    data: Annotated[
        Path,
        typer.Option(help="The bench's files: a .bin, a folder or .zip of 112x112 crops, IJBC/."),
    ],
    pairs: Annotated[Path | None, typer.Option(help="The list of pairs, if it is not with the images.")] = None,
    groups: Annotated[
        Path | None, typer.Option(help="pairs: CSV of identity or image and its groups, such as an age band.")
    ] = None,
    quality: Annotated[
        Path | None, typer.Option(help="pairs: CSV of image and numbers, the higher the better.")
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="pairs: judge groups and qualities at this cosine; default: FMR 1e-3's."),
    ] = None,
    flip: Annotated[bool, typer.Option(help="Add the mirror image's embedding.")] = True,
    fusion: Annotated[
        str | None,
        typer.Option(help="IJB templates as adaface (default), insightface or cvlface pools them."),
    ] = None,
    detector_score: Annotated[
        bool | None, typer.Option(help="IJB: weigh images by the detector's score.")
    ] = None,
    keep_norm: Annotated[bool | None, typer.Option(help="IJB: weigh images by their embedding's norm.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images at a time; default: 64, on a GPU 512.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Threads; default: one a core.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for results.json and evaluation.html.")] = None,
    as_json: Json = False,
) -> None:
    """Measure a network on a published bench, with published figures beside.

    Embeddings are extracted once and kept: the same network on the same images takes seconds after that.
    """
    from facenas.evaluation import evaluate, evaluate_hq
    from facenas.evaluation.benches import find_bench
    from facenas.files import check_place

    given = {
        "pairs": pairs,
        "groups": groups,
        "quality": quality,
        "threshold": threshold,
        "fusion": fusion,
        "use_detector_score": detector_score,
        "keep_norm": keep_norm,
    }
    settings = {key: value for key, value in given.items() if value is not None}
    options: dict[str, Any] = {"flip": flip, "batch_size": batch_size, "workers": workers}
    check_place(out or model.evaluation(Path(bench).stem))
    if model.was_trained_on(data):
        log.warning(
            "%s: is what %s was trained on, whose people it knows: others tell how good it is",
            *(data, model.model),
        )
    if bench == HQ:
        if settings:
            raise UserError(
                f"--{next(iter(settings)).replace('_', '-')}: hq is five benches; give it to one of them"
            )
        with model.open() as embedder:
            found = evaluate_hq(embedder, data, **options)
        measured, figures, missing = list(found.results.values()), found.to_json(), found.missing
    else:
        chosen = find_bench(bench, **settings)  # a fault is told before a network is read
        with model.open() as embedder:
            result = evaluate(embedder, chosen, data, **options)
        bench, measured, figures, missing = chosen.name, [result], result.to_json(), {}
    figures = {"bench": bench, "model": model.model, "flip": flip, **figures}
    results = _write(out or model.evaluation(bench), figures, embedder, measured)
    for sentence in (*(told for one in measured for told in one.warnings), *missing.values()):
        typer.echo(f"facenas: {sentence}", err=True)
    if as_json:
        show(results, as_json)
        return
    from facenas.cli.evaluation_table import print_results

    print_results(measured, results["network"])
    print(results["report"])


def _write(
    folder: Path, figures: dict[str, Any], embedder: Embedder, measured: list[BenchResult]
) -> dict[str, Any]:
    """`results.json` and `evaluation.html`; gives what the former holds."""
    from facenas.files import write_json
    from facenas.report import write_evaluation_page
    from facenas.report.nearest import nearest

    network = {
        "name": embedder.name,
        "size": embedder.size,
        **embedder.facts,
        "fingerprint": embedder.fingerprint,
    }
    peers = [peer.to_json() for peer in nearest(measured, network)]
    results = {**figures, "network": network, "nearest": peers, "report": str(folder / "evaluation.html")}
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "results.json", results)
    write_evaluation_page(folder, network, measured)
    return results
