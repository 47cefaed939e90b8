"""`facenas align`, `embed`, `verify`, `enroll` and `identify`: from photographs to answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from facenas.cli.evaluate import (
    Colour,
    Device,
    Embedding,
    Mean,
    Model,
    Std,
    input_options,
)
from facenas.cli.output import RUNS, Json, RunsDir, show

if TYPE_CHECKING:
    from facenas.cli.commands.recognise import Network

Detector = Annotated[
    Path | None,
    typer.Option(help="YuNet's .onnx file; default: the one in the cache, else it is fetched."),
]
Cosine = Annotated[
    float | None, typer.Option(help="One person above this cosine; default: the last evaluation's.")
]
Results = Annotated[
    Path | None, typer.Option(help="A results.json of facenas eval, whose threshold to use.")
]


def align(
    source: Annotated[
        Path, typer.Argument(metavar="DIR|ZIP", help="A folder or .zip of photographs, or one.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write crops to.")],
    faces: Annotated[
        str, typer.Option(help="largest: one crop an image; all: name_1.jpg, name_2.jpg, ...")
    ] = "largest",
    detector: Detector = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Threads; default: one a core.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Find the faces in photographs and write them as aligned crops of 112x112 pixels.

    The tree of folders is kept; images without a crop are listed in OUT/skipped.csv. Given again, it goes on.
    """
    from facenas.cli.commands.align import align_photographs

    show(align_photographs(source, out, detector, faces, workers), as_json)


def embed(
    images: Annotated[
        Path, typer.Argument(metavar="IMAGES", help="A folder, a .zip or one image file.")
    ],
    model: Model,
    out: Annotated[Path, typer.Option(help="The .npz to write: names, and unit embeddings.")],
    detector: Detector = None,
    input_color: Colour = None,
    mean: Mean = None,
    std: Std = None,
    embedding: Embedding = None,
    device: Device = None,
    runs_dir: RunsDir = RUNS,
    as_json: Json = False,
) -> None:
    """Write the embeddings of faces: 112x112 crops as they are, photographs after alignment."""
    from facenas.cli.commands.recognise import embed as embed_images

    network = _network(model, input_color, mean, std, embedding, device, runs_dir)
    show(embed_images(images, out, network, detector), as_json)


def verify(
    first: Annotated[Path, typer.Argument(metavar="A", help="An image of a face.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another one.")],
    model: Model,
    threshold: Cosine = None,
    results: Results = None,
    detector: Detector = None,
    input_color: Colour = None,
    mean: Mean = None,
    std: Std = None,
    embedding: Embedding = None,
    device: Device = None,
    runs_dir: RunsDir = RUNS,
    as_json: Json = False,
) -> None:
    """Tell how alike two faces are, and whether that is one person."""
    from facenas.cli.commands.recognise import verify as verify_images
    from facenas.cli.commands.thresholds import REMEDY

    network = _network(model, input_color, mean, std, embedding, device, runs_dir)
    found = verify_images(first, second, network, threshold, results, detector)
    _tell_of_threshold(found, REMEDY)
    if as_json:
        show(found, as_json)
        return
    answer = {True: "one person", False: "two people", None: "undecided"}[found["same"]]
    print(f"similarity: {found['similarity']:.4f}: {answer}{_by(found)}")


def enroll(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="A folder or .zip of <person>/<image>.")
    ],
    gallery: Annotated[Path, typer.Argument(metavar="GALLERY", help="The gallery to write.")],
    model: Model,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the gallery when the new one is whole.")
    ] = False,
    detector: Detector = None,
    input_color: Colour = None,
    mean: Mean = None,
    std: Std = None,
    embedding: Embedding = None,
    device: Device = None,
    runs_dir: RunsDir = RUNS,
    as_json: Json = False,
) -> None:
    """Make a gallery of known people, for facenas identify."""
    from facenas.cli.commands.recognise import enroll as enroll_people

    network = _network(model, input_color, mean, std, embedding, device, runs_dir)
    show(enroll_people(folder, gallery, network, detector, overwrite), as_json)


def identify(
    images: Annotated[
        Path, typer.Argument(metavar="IMAGES", help="An image, or a folder or .zip of them.")
    ],
    gallery: Annotated[Path, typer.Option(help="The gallery that facenas enroll made.")],
    model: Model,
    top_k: Annotated[int, typer.Option(min=1, help="How many people to name.")] = 5,
    threshold: Annotated[
        float | None, typer.Option(help="A known person above this cosine; default: the gallery's.")
    ] = None,
    detector: Detector = None,
    input_color: Colour = None,
    mean: Mean = None,
    std: Std = None,
    embedding: Embedding = None,
    device: Device = None,
    runs_dir: RunsDir = RUNS,
    as_json: Json = False,
) -> None:
    """Name the people of a gallery who are most like a face; unknown below the threshold."""
    from facenas.cli.commands.recognise import identify as identify_images
    from facenas.cli.commands.thresholds import GALLERY_REMEDY

    network = _network(model, input_color, mean, std, embedding, device, runs_dir)
    found = identify_images(images, gallery, network, threshold, top_k, detector)
    _tell_of_threshold(found, GALLERY_REMEDY)
    if as_json:
        show(found, as_json)
        return
    if found["threshold"] is not None:
        print(f"threshold: {found['threshold']:.4f} ({found['threshold_from']})")
    for result in found["results"]:
        told = ", ".join(f"{c['identity']} {c['score']:.4f}" for c in result["candidates"])
        answer = "undecided" if result["known"] is None else result["identity"] or "unknown"
        print(f"{result['image']}: {answer} ({told})")


def register(app: typer.Typer) -> None:
    """Adds the commands to the application."""
    app.command(epilog="Example: facenas align photos crops")(align)
    app.command(epilog="Example: facenas embed crops --model final --out crops.npz")(embed)
    app.command(epilog="Example: facenas verify a.jpg b.jpg --model final")(verify)
    app.command(epilog="Example: facenas enroll people people.gallery --model final")(enroll)
    app.command(epilog="Example: facenas identify a.jpg --gallery people.gallery --model final")(
        identify
    )


def _network(
    model: str,
    colour: str | None,
    mean: str | None,
    std: str | None,
    embedding: str | None,
    device: str | None,
    runs_dir: Path,
) -> Network:
    from facenas.cli.commands.recognise import Network

    return Network(model, input_options(colour, mean, std, embedding), device, runs_dir)


def _tell_of_threshold(found: dict[str, Any], remedy: str) -> None:
    """Without a threshold there are figures, but no decision."""
    if found["threshold"] is None:
        typer.echo(f"facenas: no threshold is known, so nothing is decided; {remedy}", err=True)


def _by(found: dict[str, Any]) -> str:
    if found["threshold"] is None:
        return ""
    return f" (threshold {found['threshold']:.4f}, {found['threshold_from']})"
