"""`facenas train`, `predict`, `export`: networks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from facenas.cli.output import RUNS, Json, RunsDir, Settings, show, table
from facenas.cli.search import Address, as_settings, shell_command
from facenas.errors import UserError


def train(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN|ARCH.json|ir18|...",
            help="A run, an architecture file, or a named network; default: that of --from.",
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs; default: the recipe's.")] = None,
    recipe: Annotated[
        str | None, typer.Option(help="A shipped recipe, or a YAML file; default: the preset's.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="A store, or a classification set.")] = None,
    data_root: Annotated[Path | None, typer.Option(help="Where named data sets lie.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Resize images to this many pixels.")] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="RUN|FILE",
            help="Begin with the weights of this trained run or checkpoint, all but the classifier.",
        ),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            metavar="RUN|FILE", help="A trained network of faces whose embeddings it is to give, ONNX too."
        ),
    ] = None,
    freeze: Annotated[
        str | None, typer.Option(help="stem or body: of the weights, what stays as it is.")
    ] = None,
    bench: Annotated[
        str | None,
        typer.Option(help="With --from: a bench as for eval, measured before and after: what is forgotten."),
    ] = None,
    bench_data: Annotated[Path | None, typer.Option(help="The bench's files.")] = None,
    preset: Annotated[str | None, typer.Option(help="Whose settings to use, if not the run's own.")] = None,
    pick: Annotated[
        int | None, typer.Option(help="Of a run's Pareto front: the number of the trial to train.")
    ] = None,
    so_far: Annotated[
        bool, typer.Option("--so-far", help="Of a search that has not ended, the best until now.")
    ] = False,
    seed: Annotated[int | None, typer.Option(help="Seeds all random draws.")] = None,
    run: Annotated[str | None, typer.Option("--run", help="Name of the new run.")] = None,
    executor: Annotated[str | None, typer.Option(help="ray: on the nodes of a cluster.")] = None,
    address: Address = None,
    nodes: Annotated[
        int | None,
        typer.Option(min=1, help="Of ray: how many train together, a process for each of their cards."),
    ] = None,
    runs_dir: RunsDir = RUNS,
    settings: Settings = [],  # noqa: B006  (typer copies it)
    as_json: Json = False,
) -> None:
    """Train a network in full and test it once; a killed training goes on where it was.

    A run alone is trained in place. With any other choice, or for a file or a named network, the
    training becomes a run of its own, with the settings of the run it comes from. A found network is
    adapted to data of other channels, classes or pixels.
    """
    import facenas

    if executor not in (None, "ray"):
        raise UserError(f"--executor {executor}: one network is trained here, or by ray on several nodes")
    if (executor is None) != (nodes is None):
        raise UserError("--executor ray and --nodes go together")
    own = {"data.root": data_root, "data.image_size": image_size, "recipe.freeze": freeze}
    result = facenas.train(
        target,
        data=data,
        recipe=recipe,
        weights=weights,
        teacher=teacher,
        preset=preset,
        epochs=epochs,
        pick=pick,
        so_far=so_far,
        seed=seed,
        bench=bench,
        bench_data=bench_data,
        settings=[*as_settings(own), *settings],
        run=run,
        runs_dir=runs_dir,
        nodes=nodes,
        address=address,
        command=shell_command(),
    )
    if result:  # of the processes that train together, one reports
        show(result.to_json(), as_json)


def predict(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A trained run, or its exported .safetensors.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGES...", help="Image files, or folders of them.")],
    runs_dir: RunsDir = RUNS,
    as_json: Json = False,
) -> None:
    """Say which class each image is of, and how sure the network is."""
    import facenas
    from facenas.evaluation.network import list_images

    net = facenas.load(run, runs_dir=runs_dir)
    if not isinstance(net, facenas.Network):
        raise UserError(f"{run}: gives embeddings of faces; facenas identify says who is who")
    paths = list_images(images)
    labels, probabilities = net.predict(paths)
    rows = [
        {"image": str(path), "label": label, "probability": float(row.max())}
        for path, label, row in zip(paths, labels, probabilities, strict=True)
    ]
    if as_json:
        show({"classes": list(net.classes), "predictions": rows}, as_json)
    else:
        table(rows, ("image", "label", "probability"))
