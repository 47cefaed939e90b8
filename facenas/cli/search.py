"""`facenas search`, `resume`, `report`, `replay`, `runs`: searches and their runs."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from facenas.cli.output import RUNS, Json, RunName, RunsDir, Settings, show, table
from facenas.errors import UserError
from facenas.files import reading

MaxTrials = Annotated[int | None, typer.Option(min=1, help="Stop after so many trials; resume goes on.")]
MaxHours = Annotated[float | None, typer.Option(help="Stop after so many hours; resume goes on.")]
ExecutorName = Annotated[
    str | None,
    typer.Option(help="gpu (default with a card), process (default without), serial, ray, or module:Class."),
]
Address = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT|auto", help="Of the executor ray: the cluster; default: this machine."),
]
Until = Annotated[str | None, typer.Option(metavar="HH:MM", help="Stop at this time of day; resume goes on.")]
Reuse = Annotated[
    list[str] | None,
    typer.Option(metavar="RUN|DIR", help="A run, or a folder of runs, whose results need no training again."),
]


def search(
    preset: Annotated[str, typer.Option(help="A shipped preset, or a YAML file.")],
    data: Annotated[str | None, typer.Option(help="A data set's name, or a folder or zip of images.")] = None,
    data_root: Annotated[Path | None, typer.Option(help="Where named data sets lie.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Resize images to this many pixels.")] = None,
    download: Annotated[bool | None, typer.Option("--download", help="Fetch missing data sets.")] = None,
    strict: Annotated[
        bool | None, typer.Option("--strict", help="Exit code 1 when images cannot be read.")
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="Of a space for both: face, or classification (default).")
    ] = None,
    select_on: Annotated[
        str | None, typer.Option(help="validation (default), or test as the paper's authors did.")
    ] = None,
    latency: Annotated[
        Path | None, typer.Option(help="What a target measured, its latency.json: the objective latency.")
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            metavar="RUN|FILE",
            help="A trained network of faces whose embeddings candidates are to give, ONNX too.",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seeds all random draws.")] = None,
    executor: ExecutorName = None,
    address: Address = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Trials at once; default: 4 a card, fewer if memory is short; else one a core."),
    ] = None,
    run: Annotated[str | None, typer.Option(help="Name of the run; default: preset, data and time.")] = None,
    max_trials: MaxTrials = None,
    max_hours: MaxHours = None,
    until: Until = None,
    reuse: Reuse = None,
    runs_dir: RunsDir = RUNS,
    settings: Settings = [],  # noqa: B006  (typer copies it)
    as_json: Json = False,
) -> None:
    """Search a network by the preset's strategy, e.g. grow its depth, prune its width, swap its operations."""
    import facenas

    if task not in (None, "classification", "face"):
        raise UserError(f"--task {task}: should be classification or face")
    options = {
        "data.root": data_root,
        "data.image_size": image_size,
        "data.download": download,
        "data.strict": strict,
        "data.select_on": select_on,
        "execution.address": address,
    }
    found = facenas.search(
        preset,
        data=data,
        recipe="face-search" if task == "face" else None,
        teacher=teacher,
        latency=latency,
        seed=seed,
        workers=workers,
        executor=executor,
        settings=[*as_settings(options), *settings],
        run=run,
        runs_dir=runs_dir,
        max_trials=max_trials,
        max_hours=max_hours,
        until=until,
        reuse=reuse or (),
        command=shell_command(),
    )
    show(found.to_json(), as_json)


def resume(
    run: RunName,
    executor: ExecutorName = None,
    address: Address = None,
    workers: Annotated[int | None, typer.Option(help="Trials at once, if not as before.")] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Make failed trials again.")] = False,
    max_trials: MaxTrials = None,
    max_hours: MaxHours = None,
    until: Until = None,
    reuse: Reuse = None,
    runs_dir: RunsDir = RUNS,
    settings: Settings = [],  # noqa: B006  (typer copies it)
    as_json: Json = False,
) -> None:
    """Go on with a search that was stopped or killed; finished trials are not trained again.

    With --set, a search is extended, one that has ended too: more generations, deeper bounds, micro=true,
    looser limits. Settings that would change what was decided are refused. A study goes on to its end, with
    --workers, --executor, --address, --retry-failed and --reuse.
    """
    import facenas
    from facenas.cli.study import show_study

    where = {"executor": executor, "address": address, "workers": workers}
    given = as_settings({f"execution.{name}": value for name, value in where.items()})
    found = facenas.resume(
        run,
        settings=[*given, *settings],
        retry_failed=retry_failed,
        runs_dir=runs_dir,
        max_trials=max_trials,
        max_hours=max_hours,
        until=until,
        reuse=reuse or (),
        command=shell_command(),
    )
    if isinstance(found, facenas.StudyResult):
        show_study(found, as_json)
    else:
        show(found.to_json(), as_json)


def replay(
    log: Annotated[Path, typer.Argument(metavar="LOG", help="A recorded search, or a run by name or folder.")],
    runs_dir: RunsDir = RUNS,
    as_json: Json = False,
) -> None:
    """Check a recorded search against the engine, decision by decision."""
    from facenas.runs.replay import replay as replay_log
    from facenas.runs.run import check_is_no_study

    if not log.exists() and (runs_dir / log).is_dir():
        log = runs_dir / log
    check_is_no_study(log, log)
    comparison = replay_log(log)
    if as_json:
        show(comparison.to_json(), as_json)
    else:
        print(f"{comparison.matched} of {comparison.trials} trials match: {log}")
        print(comparison.first_difference or "the final architecture matches")
    if not comparison.same:
        raise typer.Exit(1)


def report(
    run: RunName,
    budget: Annotated[
        str | None,
        typer.Option(help="Of a Pareto front: the best within, e.g. params=1M,macs=80M."),
    ] = None,
    beside: Annotated[
        str | None, typer.Option(metavar="RUN", help="A random search to draw beside the front's.")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Again after each decision of a search under way; Ctrl-C ends it.")
    ] = False,
    runs_dir: RunsDir = RUNS,
    as_json: Json = False,
) -> None:
    """Write report.html anew: one page that opens without a network, and loads itself anew with --watch."""
    from facenas.api.studying import conduct, is_study
    from facenas.report import watch_search_page, write_search_page
    from facenas.report.front import parse_budget, recommendation
    from facenas.runs import open_run

    if study := is_study(run, runs_dir):
        if budget or beside or watch:
            raise UserError(f"{run}: is a study; --budget, --beside and --watch are for one of its runs")
        show({"report": str(conduct(study, make=False).report)}, as_json)
        return
    folder = open_run(runs_dir, run).folder
    other = open_run(runs_dir, beside).folder if beside else None
    limits = parse_budget(budget) if budget else None
    with reading(folder, "restore its files, or start a new run"):
        write = watch_search_page if watch else write_search_page
        result: dict[str, Any] = {"report": str(write(folder, other, limits))}
        if limits is not None:
            found = recommendation(folder, limits)
            result |= {"recommendation": found.sentence, **found.to_json()}
    show(result, as_json)


def runs(
    runs_dir: RunsDir = RUNS,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the table as CSV on stdout.")] = False,
    as_json: Json = False,
) -> None:
    """List the runs and how far they are."""
    from facenas.runs import list_runs

    if as_csv and as_json:
        raise UserError("--csv and --json both print on stdout; give one of them")
    rows = list_runs(runs_dir)
    if as_csv:
        print_csv(rows)
    elif as_json:
        show({"runs": rows}, as_json)
    else:
        print_runs(rows, runs_dir)


def print_runs(rows: list[dict[str, Any]], runs_dir: Path) -> None:
    """One row a run, on a terminal."""
    if not rows:
        print(f"no runs in {runs_dir}; `facenas search --preset demo-digits` makes one")
        return
    table([row | {"test_accuracy": _final_accuracy(row)} for row in rows], _COLUMNS)


def print_csv(rows: list[dict[str, Any]]) -> None:
    """One row a run with all that is known of it, for a spreadsheet; a header alone when there is none."""
    import csv

    from facenas.files import as_cells

    columns = list(dict.fromkeys([*_COLUMNS, *(key for row in rows for key in row)]))
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(as_cells(row.get(column) for column in columns) for row in rows)


_COLUMNS = (
    "run",
    "created",
    "data",
    "state",
    "trials",
    "best_accuracy",
    "parameters",
    "test_accuracy",
)


def _final_accuracy(row: dict[str, Any]) -> Any:
    """Of faces without identities to test on, the accuracy on those that the best epoch was chosen on."""
    tested, verified = row.get("test_accuracy"), row.get("verification_accuracy")
    return f"{verified:.2f} (validation)" if tested is None and verified is not None else tested


def as_settings(options: dict[str, Any]) -> list[str]:
    """Options that were given, in the form of --set."""
    import json

    given = {key: value for key, value in options.items() if value is not None}
    return [
        f"{key}={json.dumps(str(value) if isinstance(value, Path) else value)}" for key, value in given.items()
    ]


def shell_command() -> str:
    """The command that is running, for people who want to repeat it."""
    return shlex.join(["facenas", *sys.argv[1:]])
