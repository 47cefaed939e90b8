"""`facenas latency ...`: how long networks take on another machine, such as a phone or a small board."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from facenas.cli.output import RUNS, Json, RunsDir, Settings, show
from facenas.cli.search import as_settings

latency_app = typer.Typer(no_args_is_help=True, help="Latency on a target: what networks take there.")


@latency_app.command(epilog="Example: facenas latency export pareto-demo --out bench.zip")
def export(
    target: Annotated[
        str, typer.Argument(metavar="RUN|PRESET", help="A run, a shipped preset, or a YAML file.")
    ],
    out: Annotated[Path, typer.Option(metavar="OUT.zip", help="The zip to write.")],
    networks: Annotated[int, typer.Option(min=0, help="Whole networks; of a run its front first.")] = 20,
    blocks: Annotated[int, typer.Option(min=0, help="Distinct blocks, those of most networks first.")] = 2000,
    draws: Annotated[int, typer.Option(min=0, help="Random networks whose blocks are collected.")] = 2000,
    data: Annotated[str | None, typer.Option(help="Of a preset: as in search.")] = None,
    data_root: Annotated[Path | None, typer.Option(help="Where named data sets lie.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Of a preset: as in search.")] = None,
    runs_dir: RunsDir = RUNS,
    settings: Settings = [],  # noqa: B006  (typer copies it)
    as_json: Json = False,
) -> None:
    """Write a zip of ONNX files and bench.py, which measures them where there are onnxruntime and numpy."""
    import facenas

    options = as_settings({"data.root": data_root, "data.image_size": image_size})
    told = facenas.export_latency(
        target,
        out,
        networks=networks,
        blocks=blocks,
        draws=draws,
        data=data,
        settings=[*options, *settings],
        runs_dir=runs_dir,
    )
    show(told, as_json)
