"""`facenas data ...`: stores of faces and of images by class, made and looked at."""

from __future__ import annotations

import time
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from facenas.cli.model_options import ModelOptions, with_model
from facenas.cli.output import Json, show, table
from facenas.errors import UserError

if TYPE_CHECKING:
    from facenas.evaluation.embedders import Embedder

data_app = typer.Typer(no_args_is_help=True, help="Stores of images: import, generate, look, check.")

Store = Annotated[str, typer.Argument(metavar="STORE", help="A store, OUT.zarr, or its URL.")]
Out = Annotated[Path, typer.Argument(metavar="OUT.zarr", help="The store to write.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace the store OUT.zarr when the new one is whole.")
]


def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove everything.")] = False,
    limit: Annotated[
        str | None, typer.Option(help="Remove the least recently used until so much is left, as 20GB.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List what is kept to save work: decoded data sets, embeddings, crops. All of it can be made again."""
    from pydantic import ByteSize, TypeAdapter, ValidationError

    from facenas.data.cache import default_cache, kept, shrink

    try:
        most = None if limit is None else int(TypeAdapter(ByteSize).validate_python(limit))
    except ValidationError:
        raise UserError(f"--limit {limit}: should be a size, as 20GB or 500MB") from None
    removed = [] if most is None and not clear else shrink(0 if clear else most or 0)
    left = kept()
    if not as_json and left:
        rows = [
            {
                "kind": entry.kind,
                "name": entry.path.name,
                "MB": entry.bytes / 1e6,
                "last_used": f"{day:%Y-%m-%d}",
            }
            for entry in left
            for day in [datetime.fromtimestamp(entry.used)]
        ]
        table(rows, ("kind", "name", "MB", "last_used"))
    told = {"cache": str(default_cache()), "entries": len(left), "bytes": sum(e.bytes for e in left)}
    show(told | {"removed": len(removed), "removed_bytes": sum(e.bytes for e in removed)}, as_json)


Spread = Annotated[
    str | None,
    typer.Option(metavar="DIR,DIR", help="Of faces: folders on other disks, to hold the images between them."),
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Processes that decode; by default one for each core, for few images this one."),
]
Strict = Annotated[bool, typer.Option("--strict", help="Exit code 1 when images cannot be read.")]


@data_app.command("import", epilog="Example: facenas data import faces_webface_112x112 casia.zarr")
def import_(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SRC",
            help="A folder with train.rec, a .rec; a folder or .zip of <identity>/<image>; "
            "a .csv of path,identity; a store of faces. With --classes: what --data of a search takes.",
        ),
    ],
    out: Annotated[str, typer.Argument(metavar="OUT.zarr", help="The store to write: a folder, or a URL.")],
    classes: Annotated[
        bool, typer.Option("--classes", help="Images of any size by class, in parts to train and to test on.")
    ] = False,
    layout: Annotated[
        str | None,
        typer.Option(
            help="Of faces; jpeg: bytes as they are, the default; raw: pixels, 5x larger, faster to read."
        ),
    ] = None,
    resize: Annotated[
        bool, typer.Option("--resize", help="Of faces: resize what is not 112x112; else skip it.")
    ] = False,
    unlabeled: Annotated[
        bool, typer.Option("--unlabeled", help="Of faces: crops that nobody has told apart, for a teacher.")
    ] = False,
    overwrite: Overwrite = False,
    workers: Workers = None,
    spread: Spread = None,
    drop: Annotated[
        Path | None,
        typer.Option(metavar="CSV", help="Of a store as SRC: the findings of its check, to leave images out."),
    ] = None,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Import faces of 112x112 pixels, or images by class, into a store; skipped.csv in it lists what is not."""
    from facenas.data.classes.importing import import_classes
    from facenas.data.faces.importing import import_faces
    from facenas.data.found import SKIPPED, refuse_skipped
    from facenas.data.remote import is_url

    if layout not in (None, "jpeg", "raw"):
        raise UserError(f"--layout {layout}: should be jpeg or raw")
    kept_as: Literal["jpeg", "raw"] | None = "raw" if layout == "raw" else "jpeg" if layout else None
    if classes and (resize or unlabeled or kept_as == "raw"):
        raise UserError(
            "--classes: images keep their size and their classes and are stored as JPEG; leave out --layout, "
            "--resize, --unlabeled"
        )
    disks = [Path(folder.strip()) for folder in (spread or "").split(",") if folder.strip()]
    if classes and drop:
        raise UserError("--classes: findings to drop are those of faces; leave out --drop")
    if classes and (disks or is_url(out)):
        raise UserError(
            f"{out}: images by class are written to one folder, OUT.zarr; any tool may copy it elsewhere"
        )
    if classes:
        told = import_classes(source, Path(out), overwrite, workers)
    else:
        told = import_faces(source, out, kept_as, resize, overwrite, workers, disks, drop, unlabeled)
    show(told, as_json)
    if strict:
        refuse_skipped(str(source), told["skipped"], f"{out}/{SKIPPED}")


@data_app.command(epilog="Example: facenas data info casia.zarr, or facenas data info pictures --image-size 32")
def info(
    data: Annotated[
        str,
        typer.Argument(metavar="DATA", help="A store, OUT.zarr, or what --data of a search takes."),
    ],
    image_size: Annotated[int | None, typer.Option(help="Of classes: resize images to it.")] = None,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Tell what a store holds, or a set of images by class, and warn of what looks wrong in it."""
    from facenas.data import DataConfig, datasets
    from facenas.data.classes.store import describe_store, is_image_store
    from facenas.data.faces.store import describe
    from facenas.data.found import SKIPPED, read_found, refuse_skipped
    from facenas.data.remote import folder_of, is_url

    if is_url(data) or datasets.names_store(Path(data)):
        with folder_of(data) as path:
            told = describe_store(path) if is_image_store(path) else describe(path)
            skipped = read_found(path).get("skipped", int((path / SKIPPED).exists()))
        show(told | {"store": data}, as_json)
        if strict:
            refuse_skipped(data, skipped, f"{data}/{SKIPPED}")
        return
    config = DataConfig(name=data, image_size=image_size, strict=strict)
    show(datasets.describe(datasets.open_data(datasets.prepare(config))), as_json)


@data_app.command(epilog="Example: facenas data check casia.zarr --duplicates --labels --model final")
@with_model
def check(
    store: Store,
    duplicates: Annotated[
        bool, typer.Option("--duplicates", help="Of faces: find photographs that are there twice.")
    ] = False,
    labels: Annotated[
        bool,
        typer.Option("--labels", help="Of faces: find images of others, two people as one, one as two."),
    ] = False,
    overlap: Annotated[
        Path | None,
        typer.Option(metavar="OTHER", help="Of faces: find whom and what a store, folder or .zip has too."),
    ] = None,
    model: ModelOptions | None = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for findings.csv and check.html; default: checks/STORE.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the findings of an earlier check.")
    ] = False,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Decode every image of a store and verify its fingerprint; exit code 2 at the first fault.

    With --model look at the faces too; `facenas data import STORE OUT.zarr --drop findings.csv` cleans up.
    """
    from facenas.data.classes.store import check_images, is_image_store
    from facenas.data.faces.store import check as check_store
    from facenas.data.remote import folder_of

    started = time.perf_counter()
    wanted = {"--duplicates": duplicates, "--labels": labels, "--overlap": overlap}
    asked = [option for option, given in wanted.items() if given]
    if asked and model is None:
        raise UserError(f"{asked[0]}: needs a network that tells people apart; give --model")
    if model is not None and not asked:
        raise UserError("--model: nothing to look for; give --duplicates, --labels or --overlap OTHER")
    folder = out or Path("checks") / Path(store).stem
    if asked:
        _check_folder(folder, overwrite)
    with folder_of(store) as path, model.open() if model else nullcontext() as embedder:
        by_class = is_image_store(path)
        if by_class and asked:
            raise UserError(f"{store}: is a store of images by class; {asked[0]} is for stores of faces")
        told = check_images(path, workers) if by_class else check_store(path, workers)
        if embedder is not None:
            told |= _check_faces(embedder, path, folder, duplicates, labels, overlap, workers)
            told["seconds"] = round(time.perf_counter() - started, 3)
    if not as_json:
        told |= told.pop("found", {})  # people see a line for each kind
    show(told | {"store": store}, as_json)


def _check_folder(folder: Path, overwrite: bool) -> None:
    """Findings that a person may have edited are not lost by chance."""
    from facenas.files import check_place

    check_place(folder)
    if (folder / "findings.csv").exists() and not overwrite:
        raise UserError(f"{folder / 'findings.csv'}: is there already; overwrite (--overwrite) replaces it")


def _check_faces(
    embedder: Embedder,
    path: Path,
    folder: Path,
    duplicates: bool,
    labels: bool,
    overlap: Path | None,
    workers: int | None,
) -> dict[str, Any]:
    from facenas.evaluation.data_check import check_faces
    from facenas.report.check_page import write_check

    options: dict[str, Any] = {"duplicates": duplicates, "labels": labels, "overlap": overlap}
    found = check_faces(embedder, path, workers=workers, **options)
    write_check(folder, found)
    for sentence in found.warnings:
        typer.echo(f"facenas: {sentence}", err=True)
    return {**found.to_json(), "findings": str(folder / "findings.csv"), "report": str(folder / "check.html")}


@data_app.command(epilog="Example: facenas data demo demo.zarr --identities 20 --images 8")
def demo(
    out: Out,
    identities: Annotated[int, typer.Option(min=1, help="How many identities.")] = 120,
    images: Annotated[int, typer.Option(min=1, help="How many images of each.")] = 24,
    seed: Annotated[int, typer.Option(min=0, help="Other seeds give other identities.")] = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write a store of generated faces, drawn for demonstrations and tests; they show nobody."""
    from facenas.data.faces.generated import write_generated

    show(write_generated(out, identities, images, seed, overwrite), as_json)
