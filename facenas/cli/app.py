"""The command line. Thin: each command checks its words, calls one function and prints what came of it.

Logs and progress go to stderr. `--json` prints one JSON object as the last line of stdout and nothing
else there. Exit code 0: done; 1: failed; 2: wrong usage or bad input, told in one sentence.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Annotated

import typer

from facenas._version import __version__
from facenas.cli import search, train
from facenas.cli.data import cache, data_app
from facenas.cli.evaluate import eval
from facenas.cli.export import export
from facenas.cli.faces import register
from facenas.cli.latency import latency_app
from facenas.cli.models import models
from facenas.cli.study import study
from facenas.errors import SearchStoppedError, UserError, first_line

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Find and train networks by neural architecture search, and prove how good they are.",
    epilog="Start here: facenas search --preset demo-digits",
)

_EXAMPLES: dict[Callable[..., None], str] = {
    search.search: "facenas search --preset tiny --data fashion-mnist --data-root ~/data",
    search.resume: "facenas resume demo-digits",
    study: "facenas study ranking-demo",
    train.train: "facenas train demo-digits, or facenas train ir18 --data casia.zarr --recipe adaface-casia",
    search.replay: "facenas replay search_logs/cifar10-tiny.json --json",
    search.runs: "facenas runs",
    search.report: "facenas report pareto --budget params=1M,macs=80M",
    train.predict: "facenas predict digits scans/7.png more_scans/",
    export: "facenas export demo, or facenas export net.onnx --int8 --calibrate crops --out net8.onnx",
    models: "facenas models, or facenas models mobilefacenet --macs 80M --out small.json",
    eval: "facenas eval --bench lfw --model final --data lfw_112x112.zip",
    cache: "facenas cache --limit 20GB",
}
for command, example in _EXAMPLES.items():
    app.command(epilog=f"Example: {example}")(command)
app.add_typer(data_app, name="data")
app.add_typer(latency_app, name="latency")
register(app)


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


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script: one sentence instead of a traceback, unless --debug. arguments: or the process's."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    # What a batch system sends is taken as Ctrl-C is: what is under way is left so that it can go on.
    with suppress(ValueError):  # of another thread than the first
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app(words)
    except Exception as error:
        if "--debug" in words:
            raise
        _fail(*_told(error, words))


def _told(error: Exception, words: Sequence[str]) -> tuple[str, int]:
    """The sentence and the exit code for an error that ends a command.

    The last lines are a defence: what escapes from reading a file that nobody guarded names the files given.
    """
    if isinstance(error, UserError):
        return str(error), 2
    if isinstance(error, SearchStoppedError):
        return str(error), 1
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: cannot be used ({error.strerror})", 2
    if isinstance(error, MemoryError):
        return "there is not enough memory for this", 1
    reason = f"{type(error).__name__}: {first_line(error)}"
    values = [word.partition("=")[2] if word.startswith("--") and "=" in word else word for word in words]
    if given := ", ".join(value for value in values if os.path.lexists(value)):
        return (
            f"{given}: cannot be worked with ({reason}); if that is whole, this is a fault of facenas: report "
            "it with what `facenas --debug ...` prints"
        ), 2
    return f"a fault of facenas ({reason}); report it with what `facenas --debug ...` prints", 1


def _fail(sentence: str, code: int) -> None:
    print(f"facenas: {sentence}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
