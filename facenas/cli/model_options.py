"""The options that say which network makes the embeddings: one set for the five commands that need it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from facenas.cli.output import RUNS, RunsDir
from facenas.errors import UserError

if TYPE_CHECKING:  # torch takes seconds to import
    from facenas.evaluation.embedders import Embedder, InputOptions
    from facenas.evaluation.identify import Threshold


@dataclass(frozen=True)
class ModelOptions:
    """What the command line says of a network; each field is an option of every command under `with_model`."""

    model: Annotated[
        str,
        typer.Option(help="A trained run, or a file: a checkpoint (AdaFace, CVLface, arcface_torch) or .onnx."),
    ]
    input_color: Annotated[
        str | None, typer.Option(help="rgb or bgr: what the network takes, if it does not say.")
    ] = None
    mean: Annotated[
        str | None,
        typer.Option(help="Subtracted from pixels of 0..255: one number, or one a channel, as 1,2,3."),
    ] = None
    std: Annotated[str | None, typer.Option(help="What they are then divided by, e.g. 127.5.")] = None
    embedding: Annotated[
        str | None, typer.Option(help="The output that is the embedding, if a file has several.")
    ] = None
    prefix: Annotated[
        str | None, typer.Option(help="Of a checkpoint with several networks the one, e.g. teacher.")
    ] = None
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:1; default: a GPU if any.")] = None
    precision: Annotated[
        str,
        typer.Option(help="fp32: figures as on a CPU; bf16: faster on a GPU. ONNX has its own."),
    ] = "fp32"
    runs_dir: RunsDir = RUNS

    @contextmanager
    def open(self) -> Iterator[Embedder]:
        """The network; raises UserError when there is none, or an option cannot be."""
        from facenas.evaluation.embedders import embedder_of

        with embedder_of(self.path(), self.input(), self.device, self.precision) as embedder:
            yield embedder

    def input(self) -> InputOptions:
        """What is said of its input and output."""
        from facenas.evaluation.embedders import InputOptions

        mean, std = _numbers("mean", self.mean), _numbers("std", self.std)
        return InputOptions(self.input_color, mean, std, self.embedding, self.prefix)

    def last_threshold(self, embedder: Embedder | None = None) -> Threshold:
        """Of the network's last evaluation, else its own, as files in int8 have it, else none."""
        from facenas.evaluation.identify import Threshold, measured_threshold

        if embedder is None:
            with self.open() as opened:
                return self.last_threshold(opened)
        for path in self.evaluations():
            found = measured_threshold(path, embedder.fingerprint)
            if found.value is not None:
                return found
        own = embedder.facts.get("threshold_cosine")
        return Threshold() if own is None else Threshold(own, f"{embedder.name} itself")

    def path(self) -> Path:
        """The file, or the run's folder; raises UserError when there is neither."""
        path = Path(self.model) if Path(self.model).is_file() else self._run()
        if path is None:
            raise UserError(
                f"{self.model}: is neither a file nor a run in {self.runs_dir}; `facenas runs` lists the runs"
            )
        return path

    def was_trained_on(self, data: Path) -> bool:
        """Whether `data` is the store of the run's own training."""
        from facenas.data.datasets import names_store
        from facenas.data.faces.store import open_store
        from facenas.runs import open_run

        run = self._run()
        if run is None or not names_store(data):
            return False
        return bool(open_run(run.parent, run.name).about["data"]["fingerprint"] == open_store(data).fingerprint)

    def evaluation(self, bench: str) -> Path:
        """Where `facenas eval` leaves its results: in the run's folder, else in `evaluations` here."""
        run = self._run()
        if run is not None:
            return run / "evaluations" / bench
        return Path("evaluations") / f"{Path(self.model).stem}-{bench}"

    def evaluations(self) -> list[Path]:
        """All results.json that are there of it, the latest first."""
        paths = list(Path("evaluations").glob(f"{Path(self.model).stem}-*/results.json"))
        run = self._run()
        if run is not None:
            paths += (run / "evaluations").glob("*/results.json")
        return sorted(paths, key=lambda path: -path.stat().st_mtime)

    def _run(self) -> Path | None:
        runs = (self.runs_dir / self.model, Path(self.model))
        return next((run for run in runs if (run / "run.yaml").is_file()), None)


def with_model(command: Callable[..., None]) -> Callable[..., None]:
    """The command with all options of `ModelOptions` in place of its parameter `model`, as typer reads them.

    Where that is `ModelOptions | None`, the network may be left out, and is then None.
    """
    keyword = inspect.Parameter.KEYWORD_ONLY
    signature = inspect.signature(ModelOptions, eval_str=True)
    shared = [one.replace(kind=keyword) for one in signature.parameters.values()]
    parameters = inspect.signature(command, eval_str=True).parameters
    if parameters["model"].annotation == ModelOptions | None:
        metadata = shared[0].annotation.__metadata__
        shared[0] = shared[0].replace(default=None, annotation=Annotated[str | None, *metadata])

    def run(**given: Any) -> None:
        told = {one.name: given.pop(one.name) for one in shared}
        command(model=ModelOptions(**told) if told["model"] is not None else None, **given)

    options: list[inspect.Parameter] = []
    for one in parameters.values():
        options += shared if one.name == "model" else [one.replace(kind=keyword)]
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__annotations__ = {one.name: one.annotation for one in options}
    run.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    return run


def _numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    try:
        return tuple(float(word) for word in text.split(",")) if text is not None else None
    except ValueError:
        raise UserError(f"--{option} {text}: should be one number, or three with commas between") from None
