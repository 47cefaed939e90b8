"""`facenas eval`: a network on the published benches."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from facenas.cli.output import RUNS, Json, RunsDir, show
from facenas.errors import UserError

if TYPE_CHECKING:
    from facenas.evaluation.embedders import InputOptions

Model = Annotated[
    str,
    typer.Option(
        help="A trained run, or a file: a checkpoint (AdaFace, CVLface, arcface_torch), TorchScript, .onnx."
    ),
]
Colour = Annotated[
    str | None,
    typer.Option("--input-color", help="rgb or bgr: what the network takes, if it does not say."),
]
Mean = Annotated[
    str | None,
    typer.Option(help="Subtracted from pixels of 0..255: one number, or one a channel, as 1,2,3."),
]
Std = Annotated[str | None, typer.Option(help="What they are then divided by, e.g. 127.5.")]
Embedding = Annotated[
    str | None, typer.Option(help="The output that is the embedding, if a file has several.")
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:1; default: a GPU if any.")]


def eval(
    bench: Annotated[
        str,
        typer.Option(
            help="lfw, cfp_fp, agedb_30, calfw, cplfw, hq (these five), cfp_ff, ijbb, ijbc or tinyface."
        ),
    ],
    model: Model,
    data: Annotated[
        Path,
        typer.Option(help="The bench's files: a .bin, a folder or .zip of 112x112 crops, IJBC/."),
    ],
    pairs: Annotated[
        Path | None, typer.Option(help="The list of pairs, if it is not with the images.")
    ] = None,
    flip: Annotated[bool, typer.Option(help="Add the mirror image's embedding.")] = True,
    fusion: Annotated[
        str, typer.Option(help="IJB templates as adaface, insightface or cvlface pools them.")
    ] = "adaface",
    detector_score: Annotated[
        bool | None, typer.Option(help="IJB: weigh images by the detector's score.")
    ] = None,
    keep_norm: Annotated[
        bool | None, typer.Option(help="IJB: weigh images by their embedding's norm.")
    ] = None,
    input_color: Colour = None,
    mean: Mean = None,
    std: Std = None,
    embedding: Embedding = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 64,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Threads; default: one a core.")
    ] = None,
    device: Device = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for results.json and evaluation.html.")
    ] = None,
    runs_dir: RunsDir = RUNS,
    as_json: Json = False,
) -> None:
    """Measure a network on a published bench, with published figures beside.

    Embeddings are extracted once and kept: the same network on the same images takes seconds after that.
    """
    from facenas.cli.commands.evaluate import Settings, evaluate, told

    options = input_options(input_color, mean, std, embedding)
    settings = Settings(
        flip, batch_size, workers, device, fusion, detector_score, keep_norm, options
    )
    results, measured = evaluate(bench, model, data, pairs, settings, out, runs_dir)
    for sentence in told(measured):
        typer.echo(f"facenas: {sentence}", err=True)
    if as_json:
        show(results, as_json)
        return
    from facenas.cli.evaluation_table import print_results

    print_results(list(measured.outcomes.values()))
    print(results["report"])


def input_options(
    colour: str | None, mean: str | None, std: str | None, embedding: str | None
) -> InputOptions:
    """What the command line says of a network; raises UserError for what are no numbers."""
    from facenas.evaluation.embedders import InputOptions

    return InputOptions(colour, _numbers("--mean", mean), _numbers("--std", std), embedding)


def _numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    try:
        return tuple(float(word) for word in text.split(",")) if text is not None else None
    except ValueError:
        raise UserError(
            f"{option} {text}: should be one number, or three with commas between"
        ) from None
