"""Imports faces into a store, and says what became of every image."""

from __future__ import annotations

import csv
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from facenas.data.faces.sources import Item, open_crops, open_source, read_here
from facenas.data.faces.store import SIDE, Layout, is_face_jpeg, open_store
from facenas.data.faces.writer import StoreWriter, as_kept
from facenas.data.found import SKIPPED, told_of_identities
from facenas.data.images import Pixels, is_turned, open_image, reason_of, to_pixels, upright_size
from facenas.data.places import place_of, writing
from facenas.data.remote import folder_of
from facenas.data.workers import in_order, workers_for
from facenas.errors import UserError, counted
from facenas.files import as_cells

log = logging.getLogger(__name__)


_BATCH = 64  # images that are prepared at once, and fewer where they hold more than so many bytes
_BATCH_BYTES = 1 << 20
_WRONG_SIZE = f"not {SIDE}x{SIDE}"


class Prepared(NamedTuple):
    """An image as the store keeps it, or the reason why it is skipped; plain: of one color (JPEG aside)."""

    name: str
    identity: str
    image: bytes | Pixels = b""
    reason: str = ""
    resized: bool = False
    encoded: bool = False
    plain: bool = False


def import_faces(
    source: Path,
    out: Path | str,
    layout: Layout | None = None,
    resize: bool = False,
    overwrite: bool = False,
    workers: int | None = 1,
    disks: Sequence[Path] = (),
    drop: Path | None = None,
    unlabeled: bool = False,
) -> dict[str, Any]:
    """Writes the faces at `source` (see `open_source`) to the store `out`, a folder or a URL.

    112x112 JPEG is kept byte for byte unless EXIF turns it, other files of that size are encoded, others are
    skipped or, with `resize`, resized. Skipped images are listed with the reason in `out`/skipped.csv.
    workers: processes that decode; None: one for each core when there are many images. The store is the same,
    byte for byte, for any number of them. layout: by default jpeg, or that of a store.
    disks: folders on other disks, over which its images are spread.
    drop: where the source is a store, the findings.csv of its check, whose images to drop are left out.
    unlabeled: all images are of one identity (`open_crops`), for a training whose teacher alone tells what to
    learn.

    Returns the store, its images and identities, how many images were skipped, encoded and resized, and the
    seconds it took. Raises UserError when the source is damaged as a whole, none of its images can be
    used, or `out` cannot be written; then nothing is left of it.
    """
    started = time.perf_counter()
    place_of(out, disks)  # told before the source is listed
    if unlabeled and drop is not None:
        raise UserError(f"{drop}: lists images of a store, whose identities are told; leave out unlabeled")
    faces = open_crops(source) if unlabeled else open_source(source, drop)
    workers, layout = workers_for(faces.total, workers), layout or faces.layout
    items = faces.items() if faces.apart or workers == 1 else map(read_here, faces.items())
    prepare = partial(_prepare, layout=layout, resize=resize)
    places = (out, faces.title, layout, overwrite, faces.numbered, disks, faces.named)
    with StoreWriter(*places) as writer, writing(out):
        with closing(in_order(prepare, _batches(items), workers)) as batches:
            counts = _write(writer, (prepared for _, prepared in batches), faces.total)
        if not writer.images:
            held = counted(counts.skipped, "image")
            fault = f"holds {held} but none that can be used (the first, {counts.first})"
            if _WRONG_SIZE in counts.first:
                fault += "; photographs become crops by `facenas align PHOTOS CROPS`"
            none = "holds no images; give <identity>/<image> files, a list of them, or train.rec"
            if faces.dropped:
                none = f"would lose all its images by {drop}; correct the actions in it"
            raise UserError(f"{source}: {fault if counts.skipped else none}")
    _tell(writer, out, counts, faces.ignored)
    told = {"dropped": faces.dropped} if drop is not None else {}
    return {
        "store": str(out),
        "images": writer.images,
        "identities": writer.identities,
        "skipped": counts.skipped,
        "encoded": counts.encoded,
        "resized": counts.resized,
        "seconds": round(time.perf_counter() - started, 3),
        **told,
    }


@dataclass
class _Counts:
    """What became of the images; first: that was skipped, and why; incomplete: identities with such images."""

    skipped: int = 0
    encoded: int = 0
    resized: int = 0
    plain: int = 0
    first: str = ""
    incomplete: set[str] = field(default_factory=set)

    def add(self, batch: Sequence[Prepared]) -> None:
        """Counts a batch."""
        bad = [one for one in batch if one.reason]
        if bad and not self.skipped:
            self.first = f"{bad[0].name}: {bad[0].reason}"
        self.skipped += len(bad)
        self.incomplete.update(one.identity for one in bad)
        self.encoded += sum(one.encoded for one in batch)
        self.resized += sum(one.resized for one in batch)
        self.plain += sum(one.plain for one in batch)


def _batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    """The items in order, a few at a time."""
    batch: list[Item] = []
    size = 0
    for item in items:
        batch.append(item)
        size += item.held
        if len(batch) == _BATCH or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _prepare(batch: list[Item], layout: Layout, resize: bool) -> list[Prepared]:
    """Reads and decodes; raises UserError when the machine is to blame that an image cannot be read."""
    return [_prepared(item, layout, resize) for item in batch]


def _prepared(item: Item, layout: Layout, resize: bool) -> Prepared:
    identity = item.identity
    try:
        identity, data = item.load()
        image, resized = _fitting(data, resize)
        kept = as_kept(image, layout)
    except UserError:
        raise
    except Exception as error:  # Pillow's plugins and zipfile raise many kinds
        return Prepared(item.name, identity, reason=reason_of(error))
    if isinstance(image, bytes):
        return Prepared(item.name, identity, kept)
    plain = bool((image == image[:1, :1]).all())
    encoded = layout == "jpeg" and not resized
    return Prepared(item.name, identity, kept, "", resized, encoded, plain)


def _write(writer: StoreWriter, batches: Iterable[list[Prepared]], total: int) -> _Counts:
    """Adds the images to the store, and lists beside them those that are skipped."""
    counts, path = _Counts(), writer.folder / SKIPPED
    with (
        path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
        tqdm(total=total, desc="import", unit="image", disable=None) as bar,
    ):
        rows = csv.writer(file)
        rows.writerow(["source", "reason"])
        for batch in batches:
            if good := [one for one in batch if not one.reason]:
                identities, images = [one.identity for one in good], [one.image for one in good]
                writer.append(identities, images, [one.name for one in good])
            rows.writerows(as_cells([one.name, one.reason]) for one in batch if one.reason)
            counts.add(batch)
            bar.update(len(batch))
    if not counts.skipped:
        path.unlink()
    return counts


def _tell(writer: StoreWriter, out: Path | str, counts: _Counts, ignored: Sequence[str]) -> None:
    """Says what was found, and warns of what looks wrong in it."""
    name, skipped = Path(out).stem, f"{out}/{SKIPPED}"
    with folder_of(out) as folder:
        sentence, warnings = told_of_identities(open_store(folder).labels, writer.identities)
    warnings += [f"ignored: {what}" for what in ignored]
    log.info("%s: %s", name, sentence)
    if counts.skipped:
        log.warning("%s skipped; %s says why", counted(counts.skipped, "image"), skipped)
    if lost := sorted(one for one in counts.incomplete if one and not writer.has(one)):
        warnings.append(f"{counted(len(lost), 'identity')} lost all images ({lost[0]} the first)")
    if counts.plain == writer.images:
        warnings.append("every image is of one color, so there is nothing to learn from")
    for warning in warnings:
        log.warning("%s: %s", name, warning)


def _fitting(data: bytes, resize: bool) -> tuple[bytes | Pixels, bool]:
    """(JPEG bytes as they are, or (112, 112, 3) uint8 RGB pixels; whether it was resized).

    Raises ValueError, or what Pillow raises, when it is no image or of another size.
    """
    if is_face_jpeg(data) and not is_turned(data):
        return data, False
    with open_image(data) as image:
        width, height = upright_size(image)
        fits = (width, height) == (SIDE, SIDE)
        if not fits and not resize:
            raise ValueError(f"it is {width}x{height} pixels, {_WRONG_SIZE}")
        return to_pixels(image, size=SIDE), not fits
