"""What a set of images was found to hold: told by every command that reads it, with what looks wrong.

Written beside the decoded images, since only decoding shows it, and decoding is done once.
"""

from __future__ import annotations

import csv
import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from facenas.data.images import Pixels
from facenas.errors import SearchStoppedError, UserError, counted
from facenas.files import as_cells, read_json, write_json

if TYPE_CHECKING:
    from facenas.data.datasets import ClassData
    from facenas.data.faces.store import FaceStore

log = logging.getLogger(__name__)

FOUND = "found.json"
SKIPPED = "skipped.csv"  # images that were left out, and why; there is none when none was
_NAMED = 3  # classes that a warning names


class Unread(NamedTuple):
    """An image that cannot be read: its row among those listed (-1: it was not), its name, the reason."""

    row: int
    name: str
    reason: str


def write_found(
    folder: Path,
    train: Iterable[Pixels],
    test: Iterable[Pixels],
    unread: Sequence[Unread],
    test_from: str,
    ignored: Sequence[str],
) -> None:
    """Writes what `tell` tells, and the list of `unread`, into `folder`; train, test: images in blocks."""
    seen: set[bytes] = set()
    one_color = True
    for block in train:
        seen.update(_digests(block))
        one_color = one_color and bool((block == block[:, :1, :1]).all())
    twice = sum(digest in seen for block in test for digest in _digests(block))
    if unread:
        write_skipped(folder / SKIPPED, unread)
    facts = {"test_from": test_from, "ignored": list(ignored), "skipped": len(unread)}
    write_json(folder / FOUND, {**facts, "train_in_test": twice, "one_color": one_color})


def write_skipped(path: Path, unread: Iterable[Unread]) -> None:
    """The list of images that cannot be read, with the reasons."""
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["source", "reason"])
        rows.writerows(as_cells((one.name, one.reason)) for one in unread)


def read_found(folder: Path) -> dict[str, Any]:
    """What `write_found` wrote beside the images in `folder`; empty when nobody did."""
    with suppress(UserError):
        return read_json(folder / FOUND)
    return {}


def refuse_skipped(name: str, skipped: int, where: Path | str) -> None:
    """Raises SearchStoppedError when images were skipped: what `strict` asks for."""
    if skipped:
        raise SearchStoppedError(f"{name}: {skipped:,} image(s) are left out; {where} says why")


@lru_cache
def tell(folder: Path) -> None:
    """Says, once in a process, what the set or store in `folder` holds, and warns of what looks wrong."""
    from facenas.data.datasets import open_data
    from facenas.data.faces.store import FaceStore

    try:
        data = open_data(folder)
    except UserError:  # whoever opens it is told
        return
    sentence, warnings = _of_store(data) if isinstance(data, FaceStore) else _of_set(data, folder)
    log.info(sentence)
    for warning in warnings:
        log.warning("%s: %s", sentence.partition(":")[0], warning)


def _of_set(data: ClassData, folder: Path) -> tuple[str, list[str]]:
    found = read_found(folder)
    rest = len(data.train_labels) - data.validation_images
    each = np.bincount(data.train_labels[:rest], minlength=data.num_classes)
    tested = np.bincount(data.test_labels, minlength=data.num_classes)
    validation = f", {data.validation_images:,} validation" if data.validation_images else ""
    origin = f" ({found['test_from']})" if found.get("test_from") else ""
    least = int(each.argmin())
    sentence = (
        f"{data.name}: {data.num_classes:,} classes; {rest:,} training{validation} and "
        f"{len(data.test_labels):,} test images{origin}; smallest class {data.classes[least]} with "
        f"{each[least]:,}"
    )
    warnings = [f"ignored: {what}" for what in found.get("ignored", [])]
    if skipped := found.get("skipped", 0):
        warnings.append(f"{skipped:,} image(s) cannot be read and are left out; {folder / SKIPPED} says why")
    if found.get("train_in_test"):
        warnings.append(
            f"{found['train_in_test']:,} test image(s) are training images too; what the test says flatters"
        )
    if found.get("one_color"):
        warnings.append("every training image is of one color, so there is nothing to learn from")
    warnings += _classes(data.classes, each == 1, "one training image")
    warnings += _classes(data.classes, tested == 0, "no test images")
    return sentence, warnings


def _classes(names: Sequence[str], at_fault: NDArray[np.bool_], what: str) -> Iterator[str]:
    """At most one warning: which classes have `what`."""
    if at_fault.any():
        some = ", ".join(names[i] for i in np.flatnonzero(at_fault)[:_NAMED])
        more = ", ..." if at_fault.sum() > _NAMED else ""
        yield f"{at_fault.sum():,} class(es) have {what} ({some}{more})"


def _of_store(store: FaceStore) -> tuple[str, list[str]]:
    sentence, warnings = told_of_identities(store.labels, store.identities)
    if (store.path / SKIPPED).exists():
        warnings.append(f"some images were not imported; {store.path / SKIPPED} says why")
    return f"{store.path.stem}: {sentence}", warnings


def told_of_identities(labels: NDArray[np.integer], identities: int) -> tuple[str, list[str]]:
    """What labels (n,) of so many identities hold, in a sentence, and warnings."""
    each = np.bincount(labels, minlength=identities)
    sentence = (
        f"{identities:,} identities, {len(labels):,} images, of one identity {each.min():,} to {each.max():,}"
    )
    if identities == 1:  # crops that nobody has told apart, as a rule
        sentence = f"{len(labels):,} images of one identity"
    warnings = []
    if (each == 0).any():
        warnings.append(
            f"{(each == 0).sum():,} of {identities:,} identities have no images; `property` may name too many"
        )
    if (each == 1).any():
        one = int((each == 1).sum())
        have = "has" if one == 1 else "have"
        warnings.append(f"{counted(one, 'identity')} {have} one image, which makes no genuine pair")
    return sentence, warnings


def _digests(block: Pixels) -> Iterator[bytes]:
    """One of every image's pixels."""
    return (hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in block)
