"""`facenas study`: the paper's studies, each one command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from facenas.cli.output import RUNS, Json, RunsDir, Settings, show
from facenas.cli.search import ExecutorName, Reuse, as_settings, shell_command

if TYPE_CHECKING:
    from facenas.api import StudyResult


def study(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A shipped study, or a YAML file.")],
    runs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[RUN]...", help="Runs that `tables` reads, or folders of them."),
    ] = None,
    data: Annotated[str | None, typer.Option(help="A data set's name, or a folder or zip of images.")] = None,
    data_root: Annotated[Path | None, typer.Option(help="Where named data sets lie.")] = None,
    download: Annotated[bool | None, typer.Option("--download", help="Fetch missing data sets.")] = None,
    networks: Annotated[int | None, typer.Option(help="How many networks, if the study has them.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Of each network's training.")] = None,
    seeds: Annotated[int | None, typer.Option(help="How many searches, each of its own seed.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the first search, and of what is drawn.")] = None,
    executor: ExecutorName = None,
    workers: Annotated[int | None, typer.Option(help="Trials at once.")] = None,
    run: Annotated[str | None, typer.Option(help="Name of its folder; default: study, data and time.")] = None,
    reuse: Reuse = None,
    runs_dir: RunsDir = RUNS,
    settings: Settings = [],  # noqa: B006  (typer copies it)
    as_json: Json = False,
) -> None:
    """Answer a question of the paper by runs of your own: tables and a page.

    Its runs lie in its folder, each an ordinary one; `facenas resume` goes on with a study that was stopped.
    """
    import facenas

    found = facenas.study(
        name,
        data=data,
        networks=networks,
        epochs=epochs,
        seeds=seeds,
        runs=runs or (),
        seed=seed,
        workers=workers,
        executor=executor,
        settings=[*as_settings({"data.root": data_root, "data.download": download}), *settings],
        run=run,
        runs_dir=runs_dir,
        reuse=reuse or (),
        command=shell_command(),
    )
    show_study(found, as_json)


def show_study(found: StudyResult, as_json: bool) -> None:
    """What it found in sentences, and where the rest is."""
    told = found.to_json()
    if not as_json:
        print("\n".join(found.summary))
        told = {"study": told["study"], "report": told["report"]}
    show(told, as_json)
