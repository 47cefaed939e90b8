"""Imports faces into a store, and says what became of every image."""

from __future__ import annotations

import csv
import logging
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from facenas.data.faces.sources import open_source
from facenas.data.faces.store import SIDE, Layout, is_face_jpeg, open_store
from facenas.data.faces.writer import StoreWriter
from facenas.data.found import SKIPPED, told_of_identities
from facenas.data.images import Pixels, is_turned, open_image, reason_of, to_pixels, upright_size
from facenas.errors import UserError
from facenas.files import as_cells, check_place

log = logging.getLogger(__name__)


def import_faces(
    source: Path, out: Path, layout: Layout = "jpeg", resize: bool = False, overwrite: bool = False
) -> dict[str, Any]:
    """Writes the faces at `source` (see `open_source`) to the store `out`.

    112x112 JPEG is kept byte for byte unless EXIF turns it, other files of that size are encoded, others are
    skipped or, with `resize`, resized. Skipped images are listed with the reason in `out`/skipped.csv. Returns
    the store, its images and identities, how many images were skipped, encoded and resized, and the
    seconds it took. Raises UserError when the source is damaged as a whole, none of its images can be
    used, or `out` cannot be written; then nothing is left of it.
    """
    started = time.perf_counter()
    check_place(out.parent)
    faces = open_source(source)
    skipped = encoded = resized = plain = 0
    first = ""
    incomplete: set[str] = set()  # identities with skipped images
    with StoreWriter(out, faces.title, layout, overwrite, faces.numbered) as writer, writer.disk():
        path = writer.folder / SKIPPED
        with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["source", "reason"])
            for item in tqdm(faces.items(), "import", faces.total, unit="image", disable=None):
                try:
                    image, was_resized = _prepared(item.load(), resize)
                    writer.add(item.identity, image)
                except UserError:
                    raise
                except Exception as error:  # Pillow's plugins and zipfile raise many kinds
                    reason = reason_of(error)
                    rows.writerow(as_cells([item.name, reason]))
                    first = first or f"{item.name}: {reason}"
                    skipped += 1
                    incomplete.add(item.identity)
                    continue
                resized += was_resized
                plain += not isinstance(image, bytes) and bool((image == image[:1, :1]).all())
                encoded += layout == "jpeg" and not was_resized and not isinstance(image, bytes)
        if not skipped:
            path.unlink()
        if not writer.images:
            fault = f"none of its {skipped} images can be used (the first, {first})"
            none = "holds no images; give <identity>/<image> files, a list of them, or train.rec"
            raise UserError(f"{source}: {fault if skipped else none}")
    store = open_store(out)
    sentence, warnings = told_of_identities(store.labels, store.identities)
    log.info("%s: %s", out.stem, sentence)
    if skipped:
        log.warning("%d images skipped; %s says why", skipped, out / SKIPPED)
    if lost := sorted(identity for identity in incomplete if identity and not writer.has(identity)):
        warnings.append(f"{len(lost):,} identities lost all their images ({lost[0]} the first)")
    if plain == writer.images:
        warnings.append("every image is of one color, so there is nothing to learn from")
    for warning in warnings:
        log.warning("%s: %s", out.stem, warning)
    return {
        "store": str(out),
        "images": writer.images,
        "identities": writer.identities,
        "skipped": skipped,
        "encoded": encoded,
        "resized": resized,
        "seconds": round(time.perf_counter() - started, 3),
    }


def _prepared(data: bytes, resize: bool) -> tuple[bytes | Pixels, bool]:
    """(JPEG bytes as they are, or (112, 112, 3) uint8 RGB pixels; whether it was resized).

    Raises ValueError, or what Pillow raises, when it is no image or of another size.
    """
    if is_face_jpeg(data) and not is_turned(data):
        return data, False
    with open_image(data) as image:
        width, height = upright_size(image)
        fits = (width, height) == (SIDE, SIDE)
        if not fits and not resize:
            raise ValueError(f"it is {width}x{height} pixels, not {SIDE}x{SIDE}")
        return to_pixels(image, size=SIDE), not fits
