"""The command line. Thin: each command checks its words, calls one function and prints what came of it.

Logs and progress go to stderr. `--json` prints one JSON object as the last line of stdout and nothing
else there. Exit code 0: done; 1: failed; 2: wrong usage or bad input, told in one sentence.
"""

from __future__ import annotations

import logging
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from facenas import __version__
from facenas.cli.data import data_app
from facenas.cli.evaluate import eval
from facenas.cli.faces import register
from facenas.cli.output import RUNS, Json, RunsDir, show
from facenas.errors import SearchStoppedError, UserError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Find and train networks by neural architecture search, and prove how good they are.",
    epilog="Start here: facenas search --preset demo-digits",
)

app.add_typer(data_app, name="data")
app.command(epilog="Example: facenas eval --bench lfw --model final --data lfw_112x112.zip")(eval)
register(app)

RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run's name, or its folder.")]
Settings = Annotated[
    list[str],
    typer.Option("--set", help="Any setting by its key, e.g. search.min_epochs=2; repeatable."),
]


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"facenas {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and debug logs.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings and errors.")] = False,
) -> None:
    """Options of every command."""
    level = logging.DEBUG if debug else logging.WARNING if quiet else logging.INFO
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("facenas").setLevel(level)


@app.command(epilog="Example: facenas search --preset tiny --data fashion-mnist --data-root ~/data")
def search(
    preset: Annotated[str, typer.Option(help="A shipped preset, or a YAML file.")],
    data: Annotated[
        str | None, typer.Option(help="A data set's name, or a folder or zip of images.")
    ] = None,
    data_root: Annotated[Path | None, typer.Option(help="Where named data sets lie.")] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Resize images to this many pixels.")
    ] = None,
    download: Annotated[
        bool | None, typer.Option("--download", help="Fetch missing data sets.")
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="Of a space for both: face, or classification (default).")
    ] = None,
    select_on: Annotated[
        str | None, typer.Option(help="validation (default), or test as the paper's authors did.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seeds all random draws.")] = None,
    executor: Annotated[str | None, typer.Option(help="process (default) or serial.")] = None,
    workers: Annotated[
        int | None, typer.Option(help="Worker processes; default: one a core. On GPUs: one a GPU.")
    ] = None,
    run: Annotated[
        str | None, typer.Option(help="Name of the run; default: preset, data and time.")
    ] = None,
    runs_dir: RunsDir = RUNS,
    settings: Settings = [],  # noqa: B006  (typer copies it)
    as_json: Json = False,
) -> None:
    """Search a network: grow its depth, prune its width, then swap operations and kernels."""
    from facenas.cli.commands.search import start_search
    from facenas.runs.presets import load_run_config

    if task not in (None, "classification", "face"):
        raise UserError(f"--task {task}: should be classification or face")
    overrides = {
        "recipe": "face-search" if task == "face" else None,
        "data.name": data,
        "data.root": str(data_root) if data_root else None,
        "data.image_size": image_size,
        "data.download": download,
        "data.select_on": select_on,
        "seed": seed,
        "execution.executor": executor,
        "execution.workers": workers,
    }
    config = load_run_config(preset, settings, overrides)
    command = shlex.join(["facenas", *sys.argv[1:]])
    show(start_search(config, preset, run, runs_dir, command), as_json)


@app.command(epilog="Example: facenas resume demo-digits")
def resume(run: RunName, runs_dir: RunsDir = RUNS, as_json: Json = False) -> None:
    """Go on with a search that was stopped or killed; finished trials are not trained again."""
    from facenas.cli.commands.search import resume_search

    show(resume_search(runs_dir, run), as_json)


@app.command(
    epilog="Example: facenas train demo-digits, or facenas train ir18 --data casia.zarr --recipe adaface-casia"
)
def train(
    target: Annotated[
        str,
        typer.Argument(
            metavar="RUN|ARCH.json|ir18|...",
            help="A run, an architecture file, or a named network.",
        ),
    ],
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs; default: the recipe's.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="A shipped recipe, or a YAML file; default: the preset's.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="A store of faces, or a classification set.")
    ] = None,
    data_root: Annotated[Path | None, typer.Option(help="Where named data sets lie.")] = None,
    preset: Annotated[
        str | None, typer.Option(help="Whose settings to use, if not the run's own.")
    ] = None,
    pick: Annotated[
        int | None, typer.Option(help="Of a run's Pareto front: the number of the trial to train.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seeds all random draws.")] = None,
    name: Annotated[str | None, typer.Option("--run", help="Name of the new run.")] = None,
    runs_dir: RunsDir = RUNS,
    settings: Settings = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Train a network in full and test it once; a killed training goes on where it was.

    A run alone is trained in place. With any other choice, or for a file or a named network, the
    training becomes a run of its own, with the settings of the run it comes from.
    """
    from facenas.cli.commands.train import train as train_network

    overrides = {
        "data.name": data,
        "data.root": str(data_root) if data_root else None,
        "recipe": recipe,
        "seed": seed,
    }
    command = shlex.join(["facenas", *sys.argv[1:]])
    result = train_network(
        target, preset, overrides, settings, name, runs_dir, command, epochs, pick
    )
    if result:  # of the processes that train together, one reports
        show(result, as_json)


@app.command(epilog="Example: facenas replay search_logs/cifar10-tiny.json --json")
def replay(
    log: Annotated[
        Path, typer.Argument(metavar="LOG", help="A recorded search, or a run's trials.jsonl.")
    ],
    as_json: Json = False,
) -> None:
    """Check a recorded search against the engine, decision by decision."""
    from facenas.runs.replay import replay as replay_log

    comparison = replay_log(log)
    if as_json:
        show(comparison.to_json(), as_json)
    else:
        print(f"{comparison.matched} of {comparison.trials} trials match: {log}")
        print(comparison.first_difference or "the final architecture matches")
    if not comparison.same:
        raise typer.Exit(1)


@app.command(epilog="Example: facenas export demo --format onnx")
def export(
    run: RunName,
    format: Annotated[str, typer.Option(help="onnx or safetensors.")] = "onnx",
    out: Annotated[
        Path | None, typer.Option(help="The file to write; default: in the run's folder.")
    ] = None,
    runs_dir: RunsDir = RUNS,
    as_json: Json = False,
) -> None:
    """Write a trained network as one file, read it back and compare it with the original."""
    from facenas.export import export_run
    from facenas.runs import open_run

    show(export_run(open_run(runs_dir, run).folder, format, out), as_json)


@app.command(epilog="Example: facenas models --json")
def models(as_json: Json = False) -> None:
    """List the named face networks with their sizes, and the published counts they reproduce."""
    from facenas.cli.named_table import list_models, print_models

    rows = list_models()
    if as_json:
        show({"models": rows}, as_json)
    else:
        print_models(rows)


@app.command(epilog="Example: facenas runs")
def runs(runs_dir: RunsDir = RUNS, as_json: Json = False) -> None:
    """List the runs and how far they are."""
    from facenas.runs import list_runs

    rows = list_runs(runs_dir)
    if as_json:
        show({"runs": rows}, as_json)
        return
    from facenas.cli.tables import print_runs

    print_runs(rows, runs_dir)


@app.command(epilog="Example: facenas report pareto --budget params=1M,macs=80M")
def report(
    run: RunName,
    budget: Annotated[
        str | None,
        typer.Option(help="Of a Pareto front: the best within, e.g. params=1M,macs=80M."),
    ] = None,
    beside: Annotated[
        str | None, typer.Option(metavar="RUN", help="A random search to draw beside the front's.")
    ] = None,
    runs_dir: RunsDir = RUNS,
    as_json: Json = False,
) -> None:
    """Write report.html anew: one page that opens without a network."""
    from facenas.cli.commands.report import report_run

    show(report_run(run, budget, beside, runs_dir), as_json)


def main() -> None:
    """The console script: one sentence instead of a traceback, unless --debug."""
    debug = "--debug" in sys.argv
    try:
        app()
    except UserError as error:
        if debug:
            raise
        _fail(str(error), 2)
    except SearchStoppedError as error:
        if debug:
            raise
        _fail(str(error), 1)


def _fail(sentence: str, code: int) -> None:
    print(f"facenas: {sentence}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
