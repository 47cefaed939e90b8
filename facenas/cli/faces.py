"""`facenas align`, `embed`, `verify`, `enroll` and `identify`: from photographs to answers."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from facenas.cli.model_options import ModelOptions, with_model
from facenas.cli.output import Json, show
from facenas.errors import UserError

if TYPE_CHECKING:
    from facenas.evaluation.embedders import Embedder
    from facenas.evaluation.identify import Threshold

REMEDY = "give --threshold, or measure one by `facenas eval --bench lfw --model ...`"

Detector = Annotated[
    Path | None,
    typer.Option(help="YuNet's .onnx file; default: the one in the cache."),
]
Download = Annotated[
    bool, typer.Option("--download", help="Fetch the detector (227 KiB, MIT) if it is not in the cache.")
]
Cosine = Annotated[
    float | None, typer.Option(help="One person above this cosine; default: the last evaluation's.")
]
Results = Annotated[Path | None, typer.Option(help="A results.json of facenas eval, whose threshold to use.")]


def align(
    source: Annotated[Path, typer.Argument(metavar="DIR|ZIP", help="A folder or .zip of photographs, or one.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write crops to.")],
    faces: Annotated[
        str, typer.Option(help="largest: one crop an image; all: name_1.jpg, name_2.jpg, ...")
    ] = "largest",
    detector: Detector = None,
    download: Download = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Threads; default: one a core.")] = None,
    any_rotation: Annotated[
        bool, typer.Option("--any-rotation", help="Try four turns of a photograph whose face is not upright.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 1 when images give no face.")] = False,
    as_json: Json = False,
) -> None:
    """Find the faces in photographs and write them as aligned crops of 112x112 pixels.

    The tree of folders is kept; images without a crop are listed in OUT/skipped.csv, those of several faces in
    OUT/several.csv. Given again, it goes on, and aligns what has changed.
    """
    from facenas.data.faces.align import align_photographs
    from facenas.data.found import SKIPPED, refuse_skipped

    _fetch(detector, download)
    told = align_photographs(source, out, detector, faces, workers, any_rotation)
    show(told, as_json)
    if strict:
        refuse_skipped(str(source), told["skipped"], out / SKIPPED)


@with_model
def embed(
    images: Annotated[Path, typer.Argument(metavar="IMAGES", help="A folder, a .zip or one image file.")],
    model: ModelOptions,
    out: Annotated[Path, typer.Option(help="The .npz to write: names, and unit embeddings.")],
    detector: Detector = None,
    download: Download = False,
    as_json: Json = False,
) -> None:
    """Write the embeddings of faces: 112x112 crops as they are, photographs after alignment."""
    import numpy as np

    from facenas.evaluation.identify import FaceImages, embed_faces
    from facenas.files import check_place, write_atomically

    started = time.perf_counter()
    if out.suffix != ".npz":
        raise UserError(f"--out {out}: should end in .npz")
    _fetch(detector, download)
    faces = FaceImages(images, detector)
    check_place(out.parent)
    with model.open() as embedder:
        rows = embed_faces(embedder, faces)

    def write(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:  # given a name, numpy would add an ending
            np.savez(file, names=np.array(faces.names), embeddings=rows)

    write_atomically(out, write)
    facts = {"out": str(out), "images": len(rows), "size": rows.shape[1], "model": model.model}
    show({**facts, "seconds": _since(started)}, as_json)


@with_model
def verify(
    first: Annotated[Path, typer.Argument(metavar="A", help="An image of a face.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another one.")],
    model: ModelOptions,
    threshold: Cosine = None,
    results: Results = None,
    detector: Detector = None,
    download: Download = False,
    as_json: Json = False,
) -> None:
    """Tell how alike two faces are, and whether that is one person."""
    from facenas.evaluation import identify as faces

    _fetch(detector, download)
    with model.open() as embedder:
        limit = _find_threshold(threshold, results, embedder, model)
        found = faces.verify(embedder, first, second, limit, detector)
    _tell_of_threshold(limit, REMEDY)
    if as_json:
        show({**found.to_json(), "model": model.model}, as_json)
        return
    answer = {True: "one person", False: "two people", None: "undecided"}[found.same]
    by = "" if limit.value is None else f" (threshold {limit.value:.4f}, {limit.source})"
    print(f"similarity: {found.similarity:.4f}: {answer}{by}")


@with_model
def enroll(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder or .zip of <person>/<image>.")],
    gallery: Annotated[Path, typer.Argument(metavar="GALLERY", help="The gallery to write.")],
    model: ModelOptions,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the gallery when the new one is whole.")
    ] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="In int8: a quarter of the memory, and searched faster.")
    ] = False,
    detector: Detector = None,
    download: Download = False,
    as_json: Json = False,
) -> None:
    """Make a gallery of known people, for facenas identify."""
    from facenas.evaluation import identify as faces

    started = time.perf_counter()
    _fetch(detector, download)
    with model.open() as embedder:
        made = faces.enroll(
            *(embedder, folder, gallery),
            overwrite=overwrite,
            model=model.model,
            detector=detector,
            int8=int8,
        )
    facts = {
        "gallery": str(gallery),
        "identities": len(made.identities),
        "images": sum(made.images),
        "size": made.templates.shape[1],
        "threshold": made.threshold,
        "model": model.model,
    }
    if as_json:
        facts["warnings"] = list(made.warnings)
    for sentence in made.warnings:
        typer.echo(f"facenas: {sentence}", err=True)
    show({**facts, "seconds": _since(started)}, as_json)


@with_model
def identify(
    images: Annotated[Path, typer.Argument(metavar="IMAGES", help="An image, or a folder or .zip of them.")],
    gallery: Annotated[Path, typer.Option(help="The gallery that facenas enroll made.")],
    model: ModelOptions,
    top_k: Annotated[int, typer.Option(min=1, help="How many people to name.")] = 5,
    threshold: Annotated[
        float | None, typer.Option(help="A known person above this cosine; default: the gallery's.")
    ] = None,
    detector: Detector = None,
    download: Download = False,
    as_json: Json = False,
) -> None:
    """Name the people of a gallery who are most like a face; unknown below the threshold."""
    from facenas.evaluation import identify as faces
    from facenas.evaluation.gallery import LEAST_PEOPLE, open_gallery

    known = open_gallery(gallery)
    own = faces.gallery_threshold(known)
    limit = own if threshold is None else faces.Threshold(threshold, "--threshold")
    _fetch(detector, download)
    with model.open() as embedder:
        found = faces.identify(*(embedder, images, known), threshold=limit, top_k=top_k, detector=detector)
    remedy = f"give --threshold; a gallery of {LEAST_PEOPLE} people or more has one of its own"
    _tell_of_threshold(limit, remedy)
    if as_json:
        facts = {
            "gallery": str(gallery),
            "identities": len(known.identities),
            "images": len(found),
        }
        show({**facts, **limit.to_json(), "results": [one.to_json() for one in found]}, as_json)
        return
    if limit.value is not None:
        print(f"threshold: {limit.value:.4f} ({limit.source})")
    for one in found:
        most_alike = ", ".join(f"{name} {score:.4f}" for name, score in one.candidates)
        answer = "undecided" if one.known is None else one.identity or "unknown"
        print(f"{one.image}: {answer} ({most_alike})")


def register(app: typer.Typer) -> None:
    """Adds the commands to the application."""
    app.command(epilog="Example: facenas align photos crops")(align)
    app.command(epilog="Example: facenas embed crops --model final --out crops.npz")(embed)
    app.command(epilog="Example: facenas verify a.jpg b.jpg --model final")(verify)
    app.command(epilog="Example: facenas enroll people people.gallery --model final")(enroll)
    app.command(epilog="Example: facenas identify a.jpg --gallery people.gallery --model final")(identify)


def _fetch(detector: Path | None, download: bool) -> None:
    """The detector into the cache, when it is asked for and no other is given."""
    if download and detector is None:
        from facenas.data.faces.detection import fetch_detector

        fetch_detector()


def _find_threshold(
    given: float | None, results: Path | None, embedder: Embedder, model: ModelOptions
) -> Threshold:
    """The threshold given, else of `results`, else of the network's last evaluation, else none."""
    from facenas.evaluation.identify import Threshold, measured_threshold

    if given is not None and results is not None:
        raise UserError("--threshold and --results: both are given; give one of them")
    if given is not None:
        return Threshold(given, "--threshold")
    if results is not None:
        found = measured_threshold(results, embedder.fingerprint)
        if found.value is None:
            raise UserError(
                f"{results}: says no threshold for this network: it is of another network or of other input "
                f"options, or its bench is not one of pairs; {REMEDY}"
            )
        return found
    return model.last_threshold(embedder)


def _tell_of_threshold(limit: Threshold, remedy: str) -> None:
    """Without a threshold there are figures, but no decision."""
    if limit.value is None:
        typer.echo(f"facenas: no threshold is known, so nothing is decided; {remedy}", err=True)


def _since(started: float) -> float:
    return round(time.perf_counter() - started, 3)
