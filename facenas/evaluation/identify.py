"""From photographs to answers: embeddings of faces, are two one person, and who of a gallery is it.

Behind `facenas embed`, `verify`, `enroll` and `identify`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from facenas.data.faces.align import told_of_several, upright_crops
from facenas.data.faces.detection import Detector, find_detector, sha256_of
from facenas.data.faces.store import SIDE, decode_jpeg, is_face_jpeg
from facenas.data.images import Pixels, decode_image, find_images, is_turned, reason_of, told_ignored
from facenas.data.parts import identities, people
from facenas.errors import UserError
from facenas.evaluation.benches.images import EncodedImages
from facenas.evaluation.embedders import embedder_of
from facenas.evaluation.embedders.cache import extract
from facenas.evaluation.embedders.embedder import Rows
from facenas.evaluation.gallery import (
    FPIR,
    Gallery,
    check_target,
    open_gallery,
    search,
    write_gallery,
)
from facenas.evaluation.metrics.checks import unit_rows
from facenas.files import check_place, read_json

log = logging.getLogger(__name__)

_MOST_COSINE = 1.01  # of unit rows in float32
_VERSION = 3  # raise it when the same files would give other faces


class FaceImages(EncodedImages):
    """The faces in image files, in the order of their names; several threads may read at once.

    An image of 112x112 pixels is taken for a crop on the template, as it is. Of any other the largest face is
    found and aligned, with the detector file `detector` or the one at hand (`find_detector`).
    several: names of those read so far that hold a second face of its kind (`Cut.several`).
    """

    def __init__(self, path: Path, detector: Path | None = None) -> None:
        files, names = find_images(path)
        stamps = [[name, *files.stamp(name)] for name in names]
        text = json.dumps([_VERSION, sha256_of(detector) if detector else None, stamps])
        fingerprint = hashlib.sha256(text.encode()).hexdigest()
        super().__init__(names, lambda i: files.read(names[i]), files.root, fingerprint)
        self._detector_file, self._lock = detector, threading.Lock()
        self._detector: Detector | None = None
        self.several: set[str] = set()

    def decode(self, number: int, out: Pixels) -> None:
        """The face in image `number` into `out` (112, 112, 3); raises ValueError when none is upright."""
        data = self._load(number)
        if is_face_jpeg(data) and not is_turned(data):
            decode_jpeg(data, out)
            return
        image = decode_image(data)
        if image.shape != (SIDE, SIDE, 3):
            with self._lock:  # crops need no detector, so it is looked for when it is needed
                if self._detector is None:
                    self._detector = Detector(find_detector(self._detector_file))
            found = upright_crops(image, self._detector)
            (image,) = found.crops
            if found.several:
                self.several.add(self.names[number])
        out[:] = image

    def fault(self, name: str, error: Exception) -> str:
        """See `EncodedImages`."""
        remedy = "remove it, or use `facenas align`, which lists such images and goes on"
        return f"{self.where / name}: {reason_of(error)}; {remedy}"


@dataclass(frozen=True)
class Threshold:
    """A cosine, above which two faces count as one person, and who says so; value None: nobody does."""

    value: float | None = None
    source: str = ""

    def __post_init__(self) -> None:
        if self.value is not None and not -1 <= self.value <= 1:
            raise UserError(f"threshold {self.value}: should be a cosine, from -1 to 1")

    def accepts(self, similarity: float) -> bool | None:
        """Whether the similarity is above the threshold; None when there is none."""
        return None if self.value is None else similarity > self.value

    def to_json(self) -> dict[str, Any]:
        """As the commands print it."""
        return {"threshold": self.value, "threshold_from": self.source or None}


@dataclass(frozen=True)
class Verification:
    """The cosine of two faces, and whether it is above the threshold: then it is one person (None: unknown)."""

    similarity: float
    threshold: Threshold

    @property
    def same(self) -> bool | None:
        """None when no threshold is known."""
        return self.threshold.accepts(self.similarity)

    def to_json(self) -> dict[str, Any]:
        """As `facenas verify --json` prints it."""
        return {"similarity": self.similarity, "same": self.same, **self.threshold.to_json()}


@dataclass(frozen=True)
class Match:
    """Who is in an image: (name, cosine) of the most alike, best first; known: whether the best is accepted."""

    image: str
    candidates: tuple[tuple[str, float], ...]
    known: bool | None

    @property
    def identity(self) -> str | None:
        """The best one's name when it is above the threshold."""
        return self.candidates[0][0] if self.known else None

    def to_json(self) -> dict[str, Any]:
        """As `facenas identify --json` prints it."""
        recorded = [{"identity": name, "score": score} for name, score in self.candidates]
        found = {"image": self.image, "identity": self.identity, "known": self.known}
        return {**found, "candidates": recorded}


def embed_faces(net: Any, images: Path | FaceImages, detector: Path | None = None) -> Rows:
    """(n, E) float32 of unit length, of each image and its mirror image together, as benches are measured.

    net: whatever `embedder_of` takes; images: a folder, .zip or file. Nothing stays in the cache: these are
    people's faces, not a bench's. Raises UserError when an image gives no face.
    """
    faces = images if isinstance(images, FaceImages) else FaceImages(images, detector)
    rows = _embedded(net, faces)
    _warn_of_several(faces.several)
    return rows


def _embedded(net: Any, faces: FaceImages) -> Rows:
    with embedder_of(net) as embedder:
        rows = extract(embedder, faces, keep=False)
        try:
            return np.array(unit_rows(rows, "embeddings"), np.float32)
        except ValueError as error:
            raise UserError(f"{embedder.name}: {error}; check the network and its input options") from None


def verify(
    net: Any,
    first: Path,
    second: Path,
    threshold: Threshold | float | None = None,
    detector: Path | None = None,
) -> Verification:
    """How alike the faces in two image files are; raises UserError when one is several images or no face."""
    faces = [FaceImages(path, detector) for path in (first, second)]
    for path, images in zip((first, second), faces, strict=True):
        if len(images) != 1:
            raise UserError(f"{path}: holds {len(images)} images; verify compares one with one")
    with embedder_of(net) as embedder:
        (one,), (other,) = (_embedded(embedder, images) for images in faces)
    _warn_of_several(faces[0].several | faces[1].several)
    return Verification(float(one @ other), _threshold(threshold))


def enroll(
    net: Any,
    folder: Path,
    gallery: Path,
    *,
    overwrite: bool = False,
    model: str | None = None,
    detector: Path | None = None,
    int8: bool = False,
) -> Gallery:
    """Writes a gallery of the people in `folder`, or a .zip: `<person>/.../<image>`.

    model: what to call the network in it; int8: a quarter of the bytes, searched faster. The gallery's
    `warnings` name images that two people share, and whom its threshold would turn away. Raises UserError when
    an image lies in no person's folder or gives no face, and for a `gallery` that is there already or cannot be
    written.
    """
    check_target(gallery, overwrite)
    check_place(gallery.parent)
    faces = FaceImages(folder, detector)
    owners = _people(folder, faces.names)
    number: dict[str, int] = {}
    labels = np.array([number.setdefault(who, len(number)) for who in owners], np.int64)
    with embedder_of(net) as embedder:
        rows = _embedded(embedder, faces)
        try:
            made = write_gallery(
                *(
                    gallery,
                    list(number),
                    rows,
                    labels,
                    model or embedder.name,
                    embedder.fingerprint,
                ),
                overwrite=overwrite,
                images=faces.names,
                int8=int8,
            )
        except ValueError as error:
            raise UserError(f"{folder}: {error}; check the network and its input options") from None
    several = [told_of_several(faces.several)] if faces.several else []
    return replace(made, warnings=(*_of_nobody(folder, faces.names), *several, *made.warnings))


def identify(
    net: Any,
    images: Path,
    gallery: Gallery | Path,
    *,
    threshold: Threshold | float | None = None,
    top_k: int = 5,
    detector: Path | None = None,
) -> list[Match]:
    """Who of a gallery is in each image: the `top_k` most alike with their cosines, the best first.

    threshold: else the gallery's own, if it has one. Raises UserError when the gallery is of another
    network, or an image gives no face.
    """
    known = gallery if isinstance(gallery, Gallery) else open_gallery(gallery)
    limit = gallery_threshold(known) if threshold is None else _threshold(threshold)
    with embedder_of(net) as embedder:
        if known.fingerprint != embedder.fingerprint:
            raise UserError(
                f"{known.path}: its faces were embedded by another network or with other input options or "
                f"precision (then the network was {known.model}); give the same, or enroll the people anew"
            )
        faces = FaceImages(images, detector)
        rows = embed_faces(embedder, faces)
    try:
        scores, numbers = search(known.templates, rows, top_k)
        if np.abs(scores).max(initial=0) > _MOST_COSINE:
            raise ValueError("a row of the gallery is not of unit length")
    except ValueError as error:
        raise UserError(f"{known.path}: {error}; enroll its people anew") from None
    found = []
    for name, row, places in zip(faces.names, scores.tolist(), numbers.tolist(), strict=True):
        people = [known.identities[place] for place in places]
        candidates = tuple(zip(people, row, strict=True))
        found.append(Match(name, candidates, limit.accepts(row[0])))
    return found


def gallery_threshold(gallery: Gallery) -> Threshold:
    """The gallery's own, which rises with it: of a thousand strangers the most alike exceeds any one."""
    if gallery.threshold is None:
        return Threshold()
    return Threshold(gallery.threshold, f"the gallery: {100 * FPIR:g} % of unknown people named")


def measured_threshold(results: Path, fingerprint: str) -> Threshold:
    """The threshold in a results.json of an evaluation on pairs; of several benches, LFW's or the first one's.

    None is known where the network has another `fingerprint` or was measured without the mirror image, and
    where no bench was one of pairs. Raises UserError when the file cannot be read.
    """
    tree = read_json(results)
    network, benches = tree.get("network"), tree.get("benches")
    recorded = network.get("fingerprint") if isinstance(network, dict) else None
    if recorded != fingerprint or not tree.get("flip"):
        return Threshold()
    if not isinstance(benches, dict):
        benches = {str(tree.get("bench")): tree}
    for bench in sorted(benches, key=lambda name: bool(name != "lfw")):
        result = benches[bench]
        value = result.get("threshold_cosine") if isinstance(result, dict) else None
        if isinstance(value, int | float):
            return Threshold(float(value), f"{bench} in {results}")
    return Threshold()


def _threshold(given: Threshold | float | None) -> Threshold:
    if isinstance(given, Threshold):
        return given
    return Threshold() if given is None else Threshold(given, "threshold")


def _warn_of_several(names: Collection[str]) -> None:
    if names:
        log.warning(told_of_several(names))


def _of_nobody(folder: Path, names: Sequence[str]) -> Iterator[str]:
    """At most one warning: which folders beside those of people hold no image; of a .zip, none is known."""
    if not folder.is_dir():
        return
    below = {name: parts for parts, name in people(names, folder)}
    first = names[0]
    around = folder / first.removesuffix("/".join(below[first]))
    known = {parts[0] for parts in below.values()}
    empty = sorted(
        entry.name
        for entry in around.iterdir()
        if entry.is_dir() and entry.name not in known and not entry.name.startswith(".")
    )
    yield from (f"ignored: {what}" for what in told_ignored(0, empty))


def _people(folder: Path, names: tuple[str, ...]) -> list[str]:
    """Whose each image is: the folder at the top, or below the folders that everything lies in."""
    found = identities(names, folder)
    for name in names:
        if name not in found:
            raise UserError(f"{folder}: {name} lies in no person's folder; sort the images as <person>/<image>")
    return list(found.values())
