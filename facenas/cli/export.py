"""`facenas export`: a trained network as one file, in float or in int8."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from facenas.cli.model_options import ModelOptions
from facenas.cli.output import RUNS, Json, RunsDir, show
from facenas.errors import UserError


def export(
    model: Annotated[
        str,
        typer.Argument(metavar="RUN|FILE", help="A run; with --int8 also a checkpoint, or any .onnx of faces."),
    ],
    format: Annotated[str, typer.Option(help="onnx or safetensors.")] = "onnx",
    out: Annotated[Path | None, typer.Option(help="The file to write; default: in the run's folder.")] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="Of faces: in int8, a third of the bytes; with --calibrate.")
    ] = False,
    calibrate: Annotated[
        Path | None, typer.Option(help="Typical crops: a store, a folder or a .zip; 256 are used.")
    ] = None,
    tolerance: Annotated[float, typer.Option(help="Points of accuracy that int8 may lose.")] = 0.1,
    pairs: Annotated[
        Path | None,
        typer.Option(help="Measured on pairs: a list, or a .bin, folder or .zip that has its own."),
    ] = None,
    pairs_data: Annotated[Path | None, typer.Option(help="The images of a list of pairs.")] = None,
    input_color: Annotated[str | None, typer.Option(help="Of an .onnx that does not say: rgb or bgr.")] = None,
    mean: Annotated[str | None, typer.Option(help="And what is subtracted from pixels of 0..255.")] = None,
    std: Annotated[str | None, typer.Option(help="And what they are then divided by.")] = None,
    embedding: Annotated[str | None, typer.Option(help="And the output to keep, if there are several.")] = None,
    runs_dir: RunsDir = RUNS,
    as_json: Json = False,
) -> None:
    """Write a trained network as one file, read it back and compare it with the original."""
    if int8:
        if format != "onnx":
            raise UserError(f"--format {format}: int8 is written as onnx")
        if calibrate is None:
            raise UserError("--int8: add --calibrate DATA, typical crops in a store, a folder or a .zip")
        from facenas.api.loading import export_int8

        options = ModelOptions(model, input_color, mean, std, embedding, runs_dir=runs_dir)
        told = export_int8(
            options.path(),
            calibrate,
            out,
            tolerance=tolerance,
            pairs=pairs,
            pairs_data=pairs_data,
            threshold=None if pairs else options.last_threshold().value,
            input=options.input(),
        )
        show(told, as_json)
        return
    given: dict[str, object] = {"--calibrate": calibrate, "--pairs": pairs, "--pairs-data": pairs_data}
    given |= {"--input-color": input_color, "--mean": mean, "--std": std, "--embedding": embedding}
    for option, value in given.items():
        if value is not None:
            raise UserError(f"{option}: is of an export in int8; add --int8")
    from facenas.export import export_run
    from facenas.runs import open_run

    show(export_run(open_run(runs_dir, model).folder, format, out), as_json)
